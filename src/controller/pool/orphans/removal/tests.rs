use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use kube::client::Body;
use serde_json::{Value, json};

use super::*;

const INSTALLATION: InstallationId = InstallationId::from_bytes([0xbb; 8]);

/// An API server with one instance, in whose metadata the owner of each field is told 200 levels deep.
/// Gives what was asked of it as well.
fn api_server() -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&asked);
    let answer = tower::service_fn(move |request: http::Request<Body>| {
        let uri = request.uri().to_string();
        let deep = (0..200).fold(json!({}), |inner, _| json!({"f:a": inner}));
        let managed = json!([{"manager": "kubectl", "fieldsType": "FieldsV1", "fieldsV1": deep}]);
        let ada = json!({
            "apiVersion": "moorage.dev/v1alpha1", "kind": "OpenClawInstance",
            "metadata": {"namespace": "tenants", "name": "ada", "managedFields": managed},
        });
        let (status, body) = match request.uri().path().rsplit_once("openclawinstances") {
            Some((_, "")) => (200, json!({"metadata": {}, "items": [ada]})),
            Some((_, "/ada")) => (200, ada),
            _ => (
                404,
                json!({"status": "Failure", "reason": "NotFound", "code": 404, "message": ""}),
            ),
        };
        noted.lock().unwrap().push(uri);
        async move { Ok::<_, Infallible>(answer_of(status, &body)) }
    });
    (Client::new(answer, "default"), asked)
}

fn answer_of(status: u16, body: &Value) -> http::Response<Body> {
    http::Response::builder()
        .status(status)
        .body(Body::from(body.to_string().into_bytes()))
        .unwrap()
}

fn server_of(name: &str, place: bool) -> Found {
    let id = ownership::instance_id(INSTALLATION, "tenants", name);
    let place = place.then(|| ("tenants".to_owned(), name.to_owned()));
    Found::bare(OrphanKind::Server, "1".to_owned(), FoundOwner::Instance { id, place })
}

#[tokio::test]
async fn a_deep_instance_does_not_make_the_list_fail() {
    let (client, asked) = api_server();
    let living = Living::list(&client, INSTALLATION).await.unwrap();
    assert!(living.has(&server_of("ada", true)) && living.has(&server_of("ada", false)));
    assert!(!living.has(&server_of("bob", true)));
    assert!(asked.lock().unwrap().iter().all(|uri| uri.contains("limit=20")), "{asked:?}");
}

#[tokio::test]
async fn before_a_deletion_its_owner_alone_is_asked_for() {
    let (client, asked) = api_server();
    assert!(has_owner(&client, INSTALLATION, &server_of("ada", true)).await.unwrap());
    assert!(!has_owner(&client, INSTALLATION, &server_of("bob", true)).await.unwrap());
    let by_name = |uri: &String| uri.contains("/namespaces/tenants/openclawinstances/");
    assert!(asked.lock().unwrap().iter().all(by_name), "{asked:?}");
    // Without a name all have to be asked for.
    assert!(has_owner(&client, INSTALLATION, &server_of("ada", false)).await.unwrap());
    assert!(!has_owner(&client, INSTALLATION, &server_of("bob", false)).await.unwrap());
}

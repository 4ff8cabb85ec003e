//! DNS records and the batch.

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, merged};

const NONE: Value = Value::Null;

fn cname(name: &str, extra: Value) -> Value {
    merged(
        json!({"type": "CNAME", "name": name, "content": "x.cfargotunnel.com", "proxied": true, "ttl": 1}),
        extra,
    )
}

async fn create(lab: &Lab, name: &str, extra: Value) -> String {
    let reply = lab.dns(Method::POST, "", cname(name, extra)).await.expect(200);
    reply.json["result"]["id"].as_str().expect("an id").to_owned()
}

async fn names(lab: &Lab) -> Vec<String> {
    let list = lab.dns(Method::GET, "?per_page=5000", NONE).await.expect(200).json;
    list["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn names_get_the_zones_domain_and_hosts_are_exclusive() {
    let lab = Lab::start().await;
    let id = create(&lab, "Ada", json!({})).await;
    let record = lab.dns(Method::GET, &format!("/{id}"), NONE).await.expect(200).json;
    assert_eq!(record["result"]["name"], "ada.example.com");
    lab.dns(Method::POST, "", cname("ada.example.com", json!({}))).await.refused(400, 81058);
    lab.dns(Method::POST, "", cname("ada", json!({"content": "y.cfargotunnel.com"})))
        .await
        .refused(400, 81053);
    let address = json!({"type": "A", "name": "ada", "content": "192.0.2.1"});
    lab.dns(Method::POST, "", address.clone()).await.refused(400, 81054);
    lab.dns(Method::POST, "", merged(address, json!({"name": "bob"}))).await.expect(200);
    lab.dns(Method::POST, "", cname("bob", json!({}))).await.refused(400, 81053);
}

#[tokio::test]
async fn a_patch_changes_what_it_says_and_a_put_everything() {
    let lab = Lab::start().await;
    let id = create(&lab, "ada", json!({"comment": "moorage:1"})).await;
    let patched = lab
        .dns(Method::PATCH, &format!("/{id}"), json!({"content": "y.cfargotunnel.com"}))
        .await
        .expect(200);
    assert_eq!(patched.json["result"]["comment"], "moorage:1");
    let put = lab
        .dns(Method::PUT, &format!("/{id}"), cname("ada", json!({"proxied": false})))
        .await
        .expect(200)
        .json;
    assert_eq!((&put["result"]["comment"], &put["result"]["proxied"]), (&NONE, &json!(false)));
    lab.dns(Method::DELETE, &format!("/{id}"), NONE).await.expect(200);
    lab.dns(Method::DELETE, &format!("/{id}"), NONE).await.refused(404, 81044);
}

#[tokio::test]
async fn lists_filter_by_name_type_and_comment() {
    let lab = Lab::start().await;
    create(&lab, "ada", json!({"comment": "moorage:1"})).await;
    create(&lab, "bob", json!({"comment": "by hand"})).await;
    let address = json!({"type": "A", "name": "www", "content": "192.0.2.1"});
    lab.dns(Method::POST, "", address).await.expect(200);
    for (query, expected) in [
        ("", 3),
        ("?comment.startswith=moorage:", 1),
        ("?type=CNAME", 2),
        ("?name=ada.example.com", 1),
        ("?name=ada.example.com&type=A", 0),
        ("?name=ada.example.com&type=A&match=any", 2),
        ("?content=x.cfargotunnel.com&per_page=1", 2),
    ] {
        let list = lab.dns(Method::GET, query, NONE).await.expect(200).json;
        assert_eq!(list["result_info"]["total_count"], expected, "{query}");
    }
    lab.dns(Method::GET, "?per_page=5001", NONE).await.expect(400);
}

#[tokio::test]
async fn comments_are_short_on_a_free_zone() {
    let lab = Lab::start().await;
    create(&lab, "a", json!({"comment": "é".repeat(100)})).await;
    lab.dns(Method::POST, "", cname("b", json!({"comment": "x".repeat(101)}))).await.expect(400);
}

#[tokio::test]
async fn a_batch_deletes_before_it_posts() {
    let lab = Lab::start().await;
    let old = create(&lab, "ada", json!({})).await;
    let moved = create(&lab, "bob", json!({})).await;
    let batch = json!({
        "posts": [cname("ada", json!({"content": "y.cfargotunnel.com"}))],
        "patches": [{"id": moved, "name": "carol"}],
        "deletes": [{"id": old}],
    });
    let done = lab.dns(Method::POST, "/batch", batch).await.expect(200).json;
    assert_eq!(done["result"]["deletes"][0]["id"], old);
    assert_eq!(done["result"]["posts"][0]["content"], "y.cfargotunnel.com");
    assert_eq!(names(&lab).await, ["ada.example.com", "carol.example.com"]);
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let lab = Lab::start().await;
    let old = create(&lab, "ada", json!({})).await;
    create(&lab, "taken", json!({})).await;
    let batch = json!({
        "deletes": [{"id": old}],
        "posts": [cname("new", json!({})), cname("taken", json!({"content": "y.cfargotunnel.com"}))],
    });
    lab.dns(Method::POST, "/batch", batch).await.refused(400, 81053);
    assert_eq!(names(&lab).await, ["ada.example.com", "taken.example.com"]);
    lab.dns(Method::POST, "/batch", json!({"deletes": [{"id": "nothing"}]}))
        .await
        .refused(404, 81044);
}

#[tokio::test]
async fn a_free_zone_takes_200_operations_and_holds_200_records() {
    let lab = Lab::start().await;
    let posts =
        |count: usize| (0..count).map(|n| cname(&format!("s{n}"), json!({}))).collect::<Vec<_>>();
    lab.dns(Method::POST, "/batch", json!({"posts": posts(201)})).await.expect(400);
    lab.dns(Method::POST, "/batch", json!({"posts": posts(200)})).await.expect(200);
    lab.dns(Method::POST, "", cname("one-more", json!({}))).await.refused(400, 81045);
    assert_eq!(names(&lab).await.len(), 200);
}

#[rstest::rstest]
#[case(json!({"type": "A", "content": "not-an-address"}), 9005)]
#[case(json!({"type": "NOPE"}), 9020)]
#[case(json!({"name": "a b"}), 9000)]
#[case(json!({"ttl": 5}), 9021)]
#[case(json!({"type": "TXT"}), 9004)]
#[tokio::test]
async fn a_bad_record_is_refused(#[case] change: Value, #[case] code: u64) {
    let lab = Lab::start().await;
    lab.dns(Method::POST, "", cname("ada", change)).await.refused(400, code);
}

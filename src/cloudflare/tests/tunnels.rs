use crate::master_key::TunnelSecret;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_tunnel_is_made_with_a_secret_of_ones_own() {
    let server = TestServer::start(|_| ok(tunnel_json(TUNNEL, "moorage-ada"))).await;
    let secret = TunnelSecret::new([1; 32]);
    let tunnel = client(&server)
        .create_tunnel(&CreateTunnel { name: "moorage-ada", secret: &secret })
        .await
        .unwrap();
    assert_eq!((tunnel.id, tunnel.status), (tunnel_id(), Some(TunnelStatus::Healthy)));
    let requests = server.requests();
    assert_eq!(requests[0].target, "/v1/accounts/acc1/cfd_tunnel");
    let encoded = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    assert_eq!(
        requests[0].body,
        json!({"name": "moorage-ada", "config_src": "cloudflare", "tunnel_secret": encoded})
    );
}

#[tokio::test]
async fn rotation_sends_nothing_but_the_secret() {
    let server = TestServer::start(|_| ok(tunnel_json(TUNNEL, "moorage-ada"))).await;
    client(&server).rotate_tunnel_secret(&tunnel_id(), &TunnelSecret::new([1; 32])).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests[0].method, http::Method::PATCH);
    assert_eq!(requests[0].body.as_object().unwrap().keys().collect::<Vec<_>>(), ["tunnel_secret"]);
}

#[tokio::test]
async fn another_name_leaves_the_secret_alone() {
    let server = TestServer::start(|_| ok(tunnel_json(TUNNEL, "moorage-kept"))).await;
    let renamed = client(&server).rename_tunnel(&tunnel_id(), "moorage-kept").await.unwrap();
    assert_eq!(renamed.name, "moorage-kept");
    let requests = server.requests();
    assert_eq!(requests[0].method, http::Method::PATCH);
    assert_eq!(requests[0].target, format!("/v1/accounts/acc1/cfd_tunnel/{TUNNEL}"));
    assert_eq!(requests[0].body, json!({"name": "moorage-kept"}));
}

#[tokio::test]
async fn deleted_tunnels_do_not_exist() {
    let mut deleted = tunnel_json(TUNNEL, "moorage-ada");
    deleted["deleted_at"] = json!("2026-09-02T10:00:00Z");
    let single = deleted.clone();
    let server = TestServer::start(move |request| {
        let one = request.target.contains(TUNNEL);
        ok(if one { single.clone() } else { json!([deleted, tunnel_json(OTHER, "moorage-bob")]) })
    })
    .await;
    let client = client(&server);
    assert_eq!(client.get_tunnel(Priority::Delete, &tunnel_id()).await, Ok(None));
    assert_eq!(client.find_tunnel_by_name(Priority::Delete, "moorage-ada").await, Ok(None));
    let live = client.list_tunnels(Priority::Sweep, "moorage-").await.unwrap();
    assert_eq!(live.len(), 1);
    let requests = server.requests();
    assert_eq!(query(&requests[1], "is_deleted").unwrap(), "false");
    assert_eq!(query(&requests[1], "name").unwrap(), "moorage-ada");
    assert_eq!(query(&requests[2], "include_prefix").unwrap(), "moorage-");
    assert_eq!(query(&requests[2], "per_page").unwrap(), "1000");
}

#[rstest]
#[case::total_given(2, json!({"page": 1, "per_page": 2, "count": 2, "total_count": 3}))]
#[case::smaller_pages_than_asked(2, json!({"per_page": 2}))]
#[case::everything_null(1000, json!({"page": null, "per_page": null, "count": null, "total_count": null}))]
#[case::no_info(1000, Value::Null)]
#[tokio::test]
async fn every_page_is_read_whatever_the_result_info_leaves_out(
    #[case] first: usize,
    #[case] info: Value,
) {
    let server = TestServer::start(move |request| {
        // The second page repeats an entry, as pages do when something is made in between.
        let (range, info) = match query(request, "page").unwrap().as_str() {
            "1" => (0..first, info.clone()),
            _ => (first - 1..first + 1, json!({"total_count": first + 1})),
        };
        let tunnels: Vec<Value> =
            range.map(|number| tunnel_json(&uuid(number), "moorage-x")).collect();
        Reply::json(200, json!({"success": true, "result": tunnels, "result_info": info}))
    })
    .await;
    let tunnels = client(&server).list_tunnels(Priority::Sweep, "moorage-").await.unwrap();
    assert_eq!(tunnels.len(), first + 1);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn an_empty_list_may_be_null() {
    let server = TestServer::start(|_| ok(Value::Null)).await;
    assert_eq!(client(&server).list_tunnels(Priority::Sweep, "moorage-").await, Ok(vec![]));
}

#[tokio::test]
async fn routes_are_put_whole_and_read_back_equal() {
    let configuration = TunnelConfiguration {
        ingress: vec![
            IngressRule {
                hostname: Some("ada.example.com".into()),
                path: None,
                service: "http://127.0.0.1:18789".into(),
                origin_request: Some(OriginRequest::from_iter([(
                    "connectTimeout".to_owned(),
                    json!(10),
                )])),
            },
            IngressRule {
                hostname: None,
                path: None,
                service: "http_status:404".into(),
                origin_request: None,
            },
        ],
        other: serde_json::Map::new(),
    };
    let server = TestServer::start(|request| {
        let config = request.body.get("config").cloned().unwrap_or(Value::Null);
        ok(json!({"tunnel_id": TUNNEL, "version": 4, "config": config, "source": "cloudflare"}))
    })
    .await;
    let client = client(&server);
    let put = client.put_tunnel_configuration(&tunnel_id(), &configuration).await.unwrap();
    assert_eq!((put.version, put.config.as_ref()), (Some(4), Some(&configuration)));
    let expected = json!({"config": {"ingress": [
        {"hostname": "ada.example.com", "service": "http://127.0.0.1:18789", "originRequest": {"connectTimeout": 10}},
        {"service": "http_status:404"}
    ]}});
    assert_eq!(server.requests()[0].body, expected);
    let read =
        client.get_tunnel_configuration(Priority::Normal, &tunnel_id()).await.unwrap().unwrap();
    assert_eq!(read.config, None, "none was put yet");
}

use serde_json::{Value, json};

use super::*;
use crate::cloud::ErrorKind;

#[tokio::test]
async fn a_dns_batch_is_one_request_with_a_typed_result() {
    let server = TestServer::start(|_| {
        ok(json!({"deletes": null, "patches": [], "puts": null, "posts": [record_json("ada.example.com")]}))
    })
    .await;
    let client = client(&server);
    let result = client.dns_batch(&zone(), &batch()).await.unwrap();
    assert_eq!(result.posts[0].id.as_str(), RECORD);
    assert_eq!(
        client.dns_batch(&zone(), &DnsBatch::default()).await,
        Ok(DnsBatchResult::default())
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "an empty batch needs no request");
    assert_eq!(requests[0].target, "/v1/zones/zone1/dns_records/batch");
    let target = format!("{TUNNEL}.cfargotunnel.com");
    let expected = json!({
        "deletes": [{"id": RECORD}],
        "patches": [{"id": RECORD, "content": target}],
        "posts": [{"name": "ada.example.com", "type": "CNAME", "content": target, "proxied": true, "ttl": 1,
            "comment": "moorage i1 a1"}]
    });
    assert_eq!(requests[0].body, expected);
}

#[tokio::test]
async fn records_are_found_by_comment_and_by_name() {
    let mut odd = record_json("ada.example.com");
    odd["type"] = json!("HTTPS");
    odd["content"] = Value::Null;
    odd["comment"] = Value::Null;
    let server = TestServer::start(move |_| ok(json!([odd]))).await;
    let client = client(&server);
    let records = client
        .find_dns_records_by_name(Priority::Normal, &zone(), "ada.example.com")
        .await
        .unwrap();
    assert_eq!(records[0].record_type, RecordType::Unknown("HTTPS".into()));
    client.list_dns_records(Priority::Sweep, &zone(), "moorage i1 ").await.unwrap();
    let requests = server.requests();
    assert_eq!(query(&requests[0], "name").unwrap(), "ada.example.com");
    assert_eq!(query(&requests[1], "comment.startswith").unwrap(), "moorage i1 ");
    assert_eq!(query(&requests[1], "per_page").unwrap(), "5000");
}

#[tokio::test]
async fn deletions_pass_when_only_the_reserve_is_left() {
    let server = TestServer::start(|request| {
        let result = if request.method == http::Method::POST {
            json!({})
        } else {
            tunnel_json(TUNNEL, "moorage-ada")
        };
        // What Cloudflare says of its budget follows something else, and is not believed.
        let body = json!({"success": true, "result": result});
        Reply::Json(200, body, vec![("Ratelimit", "\"default\";r=1199;t=1".into())])
    })
    .await;
    let client = client(&server);
    while client.get_tunnel(Priority::Normal, &tunnel_id()).await.is_ok() {}
    let error = client.dns_batch(&zone(), &batch()).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::BudgetExhausted { .. }), "{error}");
    let only_deletes = DnsBatch { deletes: batch().deletes, ..DnsBatch::default() };
    client.dns_batch(&zone(), &only_deletes).await.unwrap();
    client.delete_tunnel(&tunnel_id()).await.unwrap();
}

#[tokio::test]
async fn a_zone_names_its_account() {
    let server = TestServer::start(|_| {
        ok(json!({"id": "zone1", "name": "example.com", "status": "purged", "account": {"id": "acc1", "name": "x"}}))
    })
    .await;
    let found = client(&server).get_zone(Priority::Normal, &zone()).await.unwrap().unwrap();
    assert_eq!(found.account.id.as_str(), "acc1");
    assert_eq!(found.status, Some(ZoneStatus::Unknown("purged".into())));
}

use serde_json::{Value, json};

use super::*;
use crate::cloud::BudgetPlan;
use crate::cloud::test_server::{Recorded, Reply, TOKEN, TestServer};

mod access;
mod dns;
mod refusals;
mod tunnels;

const TUNNEL: &str = "6ff42ae2-765d-4adf-8112-31c55c1551ef";
const OTHER: &str = "0d4a6bb1-0000-4adf-8112-31c55c1551ef";
const RECORD: &str = "023e105f4ecef8ad9ca31a8372d0c353";

/// Through the port, as the executor has it.
fn client(server: &TestServer) -> Box<dyn CloudflareApi> {
    let account = AccountId::parse("acc1").unwrap();
    Box::new(CloudflareClient::new(server.config(BudgetPlan::cloudflare()), account).unwrap())
}

fn tunnel_id() -> TunnelId {
    TunnelId::parse(TUNNEL).unwrap()
}

fn zone() -> ZoneId {
    ZoneId::parse("zone1").unwrap()
}

fn ok(result: impl Into<Value>) -> Reply {
    Reply::json(
        200,
        json!({"success": true, "errors": [], "messages": [], "result": result.into()}),
    )
}

fn refusal(code: i64) -> Value {
    json!({"success": false, "errors": [{"code": code, "message": format!("no, {TOKEN}")}], "result": null})
}

fn tunnel_json(id: &str, name: &str) -> Value {
    json!({"id": id, "name": name, "status": "healthy", "created_at": "2026-09-01T10:00:00.123456Z",
        "deleted_at": null, "connections": [], "a_field_of_the_future": 1})
}

fn record_json(name: &str) -> Value {
    json!({"id": RECORD, "name": name, "type": "CNAME", "content": "x.cfargotunnel.com", "proxied": true,
        "ttl": 1, "comment": "moorage i1 a1", "tags": []})
}

fn query(recorded: &Recorded, name: &str) -> Option<String> {
    let url = url::Url::parse(&format!("http://x{}", recorded.target)).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn batch() -> DnsBatch {
    DnsBatch {
        deletes: vec![RecordId::parse(RECORD).unwrap()],
        patches: vec![DnsPatch {
            id: RecordId::parse(RECORD).unwrap(),
            content: Some(tunnel_id().dns_target()),
            proxied: None,
            comment: None,
        }],
        posts: vec![NewDnsRecord::tunnel_cname("ada.example.com", &tunnel_id(), "moorage i1 a1")],
    }
}

fn uuid(number: usize) -> String {
    format!("{number:08x}-765d-4adf-8112-31c55c1551ef")
}

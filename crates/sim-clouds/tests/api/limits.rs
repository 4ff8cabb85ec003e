//! Rate limits.

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{ACCOUNT, Lab, TOKEN, eventually};

const NONE: Value = Value::Null;

#[tokio::test]
async fn hetzner_reports_its_limit_and_names_the_token() {
    let lab = Lab::start().await;
    lab.put_project(json!({"rateLimit": {"limit": 3, "refillPerSecond": 0.001}})).await;
    let first = lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    assert_eq!(
        (&first.headers["ratelimit-limit"], &first.headers["ratelimit-remaining"]),
        (&"3".parse().unwrap(), &"2".parse().unwrap())
    );
    let reset: i64 = first.headers["ratelimit-reset"].to_str().unwrap().parse().unwrap();
    assert!(reset - jiff::Timestamp::now().as_second() > 900, "full again after 1000 s");
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    let refused = lab.hetzner(Method::GET, "/servers", NONE).await;
    refused.refused(429, "rate_limit_exceeded");
    assert!(refused.json["error"]["message"].as_str().unwrap().contains(TOKEN));
    assert_eq!(refused.headers["ratelimit-remaining"], "0");
}

#[tokio::test]
async fn the_hetzner_bucket_refills() {
    let lab = Lab::start().await;
    lab.put_project(json!({"rateLimit": {"limit": 1, "refillPerSecond": 0.5}})).await;
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(200);
    lab.hetzner(Method::GET, "/servers", NONE).await.expect(429);
    eventually(async || lab.hetzner(Method::GET, "/servers", NONE).await.status == 200).await;
}

#[tokio::test]
async fn cloudflare_blocks_every_token_of_a_user_for_a_while() {
    let lab = Lab::start().await;
    let limit = json!({"requests": 3, "windowSeconds": 60.0, "blockSeconds": 4.0});
    for token in ["one", "two"] {
        let body = json!({"token": token, "user": "u", "rateLimit": limit});
        lab.admin(Method::PUT, "/admin/cloudflare/accounts/b10c", body).await.expect(204);
    }
    let url = format!("{}/user/tokens/verify", lab.sim.endpoints().cloudflare);
    let call = async |token: &str| lab.send(Method::GET, &url, token, NONE).await.expect("answers");
    for token in ["one", "two", "one"] {
        call(token).await.expect(200);
    }
    let blocked = call("two").await.expect(429);
    assert_eq!(blocked.headers["retry-after"], "4");
    assert_eq!(blocked.json["success"], false);
    call("one").await.expect(429);
    // Another user is not concerned.
    lab.cloudflare(Method::GET, &format!("/accounts/{ACCOUNT}"), NONE).await.expect(200);
    eventually(async || call("one").await.status == 200).await;
}

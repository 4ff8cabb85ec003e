//! How tokens, accounts and zones can be set up, and who sees it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{ACCOUNT, Lab, ZONE};

const NONE: Value = Value::Null;

#[tokio::test]
async fn without_an_organization_access_refuses_everything() {
    let lab = Lab::start().await;
    lab.account(Method::GET, "/access/organizations", NONE).await.expect(200);
    lab.put_account(json!({"zeroTrust": false})).await;
    for list in ["organizations", "apps", "policies", "service_tokens"] {
        let refused = lab.account(Method::GET, &format!("/access/{list}"), NONE).await;
        assert_eq!(refused.json["errors"][0]["message"], "access.api.error.not_enabled");
        refused.refused(400, 9999);
    }
    let token = json!({"name": "t", "duration": "8760h"});
    lab.account(Method::POST, "/access/service_tokens", token).await.refused(400, 9999);
    lab.account(Method::GET, "/cfd_tunnel", NONE).await.expect(200);
}

#[tokio::test]
async fn a_token_is_verified_where_it_belongs() {
    let lab = Lab::start().await;
    let of_user = "/user/tokens/verify";
    let of_account = &format!("/accounts/{ACCOUNT}/tokens/verify");
    let status = async |path: &str| lab.cloudflare(Method::GET, path, NONE).await.status;
    assert_eq!((status(of_user).await, status(of_account).await), (200, 401));
    let ends = "2026-12-24T00:00:00Z";
    let setup = json!({"owner": "account", "status": "disabled", "expiresOn": ends});
    lab.put_account(json!({"tokenSetup": setup})).await;
    assert_eq!(status(of_user).await, 401);
    let seen = lab.cloudflare(Method::GET, of_account, NONE).await.expect(200).json;
    assert_eq!(
        (&seen["result"]["status"], &seen["result"]["expires_on"]),
        (&json!("disabled"), &json!(ends))
    );
}

#[tokio::test]
async fn a_zone_shows_how_it_is_set_up() {
    let lab = Lab::start().await;
    let get = async |path: &str| {
        let path = format!("/zones/{ZONE}{path}");
        lab.cloudflare(Method::GET, &path, NONE).await.expect(200).json["result"].clone()
    };
    assert_eq!(get("").await["status"], "active");
    assert_eq!(get("/ssl/certificate_packs?status=all").await[0]["hosts"][1], "*.example.com");
    let setup = json!({
        "status": "pending", "paused": true, "type": "partial", "certificate": null,
        "ssl": "off", "websockets": "off", "browserCheck": "off", "fightMode": true,
    });
    let zone = json!({"id": ZONE, "name": "example.com", "setup": setup});
    lab.put_account(json!({"zones": [zone]})).await;
    let zone = get("").await;
    assert_eq!(
        (&zone["status"], &zone["paused"], &zone["type"]),
        (&json!("pending"), &json!(true), &json!("partial"))
    );
    assert_eq!(get("/ssl/certificate_packs?status=all").await, json!([]));
    for setting in ["ssl", "websockets", "browser_check"] {
        assert_eq!(get(&format!("/settings/{setting}")).await["value"], "off", "{setting}");
    }
    assert_eq!(get("/bot_management").await["fight_mode"], true);
}

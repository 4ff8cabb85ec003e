//! How accounts and zones are set up, beside what they hold: the token itself, the Zero Trust
//! organization, and what a zone's edge does. Read only here; the admin API sets it.

use axum::extract::Path;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::envelope::{Answer, ApiError, Caller};
use crate::query::QueryPairs;

/// What an API token is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokenSetup {
    /// `user`, or `account` for one that the account owns.
    pub owner: TokenOwner,
    /// `active`, `disabled` or `expired`. Only the check of the token shows it.
    pub status: String,
    /// When it ends.
    pub expires_on: Option<Timestamp>,
}

/// Whose a token is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenOwner {
    /// A person's.
    #[default]
    User,
    /// The account's own.
    Account,
}

impl Default for TokenSetup {
    fn default() -> Self {
        Self { owner: TokenOwner::User, status: "active".to_owned(), expires_on: None }
    }
}

/// How a zone is set up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ZoneSetup {
    /// `active`, `pending`, `initializing` or `moved`.
    pub status: String,
    /// Whether Cloudflare is paused on it.
    pub paused: bool,
    /// `full`, `partial` or `secondary`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status of the Universal SSL certificate; none if null.
    pub certificate: Option<String>,
    /// The setting `ssl`.
    pub ssl: String,
    /// The setting `websockets`.
    pub websockets: String,
    /// The setting `browser_check`.
    pub browser_check: String,
    /// Bot Fight Mode.
    pub fight_mode: bool,
}

impl Default for ZoneSetup {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            status: text("active"),
            paused: false,
            kind: text("full"),
            certificate: Some(text("active")),
            ssl: text("full"),
            websockets: text("on"),
            browser_check: text("on"),
            fight_mode: false,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct TokenView {
    id: String,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_on: Option<Timestamp>,
}

impl TokenView {
    fn of(caller: &Caller) -> Self {
        let TokenSetup { status, expires_on, .. } = caller.grant.setup.clone();
        Self { id: caller.grant.token_id.clone(), status, expires_on }
    }
}

/// `GET /user/tokens/verify`
pub(crate) async fn verify_user_token(caller: Caller) -> Result<Answer<TokenView>, ApiError> {
    match caller.grant.setup.owner {
        TokenOwner::User => Ok(Answer::ok(TokenView::of(&caller))),
        TokenOwner::Account => Err(ApiError::unknown_token("/user/tokens/verify")),
    }
}

/// `GET /accounts/{account}/tokens/verify`
pub(crate) async fn verify_account_token(
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<TokenView>, ApiError> {
    caller.account(&id, |_| match caller.grant.setup.owner {
        TokenOwner::Account => Ok(Answer::ok(TokenView::of(&caller))),
        TokenOwner::User => Err(ApiError::unknown_token("/user/tokens/verify")),
    })
}

/// `GET …/access/organizations`
pub(crate) async fn organization(
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<Value>, ApiError> {
    caller.access(&id, |account| {
        let team = &account.id[..account.id.len().min(8)];
        Ok(Answer::ok(json!({
            "name": team,
            "auth_domain": format!("{team}.cloudflareaccess.com"),
            "created_at": account.created_on,
            "updated_at": account.created_on,
            "session_duration": "24h",
            "is_ui_read_only": false,
            "auto_redirect_to_identity": false,
        })))
    })
}

/// `GET /zones/{zone}/ssl/certificate_packs`
pub(crate) async fn certificate_packs(
    caller: Caller,
    Path(id): Path<String>,
    query: QueryPairs,
) -> Result<Answer<Vec<Value>>, ApiError> {
    caller.zone(&id, |zone| {
        let pack = |status: &String| {
            json!({
                "id": zone.id,
                "type": "universal",
                "status": status,
                "hosts": [zone.name, format!("*.{}", zone.name)],
                "certificates": [],
                "validity_days": 90,
                "validation_method": "txt",
                "certificate_authority": "google",
                "primary_certificate": "0",
            })
        };
        Answer::page(zone.setup.certificate.iter().map(pack).collect(), &query, 20, 50)
    })
}

/// `GET /zones/{zone}/settings/{setting}`
pub(crate) async fn setting(
    caller: Caller,
    Path((id, name)): Path<(String, String)>,
) -> Result<Answer<Value>, ApiError> {
    caller.zone(&id, |zone| {
        let value = match name.as_str() {
            "ssl" => &zone.setup.ssl,
            "websockets" => &zone.setup.websockets,
            "browser_check" => &zone.setup.browser_check,
            _ => return Err(ApiError::no_route()),
        };
        Ok(Answer::ok(json!({
            "id": name, "value": value, "editable": true, "modified_on": zone.created_on,
        })))
    })
}

/// `GET /zones/{zone}/bot_management`, as a free zone answers it.
pub(crate) async fn bot_management(
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<Value>, ApiError> {
    caller.zone(&id, |zone| {
        Ok(Answer::ok(json!({
            "enable_js": true,
            "fight_mode": zone.setup.fight_mode,
            "using_latest_model": true,
            "ai_bots_protection": "disabled",
        })))
    })
}

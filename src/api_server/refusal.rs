//! A refusal of the API server without the content of what was refused: it quotes fields of the
//! object, and whoever logs an error must not log those.

use bytes::Bytes;
use http::StatusCode;
use kube::core::Status;

/// The longest part of a message that is kept.
const LONGEST: usize = 300;

/// What etcd says of an object that is larger than it takes. The API server passes it on as an error of its
/// own.
const ETCD_REFUSES_SIZE: &str = "etcdserver: request is too large";

/// The same refusal with its code, its reason, the paths of fields and, where access is denied, what
/// is denied.
pub(super) fn without_content(status: StatusCode, body: &[u8]) -> Bytes {
    let given: Option<Status> = serde_json::from_slice(body).ok();
    let mut kept = given.unwrap_or_else(|| Status::failure("", ""));
    if kept.code == 0 {
        kept.code = status.as_u16();
    }
    if kept.message.contains(ETCD_REFUSES_SIZE) {
        kept.code = StatusCode::PAYLOAD_TOO_LARGE.as_u16();
        "RequestEntityTooLarge".clone_into(&mut kept.reason);
    }
    kept.reason = plain(&kept.reason);
    kept.metadata = None;
    let mut message = format!("HTTP {} {}", kept.code, kept.reason).trim_end().to_owned();
    if status == StatusCode::FORBIDDEN
        && let Some(denied) = denied(&kept.message)
    {
        message = format!("{message}: {denied}");
    }
    if let Some(details) = &mut kept.details {
        let paths: Vec<_> = details.causes.iter().map(|cause| plain(&cause.field)).collect();
        let paths = shortened(&paths.join(", "));
        if !paths.is_empty() {
            message = format!("{message}: {paths}");
        }
        details.causes.clear();
        for text in [&mut details.name, &mut details.group, &mut details.kind, &mut details.uid] {
            *text = plain(text);
        }
    }
    kept.message = message;
    // What was parsed from JSON can be written as JSON.
    serde_json::to_vec(&kept).unwrap_or_default().into()
}

/// What the API server's authorizer says of a call: verb, resource and place, and no content.
fn denied(message: &str) -> Option<String> {
    let said = message.split_once(" cannot ")?.1;
    let harmless = |c: char| c.is_ascii_alphanumeric() || " \"./-_:".contains(c);
    Some(format!(
        "cannot {}",
        shortened(&said.chars().filter(|c| harmless(*c)).collect::<String>())
    ))
}

/// As a word, a name or the path of a field is written.
fn plain(text: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "-._:[]".contains(*c);
    text.chars().filter(allowed).take(LONGEST).collect()
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

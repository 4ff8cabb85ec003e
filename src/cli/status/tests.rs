//! Tests of the summary.

use serde_json::{Value, json};

use super::*;
use crate::api::OpenClawInstance;

fn now() -> Timestamp {
    "2026-09-01T12:00:00Z".parse().unwrap()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, since: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
}

fn instance(generation: i64, status: &Value) -> OpenClawInstance {
    let document = json!({
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "OpenClawInstance",
        "metadata": {"name": "ada", "namespace": "tenants", "generation": generation},
        "spec": {
            "pool": "eu-1",
            "hostname": "ada",
            "credentials": [
                {"name": "anthropic", "type": "AnthropicApiKey", "secretRef": {"name": "ada-keys", "key": "anthropic"}},
                {"name": "telegram", "type": "TelegramBotToken", "secretRef": {"name": "ada-keys", "key": "telegram"}},
            ],
        },
        "status": status,
    });
    serde_json::from_value(document).unwrap()
}

/// Runs, but one key is missing on a new server.
fn lacking() -> OpenClawInstance {
    let (old, new) = ("2026-08-30T12:00:00Z", "2026-09-01T11:58:30Z");
    let message =
        "This server does not have telegram; seal it again with `moorage seal` and apply it";
    instance(
        3,
        &json!({
            "observedGeneration": 3,
            "phase": "Stalled",
            "release": "2026.9.6-1",
            "server": {"epoch": "02".repeat(8), "id": 4711, "type": "cx33", "location": "fsn1"},
            "tunnel": {"id": "6ff42ae2-765d-4adf-8112-31c55c1551ef"},
            "urls": {"dashboard": "https://ada.example.com", "management": "https://ada-mgmt.example.com"},
            "agent": {"epoch": "02".repeat(8), "publicKey": "", "sealingCertificate": "", "version": "0.1.0", "openclawVersion": "2026.9.6",
                "programs": [
                    {"name": "node", "version": "24.21.0", "sha256": "a1".repeat(32)},
                    {"name": "openclaw", "version": "2026.9.6", "sha256": "b2".repeat(32)},
                    {"name": "cloudflared", "sha256": "c3".repeat(32)},
                ],
                "lastRollback": {"program": "openclaw", "sha256": "d4".repeat(32), "reason": "OpenClaw did not start within 90 s", "at": "2026-08-31T12:00:00Z"},
                "lastBackup": "2026-08-31T11:00:00Z",
                "rebootPending": true,
            },
            "credentials": [
                {"name": "anthropic", "deliveredAt": "2026-09-01T09:00:00Z", "epoch": "02".repeat(8), "ciphertextSHA256": "a"},
                {"name": "telegram", "deliveredAt": "2026-08-01T09:00:00Z", "epoch": "01".repeat(8), "ciphertextSHA256": "b"},
            ],
            "conditions": [
                condition("AgentReady", "True", "Ready", "The agent is enrolled and answers", old),
                condition("CredentialsDelivered", "False", "RedeliveryRequired", message, new),
                condition("Ready", "False", "RedeliveryRequired", message, new),
                condition("ServerReady", "True", "Ready", "Server 4711 exists", old),
                condition("Stalled", "True", "RedeliveryRequired", message, new),
            ],
        }),
    )
}

#[test]
fn a_summary_says_how_each_part_is_and_what_to_do_next() {
    insta::assert_snapshot!(Summary::of(&lacking()).to_text(now()));
}

#[test]
fn a_summary_for_programs_says_the_same() {
    insta::assert_json_snapshot!(Summary::of(&lacking()));
}

#[test]
fn an_instance_that_nobody_has_looked_at_says_so() {
    insta::assert_snapshot!(Summary::of(&instance(1, &Value::Null)).to_text(now()));
}

#[test]
fn a_ready_instance_needs_nothing() {
    let ready = instance(
        1,
        &json!({
            "observedGeneration": 1,
            "phase": "Ready",
            "urls": {"dashboard": "https://ada.example.com", "management": "https://ada-mgmt.example.com"},
            "conditions": [condition("Ready", "True", "Ready", "The server is as the spec says", "2026-09-01T11:59:59Z")],
        }),
    );
    let text = Summary::of(&ready).to_text(now());
    assert!(
        text.ends_with("What to do next\n  Nothing: it is ready at https://ada.example.com\n"),
        "{text}"
    );
}

#[test]
fn a_status_of_an_older_spec_says_so() {
    let outdated = instance(2, &json!({"observedGeneration": 1, "phase": "Ready"}));
    let text = Summary::of(&outdated).to_text(now());
    assert!(text.contains("Ready (of an older spec"), "{text}");
}

#[test]
fn nothing_in_a_status_moves_the_cursor_or_forges_a_line() {
    let forged = "1.0\u{1b}[2J\n  phase       Ready\u{202e}";
    let mut ada = lacking();
    let status = ada.status.as_mut().unwrap();
    for condition in &mut status.conditions {
        condition.message = forged.to_owned();
    }
    let agent = status.agent.as_mut().unwrap();
    agent.version = Some(forged.to_owned());
    agent.openclaw_version = Some(forged.to_owned());
    agent.programs[0].version = Some(forged.to_owned());
    agent.last_rollback.as_mut().unwrap().reason = forged.to_owned();
    let text = Summary::of(&ada).to_text(now());
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    assert_eq!(text.lines().filter(|line| line.starts_with("  phase ")).count(), 1, "{text}");
}

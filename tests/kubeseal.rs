//! Compatibility with the real kubeseal: what it seals to our certificate opens with our key ring,
//! under the strict scope alone.
//!
//! Needs the binary in `MOORAGE_KUBESEAL`; without it the tests say that they are skipped, and fail
//! if `MOORAGE_REQUIRE_ALL=1`.

#![allow(clippy::unwrap_used)] // Helpers of tests, outside of test functions.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use jiff::Timestamp;
use moorage::credentials::{
    bundle::{InstanceRef, read_secret},
    courier::needed_key,
    key_ring::{KeyRing, RingKey},
    lifetimes::{CERTIFICATE_VALID_FOR, after},
    secret_source::{CredentialEntry, SecretView, parse_entries, parse_envelope},
};
use moorage_testbed::{Tool, Tools};
use moorage_wire::{
    Secret,
    sealing::{KeyStrength, SealingKey},
};
use serde_json::json;
use tempfile::TempDir;

const VALUE: &str = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz";

/// A ring with one key, as the operator makes it, whose certificate lies in a file.
struct Setup {
    kubeseal: PathBuf,
    directory: TempDir,
    ring: KeyRing,
}

impl Setup {
    /// `None` where there is no kubeseal.
    fn made(created: Timestamp) -> Option<Self> {
        let kubeseal = Tools::for_test(&[Tool::Kubeseal])?.path(Tool::Kubeseal).unwrap();
        let validity = CERTIFICATE_VALID_FOR.unsigned_abs();
        let (key, _) =
            SealingKey::generate(KeyStrength::Operator, "moorage sealing key", created, validity)
                .unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), key.certificate().pem()).unwrap();
        let ring = KeyRing::new([RingKey { key, created }], []);
        Some(Self { kubeseal, directory, ring })
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    fn kubeseal(&self, scope: &[&str]) -> Output {
        run(&self.kubeseal, &self.certificate(), scope)
    }

    fn seal(&self, scope: &[&str]) -> Secret {
        let output = self.kubeseal(scope);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubeseal failed: {error}");
        Secret::new(output.stdout)
    }
}

fn run(kubeseal: &Path, certificate: &Path, scope: &[&str]) -> Output {
    let mut child = Command::new(kubeseal)
        .args(["--raw", "--from-file=/dev/stdin", "--cert"])
        .arg(certificate)
        .args(scope)
        // It must not look for a cluster.
        .env("KUBECONFIG", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A kubeseal that refuses the certificate ends before it reads.
    let _ = child.stdin.take().unwrap().write_all(VALUE.as_bytes());
    child.wait_with_output().unwrap()
}

const STRICT: [&str; 6] = ["--scope", "strict", "--namespace", "tenants", "--name", "ada-keys"];

#[test]
fn a_strict_value_opens_under_its_namespace_and_name_alone() {
    let Some(setup) = Setup::made(Timestamp::now()) else { return };
    let envelope = parse_envelope(&setup.seal(&STRICT)).unwrap();
    let opened = setup.ring.unseal(&envelope, "tenants/ada-keys").unwrap();
    assert_eq!(opened.plaintext.expose(), VALUE.as_bytes());
    for label in ["tenants/bob-keys", "others/ada-keys", "tenants", ""] {
        assert!(setup.ring.unseal(&envelope, label).is_err(), "opened under {label:?}");
    }
}

#[test]
fn values_of_the_wider_scopes_do_not_open() {
    let Some(setup) = Setup::made(Timestamp::now()) else { return };
    let namespace_wide = ["--scope", "namespace-wide", "--namespace", "tenants"];
    let cluster_wide = ["--scope", "cluster-wide"];
    let scopes: [(&[&str], &str); 2] = [(&namespace_wide, "tenants"), (&cluster_wide, "")];
    for (scope, its_label) in scopes {
        let envelope = parse_envelope(&setup.seal(scope)).unwrap();
        assert!(setup.ring.unseal(&envelope, "tenants/ada-keys").is_err(), "{scope:?} opened");
        // It is the scope that keeps it closed, nothing else.
        assert!(setup.ring.unseal(&envelope, its_label).is_ok(), "{scope:?} is damaged");
    }
}

#[test]
fn what_kubeseal_prints_may_stand_under_data_or_string_data() {
    let Some(setup) = Setup::made(Timestamp::now()) else { return };
    let text = setup.seal(&STRICT).expose_str().unwrap().to_owned();
    let entry = |name| CredentialEntry {
        name,
        r#type: "AnthropicApiKey",
        secret_ref: Some(("ada-keys", name)),
        ..CredentialEntry::default()
    };
    let (requests, _) = parse_entries(&[entry("as-data"), entry("as-text")]);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "moorage.dev/sealed-credentials",
        "metadata": {
            "name": "ada-keys",
            "namespace": "tenants",
            "labels": {"moorage.dev/instance": "ada"},
        },
        "data": {"as-data": text},
        "stringData": {"as-text": text},
    });
    let view = SecretView::from(
        serde_json::from_value::<k8s_openapi::api::core::v1::Secret>(secret).unwrap(),
    );
    let instance = InstanceRef { namespace: "tenants", name: "ada", created: Timestamp::now() };
    let bundle = read_secret(instance, "ada-keys", Some(&view), &requests);
    assert_eq!(bundle.refusals().count(), 0);
    for value in bundle.values.values() {
        assert!(needed_key(value.as_ref().unwrap(), &setup.ring).is_some());
    }
}

#[test]
fn kubeseal_refuses_a_certificate_before_its_key_goes() {
    let too_old = after(Timestamp::now(), -CERTIFICATE_VALID_FOR);
    let Some(setup) = Setup::made(after(too_old, -jiff::SignedDuration::from_secs(2))) else {
        return;
    };
    let output = setup.kubeseal(&STRICT);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("expired"), "{error}");
}

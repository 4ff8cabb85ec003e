use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use moorage_wire::{
    Secret, Sha256,
    bootstrap::{Bootstrap, EnrolmentKeyText},
    credential::{Binding, SealedCredential},
    path,
    sealing::SealingCertificate,
};

use rstest::rstest;

use super::*;
use crate::{
    conversation::Client,
    disk::crash::disk_that_dies_at,
    settings::OpenClawProgram,
    signed::tests::{call, operator},
    worker::{Trust, Worker, listen_on},
};

/// How the vault reaches OpenClaw's files: everything here holds either way.
#[derive(Debug, Clone, Copy)]
enum Way {
    InProcess,
    Socket,
}

/// The files of `layout` on `disk`, in this process or behind a worker's socket.
fn files(way: Way, disk: &Disk, layout: &Layout) -> OpenClaw {
    static SOCKETS: AtomicUsize = AtomicUsize::new(0);
    let program = OpenClawProgram { openclaw: "/none".into(), node: None };
    let address = ([127, 0, 0, 1], 1).into();
    let operator = Trust::Given(operator());
    let worker = Arc::new(Worker::new(disk.clone(), layout.clone(), program, address, operator));
    if let Way::InProcess = way {
        return OpenClaw::InProcess(worker);
    }
    let number = SOCKETS.fetch_add(1, Ordering::SeqCst);
    let path = layout.state().join(format!("worker-{number}.sock"));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let client: Client = rustix::process::getuid().as_raw().to_string().parse().unwrap();
            listen_on(&listener, client, &worker).await;
        });
    });
    OpenClaw::Socket(path)
}

/// The keys of one agent and of its worker for all tests: making RSA keys is slow.
static KEYS: LazyLock<(Keys, Vec<u8>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path().to_owned());
    Disk::default().create_folder(&layout.state()).unwrap();
    Disk::default().create_folder(&layout.worker_state()).unwrap();
    let operator = operator();
    let bootstrap = Bootstrap {
        instance_id: operator.instance_id,
        epoch: operator.epoch,
        operator_key: operator.operator_key,
        bearer_sha256: Sha256::of(b""),
        enrolment_key: EnrolmentKeyText::new("5a".repeat(32)),
    };
    let openclaw = files(Way::InProcess, &Disk::default(), &layout);
    let keys = Keys::load_or_make(&Disk::default(), &layout, &bootstrap, false, &openclaw);
    (keys.unwrap(), fs::read(layout.worker_key()).unwrap())
});

fn keys() -> &'static Keys {
    &KEYS.0
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const FIRST: &str = "sk-ant-first-aaaaaaaaaaaaaaaaaaaa";
const SECOND: &str = "sk-ant-second-bbbbbbbbbbbbbbbbbbb";
const GOOGLE: &str = r#"{"installed":{"client_id":"id","client_secret":"hidden"}}"#;

fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

fn seal(credential: &str, kind: CredentialType, value: &str) -> SealedCredential {
    let source_sha256 = Sha256::of(value.as_bytes());
    let binding = Binding::Courier { source_sha256 };
    let identity = &keys().identity;
    let label = binding.label(identity.instance_id, identity.epoch, &name(credential), kind);
    let pem = match kind {
        CredentialType::TunnelToken => keys().tunnel.certificate().pem(),
        _ => &identity.sealing_certificate,
    };
    let plaintext = Secret::from(value.to_owned());
    let envelope = SealingCertificate::parse(pem).unwrap().seal(&plaintext, &label).unwrap();
    SealedCredential { r#type: kind, envelope, binding }
}

fn server() -> (tempfile::TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path().to_owned());
    for folder in [layout.state(), layout.credentials(), layout.worker_state()] {
        Disk::default().create_folder(&folder).unwrap();
    }
    fs::write(layout.worker_key(), &KEYS.1).unwrap();
    (folder, layout)
}

/// Delivers as the operator does: signed with a nonce of the worker's, if it gives one.
fn put_sealed(
    vault: &mut Vault,
    credential: &str,
    sealed: &SealedCredential,
    under: Option<Sha256>,
) -> Result<Stored, PutError> {
    let nonce = vault.files.openclaw().nonces(1).ok().and_then(|mut nonces| nonces.pop());
    let nonce = nonce.unwrap_or_else(|| "0".repeat(32));
    let body = serde_json::to_vec(sealed).unwrap();
    let call = call(&format!("{}/{credential}", path::CREDENTIALS), &nonce, None, &body);
    vault.put(keys(), &name(credential), (sealed, &call), under, NOW)
}

fn open(way: Way, layout: &Layout) -> Vault {
    open_on(way, &Disk::default(), layout).unwrap()
}

fn open_on(way: Way, disk: &Disk, layout: &Layout) -> Result<Vault, DiskError> {
    Vault::open(disk, layout, files(way, disk, layout))
}

fn put(vault: &mut Vault, credential: &str, value: &str) -> Result<Stored, PutError> {
    let kind = CredentialType::AnthropicApiKey;
    put_sealed(vault, credential, &seal(credential, kind, value), None)
}

fn secrets(layout: &Layout) -> serde_json::Value {
    fs::read(layout.secrets())
        .map_or(serde_json::json!({}), |bytes| serde_json::from_slice(&bytes).unwrap())
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn a_stored_credential_is_in_exactly_one_file(#[case] way: Way) {
    let (folder, layout) = server();
    let mut vault = open(way, &layout);
    let stored = put(&mut vault, "anthropic", FIRST).unwrap();
    assert!(stored.openclaw_secrets_changed);
    stored.receipt.verify(&keys().signing.public_key()).unwrap();
    let again = put(&mut open(way, &layout), "anthropic", FIRST).unwrap();
    assert_eq!(again.receipt, stored.receipt);
    assert!(!again.openclaw_secrets_changed);
    assert_eq!(files_with(folder.path(), FIRST), [layout.secrets()]);
}

fn files_with(folder: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if path.is_file()
            && String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(text)
        {
            found.push(path);
        }
    }
    found
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn a_replaced_ciphertext_is_refused_with_its_receipt(#[case] way: Way) {
    let (folder, layout) = server();
    let mut vault = open(way, &layout);
    let first = put(&mut vault, "anthropic", FIRST).unwrap();
    put(&mut vault, "anthropic", SECOND).unwrap();
    match put(&mut vault, "anthropic", FIRST) {
        Err(PutError::AlreadyConsumed(receipt)) => assert_eq!(*receipt, first.receipt),
        other => panic!("{other:?}"),
    }
    assert_eq!(secrets(&layout)["anthropic"], SECOND);
    assert!(files_with(folder.path(), FIRST).is_empty());
    assert_eq!(vault.consumed().len(), 2);
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn unwanted_credentials_are_erased_and_stay_consumed(#[case] way: Way) {
    let (folder, layout) = server();
    let mut vault = open(way, &layout);
    put(&mut vault, "anthropic", FIRST).unwrap();
    assert!(vault.erase_all_but(&BTreeSet::new(), Sha256::of(b"document")).unwrap());
    assert!(files_with(folder.path(), FIRST).is_empty());
    assert!(vault.receipts().is_empty());
    assert!(matches!(put(&mut vault, "anthropic", FIRST), Err(PutError::AlreadyConsumed(_))));
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn a_credential_that_came_ahead_of_its_document_is_kept(#[case] way: Way) {
    let (_folder, layout) = server();
    let mut vault = open(way, &layout);
    let (old, new) = (Sha256::of(b"old"), Sha256::of(b"new"));
    let sealed = seal("anthropic", CredentialType::AnthropicApiKey, FIRST);
    put_sealed(&mut vault, "anthropic", &sealed, Some(old)).unwrap();
    assert!(!vault.erase_all_but(&BTreeSet::new(), old).unwrap());
    assert!(vault.erase_all_but(&BTreeSet::new(), new).unwrap());
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn the_google_client_has_a_file_of_its_own_and_there_is_one(#[case] way: Way) {
    let (folder, layout) = server();
    let mut vault = open(way, &layout);
    let kind = CredentialType::GoogleOAuthClient;
    put_sealed(&mut vault, "google", &seal("google", kind, GOOGLE), None).unwrap();
    assert_eq!(files_with(folder.path(), "hidden"), [layout.google_client()]);
    let second = put_sealed(&mut vault, "other", &seal("other", kind, GOOGLE), None);
    assert!(matches!(second, Err(PutError::SecondGoogleClient(_))));
    put(&mut vault, "google", FIRST).unwrap();
    assert!(!layout.google_client().exists(), "the credential is another type now");
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn a_damaged_file_loses_its_receipts_and_is_recreated(#[case] way: Way) {
    let (_folder, layout) = server();
    put(&mut open(way, &layout), "anthropic", FIRST).unwrap();
    fs::write(layout.secrets(), b"{\"anthropic\": ").unwrap();
    let mut vault = open(way, &layout);
    assert!(vault.receipts().is_empty());
    put(&mut vault, "anthropic", FIRST).unwrap();
    assert_eq!(secrets(&layout)["anthropic"], FIRST);
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn a_removed_value_loses_its_receipt_and_can_come_again(#[case] way: Way) {
    let (_folder, layout) = server();
    let mut vault = open(way, &layout);
    put(&mut vault, "anthropic", FIRST).unwrap();
    fs::remove_file(layout.secrets()).unwrap();
    vault.refresh().unwrap();
    assert!(vault.receipts().is_empty());
    put(&mut vault, "anthropic", FIRST).unwrap();
    assert_eq!(secrets(&layout)["anthropic"], FIRST);
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn wrong_names_types_and_reserved_names_are_refused(#[case] way: Way) {
    let (_folder, layout) = server();
    let mut vault = open(way, &layout);
    let kind = CredentialType::AnthropicApiKey;
    let other = put_sealed(&mut vault, "b", &seal("a", kind, FIRST), None);
    assert!(matches!(other, Err(PutError::CannotUnseal(_))));
    assert!(vault.consumed().is_empty() && !vault.records.is_writing(), "nothing is in doubt");
    let error = put(&mut vault, "anthropic", "my-very-secret").unwrap_err();
    assert!(matches!(error, PutError::InvalidFormat(_)));
    assert!(!error.to_string().contains("my-very-secret"));
    assert!(matches!(put(&mut vault, "moorage-gateway", FIRST), Err(PutError::ReservedName)));
    assert!(secrets(&layout).as_object().unwrap().is_empty());
}

/// The life of one credential, stopped by a crash anywhere.
fn live(way: Way, disk: &Disk, layout: &Layout, given: &mut Vec<Receipt>) -> Result<(), PutError> {
    let mut vault = open_on(way, disk, layout).map_err(StoreError::from)?;
    given.push(put(&mut vault, "anthropic", FIRST)?.receipt);
    given.push(put(&mut vault, "anthropic", SECOND)?.receipt);
    vault.erase_all_but(&BTreeSet::new(), Sha256::of(b"document"))?;
    Ok(())
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn a_crash_never_leaves_a_receipt_without_its_value(#[case] way: Way) {
    for at in 0.. {
        let (folder, layout) = server();
        let (disk, crashed) = disk_that_dies_at(at);
        let mut given = Vec::new();
        let lived = live(way, &disk, &layout, &mut given);
        if !crashed() {
            lived.unwrap();
            assert!(at > 25, "only {at} steps were tried");
            break;
        }
        disk_sweep(&layout);
        let mut vault = open(way, &layout);
        for receipt in vault.receipts() {
            assert!(secrets(&layout)["anthropic"].is_string(), "step {at}: {receipt:?}");
        }
        let consumed: Vec<_> = vault.consumed().iter().map(|entry| entry.source_sha256).collect();
        for receipt in &given {
            assert!(consumed.contains(&receipt.source_sha256), "forgot a receipt at step {at}");
        }
        // The operator repeats the delivery it has no receipt for; the last word is the second key.
        match put(&mut vault, "anthropic", SECOND) {
            Ok(stored) => {
                stored.receipt.verify(&keys().signing.public_key()).unwrap();
                assert_eq!(secrets(&layout)["anthropic"], SECOND, "step {at}");
                assert!(files_with(folder.path(), FIRST).is_empty(), "step {at}");
            }
            Err(PutError::AlreadyConsumed(_)) => {
                assert!(files_with(folder.path(), SECOND).is_empty(), "step {at}");
                assert_eq!(given.len(), 2, "step {at}: refused a value that was never stored");
            }
            Err(other) => panic!("step {at}: {other}"),
        }
    }
}

#[rstest]
#[case(Way::InProcess)]
#[case(Way::Socket)]
fn a_crash_in_a_rotation_lets_the_old_value_come_again(#[case] way: Way) {
    for at in 0..30 {
        let (_folder, layout) = server();
        put(&mut open(way, &layout), "anthropic", FIRST).unwrap();
        let (disk, crashed) = disk_that_dies_at(at);
        let rotated =
            open_on(way, &disk, &layout).map(|mut vault| put(&mut vault, "anthropic", SECOND));
        disk_sweep(&layout);
        let mut vault = open(way, &layout);
        match put(&mut vault, "anthropic", FIRST) {
            Ok(_) => assert_eq!(secrets(&layout)["anthropic"], FIRST, "step {at}"),
            Err(PutError::AlreadyConsumed(_)) => {
                assert_eq!(secrets(&layout)["anthropic"], SECOND, "step {at}");
            }
            Err(other) => panic!("step {at}: {other}"),
        }
        if !crashed() {
            rotated.unwrap().unwrap();
            return;
        }
    }
    panic!("a rotation takes more writes than were tried");
}

fn disk_sweep(layout: &Layout) {
    Disk::default().sweep(&layout.state()).unwrap();
    Disk::default().sweep(&layout.credentials()).unwrap();
    Disk::default().sweep(&layout.worker_state()).unwrap();
}

#[test]
fn without_a_worker_nothing_new_is_stored_or_promised() {
    let (_folder, layout) = server();
    let receipt = put(&mut open(Way::InProcess, &layout), "anthropic", FIRST).unwrap().receipt;
    let absent = OpenClaw::Socket(layout.state().join("nobody.sock"));
    let mut vault = Vault::open(&Disk::default(), &layout, absent).unwrap();
    assert_eq!(vault.receipts(), [receipt]);
    for value in [FIRST, SECOND] {
        let refused = put(&mut vault, "anthropic", value);
        assert!(matches!(refused, Err(PutError::Store(StoreError::Worker(_)))), "{refused:?}");
    }
    assert!(vault.refresh().is_err());
    let token = "tunnel-token-0123456789";
    let sealed = seal(TUNNEL_TOKEN, CredentialType::TunnelToken, token);
    let stored = put_sealed(&mut vault, TUNNEL_TOKEN, &sealed, None).unwrap();
    assert!(stored.tunnel_changed, "the tunnel does not depend on the worker");
}

#[test]
fn a_signature_that_the_worker_does_not_take_changes_nothing() {
    let (_folder, layout) = server();
    let mut vault = open(Way::Socket, &layout);
    let receipt = put(&mut vault, "anthropic", FIRST).unwrap().receipt;
    let sealed = seal("anthropic", CredentialType::AnthropicApiKey, SECOND);
    let body = serde_json::to_vec(&sealed).unwrap();
    let target = format!("{}/anthropic", path::CREDENTIALS);
    let call = call(&target, &"0".repeat(32), None, &body);
    let refused = vault.put(keys(), &name("anthropic"), (&sealed, &call), None, NOW);
    assert!(matches!(refused, Err(PutError::Stale)), "{refused:?}");
    assert_eq!(secrets(&layout)["anthropic"], FIRST);
    assert_eq!(put(&mut vault, "anthropic", FIRST).unwrap().receipt, receipt, "it still stands");
}

use std::fs;

use serde_json::json;

use super::*;
use crate::{
    disk::crash::disk_that_dies_at,
    signed::tests::{call, operator},
};

fn server() -> (tempfile::TempDir, Layout, Orders) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path().to_owned());
    Disk::default().create_folder(&layout.worker_state()).unwrap();
    let orders = Orders::new(Disk::default(), layout.clone());
    (folder, layout, orders)
}

/// A document with this number in its configuration.
fn body(number: u32) -> Vec<u8> {
    let artifact =
        json!({"version": "1", "url": "https://x.example/", "sha256": "07".repeat(32), "size": 1});
    let artifacts = json!({"release": "1", "openclaw": artifact, "node": artifact,
                           "cloudflared": artifact, "agent": artifact});
    json!({"config": {"number": number}, "credentials": [], "artifacts": artifacts})
        .to_string()
        .into_bytes()
}

fn digest(number: u32) -> Sha256 {
    Sha256::of(&body(number))
}

fn nonce(orders: &Orders) -> String {
    orders.nonces(1).unwrap().pop().unwrap()
}

fn document(number: u32, nonce: &str) -> SignedCall {
    call(path::DESIRED, nonce, None, &body(number))
}

fn put(orders: &Orders, call: &SignedCall, keep: &[Sha256]) -> Result<(), WorkError> {
    orders.put_document(&operator(), call, &keep.iter().copied().collect())
}

fn reason<T>(outcome: &Result<T, WorkError>) -> Option<Refusal> {
    match outcome {
        Err(WorkError::Refused { reason, .. }) => Some(*reason),
        _ => None,
    }
}

fn number_in(kept: &Kept) -> u64 {
    kept.state.config["number"].as_u64().unwrap()
}

#[test]
fn a_document_is_taken_once_and_never_after_a_newer_one() {
    let (_folder, layout, orders) = server();
    let nonces = orders.nonces(3).unwrap();
    let [first, second, third] =
        [(0, 0), (1, 1), (2, 2)].map(|(number, at): (u32, usize)| document(number, &nonces[at]));
    put(&orders, &first, &[]).unwrap();
    put(&orders, &third, &[]).unwrap();
    for orders in [orders, Orders::new(Disk::default(), layout)] {
        for old in [&first, &second] {
            assert_eq!(reason(&put(&orders, old, &[])), Some(Refusal::Stale));
        }
        assert_eq!(number_in(&orders.newest().unwrap().unwrap()), 2);
        assert_eq!(reason(&orders.document(digest(0))), Some(Refusal::UnknownDocument));
        put(&orders, &third, &[]).unwrap();
    }
}

#[test]
fn only_the_last_nonces_of_this_worker_are_good() {
    let (_folder, layout, orders) = server();
    put(&orders, &document(0, &nonce(&orders)), &[]).unwrap();
    let early = nonce(&orders);
    for _ in 0..WINDOW {
        nonce(&orders);
    }
    let (_other_folder, _, other) = server();
    let mut forged = nonce(&orders);
    forged.replace_range(15..16, if forged.as_bytes()[15] == b'0' { "1" } else { "0" });
    for nonce in [early, nonce(&other), forged, "0".repeat(32), "0".repeat(48)] {
        let refused = put(&orders, &document(1, &nonce), &[]);
        assert_eq!(reason(&refused), Some(Refusal::Stale), "{nonce}");
    }
    assert_eq!(number_in(&orders.newest().unwrap().unwrap()), 0);
    // A restart skips numbers, and gives none twice.
    let before = nonce(&orders);
    let orders = Orders::new(Disk::default(), layout);
    assert_ne!(nonce(&orders), before);
    put(&orders, &document(1, &nonce(&orders)), &[]).unwrap();
}

#[test]
fn the_first_document_may_precede_the_workers_nonces() {
    let (_folder, layout, orders) = server();
    let old = "00112233445566778899aabbccddeeff";
    put(&orders, &document(1, old), &[]).unwrap();
    for orders in [orders, Orders::new(Disk::default(), layout)] {
        assert_eq!(reason(&put(&orders, &document(2, old), &[digest(1)])), Some(Refusal::Stale));
        assert_eq!(number_in(&orders.newest().unwrap().unwrap()), 1);
    }
}

#[test]
fn nonces_cost_one_write_for_many() {
    let (_folder, layout, orders) = server();
    let first = nonce(&orders);
    let written = fs::read(layout.worker_ledger()).unwrap();
    let mut given = vec![first];
    for _ in 0..LEASE {
        given.push(nonce(&orders));
    }
    assert_eq!(fs::read(layout.worker_ledger()).unwrap(), written);
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "one was given twice");
    assert_eq!(orders.nonces(u64::MAX).unwrap().len() as u64, MOST_NONCES);
}

#[test]
fn only_documents_that_may_be_needed_are_kept() {
    let (_folder, layout, orders) = server();
    let mut keep = Vec::new();
    for number in 0..20 {
        put(&orders, &document(number, &nonce(&orders)), &keep).unwrap();
        if number < 3 {
            keep.push(digest(number));
        }
    }
    for number in [0, 1, 2, 19] {
        assert_eq!(number_in(&orders.document(digest(number)).unwrap()), u64::from(number));
    }
    assert_eq!(reason(&orders.document(digest(18))), Some(Refusal::UnknownDocument));
    let files = fs::read_dir(layout.worker_state()).unwrap();
    assert_eq!(files.count(), 1 + 4, "the ledger and four documents");
    let too_many: Vec<_> = (0..5).map(digest).collect();
    let refused = put(&orders, &document(20, &nonce(&orders)), &too_many);
    assert_eq!(reason(&refused), Some(Refusal::Invalid));
}

#[test]
fn a_kept_document_becomes_the_newest_only_by_a_fresh_signature() {
    let (_folder, _, orders) = server();
    let first = document(1, &nonce(&orders));
    put(&orders, &first, &[]).unwrap();
    put(&orders, &document(2, &nonce(&orders)), &[digest(1)]).unwrap();
    put(&orders, &first, &[]).unwrap();
    assert_eq!(number_in(&orders.newest().unwrap().unwrap()), 2, "it was no news");
    put(&orders, &document(1, &nonce(&orders)), &[]).unwrap();
    assert_eq!(number_in(&orders.newest().unwrap().unwrap()), 1);
}

#[test]
fn what_is_not_signed_for_this_is_not_taken() {
    let (_folder, _, orders) = server();
    let elsewhere = call("/v1/credentials/x", &nonce(&orders), None, &body(1));
    assert_eq!(reason(&put(&orders, &elsewhere, &[])), Some(Refusal::Signature));
    let garbled = call(path::DESIRED, &nonce(&orders), None, b"{\"hidden\": 1}");
    let refused = put(&orders, &garbled, &[]);
    assert_eq!(reason(&refused), Some(Refusal::Invalid));
    let said = refused.unwrap_err().to_string();
    assert!(!said.contains("hidden"), "{said}");
    assert!(orders.newest().unwrap().is_none());
}

#[test]
fn a_document_changed_on_disk_is_not_kept() {
    let (_folder, layout, orders) = server();
    put(&orders, &document(1, &nonce(&orders)), &[]).unwrap();
    fs::write(layout.worker_document(&digest(1)), body(2)).unwrap();
    assert_eq!(reason(&orders.document(digest(1))), Some(Refusal::UnknownDocument));
    put(&orders, &document(1, &nonce(&orders)), &[]).unwrap();
    assert_eq!(number_in(&orders.document(digest(1)).unwrap()), 1);
}

#[test]
fn a_credential_is_taken_once_and_never_after_a_newer_one() {
    let (_folder, layout, orders) = server();
    let target = "/v1/credentials/x";
    let sign = |nonce: &str| call(target, nonce, None, b"sealed");
    let take = |orders: &Orders, call: &SignedCall| {
        orders.put_credential(&operator(), target, call, |body| Ok(body.to_vec()), Ok)
    };
    let nonces = orders.nonces(4).unwrap();
    put(&orders, &document(1, &nonces[3]), &[]).unwrap();
    assert_eq!(take(&orders, &sign(&nonces[1])).unwrap(), b"sealed");
    for orders in [orders, Orders::new(Disk::default(), layout)] {
        for old in &nonces[..2] {
            assert_eq!(reason(&take(&orders, &sign(old))), Some(Refusal::Stale));
        }
    }
}

#[test]
fn a_crash_leaves_one_document_and_takes_none_twice() {
    for at in 0.. {
        let (_folder, layout, orders) = server();
        let first = document(1, &nonce(&orders));
        put(&orders, &first, &[]).unwrap();
        let second = document(2, &nonce(&orders));
        let (disk, crashed) = disk_that_dies_at(at);
        // Nothing of this life was written but by the first one.
        let dying = Orders { disk, layout: layout.clone(), state: orders.state };
        let outcome = put(&dying, &second, &[]);
        let after = Orders::new(Disk::default(), layout.clone());
        let newest = after.newest().unwrap().unwrap();
        assert!([1, 2].contains(&number_in(&newest)), "step {at}");
        if !crashed() {
            outcome.unwrap();
            assert_eq!(number_in(&newest), 2);
            assert!(at > 8, "only {at} steps were tried");
            break;
        }
        put(&after, &document(3, &nonce(&after)), &[]).unwrap();
        assert_eq!(reason(&put(&after, &first, &[])), Some(Refusal::Stale), "step {at}");
        assert_eq!(reason(&put(&after, &second, &[])), Some(Refusal::Stale), "step {at}");
    }
}

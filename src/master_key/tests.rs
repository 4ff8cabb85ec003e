//! Tests of `master_key`: fixed vectors and the separation of derived keys.

use std::collections::BTreeSet;

use super::*;
use proptest::prelude::*;
use rstest::rstest;

fn master(bytes: [u8; 32]) -> MasterKey {
    MasterKey::new(Secret::from(bytes), InstallationId::from_bytes([7; 8])).unwrap()
}

fn fixed() -> MasterKey {
    master(std::array::from_fn(|index| u8::try_from(index).unwrap()))
}

const INSTANCE: [u8; 16] = [0xa1; 16];
const EPOCH: [u8; 8] = [0xe2; 8];

fn text(secret: &Secret) -> String {
    secret.expose_str().unwrap().to_owned()
}

fn gateway(
    master: &MasterKey,
    instance: InstanceId,
    life: GatewayLife,
    generation: u32,
) -> GatewayToken {
    master.gateway_token(instance, life, GatewayGeneration(generation))
}

/// Everything that can be derived for one server, in a comparable form.
fn all(master: &MasterKey, instance: [u8; 16], epoch: [u8; 8], generation: u32) -> Vec<String> {
    let (instance, epoch) = (InstanceId::from_bytes(instance), Epoch::from_bytes(epoch));
    let tunnel = master.tunnel_secret(instance, epoch, TunnelGeneration(generation));
    vec![
        master.operator_key(instance, epoch).public_key().to_string(),
        text(master.bearer_token(instance, epoch).secret()),
        master.enrolment_key(instance, epoch).to_text().expose().to_owned(),
        text(&tunnel.to_base64()),
        text(gateway(master, instance, GatewayLife::Instance, generation).secret()),
        text(gateway(master, instance, GatewayLife::Server(epoch), generation).secret()),
    ]
}

// Computed by an independent implementation of RFC 5869 (Python's hmac and hashlib) and, for the
// signing key, of RFC 8032 (plain Python).
#[test]
fn every_derivation_is_what_it_always_was() {
    let master = fixed();
    assert_eq!(master.id().as_str(), "d0d185fd51f2816e");
    assert_eq!(
        all(&master, INSTANCE, EPOCH, 1),
        [
            "c116ef0bc2cfba04b9b2e2b80db67879f2b310d662692ecb577db23fe9804cd8",
            "yrN38Mw9xQ3pJekFdZZrsIUxlar5HQnfT8uhpfLI9Hc",
            "023c478202dde9c9ba4adc835d911c0816c7778d65939ee8e5835437b2f4f6e6",
            "v7i719Z8i8aCAtqVNb6yGl52/UtdvSHrKm+1z+d+7YU=",
            "STQZwgRdteHr8GX5b0hdqG4DAZJQcrwKUT0o-kP-qS8",
            "G-poaFQrfnQxs_hK6U0VpT49dY0I4f10L-wnqyByzL8",
        ]
    );
    let wrapping = master.derive("sealing key wrapping", &[]);
    assert_eq!(STANDARD.encode(wrapping.expose()), "fSS+0phNlNSTr0gbRkVvQWHmnDdN4fKoaoOIQJmX5yU=");
}

#[test]
fn a_run_token_is_what_cloudflared_parses() {
    let secret = TunnelSecret(Secret::from([0; 32]));
    let token = secret.run_token("acc", "tun");
    let json = STANDARD.decode(token.secret().expose()).unwrap();
    let zeros = "A".repeat(43);
    let expected = format!(r#"{{"a":"acc","t":"tun","s":"{zeros}="}}"#);
    assert_eq!(String::from_utf8(json).unwrap(), expected);
}

#[test]
fn the_bearer_tokens_digest_is_over_its_text() {
    let token = fixed().bearer_token(InstanceId::from_bytes(INSTANCE), Epoch::from_bytes(EPOCH));
    assert_eq!(token.sha256(), Sha256::of(token.secret().expose()));
    assert_eq!(token.secret().len(), 43);
}

#[rstest]
#[case::raw(b"0123456789abcdef0123456789abcdef".to_vec())]
#[case::base64(b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_vec())]
#[case::base64_line(b" MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\r\n".to_vec())]
fn raw_and_base64_forms_are_the_same_key(#[case] stored: Vec<u8>) {
    let installation = InstallationId::from_bytes([7; 8]);
    let parsed = MasterKey::parse(&Secret::new(stored), installation).unwrap();
    assert_eq!(parsed.id(), master(*b"0123456789abcdef0123456789abcdef").id());
}

#[rstest]
#[case::empty(b"".to_vec(), InvalidMasterKey::Length)]
#[case::raw_with_line_end(b"0123456789abcdef0123456789abcdef\n".to_vec(), InvalidMasterKey::Length)]
#[case::short_base64(b"MDEyMzQ1Njc4OWFiY2RlZg==".to_vec(), InvalidMasterKey::Length)]
#[case::long_base64(b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIz".to_vec(), InvalidMasterKey::Length)]
#[case::zeros(vec![0; 32], InvalidMasterKey::NotRandom)]
fn what_is_no_key_is_refused(#[case] stored: Vec<u8>, #[case] expected: InvalidMasterKey) {
    let installation = InstallationId::from_bytes([7; 8]);
    assert_eq!(MasterKey::parse(&Secret::new(stored), installation).unwrap_err(), expected);
}

#[test]
fn nothing_printable_contains_the_key() {
    let master = master(*b"0123456789abcdef0123456789abcdef");
    assert!(!format!("{master:?}").contains("0123456789abcdef0123"));
    let (instance, epoch) = (InstanceId::from_bytes(INSTANCE), Epoch::from_bytes(EPOCH));
    let token = master.bearer_token(instance, epoch);
    assert!(!format!("{token:?}").contains(token.secret().expose_str().unwrap()));
}

proptest! {
    #[test]
    fn another_key_instance_epoch_or_generation_gives_other_keys(
        key in any::<[u8; 32]>(),
        instances in (any::<[u8; 16]>(), any::<[u8; 16]>()),
        epochs in (any::<[u8; 8]>(), any::<[u8; 8]>()),
        generations in (any::<u32>(), any::<u32>()),
    ) {
        prop_assume!(key.iter().any(|byte| *byte != key[0]));
        prop_assume!(instances.0 != instances.1 && epochs.0 != epochs.1);
        prop_assume!(generations.0 != generations.1);
        let one = master(key);
        let mut other_key = key;
        other_key[31] ^= 1;
        prop_assume!(other_key.iter().any(|byte| *byte != other_key[0]));
        let base = all(&one, instances.0, epochs.0, generations.0);
        let distinct: BTreeSet<_> = base.iter().collect();
        prop_assert_eq!(distinct.len(), base.len(), "two purposes share a key");

        let differs = |other: Vec<String>, unchanged: &[usize]| {
            base.iter().zip(&other).enumerate().all(|(index, (left, right))| {
                (left == right) == unchanged.contains(&index)
            })
        };
        // Index 4 is the gateway token of before ids were computed, which no epoch touches; only those
        // from 3 on have generations.
        prop_assert!(differs(all(&master(other_key), instances.0, epochs.0, generations.0), &[]));
        prop_assert!(differs(all(&one, instances.1, epochs.0, generations.0), &[]));
        prop_assert!(differs(all(&one, instances.0, epochs.1, generations.0), &[4]));
        prop_assert!(differs(all(&one, instances.0, epochs.0, generations.1), &[0, 1, 2]));
    }
}

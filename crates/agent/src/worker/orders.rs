//! What the worker accepts as the operator's: calls that the operator signed, with a nonce that the worker gave
//! lately, and later than what was taken before. And the documents that came so: the newest one, and
//! those that it may be necessary to go back to.
//!
//! A nonce is a number, which only ever grows, and a code that nobody else can make. So what is remembered
//! of all past calls is one number for documents and one for credentials, and no call is taken twice or
//! after a later one, whoever kept it. Within the last [`WINDOW`] nonces whoever passes calls on decides
//! the order, as he decides which arrive at all.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::{hmac, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use moorage_wire::{DesiredState, Sha256, bootstrap::Operator, lower_hex, path};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{WorkError, protocol::Refusal};
use crate::{
    disk::{Disk, DiskError},
    layout::Layout,
    secret_text::SecretText,
    signed::{SignedCall, Verified},
};

/// So many nonces are good at a time: as many as the agent remembers.
const WINDOW: u64 = 64;
/// So many numbers are set aside at a time: one write for many nonces. After a restart those that were
/// not given are skipped.
const LEASE: u64 = 1024;
/// So many nonces are given at once.
const MOST_NONCES: u64 = 16;
/// Beside a new document so many are kept: the one before, the last that worked, and both of an update
/// that is under way.
const MOST_KEPT: usize = 4;
const CODE_BYTES: usize = 16;
const NONCE_BYTES: usize = 8 + CODE_BYTES;

/// The ledger as it lies on the disk.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ledger {
    /// Makes the codes of nonces, base64.
    nonce_key: SecretText,
    /// All numbers below were given, or never will be.
    leased: u64,
    /// The number of the newest document.
    document: u64,
    /// The number of the newest credential.
    credential: u64,
    newest: Option<Sha256>,
    /// The documents that are kept, and the plugins that were installed for each.
    kept: BTreeMap<Sha256, BTreeSet<String>>,
}

struct State {
    ledger: Ledger,
    /// The next number to give.
    next: u64,
}

/// A document that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) state: DesiredState,
    /// The ids of its plugins, once they are installed.
    pub(super) plugins: BTreeSet<String>,
}

pub(super) struct Orders {
    disk: Disk,
    layout: Layout,
    /// Read when it is first needed.
    state: Mutex<Option<State>>,
}

impl Orders {
    pub(super) fn new(disk: Disk, layout: Layout) -> Self {
        Self { disk, layout, state: Mutex::default() }
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Self, &mut State) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        let mut state = self.state.lock();
        let loaded = match state.take() {
            Some(state) => state,
            None => self.load()?,
        };
        work(self, state.insert(loaded))
    }

    fn load(&self) -> Result<State, DiskError> {
        let ledger = match self.disk.read_json::<Ledger>(&self.layout.worker_ledger()) {
            Err(error @ DiskError::Damaged { .. }) => {
                tracing::error!(%error, "the worker's ledger is damaged: the operator has to send its documents again");
                None
            }
            ledger => ledger?,
        };
        let ledger = ledger.unwrap_or_else(Ledger::new);
        Ok(State { next: ledger.leased, ledger })
    }

    fn save(&self, state: &mut State, ledger: Ledger) -> Result<(), DiskError> {
        self.disk.write_json(&self.layout.worker_ledger(), &ledger)?;
        state.ledger = ledger;
        Ok(())
    }

    /// Nonces that were never given before.
    pub(super) fn nonces(&self, count: u64) -> Result<Vec<String>, WorkError> {
        self.with(|orders, state| {
            let end = state.next + count.min(MOST_NONCES);
            if end > state.ledger.leased {
                let ledger = Ledger { leased: end + LEASE, ..state.ledger.clone() };
                orders.save(state, ledger)?;
            }
            let numbers = state.next..end;
            state.next = end;
            Ok(numbers.map(|number| state.ledger.nonce(number)).collect())
        })
    }

    /// Takes a document for the newest one and drops all others but those of `keep`. One that is kept
    /// anyway is no news, whatever it is signed with. The very first one may have any nonce: there is
    /// nothing that it could be older than, and on a server of an older agent it came before the worker
    /// made nonces.
    pub(super) fn put_document(
        &self,
        operator: &Operator,
        call: &SignedCall,
        keep: &BTreeSet<Sha256>,
    ) -> Result<(), WorkError> {
        self.with(|orders, state| {
            let is_kept = |digest| state.ledger.kept.contains_key(&digest);
            let known = call.digest().is_some_and(is_kept);
            let taken = verify(operator, call, path::DESIRED).and_then(|call| {
                match state.number_of(&call, state.ledger.document) {
                    Err(_) if state.ledger.newest.is_none() => Ok((0, call.body)),
                    number => Ok((number?, call.body)),
                }
            });
            let (number, body) = match taken {
                Err(_) if known => return Ok(()),
                taken => taken?,
            };
            parse(&body)?;
            if keep.len() > MOST_KEPT {
                let message = format!("at most {MOST_KEPT} earlier documents are kept");
                return Err(WorkError::refused(Refusal::Invalid, message));
            }
            let digest = Sha256::of(&body);
            orders.disk.write(&orders.layout.worker_document(&digest), &body)?;
            let mut ledger =
                Ledger { document: number, newest: Some(digest), ..state.ledger.clone() };
            ledger.kept.entry(digest).or_default();
            let dropped: Vec<Sha256> = ledger.kept.keys().copied().collect();
            ledger.kept.retain(|kept, _| *kept == digest || keep.contains(kept));
            let dropped = dropped.into_iter().filter(|digest| !ledger.kept.contains_key(digest));
            let dropped: Vec<Sha256> = dropped.collect();
            orders.save(state, ledger)?;
            tracing::info!(target: "audit", %digest, "a desired state of the operator is taken");
            for digest in dropped {
                orders.disk.remove(&orders.layout.worker_document(&digest))?;
            }
            Ok(())
        })
    }

    /// Takes a credential: `open` looks at what is signed and changes nothing, `store` does.
    pub(super) fn put_credential<T, U>(
        &self,
        operator: &Operator,
        path: &str,
        call: &SignedCall,
        open: impl FnOnce(&[u8]) -> Result<T, WorkError>,
        store: impl FnOnce(T) -> Result<U, DiskError>,
    ) -> Result<U, WorkError> {
        self.with(|orders, state| {
            let call = verify(operator, call, path)?;
            let number = state.number_of(&call, state.ledger.credential)?;
            let opened = open(&call.body)?;
            // First, so that it is taken once whatever comes of it.
            let ledger = Ledger { credential: number, ..state.ledger.clone() };
            orders.save(state, ledger)?;
            Ok(store(opened)?)
        })
    }

    /// A document that is kept.
    pub(super) fn document(&self, digest: Sha256) -> Result<Kept, WorkError> {
        self.with(|orders, state| {
            let unknown = || WorkError::refused(Refusal::UnknownDocument, "no such document is kept");
            let plugins = state.ledger.kept.get(&digest).cloned().ok_or_else(unknown)?;
            let body = orders.disk.read(&orders.layout.worker_document(&digest))?;
            let Some(body) = body.filter(|body| Sha256::of(body) == digest) else {
                tracing::error!(%digest, "a kept document was changed on disk: the operator has to send it again");
                let mut ledger = state.ledger.clone();
                ledger.kept.remove(&digest);
                orders.save(state, ledger)?;
                return Err(unknown());
            };
            Ok(Kept { state: parse(&body)?, plugins })
        })
    }

    /// The newest document, if there is one.
    pub(super) fn newest(&self) -> Result<Option<Kept>, WorkError> {
        let newest = self.with(|_, state| Ok(state.ledger.newest))?;
        newest.map(|digest| self.document(digest)).transpose()
    }

    /// Notes which plugins were installed for a document.
    pub(super) fn note_plugins(
        &self,
        digest: Sha256,
        plugins: &BTreeSet<String>,
    ) -> Result<(), WorkError> {
        self.with(|orders, state| {
            if state.ledger.kept.get(&digest).is_some_and(|noted| noted != plugins) {
                let mut ledger = state.ledger.clone();
                ledger.kept.insert(digest, plugins.clone());
                orders.save(state, ledger)?;
            }
            Ok(())
        })
    }
}

fn verify(operator: &Operator, call: &SignedCall, path: &str) -> Result<Verified, WorkError> {
    call.verify(operator, path).map_err(|_| {
        let message = "the call is not signed by this server's operator";
        WorkError::refused(Refusal::Signature, message)
    })
}

fn parse(body: &[u8]) -> Result<DesiredState, WorkError> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = format!("not a desired state: see line {line}, column {column}");
        WorkError::refused(Refusal::Invalid, message)
    })
}

impl Ledger {
    fn new() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(&mut *key).expect("the kernel gives randomness once it has booted");
        Self {
            nonce_key: SecretText::new(&Zeroizing::new(BASE64.encode(*key))),
            leased: 1,
            document: 0,
            credential: 0,
            newest: None,
            kept: BTreeMap::new(),
        }
    }

    fn nonce(&self, number: u64) -> String {
        let number = number.to_be_bytes();
        hex::encode([&number[..], &self.code(number)].concat())
    }

    fn code(&self, number: [u8; 8]) -> [u8; CODE_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.nonce_key.expose().as_bytes());
        let tag = hmac::sign(&key, &number);
        let mut code = [0; CODE_BYTES];
        code.copy_from_slice(&tag.as_ref()[..CODE_BYTES]);
        code
    }
}

impl State {
    /// The number of the nonce of a call that comes after number `before`.
    fn number_of(&self, call: &Verified, before: u64) -> Result<u64, WorkError> {
        let number = lower_hex::parse::<NONCE_BYTES>("nonce", &call.nonce).ok().and_then(|nonce| {
            let (number, code) = nonce.split_first_chunk::<8>()?;
            let made: bool = self.ledger.code(*number).ct_eq(code).into();
            made.then_some(u64::from_be_bytes(*number))
        });
        let lately = |number: &u64| (self.next.saturating_sub(WINDOW)..self.next).contains(number);
        number.filter(|number| *number > before && lately(number)).ok_or_else(|| {
            let message = "the call is an old one, or was not signed for this server's worker";
            WorkError::refused(Refusal::Stale, message)
        })
    }
}

#[cfg(test)]
mod tests;

//! Whom this agent obeys: the operator's key in force, which is in the bootstrap document, and
//! while it is handed over the next one as well. The rewriting of the bootstrap document, root's on a
//! real server, is the one step that changes who is in force; everything else follows from it after a
//! crash. Installer and worker trust that document alone.

use moorage_wire::{
    OperatorPublicKey, Sha256, bootstrap::Bootstrap, enrolment::AgentIdentity, handover::HandOver,
    signature::SignatureError,
};
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;

use crate::{
    disk::{Disk, DiskError, to_json},
    layout::Layout,
};

/// What is remembered of handovers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stored {
    /// The one that led to the key in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<HandOver>,
    /// The one that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<HandOver>,
}

/// Why a handover was not taken.
#[derive(Debug, Error)]
pub enum HandOverError {
    /// Not of the key in force, or for another server.
    #[error("the handover is not from the operator that is obeyed to the next one: {0}")]
    Signature(#[from] SignatureError),
    /// There is no bootstrap document to change.
    #[error("there is no bootstrap document that says who is obeyed")]
    NoBootstrap,
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The operators that are obeyed.
pub(crate) struct Obeyed {
    bootstrap: Bootstrap,
    stored: Stored,
}

impl Obeyed {
    /// Reads what is remembered, and keeps of it what fits the bootstrap document.
    pub(crate) fn open(
        disk: &Disk,
        layout: &Layout,
        bootstrap: &Bootstrap,
    ) -> Result<Self, DiskError> {
        let stored = disk.read_json::<Stored>(&layout.handover())?.unwrap_or_default();
        let mut known = Self { bootstrap: bootstrap.clone(), stored: Stored::default() };
        for document in [stored.done, stored.next].into_iter().flatten() {
            if document.to == bootstrap.operator_key {
                known.stored.done = Some(document);
            } else if known.verify(&document).is_ok() {
                known.stored.next = Some(document);
            }
        }
        Ok(known)
    }

    fn verify(&self, document: &HandOver) -> Result<(), SignatureError> {
        let server = (self.bootstrap.instance_id, self.bootstrap.epoch);
        document.verify(server, &self.bootstrap.operator_key)
    }

    /// The keys that may call, the one in force first.
    pub(crate) fn keys(&self) -> Vec<OperatorPublicKey> {
        let next = self.stored.next.as_ref().map(|next| next.to);
        std::iter::once(self.bootstrap.operator_key).chain(next).collect()
    }

    /// Whether this is the hash of a bearer token of one of them, in constant time.
    pub(crate) fn knows_bearer(&self, sha256: &Sha256) -> bool {
        let same = |known: &Sha256| sha256.as_bytes().ct_eq(known.as_bytes());
        let next =
            self.stored.next.as_ref().map_or(Choice::from(0), |next| same(&next.bearer_sha256));
        (same(&self.bootstrap.bearer_sha256) | next).into()
    }

    /// The agent's identity with the proof under what comes with the key in force.
    pub(crate) fn identity(&self, identity: &AgentIdentity) -> AgentIdentity {
        let proof = self.stored.done.as_ref().map_or(identity.proof, |done| done.identity_proof);
        AgentIdentity { proof, ..identity.clone() }
    }

    /// Takes a next key, in place of one that was to come.
    pub(crate) fn begin(
        &mut self,
        disk: &Disk,
        layout: &Layout,
        document: HandOver,
    ) -> Result<(), HandOverError> {
        self.verify(&document)?;
        let stored = Stored { next: Some(document), ..self.stored.clone() };
        disk.write_json(&layout.handover(), &stored)?;
        self.stored = stored;
        Ok(())
    }

    /// What has to be written into the bootstrap document so that `caller` is obeyed alone; nothing if
    /// `caller` is the key in force already.
    pub(crate) fn towards(&self, caller: &OperatorPublicKey) -> Option<HandOver> {
        self.stored.next.clone().filter(|next| next.to == *caller)
    }

    /// `caller` stays alone. The bootstrap document says so already.
    pub(crate) fn end(
        &mut self,
        disk: &Disk,
        layout: &Layout,
        caller: &OperatorPublicKey,
    ) -> Result<(), DiskError> {
        let mut ended = Self { bootstrap: self.bootstrap.clone(), stored: self.stored.clone() };
        if let Some(next) = ended.stored.next.take()
            && next.to == *caller
        {
            ended.bootstrap.operator_key = next.to;
            ended.bootstrap.bearer_sha256 = next.bearer_sha256;
            ended.stored.done = Some(next);
        }
        disk.write_json(&layout.handover(), &ended.stored)?;
        *self = ended;
        Ok(())
    }
}

/// Makes the next operator the one in force, in the bootstrap document: atomically, durably, and only
/// by the word of the one in force. Who may read the document stays as it is. Nothing to do if it is
/// in force already.
pub fn put_in_force(
    disk: &Disk,
    layout: &Layout,
    document: &HandOver,
) -> Result<(), HandOverError> {
    let path = layout.bootstrap();
    let mut bootstrap: Bootstrap = disk.read_json(&path)?.ok_or(HandOverError::NoBootstrap)?;
    let done = (document.to, document.bearer_sha256);
    if (bootstrap.operator_key, bootstrap.bearer_sha256) == done {
        return Ok(());
    }
    document.verify((bootstrap.instance_id, bootstrap.epoch), &bootstrap.operator_key)?;
    (bootstrap.operator_key, bootstrap.bearer_sha256) = done;
    Ok(disk.rewrite(&path, &to_json(&bootstrap, b"\n"))?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use moorage_wire::{
        Epoch, InstanceId, Secret, bootstrap::EnrolmentKeyText, handover::Successor,
        signature::OperatorKey,
    };

    use super::*;
    use crate::disk::crash::disk_that_dies_at;

    fn key(byte: u8) -> OperatorKey {
        OperatorKey::from_seed(&Secret::from([byte; 32]))
    }

    fn bearer(byte: u8) -> Sha256 {
        Sha256::of(&[byte])
    }

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            instance_id: InstanceId::from_bytes([1; 16]),
            epoch: Epoch::from_bytes([2; 8]),
            operator_key: key(1).public_key(),
            bearer_sha256: bearer(1),
            enrolment_key: EnrolmentKeyText::erased(),
        }
    }

    fn server() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        fs::create_dir_all(layout.state()).unwrap();
        fs::create_dir_all(layout.bootstrap().parent().unwrap()).unwrap();
        fs::write(layout.bootstrap(), serde_json::to_vec(&bootstrap()).unwrap()).unwrap();
        (folder, layout)
    }

    fn hand_over(from: u8, to: u8) -> HandOver {
        let Bootstrap { instance_id, epoch, .. } = bootstrap();
        let successor =
            Successor { bearer_sha256: bearer(to), identity_proof: Sha256::of(b"proof") };
        HandOver::sign((instance_id, epoch), &key(from), &key(to), successor)
    }

    fn read(layout: &Layout) -> Obeyed {
        let disk = Disk::default();
        let bootstrap: Bootstrap = disk.read_json(&layout.bootstrap()).unwrap().unwrap();
        Obeyed::open(&disk, layout, &bootstrap).unwrap()
    }

    fn obeys(obeyed: &Obeyed, byte: u8) -> bool {
        let known = obeyed.keys().contains(&key(byte).public_key());
        assert_eq!(known, obeyed.knows_bearer(&bearer(byte)), "key and bearer go together");
        known
    }

    #[test]
    fn both_are_obeyed_until_the_next_one_has_called() {
        let (_folder, layout) = server();
        let disk = Disk::default();
        let mut obeyed = read(&layout);
        obeyed.begin(&disk, &layout, hand_over(1, 2)).unwrap();
        for known in [&obeyed, &read(&layout)] {
            assert!(obeys(known, 1) && obeys(known, 2) && !obeys(known, 3));
        }
        let document = obeyed.towards(&key(2).public_key()).unwrap();
        put_in_force(&disk, &layout, &document).unwrap();
        assert!(!obeys(&read(&layout), 1), "a crash here has lost nothing");
        obeyed.end(&disk, &layout, &key(2).public_key()).unwrap();
        for known in [&obeyed, &read(&layout)] {
            assert!(!obeys(known, 1) && obeys(known, 2));
            assert_eq!(known.stored.done.as_ref().unwrap().identity_proof, Sha256::of(b"proof"));
            assert!(known.stored.next.is_none());
        }
    }

    #[test]
    fn the_key_in_force_can_take_its_word_back_or_name_another() {
        let (_folder, layout) = server();
        let disk = Disk::default();
        let mut obeyed = read(&layout);
        obeyed.begin(&disk, &layout, hand_over(1, 2)).unwrap();
        obeyed.begin(&disk, &layout, hand_over(1, 3)).unwrap();
        assert!(!obeys(&obeyed, 2) && obeys(&obeyed, 3));
        assert!(obeyed.towards(&key(1).public_key()).is_none());
        obeyed.end(&disk, &layout, &key(1).public_key()).unwrap();
        for known in [&obeyed, &read(&layout)] {
            assert!(obeys(known, 1) && !obeys(known, 3));
        }
    }

    #[test]
    fn nobody_but_the_key_in_force_names_the_next() {
        let (_folder, layout) = server();
        let disk = Disk::default();
        let mut obeyed = read(&layout);
        assert!(obeyed.begin(&disk, &layout, hand_over(2, 3)).is_err());
        assert!(put_in_force(&disk, &layout, &hand_over(2, 3)).is_err());
        obeyed.begin(&disk, &layout, hand_over(1, 2)).unwrap();
        assert!(obeyed.begin(&disk, &layout, hand_over(2, 3)).is_err(), "2 is not in force yet");
        // An agent gone bad that plays an old word back to the installer.
        put_in_force(&disk, &layout, &hand_over(1, 2)).unwrap();
        assert!(put_in_force(&disk, &layout, &hand_over(1, 3)).is_err());
        assert!(obeys(&read(&layout), 2) && !obeys(&read(&layout), 3));
    }

    #[test]
    fn a_crash_at_any_step_locks_nobody_out() {
        for at in 0.. {
            let (_folder, layout) = server();
            let (disk, crashed) = disk_that_dies_at(at);
            let mut obeyed = read(&layout);
            let all = (|| {
                obeyed.begin(&disk, &layout, hand_over(1, 2))?;
                put_in_force(&disk, &layout, &hand_over(1, 2))?;
                obeyed.end(&disk, &layout, &key(2).public_key()).map_err(HandOverError::Disk)
            })();
            if !crashed() {
                all.unwrap();
                assert!(at > 6, "only {at} steps were tried");
                break;
            }
            // Whoever called last is still obeyed: the old one begins again, the new one ends it.
            let disk = Disk::default();
            let mut obeyed = read(&layout);
            if obeys(&obeyed, 1) {
                obeyed.begin(&disk, &layout, hand_over(1, 2)).unwrap();
                put_in_force(&disk, &layout, &hand_over(1, 2)).unwrap();
            }
            assert!(obeys(&obeyed, 2), "step {at}");
            obeyed.end(&disk, &layout, &key(2).public_key()).unwrap();
            assert!(obeys(&read(&layout), 2) && !obeys(&read(&layout), 1), "step {at}");
        }
    }
}

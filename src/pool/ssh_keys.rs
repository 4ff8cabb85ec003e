//! The public keys of the SSH fallback, or one that nobody has, as keys of the Hetzner project. Pure; `apply` carries the
//! steps out.

use moorage_wire::Sha256;

use crate::hetzner::{CreateSshKey, SshKey, SshKeyId, openssh_ed25519};

use super::identity::PoolIdentity;
use crate::problem::Problem;

/// What to do about the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SshKeySteps {
    /// Keys that are there.
    pub keep: Vec<SshKeyId>,
    pub create: Vec<CreateSshKey>,
    /// Keys of ours that the spec does not name any more.
    pub delete: Vec<SshKeyId>,
}

/// Compares the keys of the spec with those of the project that carry the pool's labels.
pub fn plan(
    identity: &PoolIdentity,
    keys: &[impl AsRef<str>],
    found: &[SshKey],
) -> Result<SshKeySteps, Problem> {
    let mut wanted: Vec<String> = Vec::new();
    for key in keys {
        let key = canonical(key.as_ref()).ok_or_else(|| {
            Problem::invalid_spec(
                "spec.hetzner.ssh.keys",
                "every key must be a public key in OpenSSH's format, such as `ssh-ed25519 AAAA…`",
            )
        })?;
        if !wanted.contains(&key) {
            wanted.push(key);
        }
    }
    if wanted.is_empty() {
        wanted.push(key_of_nobody(identity));
    }
    let ours: Vec<&SshKey> = found.iter().filter(|key| identity.owns(&key.labels)).collect();
    let mut steps = SshKeySteps::default();
    for key in &wanted {
        match ours.iter().find(|known| is_same(known, key)) {
            Some(known) => steps.keep.push(known.id),
            None => steps.create.push(CreateSshKey {
                name: format!("{}-{}", identity.object_name(), short_digest(key)),
                public_key: key.clone(),
                labels: identity.labels(),
            }),
        }
    }
    let unwanted = ours.iter().filter(|known| !steps.keep.contains(&known.id));
    steps.delete = unwanted.map(|known| known.id).collect();
    Ok(steps)
}

/// A public key to which no private key was ever made: its bytes are a digest. A server that is made
/// without any key gets a root password, which Hetzner sends by mail. Hetzner takes a key once per
/// project, so that each pool has its own.
fn key_of_nobody(identity: &PoolIdentity) -> String {
    let label = format!("a key that nobody has: {}", identity.object_name());
    openssh_ed25519(Sha256::of(label.as_bytes()).as_bytes())
}

/// Whether a key of the project is this one: comments do not count.
pub fn is_same(known: &SshKey, public_key: &str) -> bool {
    canonical(&known.public_key).is_some_and(|known| Some(known) == canonical(public_key))
}

/// Type and body of a key on one line, without the comment; `None` for what is no public key.
fn canonical(key: &str) -> Option<String> {
    let mut words = key.split_whitespace();
    let (kind, body) = (words.next()?, words.next()?);
    let is_kind = kind.starts_with("ssh-") || kind.starts_with("ecdsa-") || kind.starts_with("sk-");
    // Every body begins with the length of its type's name: 0, 0, 0, n.
    let is_body = body.starts_with("AAAA")
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    (is_kind && is_body && !key.trim().contains('\n')).then(|| format!("{kind} {body}"))
}

fn short_digest(key: &str) -> String {
    Sha256::of(key.as_bytes()).to_string()[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hetzner::Labels;
    use moorage_wire::InstallationId;

    const FIRST: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFirst";
    const SECOND: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAISecond";

    fn identity() -> PoolIdentity {
        PoolIdentity::new("eu-1", InstallationId::from_bytes([7; 8]))
    }

    fn known(id: u64, key: &str, labels: Labels) -> SshKey {
        let (name, fingerprint) = (format!("key-{id}"), String::new());
        SshKey { id: SshKeyId(id), name, fingerprint, public_key: key.to_owned(), labels }
    }

    #[test]
    fn missing_keys_are_made_and_dropped_ones_deleted() {
        let found = [
            known(1, &format!("{FIRST} old comment"), identity().labels()),
            known(2, "ssh-ed25519 AAAAC3Gone", identity().labels()),
            known(3, SECOND, Labels::new()),
        ];
        let wanted = [format!("{FIRST} ada@laptop"), FIRST.to_owned(), SECOND.to_owned()];
        let steps = plan(&identity(), &wanted, &found).unwrap();
        assert_eq!(steps.keep, [SshKeyId(1)]);
        assert_eq!(steps.delete, [SshKeyId(2)]);
        let created: Vec<_> = steps.create.iter().map(|key| key.public_key.as_str()).collect();
        assert_eq!(created, [SECOND]);
    }

    #[test]
    fn without_a_key_there_is_one_that_nobody_has() {
        let none: [&str; 0] = [];
        let steps = plan(&identity(), &none, &[]).unwrap();
        let [key] = steps.create.as_slice() else { panic!("{steps:?}") };
        assert!(key.public_key.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"), "{key:?}");
        assert_eq!(key.public_key.len(), "ssh-ed25519 ".len() + 68);
        // Hetzner takes no key twice in a project.
        let another = PoolIdentity::new("eu-2", InstallationId::from_bytes([7; 8]));
        let [other] = plan(&another, &none, &[]).unwrap().create.try_into().unwrap();
        assert_ne!(other.public_key, key.public_key);
        // It goes when there is a real one.
        let there = [known(1, &key.public_key, identity().labels())];
        assert_eq!(plan(&identity(), &none, &there).unwrap().keep, [SshKeyId(1)]);
        assert_eq!(plan(&identity(), &[FIRST], &there).unwrap().delete, [SshKeyId(1)]);
    }

    #[test]
    fn text_that_is_no_public_key_is_refused_with_its_field() {
        for text in [
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-ed25519",
            "hello world",
            "ssh-rsa AAAA$(x)",
        ] {
            let problem = plan(&identity(), &[text.to_owned()], &[]).unwrap_err();
            assert!(problem.message.contains("spec.hetzner.ssh.keys"));
            assert!(!problem.message.contains("PRIVATE"), "the value is repeated");
        }
    }
}

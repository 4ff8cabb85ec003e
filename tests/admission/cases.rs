//! The documents that are refused, and in which words.

use serde_json::{Value, json};

use crate::{INSTANCE, POOL, RELEASE};

/// One document that is refused: a sample with a change.
pub(crate) struct Case {
    what: &'static str,
    pub(crate) sample: &'static str,
    pub(crate) change: Value,
    /// What the answer must say: the field and what is wrong with it.
    says: &'static [&'static str],
}

impl Case {
    /// What is wrong with an answer, if anything.
    pub(crate) fn check(&self, result: Result<(), String>) -> Option<String> {
        match result {
            Ok(()) => Some(format!("{}: was taken", self.what)),
            Err(answer) => {
                let missing = self.says.iter().find(|part| !answer.contains(**part))?;
                Some(format!("{}: does not say {missing:?}: {answer}", self.what))
            }
        }
    }
}

fn instance(what: &'static str, spec: Value, says: &'static [&'static str]) -> Case {
    Case { what, sample: INSTANCE, change: json!({"spec": spec}), says }
}

fn pool(what: &'static str, spec: Value, says: &'static [&'static str]) -> Case {
    Case { what, sample: POOL, change: json!({"spec": spec}), says }
}

fn release(what: &'static str, spec: Value, says: &'static [&'static str]) -> Case {
    Case { what, sample: RELEASE, change: json!({"spec": spec}), says }
}

fn credential(change: Value) -> Value {
    let mut credential = json!({
        "name": "anthropic",
        "type": "AnthropicApiKey",
        "secretRef": {"name": "ada-keys", "key": "anthropic"},
    });
    let object = credential.as_object_mut().unwrap();
    let Value::Object(change) = change else { panic!("not an object") };
    object.extend(change);
    object.retain(|_, value| !value.is_null());
    json!({"credentials": [credential]})
}

pub(crate) fn refused_creations() -> Vec<Case> {
    let mut cases = hostnames();
    cases.extend(credentials());
    cases.extend(pools());
    cases.extend(releases());
    cases.extend(integrations());
    cases.extend([
        instance(
            "more sealed text than leaves room for a status",
            json!({"credentials": (0..5).map(|number| json!({
                "name": format!("key-{number}"), "type": "AnthropicApiKey", "sealed": "A".repeat(80_000),
            })).collect::<Vec<_>>()}),
            &["spec.credentials", "at most 393216 characters together"],
        ),
        pool(
            "more SSH keys than user-data has room for",
            json!({"hetzner": {"ssh": {"user": "ops", "keys": vec![format!("ssh-rsa {}", "A".repeat(716)); 15]}}}),
            &["spec.hetzner.ssh", "ssh.keys are at most 10240 characters together"],
        ),
        instance("no pool", json!({"pool": null}), &["spec.pool", "Required"]),
        instance("an empty pool", json!({"pool": ""}), &["spec.pool"]),
        instance("no hostname", json!({"hostname": null}), &["spec.hostname", "Required"]),
        instance(
            "a deletion policy that is not known",
            json!({"deletionPolicy": "Orphan"}),
            &["spec.deletionPolicy", "\"Delete\", \"Retain\""],
        ),
        instance(
            "a configuration that is no object",
            json!({"config": [1]}),
            &["spec.config", "object"],
        ),
        instance(
            "an approved pairing that is an option",
            json!({"access": {"approvedPairings": ["--all"]}}),
            &["spec.access.approvedPairings[0]", "must be the id of a pairing request"],
        ),
        instance(
            "the same integration twice",
            json!({"integrations": [{"name": "a"}, {"name": "a"}]}),
            &["spec.integrations[1]", "Duplicate value"],
        ),
        Case {
            what: "a name that is no label's value",
            sample: INSTANCE,
            change: json!({"metadata": {"name": "a".repeat(64)}}),
            says: &[
                "metadata.name must be at most 63 characters: it becomes a label of the server",
            ],
        },
    ]);
    cases
}

fn hostnames() -> Vec<Case> {
    let label = "must be one DNS label: a-z, 0-9 and -, starting and ending with a letter or digit";
    let label: &'static [&'static str] = Box::leak(Box::new(["spec.hostname", label]));
    vec![
        instance(
            "a hostname of 59 characters",
            json!({"hostname": "a".repeat(59)}),
            &["spec.hostname", "may not be more than 58"],
        ),
        instance(
            "a hostname of the management API",
            json!({"hostname": "ada-mgmt"}),
            &["spec.hostname", "must not end in -mgmt: those names belong to the management API"],
        ),
        instance("a hostname with a dot", json!({"hostname": "ada.example"}), label),
        instance("a hostname with capitals", json!({"hostname": "Ada"}), label),
        instance("a hostname that starts with a hyphen", json!({"hostname": "-ada"}), label),
        instance("a hostname that ends with a hyphen", json!({"hostname": "ada-"}), label),
        instance("a hostname with a wildcard", json!({"hostname": "*"}), label),
        instance("an empty hostname", json!({"hostname": ""}), &["spec.hostname"]),
    ]
}

fn credentials() -> Vec<Case> {
    let one = "a credential needs exactly one of secretRef and sealed";
    let one: &'static [&'static str] = Box::leak(Box::new(["spec.credentials[0]", one]));
    let name: &'static [&'static str] =
        &["spec.credentials[0].name", "does not start with moorage-"];
    let same = json!({"name": "a", "type": "OpenAiApiKey", "sealed": "AAAA"});
    vec![
        instance("neither secretRef nor sealed", credential(json!({"secretRef": null})), one),
        instance("secretRef and sealed", credential(json!({"sealed": "AAAA"})), one),
        instance(
            "the same credential twice",
            json!({"credentials": [same, same]}),
            &["spec.credentials[1]", "Duplicate value", "\"a\""],
        ),
        instance(
            "a type that is not known",
            credential(json!({"type": "AwsKey"})),
            &[
                "spec.credentials[0].type",
                "\"AwsKey\"",
                "\"AnthropicApiKey\"",
                "\"TelegramBotToken\"",
            ],
        ),
        instance(
            "a Secret that makes a list of a get",
            credential(json!({"secretRef": {"name": "?limit=500", "key": "a"}})),
            &["spec.credentials[0].secretRef.name", "must be the name of a Secret"],
        ),
        instance(
            "a Secret that makes a watch of a get",
            credential(
                json!({"secretRef": {"name": "?watch=true&timeoutSeconds=3600", "key": "a"}}),
            ),
            &["spec.credentials[0].secretRef.name", "must be the name of a Secret"],
        ),
        instance(
            "a Secret of another namespace",
            credential(
                json!({"secretRef": {"name": "../../../moorage-system/secrets/moorage-master-key", "key": "a"}}),
            ),
            &["spec.credentials[0].secretRef.name", "must be the name of a Secret"],
        ),
        instance(
            "a type of Moorage's own",
            credential(json!({"type": "TunnelToken"})),
            &["spec.credentials[0].type", "\"TunnelToken\""],
        ),
        instance("a reserved name", credential(json!({"name": "moorage-tunnel"})), name),
        instance("a name with a slash", credential(json!({"name": "a/../b"})), name),
        instance(
            "a name that is too long",
            credential(json!({"name": "a".repeat(41)})),
            &["spec.credentials[0].name", "40"],
        ),
        instance(
            "sealed to nobody we know",
            credential(json!({"sealedTo": "Nobody"})),
            &["spec.credentials[0].sealedTo", "\"Operator\", \"Agent\""],
        ),
    ]
}

fn integrations() -> Vec<Case> {
    vec![
        release(
            "a plugin without its integrity",
            json!({"integrations": [{"name": "@a/b", "kind": "Plugin", "version": "1.0.0"}]}),
            &["spec.integrations[0]", "a Plugin needs integrity"],
        ),
        release(
            "a skill that servers would resolve",
            json!({"integrations": [{"name": "@a/b", "kind": "Skill", "version": "1.0.0"}]}),
            &["spec.integrations[0]", "an integration needs its artifact"],
        ),
        release(
            "a skill that says itself that it may not be resolved",
            json!({"integrations": [
                {"name": "@a/b", "kind": "Skill", "version": "1.0.0", "allowUnpinned": false},
            ]}),
            &["spec.integrations[0]", "an integration needs its artifact"],
        ),
        release(
            "an artifact of an integration without a checksum",
            json!({"integrations": [{
                "name": "@a/b", "kind": "Skill", "version": "1.0.0",
                "artifact": {"url": "https://releases.example.com/x", "sha256": "latest", "size": 1},
            }]}),
            &["spec.integrations[0].artifact.sha256", "64 lower-case hexadecimal characters"],
        ),
        release(
            "an integrity that is none",
            json!({"integrations": [
                {"name": "@a/b", "kind": "Plugin", "version": "1.0.0", "integrity": "sha512-AAAA"},
            ]}),
            &["spec.integrations[0].integrity", "sha512- and 88 characters of base64"],
        ),
    ]
}

fn pools() -> Vec<Case> {
    vec![
        pool(
            "a token Secret that is a path",
            json!({"hetzner": {"tokenSecretRef": {"name": "../tokens"}}}),
            &["spec.hetzner.tokenSecretRef.name", "must be the name of a Secret"],
        ),
        pool(
            "a network that is none",
            json!({"hetzner": {"ssh": {"user": "ops", "keys": ["ssh-ed25519 AAAA"], "allowFrom": ["anywhere"]}}}),
            &["spec.hetzner.ssh.allowFrom[0]", "must be a network in CIDR notation"],
        ),
        pool(
            "an account id that is none",
            json!({"cloudflare": {"accountId": "me"}}),
            &["spec.cloudflare.accountId", "must be 32 lower-case hexadecimal characters"],
        ),
        pool(
            "a zone id that is none",
            json!({"cloudflare": {"zoneId": "my zone"}}),
            &["spec.cloudflare.zoneId", "must be 32 lower-case hexadecimal characters"],
        ),
        pool(
            "a domain that leaves no room for an Access application",
            json!({"cloudflare": {"domain": format!("{}.example.com", "d".repeat(45))}}),
            &["domain is at most 56 characters"],
        ),
        pool(
            "a domain that is none",
            json!({"cloudflare": {"domain": "https://example.com"}}),
            &["spec.cloudflare.domain", "must be a lower-case domain name such as example.com"],
        ),
        pool(
            "no server type",
            json!({"hetzner": {"serverTypes": []}}),
            &["spec.hetzner.serverTypes", "at least 1"],
        ),
        pool(
            "a negative capacity",
            json!({"capacity": -1}),
            &["spec.capacity", "greater than or equal to 0"],
        ),
        pool(
            "the same namespace twice",
            json!({"allowedNamespaces": ["a", "a"]}),
            &["spec.allowedNamespaces[1]", "Duplicate value"],
        ),
        pool(
            "SSH as root",
            json!({"hetzner": {"ssh": {"user": "root", "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"]}}}),
            &["none of the system's own users"],
        ),
        pool(
            "SSH as the user who tries new agents",
            json!({"hetzner": {"ssh": {"user": "nobody", "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"]}}}),
            &["none of the system's own users"],
        ),
        pool(
            "SSH as a service of systemd",
            json!({"hetzner": {"ssh": {"user": "systemd-network", "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"]}}}),
            &["none of the system's own users"],
        ),
        pool(
            "SSH as somebody who cannot be a user",
            json!({"hetzner": {"ssh": {"user": "Ops", "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"]}}}),
            &["spec.hetzner.ssh.user", "must be a user name"],
        ),
    ]
}

fn releases() -> Vec<Case> {
    vec![
        release(
            "a digest that is none",
            json!({"artifacts": {"node": {"sha256": "abc"}}}),
            &["spec.artifacts.node.sha256", "64 lower-case hexadecimal characters"],
        ),
        release(
            "an address that is none",
            json!({"artifacts": {"node": {"url": "file:///etc/passwd"}}}),
            &["spec.artifacts.node.url", "must be an address that starts with https:// or http://"],
        ),
        release(
            "an empty file",
            json!({"artifacts": {"agent": {"size": 0}}}),
            &["spec.artifacts.agent.size", "greater than or equal to 1"],
        ),
        release(
            "an architecture that is not known",
            json!({"artifacts": {"agent": {"architecture": "riscv"}}}),
            &["architecture", "\"x86\", \"arm\""],
        ),
        release(
            "programs for two architectures",
            json!({"artifacts": {"agent": {"architecture": "arm"}}}),
            &["spec.artifacts", "all artifacts must have the same architecture"],
        ),
        release(
            "a version that is not OpenClaw's",
            json!({"version": "2026.9.7"}),
            &["version must be that of artifacts.openclaw"],
        ),
        release(
            "a missing artifact",
            json!({"artifacts": {"agent": null}}),
            &["spec.artifacts.agent", "Required"],
        ),
    ]
}

pub(crate) fn refused_updates() -> Vec<Case> {
    vec![
        instance(
            "another pool",
            json!({"pool": "us-1"}),
            &[
                "spec.pool",
                "pool cannot be changed: delete the instance and make it in the other pool",
            ],
        ),
        instance(
            "another hostname",
            json!({"hostname": "bob"}),
            &[
                "spec.hostname",
                "hostname cannot be changed: delete the instance and make it with the other name",
            ],
        ),
        pool(
            "another domain",
            json!({"cloudflare": {"domain": "example.org"}}),
            &["domain cannot be changed: make another pool"],
        ),
        instance(
            "an older token of the dashboard",
            json!({"access": {"tokenGeneration": 0}}),
            &["spec.access.tokenGeneration cannot be lowered"],
        ),
        release(
            "another version under the same name",
            json!({"version": "2026.9.7", "artifacts": {"openclaw": {"version": "2026.9.7"}}}),
            &["the spec of a release cannot be changed: make a new release"],
        ),
        release(
            "another digest under the same name",
            json!({"artifacts": {"node": {"sha256": "5".repeat(64)}}}),
            &["the spec of a release cannot be changed: make a new release"],
        ),
    ]
}

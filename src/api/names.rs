//! Every kind of name in the three resources: one pattern each, which the schema and this program both
//! check, so that a name can become a path, a header, a file, an argument or a line of a log as it is.
//! What a name refers to is looked up elsewhere.

use std::{borrow::Borrow, borrow::Cow, fmt, ops::Deref, str::FromStr, sync::LazyLock};

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::cidr;

/// A text that is no name of this kind. What it is instead is not repeated.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("expected {0}")]
pub struct NotAName(&'static str);

/// One kind of name.
struct Kind {
    pattern: LazyLock<Regex>,
    longest: usize,
    expected: &'static str,
    /// What a pattern cannot say.
    also: fn(&str) -> bool,
}

impl Kind {
    fn check(&self, text: &str) -> Result<(), NotAName> {
        let right = text.len() <= self.longest && self.pattern.is_match(text) && (self.also)(text);
        if right { Ok(()) } else { Err(NotAName(self.expected)) }
    }
}

fn anything(_: &str) -> bool {
    true
}

/// `$name`: at most `$longest` bytes that match `$pattern`; `$expected` says so to people.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $longest:literal, $pattern:expr, $expected:literal) => {
        name!($(#[$doc])* $name, $longest, $pattern, $expected, anything);
    };
    ($(#[$doc:meta])* $name:ident, $longest:literal, $pattern:expr, $expected:literal, $also:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            fn kind() -> &'static Kind {
                static KIND: Kind = Kind {
                    pattern: LazyLock::new(|| Regex::new($pattern).expect("a constant pattern")),
                    longest: $longest,
                    expected: $expected,
                    also: $also,
                };
                &KIND
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                Self::kind().check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<String> for $name {
            fn eq(&self, other: &String) -> bool {
                self.0 == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                // The value is left out: errors are logged.
                text.parse().map_err(|NotAName(expected)| {
                    de::Error::invalid_value(de::Unexpected::Other("text"), &expected)
                })
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                // As a rule rather than a `pattern`: the answer says what is expected instead of a
                // regular expression, and does not repeat the value.
                json_schema!({
                    "type": "string",
                    "minLength": 1,
                    "maxLength": $longest,
                    "x-kubernetes-validations": [{
                        "rule": format!("self.matches(r'{}')", $pattern),
                        "message": concat!("must be ", $expected),
                    }],
                })
            }
        }
    };
}

const SUBDOMAIN: &str = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
const LABEL: &str = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
const WORD: &str = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$";
const HEX_32: &str = "^[0-9a-f]{32}$";

name! {
    /// Name of a `HostingPool`, which is also the value of a label on its servers.
    PoolName, 63, SUBDOMAIN,
    "the name of a HostingPool: a-z, 0-9, - and ., at most 63 characters"
}
name! {
    /// Name of an `OpenClawRelease`.
    ReleaseName, 253, SUBDOMAIN,
    "the name of an OpenClawRelease: a-z, 0-9, - and ., at most 253 characters"
}
name! {
    /// As Kubernetes names a `Secret`.
    SecretName, 253, SUBDOMAIN,
    "the name of a Secret: a-z, 0-9, - and ., at most 253 characters"
}
name! {
    /// A key in the data of a Secret.
    SecretKey, 253, r"^([A-Za-z0-9_]|\.[A-Za-z0-9_-])[A-Za-z0-9._-]*$",
    "a key of a Secret: letters, digits, -, _ and ., at most 253 characters"
}
name! {
    /// First label of an instance's host name.
    Hostname, 58, LABEL,
    "one DNS label: a-z, 0-9 and -, starting and ending with a letter or digit, at most 58 characters",
    |text| !text.ends_with("-mgmt")
}
name! {
    /// A label that no instance may take.
    ReservedHostname, 63, LABEL,
    "one DNS label: a-z, 0-9 and -, starting and ending with a letter or digit, at most 63 characters"
}
name! {
    /// A namespace, or `*` for all.
    AllowedNamespace, 63, r"^(\*|[a-z0-9]([a-z0-9-]*[a-z0-9])?)$",
    "the name of a namespace, or * for all"
}
name! {
    /// A type of servers such as `cx33`.
    ServerType, 32, WORD, "a server type such as cx33"
}
name! {
    /// A location such as `fsn1`.
    Location, 32, WORD, "a location such as fsn1"
}
name! {
    /// Name or id of an image such as `debian-13`.
    Image, 64, WORD, "the name of an image such as debian-13"
}
name! {
    /// What pools with one budget have in common.
    BudgetGroup, 63, WORD, "a name of letters, digits, -, _ and ., at most 63 characters"
}
name! {
    /// A user of a server, none of the system's own.
    SshUser, 32, "^[a-z_][a-z0-9_-]*$",
    "a user name of lower-case letters, digits, - and _, at most 32 characters",
    |text| !super::reserved_users::is_reserved(text)
}
name! {
    /// A public key in OpenSSH's format.
    SshPublicKey, 4096,
    r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp256|ecdsa-sha2-nistp384|ecdsa-sha2-nistp521|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]+={0,3}( [^\p{Cc}]*)?$",
    "one public key as in a .pub file of OpenSSH"
}
name! {
    /// A network in CIDR notation.
    Cidr, 43, "^[0-9A-Fa-f:.]+/[0-9]{1,3}$",
    "a network in CIDR notation such as 203.0.113.7/32",
    |text| text.parse::<cidr::Network>().is_ok()
}
name! {
    /// Id of a Cloudflare account.
    CloudflareAccount, 32, HEX_32, "32 lower-case hexadecimal characters"
}
name! {
    /// Id of a Cloudflare zone.
    CloudflareZone, 32, HEX_32, "32 lower-case hexadecimal characters"
}
name! {
    /// Name of a zone.
    Domain, 180, r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])$",
    "a lower-case domain name such as example.com"
}
name! {
    /// Name of a plugin or skill: of an npm package, or a slug of the hub.
    IntegrationName, 214, "^(@[A-Za-z0-9~][A-Za-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]*$",
    "the name of a package or skill such as @scope/name"
}
name! {
    /// Version of a program, plugin or skill.
    Version, 64, "^[A-Za-z0-9][A-Za-z0-9._+~-]*$", "a version such as 2026.9.6 or 1.2.3-rc.1"
}
name! {
    /// Where an artifact is fetched from.
    ArtifactUrl, 2048, r"^https?://[A-Za-z0-9\[][A-Za-z0-9._~:/?#@!$&()*+,;=%\[\]-]*$",
    "an address that starts with https:// or http:// and has no spaces",
    |text| text.parse::<url::Url>().is_ok_and(|url| url.has_host())
}
name! {
    /// A SHA-256 in hexadecimal.
    Sha256Hex, 64, "^[0-9a-f]{64}$", "64 lower-case hexadecimal characters"
}
name! {
    /// Digest of a package as npm writes it.
    Integrity, 95, "^sha512-[A-Za-z0-9+/]{86}==$", "sha512- and 88 characters of base64"
}
name! {
    /// Id of a request of a browser to be let in.
    PairingId, 64, "^[A-Za-z0-9_][A-Za-z0-9_-]*$",
    "the id of a pairing request: letters, digits, - and _, at most 64 characters"
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::secret("ada-keys".parse::<SecretName>().is_ok())]
    #[case::secret_with_a_dot("ada.keys".parse::<SecretName>().is_ok())]
    #[case::key("tls.key".parse::<SecretKey>().is_ok())]
    #[case::hidden_key(".env".parse::<SecretKey>().is_ok())]
    #[case::release("2026.9.6-1".parse::<ReleaseName>().is_ok())]
    #[case::everywhere("*".parse::<AllowedNamespace>().is_ok())]
    #[case::scoped("@openclaw/matrix".parse::<IntegrationName>().is_ok())]
    #[case::skill("weather".parse::<IntegrationName>().is_ok())]
    #[case::version("1.2.3-rc.1+build".parse::<Version>().is_ok())]
    #[case::network("2001:db8::/64".parse::<Cidr>().is_ok())]
    #[case::address("https://[::1]:8443/a?b=c".parse::<ArtifactUrl>().is_ok())]
    #[case::key_with_a_comment("ssh-ed25519 AAAA Jürgen's \"key\" #1".parse::<SshPublicKey>().is_ok())]
    fn names_as_people_use_them_are_taken(#[case] taken: bool) {
        assert!(taken);
    }

    #[rstest]
    #[case::parent("..".parse::<SecretKey>().is_err())]
    #[case::kept_for_kubernetes("..data".parse::<SecretKey>().is_err())]
    #[case::management("ada-mgmt".parse::<Hostname>().is_err())]
    #[case::too_long("a".repeat(59).parse::<Hostname>().is_err())]
    #[case::line_end("ada\n".parse::<Hostname>().is_err())]
    #[case::lookalike("\u{430}da".parse::<Hostname>().is_err())]
    #[case::prefix("10.0.0.0/33".parse::<Cidr>().is_err())]
    #[case::no_host("https:///a".parse::<ArtifactUrl>().is_err())]
    #[case::file("file:///etc/passwd".parse::<ArtifactUrl>().is_err())]
    #[case::option("--registry=x".parse::<IntegrationName>().is_err())]
    #[case::up("@a/../b".parse::<IntegrationName>().is_err())]
    #[case::root("root".parse::<SshUser>().is_err())]
    #[case::two_keys("ssh-ed25519 AAAA\nssh-ed25519 BBBB".parse::<SshPublicKey>().is_err())]
    fn what_would_do_more_than_name_something_is_refused(#[case] refused: bool) {
        assert!(refused);
    }

    #[test]
    fn what_is_refused_is_not_repeated() {
        let error = serde_json::from_str::<SecretName>(r#""?limit=500""#).unwrap_err().to_string();
        assert!(error.contains("the name of a Secret") && !error.contains("limit"), "{error}");
    }
}

//! Credentials: their names, their types, what a value of each type looks like, and the message
//! that carries one sealed value to the agent.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::{
    digest::Sha256,
    envelope::Envelope,
    identity::{Epoch, InstanceId},
    sealing::strict_label,
};

/// Names that start so are Moorage's own (tunnel and gateway tokens).
pub const RESERVED_PREFIX: &str = "moorage-";
/// The tunnel's run token.
pub const TUNNEL_TOKEN: &str = "moorage-tunnel";
/// The token of OpenClaw's gateway.
pub const GATEWAY_TOKEN: &str = "moorage-gateway";

/// The name of a credential: `[a-z]([a-z0-9-]*[a-z0-9])?`, at most 40 characters. It becomes a JSON
/// key and part of a URL path, hence the narrow alphabet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CredentialName(String);

impl CredentialName {
    /// As it stands in documents, paths and file names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is Moorage's own rather than a customer's.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A text that is not a credential name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "a credential name is 1 to 40 characters of a-z, 0-9 and -, starts with a letter and does not end with -"
)]
pub struct InvalidCredentialName;

impl FromStr for CredentialName {
    type Err = InvalidCredentialName;

    fn from_str(text: &str) -> Result<Self, InvalidCredentialName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=40).contains(&text.len())
            && text.bytes().all(allowed)
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('-');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidCredentialName) }
    }
}

impl<'de> Deserialize<'de> for CredentialName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What kind of value a credential is. The type decides the format check and where OpenClaw finds it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::VariantArray,
    strum::IntoStaticStr,
)]
pub enum CredentialType {
    /// An API key of Anthropic; admin keys are refused.
    AnthropicApiKey,
    /// An API key of OpenAI; admin keys are refused.
    OpenAiApiKey,
    OpenRouterApiKey,
    /// An API key of Google's Gemini API.
    GeminiApiKey,
    TelegramBotToken,
    DiscordBotToken,
    /// A Slack bot token (`xoxb-`).
    SlackBotToken,
    /// A Slack app-level token (`xapp-`).
    SlackAppToken,
    SlackSigningSecret,
    /// The JSON file of a Google OAuth client.
    GoogleOAuthClient,
    /// The key of any other model provider.
    ProviderApiKey,
    /// Moorage's own: the run token of the tunnel.
    TunnelToken,
    /// Moorage's own: the token of OpenClaw's gateway.
    GatewayToken,
}

impl CredentialType {
    /// All types that a customer may name.
    pub fn of_customers() -> impl Iterator<Item = Self> {
        <Self as strum::VariantArray>::VARIANTS.iter().copied().filter(|kind| !kind.is_internal())
    }

    /// Whether it is of Moorage's own tokens.
    fn is_internal(self) -> bool {
        matches!(self, Self::TunnelToken | Self::GatewayToken)
    }

    /// The name as it stands in a spec.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses a customer's type name; Moorage's own types are not taken.
    pub fn parse_customer(text: &str) -> Option<Self> {
        Self::of_customers().find(|kind| kind.as_str() == text)
    }

    /// Whether a credential of this type may have this name: Moorage's own names and types belong
    /// together.
    pub fn fits(self, name: &CredentialName) -> bool {
        match self {
            Self::TunnelToken => name.as_str() == TUNNEL_TOKEN,
            Self::GatewayToken => name.as_str() == GATEWAY_TOKEN,
            _ => !name.is_reserved(),
        }
    }

    /// Checks that `value` has the format of this type.
    ///
    /// # Errors
    /// Says which format is expected, never what the value was.
    pub fn check(self, value: &[u8]) -> Result<(), FormatError> {
        let expected = self.expected();
        let text = std::str::from_utf8(value).map_err(|_| FormatError { kind: self, expected })?;
        if self.accepts(text) { Ok(()) } else { Err(FormatError { kind: self, expected }) }
    }

    fn accepts(self, text: &str) -> bool {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let prefixed = |prefix: &str, least: usize, allowed: fn(u8) -> bool| {
            text.strip_prefix(prefix)
                .is_some_and(|rest| rest.len() >= least && rest.bytes().all(allowed))
        };
        match self {
            Self::AnthropicApiKey => {
                prefixed("sk-ant-", 20, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                    && !text.starts_with("sk-ant-admin")
            }
            Self::OpenAiApiKey => {
                prefixed("sk-", 20, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                    && !text.starts_with("sk-admin")
                    && !text.starts_with("sk-ant-")
                    && !text.starts_with("sk-or-")
            }
            Self::OpenRouterApiKey => {
                prefixed("sk-or-", 20, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            }
            Self::GeminiApiKey => text.len() >= 30 && text.len() <= 128 && text.bytes().all(word),
            Self::TelegramBotToken => text.split_once(':').is_some_and(|(id, key)| {
                id.len() >= 6
                    && id.bytes().all(|byte| byte.is_ascii_digit())
                    && key.len() >= 20
                    && key.bytes().all(word)
            }),
            Self::DiscordBotToken => {
                let parts: Vec<_> = text.split('.').collect();
                text.len() >= 50
                    && parts.len() == 3
                    && parts.iter().all(|part| !part.is_empty() && part.bytes().all(word))
            }
            Self::SlackBotToken => {
                prefixed("xoxb-", 10, |b| b.is_ascii_alphanumeric() || b == b'-')
            }
            Self::SlackAppToken => {
                prefixed("xapp-", 10, |b| b.is_ascii_alphanumeric() || b == b'-')
            }
            Self::SlackSigningSecret => {
                text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
            }
            Self::GoogleOAuthClient => is_google_client(text),
            Self::ProviderApiKey | Self::GatewayToken | Self::TunnelToken => {
                (8..=4096).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
            }
        }
    }

    /// A sentence for the person who has to make the value again.
    fn expected(self) -> &'static str {
        match self {
            Self::AnthropicApiKey => {
                "sk-ant- and at least 20 letters, digits, _ or -, and not an admin key"
            }
            Self::OpenAiApiKey => {
                "sk- and at least 20 letters, digits, _ or -, and not an admin key"
            }
            Self::OpenRouterApiKey => "sk-or- and at least 20 letters, digits, _ or -",
            Self::GeminiApiKey => "30 to 128 letters, digits, _ or -",
            Self::TelegramBotToken => {
                "the bot's numeric id, a colon, and at least 20 letters, digits, _ or -"
            }
            Self::DiscordBotToken => "three parts joined by dots, at least 50 characters",
            Self::SlackBotToken => "xoxb- and at least 10 letters, digits or -",
            Self::SlackAppToken => "xapp- and at least 10 letters, digits or -",
            Self::SlackSigningSecret => "32 hexadecimal characters",
            Self::GoogleOAuthClient => {
                "the JSON file of an OAuth client with client_id and client_secret"
            }
            Self::ProviderApiKey | Self::GatewayToken | Self::TunnelToken => {
                "8 to 4096 printable ASCII characters without spaces or line breaks"
            }
        }
    }
}

impl fmt::Display for CredentialType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The file that Google's console gives for an OAuth client: `installed` or `web` at its root.
fn is_google_client(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Client<'a> {
        #[serde(borrow)]
        client_id: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        client_secret: std::borrow::Cow<'a, str>,
    }
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow, alias = "web")]
        installed: Client<'a>,
    }
    text.len() <= 16 * 1024
        && serde_json::from_str::<File<'_>>(text).is_ok_and(|file| {
            !file.installed.client_id.is_empty() && !file.installed.client_secret.is_empty()
        })
}

/// A value that is not of the format of its type.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("the value is not a valid {kind}: expected {expected}")]
pub struct FormatError {
    kind: CredentialType,
    expected: &'static str,
}

/// Body of `PUT /v1/credentials/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SealedCredential {
    /// What the value is; the agent checks the format again.
    pub r#type: CredentialType,
    /// The value, sealed to the agent's certificate.
    pub envelope: Envelope,
    /// What the envelope is bound to.
    pub binding: Binding,
}

/// The context that an envelope to the agent is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Binding {
    /// The operator opened the customer's ciphertext and sealed the value again for this agent.
    Courier {
        /// SHA-256 of the customer's ciphertext. It is part of the label, so it cannot be exchanged
        /// on the way.
        source_sha256: Sha256,
    },
    /// The customer sealed to this agent; the operator passes the envelope on unread.
    BlindCourier {
        /// Namespace of the instance.
        namespace: String,
        /// Name of the Secret, or of the instance for an inline value.
        name: String,
    },
}

impl SealedCredential {
    /// The OAEP label of the envelope.
    pub fn label(&self, instance: InstanceId, epoch: Epoch, name: &CredentialName) -> String {
        self.binding.label(instance, epoch, name, self.r#type)
    }

    /// SHA-256 of the ciphertext that the customer handed in: what receipts and records name.
    pub fn source_sha256(&self) -> Sha256 {
        match &self.binding {
            Binding::Courier { source_sha256 } => *source_sha256,
            Binding::BlindCourier { .. } => self.envelope.sha256(),
        }
    }
}

impl Binding {
    /// The OAEP label for a value bound like this.
    pub fn label(
        &self,
        instance: InstanceId,
        epoch: Epoch,
        name: &CredentialName,
        kind: CredentialType,
    ) -> String {
        match self {
            Self::Courier { source_sha256 } => {
                format!("moorage/v1/{instance}/{epoch}/{name}/{kind}/{source_sha256}")
            }
            Self::BlindCourier { namespace, name } => strict_label(namespace, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(CredentialType::AnthropicApiKey, "sk-ant-api03-abcdefghijklmnopqrst", true)]
    #[case(CredentialType::AnthropicApiKey, "sk-ant-admin01-abcdefghijklmnopqrst", false)]
    #[case(CredentialType::AnthropicApiKey, "sk-ant-short", false)]
    #[case(CredentialType::AnthropicApiKey, "sk-ant-api03-abcdefghijklmnopqrst\n", false)]
    #[case(CredentialType::OpenAiApiKey, "sk-proj-abcdefghijklmnopqrst", true)]
    #[case(CredentialType::OpenAiApiKey, "sk-ant-api03-abcdefghijklmnopqrst", false)]
    #[case(CredentialType::OpenRouterApiKey, "sk-or-v1-abcdefghijklmnopqrst", true)]
    #[case(CredentialType::GeminiApiKey, "AIzaSyA-1234567890abcdefghijklmnopqrstu", true)]
    #[case(CredentialType::TelegramBotToken, "123456789:AAabcdefghijklmnopqrstuvwx", true)]
    #[case(CredentialType::TelegramBotToken, "12345:AAabcdefghijklmnopqrstuvwx", false)]
    #[case(CredentialType::SlackBotToken, "xoxb-1234567890-abc", true)]
    #[case(CredentialType::SlackAppToken, "xoxb-1234567890-abc", false)]
    #[case(CredentialType::SlackSigningSecret, "0123456789abcdef0123456789abcdef", true)]
    #[case(
        CredentialType::GoogleOAuthClient,
        r#"{"installed":{"client_id":"a","client_secret":"b"}}"#,
        true
    )]
    #[case(
        CredentialType::GoogleOAuthClient,
        r#"{"web":{"client_id":"a","client_secret":"b"}}"#,
        true
    )]
    #[case(CredentialType::GoogleOAuthClient, r#"{"installed":{"client_id":"a"}}"#, false)]
    #[case(CredentialType::ProviderApiKey, "with space inside", false)]
    fn the_format_of_each_type_is_checked(
        #[case] kind: CredentialType,
        #[case] value: &str,
        #[case] accepted: bool,
    ) {
        assert_eq!(kind.check(value.as_bytes()).is_ok(), accepted);
    }

    #[test]
    fn a_format_error_does_not_repeat_the_value() {
        let error = CredentialType::AnthropicApiKey.check(b"my-very-secret").unwrap_err();
        assert!(!error.to_string().contains("my-very-secret"));
    }

    #[test]
    fn names_outside_the_alphabet_are_refused() {
        for name in ["", "A", "9a", "a/b", "a..b", "a-", "ä", &"a".repeat(41)] {
            assert_eq!(name.parse::<CredentialName>(), Err(InvalidCredentialName), "{name}");
        }
        assert!("anthropic-2".parse::<CredentialName>().is_ok());
    }

    #[test]
    fn a_customer_cannot_name_the_internal_types() {
        assert_eq!(CredentialType::parse_customer("TunnelToken"), None);
        for kind in CredentialType::of_customers() {
            assert_eq!(CredentialType::parse_customer(kind.as_str()), Some(kind));
        }
    }
}

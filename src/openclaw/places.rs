//! Places of a configuration: where each type of credential belongs, and where OpenClaw takes a key in no
//! other form than the key itself. Whether it takes a reference anywhere else is for its own version to say.

use moorage_wire::{CredentialName, CredentialType};

/// Where OpenClaw takes the key itself and no reference, by the schema of 2026.9.6: it would have to stand in
/// the clear. A variable of the environment would do as well, but every program that OpenClaw starts would see it.
const TEXT_ONLY: [&str; 22] = [
    "channels.a2a.peers.*.outboundToken",
    "channels.a2a.peers.*.token",
    "channels.discord.accounts.*.activities.clientSecret",
    "channels.discord.accounts.*.threadBindings.webhookToken",
    "channels.discord.activities.clientSecret",
    "channels.discord.threadBindings.webhookToken",
    "channels.line.accounts.*.channelAccessToken",
    "channels.line.accounts.*.channelSecret",
    "channels.line.channelAccessToken",
    "channels.line.channelSecret",
    "channels.twitch.accessToken",
    "channels.twitch.accounts.*.accessToken",
    "channels.twitch.accounts.*.clientSecret",
    "channels.twitch.accounts.*.refreshToken",
    "channels.twitch.clientSecret",
    "hooks.gmail.pushToken",
    "hooks.token",
    "mcp.servers.*.env.*",
    "mcp.servers.*.headers.*",
    "nodeHost.mcp.servers.*.env.*",
    "nodeHost.mcp.servers.*.headers.*",
    "plugins.entries.azure-speech.config.apiKey",
];

/// What is said of a place in [`TEXT_ONLY`].
pub(super) const NO_WAY: &str = "OpenClaw takes no reference there, only the key itself, which would stand in the clear: no credential can be given for it, so leave it out";

/// Whether a place is one at which no credential can be given.
pub(super) fn is_text_only(path: &[String]) -> bool {
    TEXT_ONLY.iter().any(|place| fits(place, path))
}

fn fits(pattern: &str, path: &[String]) -> bool {
    let mut keys = path.iter();
    pattern.split('.').all(|part| keys.next().is_some_and(|key| part == "*" || part == key))
        && keys.next().is_none()
}

/// Where a credential belongs by its type, if that means exactly one place.
pub(super) fn of(kind: CredentialType, name: &CredentialName) -> Option<Vec<String>> {
    let path: &[&str] = match kind {
        CredentialType::AnthropicApiKey => &["models", "providers", "anthropic", "apiKey"],
        CredentialType::OpenAiApiKey => &["models", "providers", "openai", "apiKey"],
        CredentialType::OpenRouterApiKey => &["models", "providers", "openrouter", "apiKey"],
        CredentialType::GeminiApiKey => &["models", "providers", "google", "apiKey"],
        CredentialType::ProviderApiKey => &["models", "providers", name.as_str(), "apiKey"],
        CredentialType::TelegramBotToken => &["channels", "telegram", "botToken"],
        CredentialType::DiscordBotToken => &["channels", "discord", "token"],
        CredentialType::SlackBotToken => &["channels", "slack", "botToken"],
        CredentialType::SlackAppToken => &["channels", "slack", "appToken"],
        CredentialType::SlackSigningSecret => &["channels", "slack", "signingSecret"],
        // A file of its own, which the gog skill reads; Moorage's own tokens have their places.
        CredentialType::GoogleOAuthClient
        | CredentialType::TunnelToken
        | CredentialType::GatewayToken => return None,
    };
    Some(path.iter().map(|&key| key.to_owned()).collect())
}

/// What cannot start without the key at this place: a channel, or one account of it.
pub(super) fn needy(path: &[String]) -> Option<&[String]> {
    match path {
        [channels, _, accounts, _, _] if channels == "channels" && accounts == "accounts" => {
            path.get(..4)
        }
        [channels, _, _] if channels == "channels" => path.get(..2),
        _ => None,
    }
}

//! What a text looks like where a key is expected: a variable, a placeholder, a word that stands for
//! no key, or something random.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

/// A whole text that stands for a key: a variable of the environment in any of the forms that
/// OpenClaw, its documentation and templates use, or what documentation and exports have in its place.
pub const PLACEHOLDER: &str = concat!(
    r"^(?:(?i:bearer|basic|token|bot|oauth:)\s*)?(?:",
    r"\$\{[A-Za-z_][A-Za-z0-9_]*\}",
    r"|\$[A-Z_][A-Z0-9_]*",
    r"|\{\{[^{}]*\}\}",
    r"|<[^<>]*>",
    r"|(?:secretref-)?env:[A-Za-z0-9_:]+",
    r"|secretref-[a-z]+",
    r"|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+",
    r"|[*.•…]+|[xX]{3,}",
    r"|[A-Za-z_-]{0,12}(?:\.\.\.|…)",
    r"|\[?(?i:redacted)\]?|__OPENCLAW_REDACTED__",
    r"|(?i:your|insert|enter)[-_ ][A-Za-z_ -]+",
    r")$"
);

/// A whole text that says something about a key and is none.
pub const NO_VALUE: &str = concat!(
    r"^(?i:none|null|true|false|auto|off|on|yes|no|required|optional|default|enabled|disabled",
    r"|string|text|include|omit|same-origin|token|password|secret|api[-_]?key)$"
);

/// The words that people give a model which asks for no key.
pub const DUMMY: &str = r"^[A-Za-z][A-Za-z0-9]*(?:[-_. ][A-Za-z0-9]+)*$";

/// For the API server: what stands in an Authorization header.
pub const SCHEME: &str = r"^(?i:basic|bearer|token|bot|apikey|digest|key)\s+[^\s]{4,}$";

/// For the API server: addresses on the same machine or network.
pub const LOCAL: &str = concat!(
    r"(?i)^\s*[a-z][a-z0-9+.-]*://(?:[^/@]*@)?(?:127\.[0-9.]+|10\.[0-9.]+|192\.168\.[0-9.]+",
    r"|172\.(?:1[6-9]|2[0-9]|3[01])\.[0-9.]+|169\.254\.[0-9.]+|0\.0\.0\.0|\[[0-9a-f:.]+\]",
    r"|[a-z0-9_-]+|[a-z0-9._-]+\.(?:localhost|local|internal|lan|home\.arpa))\.?(?::[0-9]*)?(?:[/?#].*)?$",
);

/// Longer than any word for no key, shorter than most keys.
pub const LONGEST_DUMMY: usize = 24;

static PLACEHOLDERS: LazyLock<Regex> = LazyLock::new(|| compiled(PLACEHOLDER));
static NO_VALUES: LazyLock<Regex> = LazyLock::new(|| compiled(NO_VALUE));
static DUMMIES: LazyLock<Regex> = LazyLock::new(|| compiled(DUMMY));

pub(super) fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns are constants, and all are compiled in a test")
}

/// The text without what is not seen, and with the letters that only look different as what they look
/// like: copying from chats and documents brings both along.
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let visible = text.chars().filter(|character| {
        !matches!(character,
            '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
    });
    let folded = visible.map(|character| match character {
        '\u{ff01}'..='\u{ff5e}' => {
            char::from_u32(u32::from(character) - 0xfee0).unwrap_or(character)
        }
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => ' ',
        other => other,
    });
    Cow::Owned(folded.collect())
}

/// Whether the whole text only stands for a key.
pub fn is_placeholder(text: &str) -> bool {
    PLACEHOLDERS.is_match(text)
}

/// Whether the whole text is a word that says something about a key and is none.
pub fn is_no_value(text: &str) -> bool {
    NO_VALUES.is_match(text)
}

/// Whether a model on the same machine may be given this for a key, because it asks for none: words,
/// not what was drawn at random.
pub fn is_dummy(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    text.len() <= LONGEST_DUMMY && digits <= 4 && DUMMIES.is_match(text)
}

/// Whether this is where a file is, rather than what is in it.
pub fn is_path(text: &str) -> bool {
    ["/", "~/", "./", "../", "file:"].iter().any(|start| text.starts_with(start))
}

/// Whether it is what stands in an Authorization header: a scheme, and something behind it.
pub fn has_scheme(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(char::is_whitespace) else { return false };
    let schemes = ["basic", "bearer", "token", "bot", "apikey", "digest", "key"];
    let rest = rest.trim();
    schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))
        && rest.len() >= 4
        && !rest.contains(char::is_whitespace)
}

/// Whether it was rather drawn at random than written by a person: one word of at least this length,
/// with digits among letters.
pub fn is_random(text: &str, least: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+/=.~:".contains(&byte);
    text.len() >= least
        && text.bytes().all(allowed)
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !is_path(text)
        && !text.contains("://")
}

/// Whether an address is on the same machine or network, so that no key is asked for. The same goes
/// for OpenClaw.
pub fn is_local(address: &str) -> bool {
    let Ok(url) = url::Url::parse(address) else { return false };
    match url.host() {
        Some(url::Host::Ipv4(ip)) => {
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()
        }
        Some(url::Host::Ipv6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Some(url::Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            !name.contains('.')
                || [".localhost", ".local", ".internal", ".lan", ".home.arpa"]
                    .iter()
                    .any(|end| name.ends_with(end))
        }
        None => false,
    }
}

//! What keys look like wherever they stand: alone, in an address, a header, an argument, an
//! environment block, or quoted in another text. The expressions are RE2, so that the API server can
//! match them as well. Those that need more than one look are done here alone.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose};
use regex::{Regex, RegexSet};

use super::values::compiled;

/// What stands before a key that is not alone: no letter and no digit.
macro_rules! key {
    ($($pattern:literal)+) => { concat!(r"(?:^|[^A-Za-z0-9])(?:", $($pattern,)+ ")") };
}

/// Names that say, before an equals sign or a colon, that a key follows. A bare `token` has nothing
/// before it, so that a token for the next page is none.
macro_rules! named {
    ($($pattern:literal)+) => {
        concat!(
            r"(?i:api[-_]?key|secret|passwd|password|passphrase|(?:access|private|account|auth)[-_]?key",
            r"|(?:api|auth|access|bot|app|user|client|bearer|refresh|session|hook|github|gitlab)[-_]?token",
            r"|(?:^|[^A-Za-z0-9_-]|--)token|authorization)",
            $($pattern,)+
        )
    };
}

/// Keys with a form that their providers gave them.
pub const FORMS: &str = key!(
    r"(?i:sk-(?:ant|proj|svcacct|admin|or|none)-[A-Za-z0-9_-]{16,})"
    r"|(?i:sk-(?:[a-z0-9]{2,12}-)?[A-Za-z0-9]{20,})"
    r"|(?i:[sr]k_(?:live|test|prod)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{20,}|sk_[0-9a-f]{40,})"
    r"|(?i:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|gl[a-z]{2,5}-[A-Za-z0-9_-]{20,})"
    r"|(?i:xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,})"
    r"|A(?:KIA|SIA|IDA|ROA)[A-Z0-9]{16}"
    r"|(?i:AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,}|1//0[A-Za-z0-9_-]{30,})"
    r"|(?i:hf_[A-Za-z0-9]{30,}|xai-[A-Za-z0-9]{40,}|gsk_[A-Za-z0-9]{40,}|pplx-[A-Za-z0-9]{32,})"
    r"|(?i:nvapi-[A-Za-z0-9_-]{40,}|tvly-[A-Za-z0-9-]{20,}|csk-[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{37})"
    r"|-----BEGIN [A-Z0-9 ]{0,20}PRIVATE KEY"
);

/// Keys with a form that fewer people have, and tokens that name their form themselves.
pub const RARER_FORMS: &str = key!(
    r"(?:bot)?[0-9]{6,12}:[A-Za-z0-9_-]{25,}"
    r"|[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r"|(?i:npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}|do[opr]_v1_[0-9a-f]{40,}|dapi[0-9a-f]{32})"
    r"|(?i:ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{40,}|lin_(?:api|oauth)_[A-Za-z0-9]{30,})"
    r"|(?i:shp(?:at|ca|pa|ss)_[0-9a-f]{32}|figd_[A-Za-z0-9_-]{30,}|pat[A-Za-z0-9]{14}\.[0-9a-f]{60,})"
    r"|(?i:hvs\.[A-Za-z0-9_-]{20,}|dp\.[a-z]{2}\.[A-Za-z0-9]{40,}|sbp_[0-9a-f]{40}|tskey-[a-z]+-[A-Za-z0-9-]{16,})"
    r"|(?i:glsa_[A-Za-z0-9_]{30,}|glc_[A-Za-z0-9+/=]{40,}|lsv2_[a-z]{2}_[0-9a-f_]{32,}|jina_[A-Za-z0-9_-]{40,})"
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|(?i:key-[0-9a-f]{32}|fc-[0-9a-f]{32}|BSA[A-Za-z0-9_-]{26,29})"
    r"|(?i:AGE-SECRET-KEY-1[A-Z0-9]{20,}|nsec1[a-z0-9]{50,}|syt_[A-Za-z0-9_-]{20,}|oauth:[a-z0-9]{25,})"
    r"|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9]+/[A-Za-z0-9/]{10,}"
    r"|discord(?:app)?\.com/api/webhooks/[0-9]+/[A-Za-z0-9_-]{20,}"
);

/// A password in an address, and the credentials of databases.
pub const ADDRESSES: &str = concat!(
    r#"(?i:[a-z][a-z0-9+.-]*)://[^\s/?#@:"'<>]*:[^\s/?#@$<{*%"'][^\s/?#@"'<>]*@"#,
    r#"|[A-Za-z0-9_.-]+:[^\s@/:$<{*"']+@(?:tcp|unix)\("#,
    r"|[?&](?i:key|api[-_]?key|token|access[-_]token|auth|sig|signature|secret|password|pass)=",
    r"[A-Za-z0-9._~%+/-]*[0-9][A-Za-z0-9._~%+/=-]{7,}",
);

/// A name that says so, and what follows it: in an argument, an assignment or a quoted document.
pub const ASSIGNMENTS: &str = named!(
    r#"["']?(?:=["']?[^\s"'&,;$<{*%\\\[(.][^\s"'&,;]{5,}"#
    r#"|["']?\s*[:=]\s*["']?(?:(?i:bearer|basic|token|bot)\s+)?"#
    r#"[^\s"'&,;$<{*%\\\[(]{4,}[0-9][^\s"'&,;<{]{2,})"#
    r"|--[a-z-]*(?i:api-?key|token|secret|password)\s+[A-Za-z0-9_/+.~-]{3,}[0-9][A-Za-z0-9_/+.~=-]{3,}"
    r#"|(?:[A-Z0-9]+_)+(?:TOKEN|SECRET|PASSWORD|PASS|PWD|KEY|PAT)=["']?[^\s"'&,;$<{*%\\\[(.][^\s"'&,;]{5,}"#
    r"|(?i:bearer|basic)\s+[A-Za-z._~+/-]{0,60}[0-9][A-Za-z0-9._~+/-]{11,}"
);

/// All that the API server matches as well, with a name for each.
pub const SHARED: [(&str, &str); 4] = [
    ("forms", FORMS),
    ("rarerForms", RARER_FORMS),
    ("addresses", ADDRESSES),
    ("assignments", ASSIGNMENTS),
];

/// A run of letters and digits as long as a key of Hetzner's, between what ends words.
pub const LONG_RUN: &str = r#"(?:^|[\s"'`=:,;(])([A-Za-z0-9]{64})(?:$|[\s"'`,;)&])"#;

static KEYS: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(SHARED.map(|(_, pattern)| pattern))
        .expect("the patterns are constants, and all are compiled in a test")
});
static LONG_RUNS: LazyLock<Regex> = LazyLock::new(|| compiled(LONG_RUN));

/// What is encoded in base64 is looked into, if it is not longer than this.
const LONGEST_ENCODED: usize = 8192;

/// Whether a key stands anywhere in the text.
pub fn has_key(text: &str) -> bool {
    matches(text) || decoded(text).any(|inner| matches(&inner))
}

fn matches(text: &str) -> bool {
    // A digest is written in lower-case hexadecimal digits; a key has others as well.
    let digest = |run: &str| run.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    KEYS.is_match(text)
        || LONG_RUNS
            .captures_iter(text)
            .any(|found| !digest(found.get(1).map_or("", |run| run.as_str())))
}

/// What is encoded in the text: percent signs of addresses, and base64.
fn decoded(text: &str) -> impl Iterator<Item = String> + '_ {
    let percent = text.contains('%').then(|| percent_decoded(text));
    let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
    let words = text
        .split(move |character: char| u8::try_from(character).map_or(true, |byte| !alphabet(byte)))
        .filter(|word| (24..=LONGEST_ENCODED).contains(&word.len()));
    percent.into_iter().chain(words.filter_map(from_base64))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = hex.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let escaped = byte.filter(|_| *first == b'%');
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn from_base64(word: &str) -> Option<String> {
    let word = word.trim_matches('=');
    let bytes = general_purpose::STANDARD_NO_PAD
        .decode(word)
        .or_else(|_| general_purpose::URL_SAFE_NO_PAD.decode(word))
        .ok()?;
    String::from_utf8(bytes).ok()
}

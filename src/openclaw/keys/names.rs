//! What the name of a field says of its value. OpenClaw itself goes by names as well: its schema marks
//! whatever ends in `token` or contains `password`, `secret`, an API, private or encryption key.

/// What the name of a field says of its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Field {
    #[default]
    Other,
    /// It is the key of an API: for a model on the same machine any word will do.
    ApiKey,
    /// It is a key or token.
    Secret,
    /// It is a password; a number is one as well.
    Password,
    /// It has several, by name or in a list.
    Several,
    /// It is a key with what belongs to it, or the path of a file with both.
    Credentials,
    /// It may be one: so it is if it looks like one.
    Suspicious,
}

/// Ends of names, in lower case; between the words may be a separator or none. The first that fits
/// counts.
const ENDS: [(&str, Field); 29] = [
    ("api-key", Field::ApiKey),
    ("api-keys", Field::Several),
    ("tokens", Field::Several),
    ("secrets", Field::Several),
    ("passwords", Field::Several),
    ("private-keys", Field::Several),
    ("access-keys", Field::Several),
    ("password", Field::Password),
    ("passwd", Field::Password),
    ("passphrase", Field::Password),
    ("passcode", Field::Password),
    ("pwd", Field::Password),
    ("secret", Field::Secret),
    ("token", Field::Secret),
    ("secret-key", Field::Secret),
    ("private-key", Field::Secret),
    ("access-key", Field::Secret),
    ("encrypt-key", Field::Secret),
    ("encryption-key", Field::Secret),
    ("signing-key", Field::Secret),
    ("shared-key", Field::Secret),
    ("account-key", Field::Secret),
    ("master-key", Field::Secret),
    ("auth-key", Field::Secret),
    ("auth-tag", Field::Secret),
    ("authorization", Field::Secret),
    ("service-account", Field::Credentials),
    ("credentials", Field::Credentials),
    ("credential", Field::Credentials),
];

/// Last words of names that are keys if they look like one: `monkey` ends otherwise.
const LAST_WORDS: [&str; 6] = ["auth", "key", "cookie", "jwt", "bearer", "pat"];

/// Whole names, in lower case and without separators, that are keys only on their own.
const WHOLE: [(&str, Field); 5] = [
    ("pass", Field::Password),
    ("sig", Field::Suspicious),
    ("signature", Field::Suspicious),
    ("session", Field::Suspicious),
    ("keys", Field::Several),
];

/// What stands before `token` or `tokens` where it is a place in a list, a word of a language model or
/// an amount, and no key.
const HARMLESS_TOKENS: [&str; 32] = [
    "next",
    "page",
    "continuation",
    "cursor",
    "sync",
    "start",
    "starting",
    "end",
    "stop",
    "eos",
    "bos",
    "pad",
    "unk",
    "sep",
    "mask",
    "special",
    "silent",
    "silence",
    "ack",
    "image",
    "max",
    "min",
    "input",
    "output",
    "completion",
    "context",
    "total",
    "prompt",
    "cached",
    "thinking",
    "reasoning",
    "budget",
];

/// What the name of a field says of its value.
pub fn field(name: &str) -> Field {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    if is_harmless_token(name, &plain) {
        return Field::Other;
    }
    let whole = WHOLE.iter().find(|(whole, _)| plain == *whole);
    let end = || ENDS.iter().find(|(end, _)| ends_with(&plain, end));
    if let Some((_, field)) = whole.or_else(end) {
        return *field;
    }
    let last = words(name).next_back().unwrap_or_default();
    if LAST_WORDS.contains(&last.as_str()) { Field::Suspicious } else { Field::Other }
}

/// Whether a name without separators ends so.
fn ends_with(plain: &str, end: &str) -> bool {
    let mut rest = Some(plain);
    for word in end.rsplit('-') {
        rest = rest.and_then(|rest| rest.strip_suffix(word));
    }
    rest.is_some()
}

/// For the API server: the names of fields that hold one key and nothing else.
pub fn field_pattern() -> String {
    let one = |field: &Field| matches!(field, Field::ApiKey | Field::Secret | Field::Password);
    let ends = ENDS.iter().filter(|(_, field)| one(field));
    let ends: Vec<_> = ends.map(|(end, _)| end.replace('-', "[-_. ]?")).collect();
    format!("(?i:(?:{})$)", ends.join("|"))
}

/// For the API server: the names among them that are none.
pub fn harmless_pattern() -> String {
    let words = HARMLESS_TOKENS.join("|");
    let capitalized: Vec<_> =
        HARMLESS_TOKENS.iter().map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect();
    format!("(?i:(?:^|[-_. ])(?:{words})[-_. ]?token$)|[a-z0-9](?:{})Token$", capitalized.join("|"))
}

/// For the API server: the name of an API's key.
pub const API_KEY: &str = "(?i:api[-_. ]?key$)";
/// For the API server: names of fields with several keys.
pub const SEVERAL: &str = "(?i:(?:api[-_. ]?key|secret|password|(?:private|access)[-_. ]?key)s$)";
/// For the API server: names of fields with a key and what belongs to it.
pub const CREDENTIALS: &str = "(?i:(?:service[-_. ]?account|credentials?)$)";
/// For the API server: names of fields with a header's value.
pub const AUTH: &str = "(?i:(?:^|[-_. ])auth$)|[a-z0-9]Auth$";

fn is_harmless_token(name: &str, plain: &str) -> bool {
    let Some(before) = plain.strip_suffix("tokens").or_else(|| plain.strip_suffix("token")) else {
        return false;
    };
    // Where the name has no parts, all of what is before has to be the word.
    let last = words(name).rev().nth(1).unwrap_or_else(|| before.to_owned());
    HARMLESS_TOKENS.contains(&last.as_str())
}

/// The words of a name such as `nextPageToken`, `next_page_token` or `NEXT-PAGE-TOKEN`, in lower case.
fn words(name: &str) -> impl DoubleEndedIterator<Item = String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for character in name.chars() {
        let begins = character.is_ascii_uppercase() && was_lower;
        if begins || !character.is_ascii_alphanumeric() {
            words.push(String::new());
        }
        if character.is_ascii_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(character.to_ascii_lowercase());
        }
        was_lower = character.is_ascii_lowercase() || character.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    words.into_iter()
}

/// Last two names of fields that OpenClaw takes a `SecretRef` in and that the last name alone does not
/// tell.
pub fn field_in(parent: &str, name: &str) -> Field {
    match (parent, name) {
        ("auth", "value") | ("tls", "key") => Field::Secret,
        _ => field(name),
    }
}

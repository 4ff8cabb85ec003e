//! Makes text from outside safe to show: the clouds quote what they were sent, tokens included
//! (Hetzner's 429 names the API token in its message).

/// The most characters of an upstream message that are passed on.
pub const MAX_MESSAGE_CHARS: usize = 300;

/// Runs of token characters from this length on are taken for a secret. Hetzner's tokens have
/// 64 characters, Cloudflare's 40, a 32-byte secret in base64 44 and its hexadecimal keys 32 or 37.
const SHORTEST_TOKEN: usize = 32;

const REDACTED: &str = "[redacted]";

/// Removes `secrets` and whatever looks like one from `message`, makes control characters
/// spaces and cuts the result to [`MAX_MESSAGE_CHARS`] characters. UUIDs stay readable.
pub fn redact(message: &str, secrets: &[&str]) -> String {
    let mut text = message.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, REDACTED);
    }
    cut(&replace_token_like(&text))
}

fn replace_token_like(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    for character in text.chars() {
        if is_token_character(character) {
            run.push(character);
            continue;
        }
        flush(&mut run, &mut out);
        out.push(if character.is_control() { ' ' } else { character });
    }
    flush(&mut run, &mut out);
    out
}

fn flush(run: &mut String, out: &mut String) {
    if run.len() >= SHORTEST_TOKEN && !is_uuid(run) {
        out.push_str(REDACTED);
    } else {
        out.push_str(run);
    }
    run.clear();
}

/// The alphabets of hexadecimal, base64 and base64url. Dots are left out, or every longer host
/// name would go; the parts of a JWT are long enough by themselves.
fn is_token_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '+' | '/' | '=')
}

/// True for 8-4-4-4-12 hexadecimal digits.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_MESSAGE_CHARS {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX_MESSAGE_CHARS - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::the_token_however_short("bad token s3cret!", "bad token [redacted]!")]
    #[case::a_hetzner_token(
        "limit of project jEheVytlAoFl7F8MqUQ7jAo2hOXASztXa1234567890abcdefghijklmnopqrstuv reached",
        "limit of project [redacted] reached"
    )]
    #[case::a_base64_secret(
        "tunnel_secret AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= refused",
        "tunnel_secret [redacted] refused"
    )]
    #[case::a_uuid_stays(
        "tunnel 6ff42ae2-765d-4adf-8112-31c55c1551ef has connections",
        "tunnel 6ff42ae2-765d-4adf-8112-31c55c1551ef has connections"
    )]
    #[case::a_long_host_name_stays(
        "ada-mgmt.customers.production.example.com is taken",
        "ada-mgmt.customers.production.example.com is taken"
    )]
    #[case::line_breaks_become_spaces("a\nb\u{1b}[31m", "a b [31m")]
    fn messages_are_made_safe(#[case] message: &str, #[case] expected: &str) {
        assert_eq!(redact(message, &["s3cret", ""]), expected);
    }

    #[test]
    fn a_token_at_the_cut_is_not_left_in_half() {
        let token = "t".repeat(31);
        let message = format!("{}{token}", "x ".repeat(140));
        assert!(!redact(&message, &[&token]).contains("tt"));
    }

    proptest! {
        #[test]
        fn no_message_passes_the_secret_or_the_length(
            before in ".{0,200}", secret in "[A-Za-z0-9]{8,64}", after in ".{0,200}",
        ) {
            prop_assume!(!REDACTED.contains(&secret));
            let shown = redact(&format!("{before}{secret}{after}"), &[&secret]);
            prop_assert!(!shown.contains(&secret));
            prop_assert!(shown.chars().count() <= MAX_MESSAGE_CHARS);
        }
    }
}

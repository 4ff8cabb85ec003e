//! Fixed-size bytes as lower-case hexadecimal: one text for one value, so that texts can be compared.

use thiserror::Error;

/// A text that is not the lower-case hexadecimal it should be.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{what} must be {length} lower-case hexadecimal characters")]
pub struct IdError {
    what: &'static str,
    length: usize,
}

/// Parses exactly `N` bytes of lower-case hexadecimal. `what` names them in the error.
pub fn parse<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], IdError> {
    let mut bytes = [0; N];
    let is_lower = !text.bytes().any(|letter| letter.is_ascii_uppercase());
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) if is_lower => Ok(bytes),
        _ => Err(IdError { what, length: 2 * N }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_text() {
        assert_eq!(parse("it", "00ff"), Ok([0, 255]));
        let error = IdError { what: "it", length: 4 };
        for text in ["00FF", "00fF", "0ff", "00ff0", "00ffab", "00fg", " 0ff", ""] {
            assert_eq!(parse::<2>("it", text), Err(IdError { ..error }), "{text}");
        }
    }
}

//! Fixed-size bytes as lower-case hexadecimal: one text for one value, so that texts can be compared.

use thiserror::Error;

/// An identifier that is not the lower-case hexadecimal it should be.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{what} must be {length} lower-case hexadecimal characters")]
pub struct IdError {
    what: &'static str,
    length: usize,
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hexadecimal of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    let digits =
        bytes.iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

/// Parses exactly `N` bytes of lower-case hexadecimal.
pub fn unhex<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], IdError> {
    let error = IdError { what, length: 2 * N };
    let nibble = |digit: u8| HEX.iter().position(|known| *known == digit);
    let mut out = [0; N];
    if text.len() != 2 * N {
        return Err(error);
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        match (nibble(pair[0]), nibble(pair[1])) {
            (Some(high), Some(low)) => *byte = u8::try_from(high << 4 | low).unwrap_or_default(),
            _ => return Err(error),
        }
    }
    Ok(out)
}

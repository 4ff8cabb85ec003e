//! Unambiguous byte strings to authenticate: every field is preceded by its length, so that no two
//! different lists of fields ever give the same bytes.

/// Joins `context` and `fields`, each as a big-endian `u64` length followed by its bytes.
pub(crate) fn frame(context: &str, fields: &[&[u8]]) -> Vec<u8> {
    let parts = std::iter::once(context.as_bytes()).chain(fields.iter().copied());
    let mut framed = Vec::with_capacity(64 * (fields.len() + 1));
    for part in parts {
        framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
        framed.extend_from_slice(part);
    }
    framed
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn moving_a_byte_between_fields_changes_the_frame() {
        assert_ne!(frame("c", &[b"ab", b"c"]), frame("c", &[b"a", b"bc"]));
        assert_ne!(frame("c", &[b"", b"x"]), frame("c", &[b"x", b""]));
        assert_ne!(frame("c", &[b"x"]), frame("cx", &[]));
    }
}

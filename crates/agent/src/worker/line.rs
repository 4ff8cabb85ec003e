//! Reading one bounded line that may hold a credential: no copy is left behind when the buffer grows.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use zeroize::Zeroizing;

const FIRST_CAPACITY: usize = 16 * 1024;

/// Reads up to the first line break, which is not returned, at most `limit` bytes. What follows the
/// line break is dropped.
pub(super) async fn read_line<R>(reader: &mut R, limit: usize) -> io::Result<Zeroizing<Vec<u8>>>
where
    R: AsyncRead + Unpin,
{
    let mut line = Zeroizing::new(Vec::with_capacity(FIRST_CAPACITY.min(limit)));
    loop {
        if line.len() == line.capacity() {
            if line.len() >= limit {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
            }
            let capacity = line.capacity().saturating_mul(2).min(limit);
            let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
            larger.extend_from_slice(&line);
            line = larger;
        }
        let before = line.len();
        if reader.read_buf(&mut *line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = line[before..].iter().position(|byte| *byte == b'\n') {
            line.truncate(before + end);
            return Ok(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_of_any_length_up_to_the_limit_is_read() {
        for length in [0, 1, FIRST_CAPACITY - 1, FIRST_CAPACITY, 100_000] {
            let text = format!("{}\nrest", "x".repeat(length));
            let line = read_line(&mut text.as_bytes(), 200_000).await.unwrap();
            assert_eq!(line.len(), length);
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_or_ends_early_is_refused() {
        let long = "x".repeat(200_001);
        let error = read_line(&mut long.as_bytes(), 200_000).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = read_line(&mut &b"half"[..], 200_000).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

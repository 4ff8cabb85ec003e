//! Messages as lines of JSON, one each.

use std::io;

use serde::Serialize;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};

/// Longest line that is accepted where nothing else is said, in bytes.
const LINE_LIMIT: u64 = 1 << 20;

/// Reads one line of JSON. The reader may have read on: go on with it, not with what is below it.
pub(crate) async fn read_line<T, R>(reader: &mut R) -> io::Result<T>
where
    T: serde::de::DeserializeOwned,
    R: AsyncBufRead + Unpin,
{
    read_line_of(reader, LINE_LIMIT).await
}

/// The same with a longest line of its own, in bytes.
pub(crate) async fn read_line_of<T, R>(reader: &mut R, limit: u64) -> io::Result<T>
where
    T: serde::de::DeserializeOwned,
    R: AsyncBufRead + Unpin,
{
    let mut line = String::new();
    let read = (&mut *reader).take(limit).read_line(&mut line).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_str(&line).map_err(|error| {
        // The category alone: the text of a parse error may quote what was sent.
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("malformed line: {:?} error", error.classify()),
        )
    })
}

/// Writes one line of JSON.
pub(crate) async fn write_line<T, W>(writer: &mut W, message: &T) -> io::Result<()>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
{
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

//! Conversations on a private Unix socket, as the installer and the worker hold them with the agent:
//! one JSON line in, one JSON line out, one request per connection. The kernel says who asks.
//! What is asked and done is not known here. Lines may hold a credential, so that no copy is left
//! behind when a buffer grows.

use std::{io, path::Path, str::FromStr, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};
use zeroize::Zeroizing;

use crate::{
    accounts::{self, AccountError},
    disk::to_json,
};

const FIRST_CAPACITY: usize = 16 * 1024;
const MOST_CONVERSATIONS: usize = 16;

/// The user that may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(u32);

impl Client {
    /// Whether this is the user.
    pub(crate) fn is(self, user: u32) -> bool {
        self.0 == user
    }
}

impl FromStr for Client {
    type Err = AccountError;

    /// Takes a number, or the name of a local user.
    fn from_str(text: &str) -> Result<Self, AccountError> {
        accounts::user(text).map(|user| Self(user.uid))
    }
}

/// Has every connection conversed with, until dropped. One that gets no slot is to be told to come
/// again.
pub(crate) async fn accept_all<F>(
    listener: &UnixListener,
    converse: impl Fn(UnixStream, Option<OwnedSemaphorePermit>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(MOST_CONVERSATIONS));
    let mut conversations = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = conversations.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let slot = Arc::clone(&slots).try_acquire_owned().ok();
                conversations.spawn(converse(stream, slot));
            }
            Err(error) => {
                // Out of file descriptors, for example: others have to end first.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Asks the one question of a conversation. The caller sets the deadline.
pub(crate) async fn ask<A: DeserializeOwned>(
    socket: &Path,
    question: &impl Serialize,
    longest_answer: usize,
) -> io::Result<A> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&to_json(question, b"\n")).await?;
    parse(&read_line(&mut stream, longest_answer).await?)
}

/// An answer. Its text is not repeated.
pub(crate) fn parse<A: DeserializeOwned>(answer: &[u8]) -> io::Result<A> {
    serde_json::from_slice(answer).map_err(|error| {
        let column = error.column();
        io::Error::other(format!("its answer is not understood (column {column})"))
    })
}

/// Reads up to the first line break, which is not returned, at most `limit` bytes. What follows the
/// line break is dropped.
pub(crate) async fn read_line<R>(reader: &mut R, limit: usize) -> io::Result<Zeroizing<Vec<u8>>>
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

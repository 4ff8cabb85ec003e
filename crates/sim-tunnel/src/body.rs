//! The body type that edge and connector pass on, bodies as streams of bytes, and the pump between a
//! WebSocket and a stream.

use std::io;

use bytes::Bytes;
use futures::{AsyncRead, TryStreamExt as _};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::io::ReaderStream;

/// What goes wrong while a body is read.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// A body of any origin.
pub type ProxyBody = UnsyncBoxBody<Bytes, BodyError>;
/// The writing end of [`channel`].
pub type BodySender = Sender<Bytes, BodyError>;

/// How much is read at once, and how much waits in a body that is written, in bytes.
const CHUNK: usize = 16 * 1024;

/// A body that is known as a whole.
pub fn full(content: impl Into<Bytes>) -> ProxyBody {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is passed on as it arrives.
pub fn passing(incoming: Incoming) -> ProxyBody {
    incoming.map_err(Into::into).boxed_unsync()
}

/// A body that is written piece by piece.
pub fn channel() -> (BodySender, ProxyBody) {
    let (sender, body) = Channel::new(4);
    (sender, body.boxed_unsync())
}

/// A body that is written as a stream of bytes. It ends when the writer is dropped.
pub fn written() -> (DuplexStream, ProxyBody) {
    let (near, far) = tokio::io::duplex(CHUNK);
    let frames = ReaderStream::new(far).map_ok(Frame::data).map_err(Into::into);
    (near, StreamBody::new(frames).boxed_unsync())
}

/// A body, read as a stream of bytes.
pub fn reading(incoming: Incoming) -> impl AsyncRead + Send + Unpin + 'static {
    incoming.into_data_stream().map_err(io::Error::other).into_async_read()
}

/// Carries bytes between an upgraded connection and the two bodies of a stream until both directions
/// have ended, or one has failed.
pub async fn pump(
    upgraded: Upgraded,
    mut outgoing: BodySender,
    mut incoming: Incoming,
) -> Result<(), BodyError> {
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let to_stream = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = read.read(&mut buffer).await?;
            if length == 0 {
                return Ok::<_, BodyError>(());
            }
            if outgoing.send_data(Bytes::copy_from_slice(&buffer[..length])).await.is_err() {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
            }
        }
    };
    let from_stream = async move {
        while let Some(frame) = incoming.frame().await {
            if let Ok(data) = frame?.into_data() {
                write.write_all(&data).await?;
                write.flush().await?;
            }
        }
        write.shutdown().await?;
        Ok(())
    };
    tokio::try_join!(to_stream, from_stream).map(|_| ())
}

//! One `GET` of a health endpoint on this machine.

use std::{net::SocketAddr, path::Path, time::Duration};

use http::{Request, StatusCode, header::HOST};
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(2);

/// Whether `GET http://{address}{path}` answers 200 in time.
pub(crate) async fn is_ok(address: SocketAddr, path: &'static str) -> bool {
    let asked = async {
        let stream = TcpStream::connect(address).await.ok()?;
        status(stream, &address.to_string(), path).await
    };
    matches!(timeout(PATIENCE, asked).await, Ok(Some(StatusCode::OK)))
}

/// Whether `GET {path}` answers 200 in time on a Unix socket. A connection alone proves nothing: the
/// socket is systemd's.
pub(crate) async fn is_ok_on(socket: &Path, path: &'static str) -> bool {
    let asked = async {
        let stream = UnixStream::connect(socket).await.ok()?;
        status(stream, "localhost", path).await
    };
    matches!(timeout(PATIENCE, asked).await, Ok(Some(StatusCode::OK)))
}

async fn status<S>(stream: S, host: &str, path: &'static str) -> Option<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path).header(HOST, host);
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let answer = async { sender.send_request(request).await.ok().map(|answer| answer.status()) };
    tokio::pin!(connection, answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The server may close right after its answer, which is then there.
        _ = &mut connection => answer.await,
    }
}

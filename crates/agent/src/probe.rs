//! One `GET` of a health endpoint on loopback.

use std::{net::SocketAddr, time::Duration};

use http::{Request, StatusCode, header::HOST};
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

const PATIENCE: Duration = Duration::from_secs(2);

/// Whether `GET http://{address}{path}` answers 200 in time.
pub(crate) async fn is_ok(address: SocketAddr, path: &'static str) -> bool {
    matches!(timeout(PATIENCE, status(address, path)).await, Ok(Some(StatusCode::OK)))
}

async fn status(address: SocketAddr, path: &'static str) -> Option<StatusCode> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path).header(HOST, address.to_string());
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let answer = async { sender.send_request(request).await.ok().map(|answer| answer.status()) };
    tokio::pin!(connection, answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The server may close right after its answer, which is then there.
        _ = &mut connection => answer.await,
    }
}

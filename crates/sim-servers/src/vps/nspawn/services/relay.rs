//! Carries the connections of connectors to the simulated edge, which listens outside the lab's network.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use moorage_sim_clouds::listener::next_connection;

/// Serves until it is dropped, and all connections with it.
pub(super) async fn serve(listener: TcpListener, edge: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, _) = next_connection(&listener) => {
                connections.spawn(carry(stream, edge));
            }
        }
    }
}

async fn carry(mut connector: TcpStream, edge: SocketAddr) {
    let carried = async {
        let mut edge = TcpStream::connect(edge).await?;
        edge.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut connector, &mut edge).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, "a connector's connection ended early");
    }
}

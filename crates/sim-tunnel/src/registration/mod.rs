//! The control stream between edge and connector: a connection registers by Cap'n Proto RPC, as
//! cloudflared does it. Both ends are here: [`serve`] for the edge, [`register`] for our own connector.
//!
//! What a registration leads to is not here: the edge decides behind [`Registrar`]. The types of
//! Cap'n Proto do not leave this module.

mod client;
mod server;
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "generated code"
)]
#[rustfmt::skip]
mod tunnelrpc_capnp;

use std::time::Duration;

use uuid::Uuid;

pub use self::client::{RegisterError, Session, register};
pub use self::server::{Registrar, serve};
use crate::token::TunnelSecret;

/// The name that connectors ask for in TLS, and that the edge's certificate bears.
pub const SERVER_NAME: &str = "h2.cftunnel.com";

/// What a connector says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The connector's id, shared by its connections.
    pub id: Uuid,
    /// What it can do beyond the basics.
    pub features: Vec<String>,
    pub version: String,
    /// Its platform, such as `linux_amd64`.
    pub arch: String,
}

/// A connection that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The account that the tunnel belongs to.
    pub account: String,
    pub tunnel: Uuid,
    pub secret: TunnelSecret,
    /// Which of the connector's connections it is.
    pub index: u8,
    /// How often this connection was tried before.
    pub previous_attempts: u8,
    pub client: Client,
}

/// A connection that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub connection: Uuid,
    /// The name of the edge's location.
    pub location: String,
    /// Whether the rules come from the edge.
    pub remotely_managed: bool,
}

/// A connection that was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refusal {
    /// Why. One that contains `Unauthorized` makes connectors try again.
    pub cause: String,
    /// How long to wait before trying again.
    pub retry_after: Duration,
    /// Whether trying again makes sense.
    pub should_retry: bool,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;
    use tokio_util::task::LocalPoolHandle;

    use super::*;

    /// Lets in whoever has the secret, and counts who leaves.
    #[derive(Default)]
    struct Desk {
        left: AtomicUsize,
    }

    fn registration(secret: &[u8]) -> Registration {
        Registration {
            account: "acc".to_owned(),
            tunnel: Uuid::from_u128(1),
            secret: TunnelSecret(secret.to_vec()),
            index: 3,
            previous_attempts: 200,
            client: Client {
                id: Uuid::from_u128(2),
                features: vec!["one".to_owned(), "two".to_owned()],
                version: "1.2.3".to_owned(),
                arch: "linux_amd64".to_owned(),
            },
        }
    }

    fn registered() -> Registered {
        Registered {
            connection: Uuid::from_u128(3),
            location: "lab".to_owned(),
            remotely_managed: true,
        }
    }

    fn refusal() -> Refusal {
        Refusal {
            cause: "Unauthorized: Invalid tunnel secret".to_owned(),
            retry_after: Duration::from_secs(1),
            should_retry: true,
        }
    }

    #[async_trait]
    impl Registrar for Desk {
        async fn register(&self, asked: Registration) -> Result<Registered, Refusal> {
            if asked == registration(b"right") { Ok(registered()) } else { Err(refusal()) }
        }

        fn unregister(&self) {
            self.left.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Both ends over a pipe.
    async fn ask(desk: &Arc<Desk>, secret: &[u8]) -> Result<(Registered, Session), RegisterError> {
        let pool = LocalPoolHandle::new(1);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (far_read, far_write) = tokio::io::split(far);
        let (near_read, near_write) = tokio::io::split(near);
        let registrar: Arc<dyn Registrar> = desk.clone();
        pool.spawn_pinned(move || serve(far_read.compat(), far_write, registrar));
        register(&pool, near_read.compat(), near_write, registration(secret)).await
    }

    #[tokio::test]
    async fn a_registration_arrives_as_it_was_sent_and_ends_when_asked() {
        let desk = Arc::new(Desk::default());
        let (answer, session) = ask(&desk, b"right").await.unwrap();
        assert_eq!(answer, registered());
        assert_eq!(desk.left.load(Ordering::Relaxed), 0);
        session.unregister().await;
        assert_eq!(desk.left.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let desk = Arc::new(Desk::default());
        match ask(&desk, b"wrong").await {
            Err(RegisterError::Refused(found)) => assert_eq!(found, refusal()),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("let in"),
        }
    }

    #[tokio::test]
    async fn what_is_no_rpc_ends_the_conversation() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let pool = LocalPoolHandle::new(1);
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        let (read, write) = tokio::io::split(far);
        let desk: Arc<dyn Registrar> = Arc::new(Desk::default());
        let ended = pool.spawn_pinned(move || serve(read.compat(), write, desk));
        near.write_all(&[0xff; 4096]).await.unwrap();
        near.shutdown().await.unwrap();
        ended.await.unwrap();
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
    }
}

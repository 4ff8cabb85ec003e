//! A stand-in for Cloudflare's edge: ends TLS on loopback and passes the bytes on.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::Router;
use moorage_agent::{Agent, Disk, Layout, Listen, Programs, Settings};
use moorage_wire::bootstrap::Bootstrap;
use rcgen::CertifiedKey;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::agent::{
    ServerKeys,
    client::{EdgeAgentClient, EdgeDialing},
};

pub(super) const HOST: &str = "ada-mgmt.pool.invalid";

/// The real agent on a server of its own.
pub(super) struct Server {
    agent: Agent,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(super) async fn start(keys: &ServerKeys) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(Layout::new(folder.path().to_owned()));
        settings.listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        // It is the worker as well.
        settings.programs = Programs::External;
        let bootstrap = Bootstrap {
            instance_id: keys.instance,
            epoch: keys.epoch,
            operator_key: keys.operator.public_key(),
            bearer_sha256: keys.bearer.sha256(),
            enrolment_key: keys.enrolment.to_text(),
        };
        for path in [settings.layout.bootstrap(), settings.layout.tunnel_token()] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::write(settings.layout.bootstrap(), serde_json::to_vec(&bootstrap).unwrap()).unwrap();
        fs::write(settings.layout.tunnel_token(), "a-tunnel-token\n").unwrap();
        let agent = Agent::start(settings, Disk::default()).await.unwrap();
        Self { agent, _folder: folder }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.agent.address().unwrap()
    }
}

/// The edge; it ends when dropped.
pub(super) struct Edge {
    address: SocketAddr,
    certificate: String,
    connections: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Edge {
    /// Passes everything on to `origin`.
    pub(super) async fn start(origin: SocketAddr) -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&connections);
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut origin = TcpStream::connect(origin).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut origin).await;
                });
            }
        });
        Self { address, certificate: cert.pem(), connections, tasks }
    }

    /// Stands before a scripted origin.
    pub(super) async fn before(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut edge = Self::start(listener.local_addr().unwrap()).await;
        edge.tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        edge
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were: as many as requests, since none is kept.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn dialing(&self) -> EdgeDialing {
        let extra_roots = Some(self.certificate.clone().into_bytes());
        EdgeDialing { address: Some(self.address), extra_roots }
    }

    pub(super) fn client(&self) -> EdgeAgentClient {
        EdgeAgentClient::new(&self.dialing()).unwrap()
    }
}

/// A client of an edge where nobody listens.
pub(super) fn nowhere() -> EdgeAgentClient {
    // Port 0 is replaced by 443 of the URL; port 1 of loopback has no listener.
    let address = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
    EdgeAgentClient::new(&EdgeDialing { address, extra_roots: None }).unwrap()
}

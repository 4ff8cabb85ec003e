//! The connector's end of a control stream.

use std::time::Duration;

use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;
use tokio_util::compat::TokioAsyncWriteCompatExt as _;
use tokio_util::task::{AbortOnDropHandle, LocalPoolHandle};
use uuid::Uuid;

use super::tunnelrpc_capnp::{connection_response, registration_server};
use super::{Refusal, Registered, Registration};

/// A registration without an answer.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The edge does not let the connection in.
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the registration failed: {0}")]
    Rpc(#[from] capnp::Error),
    /// The connection ended before the answer.
    #[error("the connection ended before the edge had answered")]
    Ended,
}

/// A registered connection's conversation with the edge. Dropping it ends the control stream.
pub struct Session {
    leave: oneshot::Sender<()>,
    conversation: AbortOnDropHandle<()>,
}

impl Session {
    /// Tells the edge that the connection goes, and ends the control stream.
    pub async fn unregister(self) {
        // When it has ended already, there is nobody to tell.
        let _ = self.leave.send(());
        let _ = self.conversation.await;
    }
}

/// Registers a connection over its control stream.
pub async fn register(
    pool: &LocalPoolHandle,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    registration: Registration,
) -> Result<(Registered, Session), RegisterError> {
    let (answer, answered) = oneshot::channel();
    let (leave, leaving) = oneshot::channel();
    let conversation = pool.spawn_pinned(move || async move {
        let network = twoparty::VatNetwork::new(
            input,
            output.compat_write(),
            Side::Client,
            ReaderOptions::new(),
        );
        let mut rpc = RpcSystem::new(Box::new(network), None);
        let edge: registration_server::Client = rpc.bootstrap(Side::Server);
        let hang_up = rpc.get_disconnector();
        let rpc = AbortOnDropHandle::new(tokio::task::spawn_local(rpc));
        let asked = ask(&edge, &registration).await;
        let registered = asked.is_ok();
        if answer.send(asked).is_ok() && registered && leaving.await.is_ok() {
            let request = edge.unregister_connection_request();
            if let Err(error) = request.send().promise.await {
                tracing::debug!(%error, "the edge did not hear that the connection goes");
            }
        }
        drop(edge);
        if let Err(error) = hang_up.await {
            tracing::debug!(%error, "the control stream did not end well");
        }
        drop(rpc);
    });
    let session = Session { leave, conversation: AbortOnDropHandle::new(conversation) };
    let registered = answered.await.map_err(|_| RegisterError::Ended)??;
    Ok((registered, session))
}

async fn ask(
    edge: &registration_server::Client,
    registration: &Registration,
) -> Result<Registered, RegisterError> {
    let mut request = edge.register_connection_request();
    let mut params = request.get();
    let mut auth = params.reborrow().init_auth();
    auth.set_account_tag(&registration.account);
    auth.set_tunnel_secret(&registration.secret.0);
    params.set_tunnel_id(registration.tunnel.as_bytes());
    params.set_conn_index(registration.index);
    let mut options = params.init_options();
    options.set_num_previous_attempts(registration.previous_attempts);
    let mut client = options.init_client();
    client.set_client_id(registration.client.id.as_bytes());
    client.set_version(&registration.client.version);
    client.set_arch(&registration.client.arch);
    let count = u32::try_from(registration.client.features.len()).unwrap_or(u32::MAX);
    let mut features = client.init_features(count);
    for (index, feature) in (0..count).zip(&registration.client.features) {
        features.set(index, feature);
    }
    let response = request.send().promise.await?;
    read(response.get()?.get_result()?)
}

fn read(response: connection_response::Reader<'_>) -> Result<Registered, RegisterError> {
    use super::tunnelrpc_capnp::connection_response::result::Which;
    match response.get_result().which().map_err(capnp::Error::from)? {
        Which::ConnectionDetails(details) => {
            let details = details?;
            let connection = Uuid::from_slice(details.get_uuid()?)
                .map_err(|_| capnp::Error::failed("the id is no UUID".to_owned()))?;
            Ok(Registered {
                connection,
                location: text(details.get_location_name()?)?,
                remotely_managed: details.get_tunnel_is_remotely_managed(),
            })
        }
        Which::Error(error) => {
            let error = error?;
            let nanoseconds = u64::try_from(error.get_retry_after()).unwrap_or(0);
            Err(RegisterError::Refused(Refusal {
                cause: text(error.get_cause()?)?,
                retry_after: Duration::from_nanos(nanoseconds),
                should_retry: error.get_should_retry(),
            }))
        }
    }
}

fn text(text: capnp::text::Reader<'_>) -> Result<String, capnp::Error> {
    Ok(text.to_str()?.to_owned())
}

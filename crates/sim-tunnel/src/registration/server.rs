//! The edge's end of a control stream.

use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, new_client, twoparty};
use futures::AsyncRead;
use tokio::io::AsyncWrite;
use tokio_util::compat::TokioAsyncWriteCompatExt as _;
use uuid::Uuid;

use super::tunnelrpc_capnp::{connection_response, registration_server};
use super::{Client, Refusal, Registered, Registration};
use crate::token::TunnelSecret;

/// Decides about the connection that a control stream belongs to.
#[async_trait]
pub trait Registrar: Send + Sync + 'static {
    /// Lets the connection in or says why not.
    async fn register(&self, registration: Registration) -> Result<Registered, Refusal>;
    /// Sends nothing new to the connection; what runs may end.
    fn unregister(&self);
}

/// Answers the calls of a connector until it ends the stream. Must run within a `LocalSet`.
pub async fn serve(
    input: impl AsyncRead + Unpin + 'static,
    output: impl AsyncWrite + Unpin + 'static,
    registrar: Arc<dyn Registrar>,
) {
    let network =
        twoparty::VatNetwork::new(input, output.compat_write(), Side::Server, ReaderOptions::new());
    let desk: registration_server::Client = new_client(Desk { registrar });
    if let Err(error) = RpcSystem::new(Box::new(network), Some(desk.client)).await {
        // The usual end: connectors abort the conversation.
        tracing::debug!(%error, "a control stream ended");
    }
}

struct Desk {
    registrar: Arc<dyn Registrar>,
}

impl registration_server::Server for Desk {
    async fn register_connection(
        self: Rc<Self>,
        params: registration_server::RegisterConnectionParams,
        mut results: registration_server::RegisterConnectionResults,
    ) -> Result<(), capnp::Error> {
        let answer = self.registrar.register(read(&params)?).await;
        write(results.get().init_result().init_result(), &answer);
        Ok(())
    }

    async fn unregister_connection(
        self: Rc<Self>,
        _: registration_server::UnregisterConnectionParams,
        _: registration_server::UnregisterConnectionResults,
    ) -> Result<(), capnp::Error> {
        self.registrar.unregister();
        Ok(())
    }

    async fn update_local_configuration(
        self: Rc<Self>,
        _: registration_server::UpdateLocalConfigurationParams,
        _: registration_server::UpdateLocalConfigurationResults,
    ) -> Result<(), capnp::Error> {
        // Rules that a connector has from its own file; every tunnel here is managed by the API.
        tracing::debug!("a connector told of local rules");
        Ok(())
    }
}

fn read(
    params: &registration_server::RegisterConnectionParams,
) -> Result<Registration, capnp::Error> {
    let params = params.get()?;
    let auth = params.get_auth()?;
    let options = params.get_options()?;
    let client = options.get_client()?;
    let features = client.get_features()?.iter();
    let features: Result<_, capnp::Error> =
        features.map(|feature| Ok(feature?.to_str()?.to_owned())).collect();
    Ok(Registration {
        account: auth.get_account_tag()?.to_str()?.to_owned(),
        tunnel: id(params.get_tunnel_id()?)?,
        secret: TunnelSecret(auth.get_tunnel_secret()?.to_vec()),
        index: params.get_conn_index(),
        previous_attempts: options.get_num_previous_attempts(),
        client: Client {
            id: id(client.get_client_id()?)?,
            features: features?,
            version: client.get_version()?.to_str()?.to_owned(),
            arch: client.get_arch()?.to_str()?.to_owned(),
        },
    })
}

fn id(bytes: &[u8]) -> Result<Uuid, capnp::Error> {
    Uuid::from_slice(bytes).map_err(|_| capnp::Error::failed("an id must have 16 bytes".to_owned()))
}

fn write(response: connection_response::result::Builder<'_>, answer: &Result<Registered, Refusal>) {
    match answer {
        Ok(registered) => {
            let mut details = response.init_connection_details();
            details.set_uuid(registered.connection.as_bytes());
            details.set_location_name(&registered.location);
            details.set_tunnel_is_remotely_managed(registered.remotely_managed);
        }
        Err(refusal) => {
            let mut error = response.init_error();
            error.set_cause(&refusal.cause);
            let nanoseconds = refusal.retry_after.as_nanos();
            error.set_retry_after(i64::try_from(nanoseconds).unwrap_or(i64::MAX));
            error.set_should_retry(refusal.should_retry);
        }
    }
}

//! `openclaw gateway`: the HTTP side of the stand-in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::config::Config;
use super::control::{self, Answer, Call, Command};
use super::devices::Devices;
use super::secrets::{SecretError, Secrets};
use super::{CONFIGURATION_ERROR, Places, TITLE, VERSION};
use crate::terminal;

const DEFAULT_PORT: u16 = 18789;
/// How often the configuration file is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// What `gateway` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct GatewayOptions {
    /// Where to listen; without it 127.0.0.1 and the port of the configuration
    #[arg(long, env = "OPENCLAW_STAND_IN_ADDRESS")]
    address: Option<SocketAddr>,
    /// How long to take until started, in milliseconds
    #[arg(long, env = "OPENCLAW_STAND_IN_START_MS", default_value_t = 200)]
    start_ms: u64,
    #[command(subcommand)]
    pub(super) verb: Option<GatewayVerb>,
}

/// What else `gateway` can do.
#[derive(Debug, Clone, clap::Subcommand)]
pub(super) enum GatewayVerb {
    /// Ask the running gateway
    Call {
        /// Only `config.get` is known
        #[arg(value_parser = ["config.get"])]
        method: String,
        /// Ignored
        #[arg(long)]
        params: Option<String>,
        /// Answer as JSON
        #[arg(long)]
        json: bool,
    },
}

struct Gateway {
    config_path: PathBuf,
    started: AtomicBool,
    held: Mutex<Held>,
    devices: Mutex<Devices>,
}

/// What changes while it runs.
struct Held {
    config: Config,
    secrets: Secrets,
}

/// Runs the gateway until SIGTERM or SIGINT.
pub(super) async fn run(places: &Places, options: GatewayOptions) -> ExitCode {
    let config_path = places.config();
    let config = match Config::load(&config_path) {
        Ok(config) => config,
        Err(issues) => {
            for issue in issues {
                terminal::complain(&format!(
                    "{TITLE}: configuration: {}: {}",
                    issue.path, issue.message
                ));
            }
            return ExitCode::from(CONFIGURATION_ERROR);
        }
    };
    match serve(places, options, config_path, config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&format!("{TITLE}: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(
    places: &Places,
    options: GatewayOptions,
    config_path: PathBuf,
    config: Config,
) -> Result<(), Box<dyn std::error::Error>> {
    let secrets = resolve(&config)?;
    let state_dir = places.state_dir();
    std::fs::create_dir_all(&state_dir)?;
    let devices = Mutex::new(Devices::load(&state_dir)?);
    let port = config.port().unwrap_or(DEFAULT_PORT);
    let address = options.address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let control = control::bind(&state_dir)?;
    terminal::say(&format!("{TITLE} {VERSION} listens on {address}"));
    let gateway = Arc::new(Gateway {
        config_path,
        started: AtomicBool::new(false),
        held: Mutex::new(Held { config, secrets }),
        devices,
    });
    let starting = async {
        tokio::time::sleep(Duration::from_millis(options.start_ms)).await;
        gateway.started.store(true, Ordering::Release);
        std::future::pending::<()>().await;
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let app = router(gateway.clone()).into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = async { axum::serve(listener, app).await } => served?,
        () = starting => {}
        () = control::serve(control, |call| gateway.answer(call)) => {}
        () = gateway.watch_config() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Resolves the secrets; without its own token a gateway that wants one does not run.
fn resolve(config: &Config) -> Result<Secrets, Box<dyn std::error::Error>> {
    let secrets = Secrets::resolve(config)?;
    if config.auth_mode() == "token" && secrets.get("gateway.auth.token").is_none() {
        return Err("gateway.auth.token: not set, and gateway.auth.mode is `token`".into());
    }
    Ok(secrets)
}

impl Gateway {
    /// As the real one: the command line has to show the token like everybody else, so that one whose
    /// configuration has another than the running gateway is refused.
    fn answer(&self, call: Call) -> Answer {
        let wanted = {
            let held = self.held.lock();
            let wanted = held.secrets.get("gateway.auth.token").map(str::to_owned);
            wanted.filter(|_| held.config.auth_mode() == "token")
        };
        if wanted.is_some() && wanted != call.token {
            return Answer::Failed("unauthorized: gateway token mismatch".to_owned());
        }
        self.perform(call.command)
    }

    fn perform(&self, command: Command) -> Answer {
        match command {
            Command::ReloadSecrets => match self.reload_secrets() {
                Ok(()) => Answer::Done(json!({"ok": true})),
                // As the real one: all or nothing, and what worked goes on.
                Err(error) => {
                    Answer::Failed(format!("secrets not reloaded, the old stay in use: {error}"))
                }
            },
            Command::GetConfig => {
                let on_disk = Config::load(&self.config_path).ok().map(|config| config.revision());
                let in_use = self.held.lock().config.revision();
                Answer::Done(json!({"configRevisionHash": on_disk, "appliedConfigHash": in_use}))
            }
            Command::ListDevices => Answer::Done(json!(&*self.devices.lock())),
            Command::ApproveDevice { request_id } => match self.devices.lock().approve(&request_id)
            {
                Ok(Some(device)) => Answer::Done(json!({"approved": device})),
                Ok(None) => Answer::Failed(format!("there is no pending request `{request_id}`")),
                Err(error) => Answer::Failed(format!("cannot keep the approval: {error}")),
            },
        }
    }

    fn reload_secrets(&self) -> Result<(), SecretError> {
        let mut held = self.held.lock();
        held.secrets = Secrets::resolve(&held.config)?;
        terminal::say(&format!("{TITLE}: secrets reloaded"));
        Ok(())
    }

    /// Takes a configuration that changed on disk; a broken one is skipped.
    async fn watch_config(&self) {
        let stamp = || {
            let metadata = std::fs::symlink_metadata(&self.config_path).ok()?;
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some((modified, metadata.len(), std::os::unix::fs::MetadataExt::ino(&metadata)))
        };
        let mut seen = stamp();
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let now = stamp();
            if now == seen {
                continue;
            }
            seen = now;
            let taken = Config::load(&self.config_path)
                .map_err(|issues| format!("{}: {}", issues[0].path, issues[0].message))
                .and_then(|config| {
                    let secrets = resolve(&config).map_err(|error| error.to_string())?;
                    Ok(Held { config, secrets })
                });
            match taken {
                Ok(new) => {
                    *self.held.lock() = new;
                    terminal::say(&format!("{TITLE}: configuration reloaded"));
                }
                Err(problem) => {
                    terminal::complain(&format!(
                        "{TITLE}: configuration change skipped: {problem}"
                    ));
                }
            }
        }
    }

    /// Whether the headers carry what the configuration wants of visitors.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let held = self.held.lock();
        let wanted = match held.config.auth_mode() {
            "none" => return true,
            "password" => held.secrets.get("gateway.auth.password"),
            "token" => held.secrets.get("gateway.auth.token"),
            _ => None,
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match (wanted, given) {
            (Some(wanted), Some(given)) => aws_lc_rs::constant_time::verify_slices_are_equal(
                wanted.as_bytes(),
                given.as_bytes(),
            )
            .is_ok(),
            _ => false,
        }
    }
}

fn router(gateway: Arc<Gateway>) -> Router {
    let guarded = Router::new()
        .route("/api/whoami", get(whoami))
        .route("/api/devices/request", post(request_pairing))
        .route("/tools/invoke", post(invoke_tool))
        .layer(middleware::from_fn_with_state(gateway.clone(), require_auth));
    let visited = Router::new()
        .route("/ws", any(echo))
        .merge(guarded)
        .fallback(dashboard)
        .layer(middleware::from_fn_with_state(gateway.clone(), require_attribution));
    Router::new()
        .route("/healthz", get(async || Json(json!({"ok": true, "status": "live"}))))
        .route("/startupz", get(startupz))
        .route("/readyz", get(readyz))
        .merge(visited)
        .with_state(gateway)
}

async fn startupz(State(gateway): State<Arc<Gateway>>) -> (StatusCode, Json<Value>) {
    if gateway.started.load(Ordering::Acquire) {
        (StatusCode::OK, Json(json!({"ok": true, "status": "started"})))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ok": false, "status": "starting"})))
    }
}

async fn readyz(State(gateway): State<Arc<Gateway>>) -> (StatusCode, Json<Value>) {
    if !gateway.started.load(Ordering::Acquire) {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"ready": false, "failing": ["startup"]})),
        );
    }
    let held = gateway.held.lock();
    let failing = held.secrets.channel_problems(&held.config);
    let status = if failing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": failing.is_empty(), "failing": failing})))
}

/// Refuses whoever comes through a proxy that the configuration does not trust.
async fn require_attribution(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let proxied = request.headers().contains_key("x-forwarded-for");
    if proxied && !trusts(&gateway, peer.ip()) {
        return refuse(StatusCode::FORBIDDEN, "proxy_attribution_required");
    }
    next.run(request).await
}

fn trusts(gateway: &Gateway, peer: IpAddr) -> bool {
    gateway.held.lock().config.trusts_proxy(peer)
}

async fn require_auth(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    if gateway.admits(request.headers()) {
        next.run(request).await
    } else {
        refuse(StatusCode::UNAUTHORIZED, "unauthorized")
    }
}

fn refuse(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "by": TITLE}}))).into_response()
}

async fn whoami(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    let held = gateway.held.lock();
    Json(json!({
        "gateway": TITLE,
        "version": VERSION,
        "model": held.config.value().pointer("/agents/defaults/model/primary"),
        "secretsSha256": held.secrets.fingerprints(),
    }))
}

async fn request_pairing(State(gateway): State<Arc<Gateway>>) -> Response {
    match gateway.devices.lock().request() {
        Ok(device) => (StatusCode::ACCEPTED, Json(json!(device))).into_response(),
        Err(error) => {
            tracing::error!(%error, "a pairing request cannot be kept");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "internal")
        }
    }
}

/// There are no tools: what a request without a name gets.
async fn invoke_tool() -> Response {
    let error = json!({"type": "invalid_request", "message": "tools.invoke requires name"});
    (StatusCode::BAD_REQUEST, Json(json!({"ok": false, "error": error}))).into_response()
}

/// The single page that every unknown path gets.
async fn dashboard() -> Html<String> {
    Html(format!(
        "<!doctype html>\n<title>{TITLE}</title>\n<h1>{TITLE}</h1>\n\
         <p>Version {VERSION}. No OpenClaw runs here: this page is served in its place.</p>\n"
    ))
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo_messages)
}

async fn echo_messages(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let sent = match message {
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await,
            // Answered by the library.
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

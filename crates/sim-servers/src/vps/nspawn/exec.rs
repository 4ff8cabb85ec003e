//! What is asked for when a program is to run inside a server, and what it left; how it is run, is in
//! [`super::inside`] and [`super::guest_agent`].

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, Serializer};

const SEARCH_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a program may run when its request says nothing.
const RUN_TIMEOUT_MS: u64 = 60_000;

/// A program to run inside.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExecRequest {
    /// The program and its arguments.
    pub(super) argv: Vec<String>,
    /// As whom; as root when left out. Its group must have the same name.
    pub(super) user: Option<String>,
    #[serde(default)]
    pub(super) stdin: String,
    #[serde(default = "run_timeout_ms")]
    timeout_ms: u64,
}

impl ExecRequest {
    /// Without input, with the usual patience; as root if no user is named.
    pub(super) fn of(argv: Vec<String>, user: Option<String>) -> Self {
        Self { argv, user, stdin: String::new(), timeout_ms: RUN_TIMEOUT_MS }
    }
}

fn run_timeout_ms() -> u64 {
    RUN_TIMEOUT_MS
}

/// What a program left.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExecAnswer {
    /// Its exit code; 137 when it took too long; absent when a signal ended it.
    pub(super) exit_code: Option<i32>,
    /// Base64.
    #[serde(serialize_with = "base64")]
    pub(super) stdout: Vec<u8>,
    /// Base64.
    #[serde(serialize_with = "base64")]
    pub(super) stderr: Vec<u8>,
}

fn base64<S: Serializer>(bytes: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// What runs the words that follow in a clean environment, as root or as a user.
pub(super) fn as_user(user: Option<&str>) -> Vec<&str> {
    let mut command = vec!["env", "-i", SEARCH_PATH, "LANG=C.UTF-8"];
    match user {
        None => command.push("HOME=/root"),
        Some(user) => command.extend([
            "setpriv",
            "--reuid",
            user,
            "--regid",
            user,
            "--init-groups",
            "--reset-env",
            "--",
        ]),
    }
    command
}

/// What is run inside to end by itself: killing what waits for it outside would leave it running.
pub(super) fn with_limit(request: &ExecRequest) -> impl Iterator<Item = String> {
    let patience = Duration::from_millis(request.timeout_ms).as_secs_f64().to_string();
    let limit = ["timeout".to_owned(), "--signal=KILL".to_owned(), patience];
    limit.into_iter().chain(request.argv.clone())
}

/// A request as a command in the server, and its input.
pub(super) fn limited(request: ExecRequest) -> (Vec<String>, String) {
    let environment = as_user(request.user.as_deref()).into_iter().map(str::to_owned);
    (environment.chain(with_limit(&request)).collect(), request.stdin)
}

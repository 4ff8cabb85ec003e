//! The agent's side: the operations on OpenClaw, done by the worker over its socket, or in this
//! process where one user owns everything (tests, the simulator). The vault calls from blocking
//! threads, everything else from async tasks.

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use moorage_wire::{
    CredentialName, Failure, Sha256,
    failure::{FailureCode, Stage},
};
use thiserror::Error;

use super::{
    Worker,
    protocol::{
        Answer, FileRequest, Held, LONGEST_ANSWER, LONGEST_REQUEST, PairingId, PlaintextKey,
        ProgramRequest, Refusal, Reload, Request, Validation,
    },
};
use crate::{conversation, disk::to_json, secret_text::SecretText, signed::SignedCall};

/// For single files: the vault is locked meanwhile.
const FILE_PATIENCE: Duration = Duration::from_secs(10);
/// For the making of a key, on a small server that is busy booting.
const KEY_PATIENCE: Duration = Duration::from_secs(120);
/// For everything else; the worker's own limits are shorter.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(3600);

/// Why an operation on `OpenClaw` was not done.
#[derive(Debug, Error)]
pub(crate) enum WorkerError {
    #[error("the worker does not answer on {}: {source}", socket.display())]
    Absent { socket: PathBuf, source: io::Error },
    #[error("{message}")]
    Refused { reason: Refusal, message: String },
    #[error("{message}")]
    Failed { message: String, failure: Option<Failure> },
    #[error("the worker's answer is to another question")]
    Unexpected,
}

impl WorkerError {
    /// Why it refused, if it did.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { reason, .. } => Some(*reason),
            Self::Absent { .. } | Self::Failed { .. } | Self::Unexpected => None,
        }
    }

    pub(crate) fn failure(&self) -> Failure {
        if let Self::Failed { failure: Some(failure), .. } = self {
            return failure.clone();
        }
        let failure = Failure::new(Stage::Operation, FailureCode::ServiceFailed);
        failure.with_detail(&self.to_string())
    }
}

/// The way to `OpenClaw`'s files and its command line.
#[derive(Clone)]
pub(crate) enum OpenClaw {
    /// This process does it.
    InProcess(Arc<Worker>),
    /// The worker does it, which listens on this socket.
    Socket(PathBuf),
}

impl OpenClaw {
    fn file_now(&self, request: FileRequest) -> Result<Answer, WorkerError> {
        let answer = match self {
            Self::InProcess(worker) => worker.file(request),
            Self::Socket(socket) => exchange_now(socket, request)
                .map_err(|source| WorkerError::Absent { socket: socket.clone(), source })?,
        };
        refused(answer)
    }

    async fn file(&self, request: FileRequest) -> Result<Answer, WorkerError> {
        let port = self.clone();
        match tokio::task::spawn_blocking(move || port.file_now(request)).await {
            Ok(answer) => answer,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    async fn program(&self, request: ProgramRequest) -> Result<Answer, WorkerError> {
        let answer = match self {
            Self::InProcess(worker) => worker.program(request).await,
            Self::Socket(socket) => exchange(socket, &Request::Program(request))
                .await
                .map_err(|source| WorkerError::Absent { socket: socket.clone(), source })?,
        };
        refused(answer)
    }

    fn held(&self, request: FileRequest) -> Result<Held, WorkerError> {
        match self.file_now(request)? {
            Answer::Secrets(held) => Ok(held),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Which credentials are there. Blocks.
    pub(crate) fn secret_names(&self) -> Result<Held, WorkerError> {
        self.held(FileRequest::SecretNames)
    }

    /// What credentials are sealed to. Blocks, up to seconds if the key is to be made.
    pub(crate) fn certificate(&self) -> Result<String, WorkerError> {
        match self.file_now(FileRequest::Certificate)? {
            Answer::Certificate { certificate } => Ok(certificate),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Hands over the key of an older agent. Blocks.
    pub(crate) fn adopt_key(
        &self,
        key: SecretText,
        certificate: String,
    ) -> Result<(), WorkerError> {
        let key = PlaintextKey::new(key);
        done(&self.file_now(FileRequest::AdoptKey { key, certificate })?)
    }

    /// Nonces whose signatures the worker takes. Blocks.
    pub(crate) fn nonces(&self, count: u64) -> Result<Vec<String>, WorkerError> {
        match self.file_now(FileRequest::Nonces { count })? {
            Answer::Nonces { nonces } => Ok(nonces),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Passes a signed document on, and says which others are needed. Blocks.
    pub(crate) fn put_document(
        &self,
        call: &SignedCall,
        keep: BTreeSet<Sha256>,
    ) -> Result<(), WorkerError> {
        done(&self.file_now(FileRequest::PutDocument { call: call.clone(), keep })?)
    }

    /// Passes a signed credential on; its value is durable when this returns. Blocks.
    pub(crate) fn store_credential(
        &self,
        name: &CredentialName,
        call: &SignedCall,
    ) -> Result<Held, WorkerError> {
        self.held(FileRequest::StoreCredential { name: name.clone(), call: call.clone() })
    }

    /// Erases all values but these. Blocks.
    pub(crate) fn retain_secrets(
        &self,
        names: &BTreeSet<CredentialName>,
    ) -> Result<Held, WorkerError> {
        self.held(FileRequest::RetainSecrets { names: names.clone() })
    }

    /// Removes the Google OAuth client. Blocks.
    pub(crate) fn remove_google_client(&self) -> Result<Held, WorkerError> {
        self.held(FileRequest::RemoveGoogleClient)
    }

    /// The digest of the live configuration.
    pub(crate) async fn config_digest(&self) -> Result<Option<Sha256>, WorkerError> {
        match self.file(FileRequest::ConfigDigest).await? {
            Answer::Config { sha256 } => Ok(sha256),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Makes the configuration of a document the live one, durably.
    pub(crate) async fn write_config(&self, document: Sha256) -> Result<(), WorkerError> {
        done(&self.file(FileRequest::WriteConfig { document }).await?)
    }

    /// Asks `OpenClaw` whether it would take the configuration of a document.
    pub(crate) async fn validate(&self, document: Sha256) -> Result<Validation, WorkerError> {
        match self.program(ProgramRequest::Validate { document }).await? {
            Answer::Validation(validation) => Ok(validation),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Whether the running `OpenClaw` uses the live configuration.
    pub(crate) async fn is_config_applied(&self) -> Result<bool, WorkerError> {
        match self.program(ProgramRequest::ConfigApplied).await? {
            Answer::Applied { applied } => Ok(applied),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Makes the running `OpenClaw` read its secrets again.
    pub(crate) async fn reload_secrets(&self) -> Result<Reload, WorkerError> {
        match self.program(ProgramRequest::ReloadSecrets).await? {
            Answer::Reloaded(reload) => Ok(reload),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// The version that `OpenClaw` says it has.
    pub(crate) async fn version(&self) -> Result<String, WorkerError> {
        match self.program(ProgramRequest::Version).await? {
            Answer::Version { version } => Ok(version),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Makes a verified backup and prunes old ones.
    pub(crate) async fn back_up(&self) -> Result<u64, WorkerError> {
        match self.program(ProgramRequest::Backup).await? {
            Answer::Backup { bytes } => Ok(bytes),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Bytes free on the file system of `OpenClaw`'s state, and bytes that the state takes.
    pub(crate) async fn room(&self) -> Result<(u64, u64), WorkerError> {
        match self.program(ProgramRequest::Room).await? {
            Answer::Room { free, used } => Ok((free, used)),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Copies the whole state of a stopped `OpenClaw`.
    pub(crate) async fn take_snapshot(&self) -> Result<(), WorkerError> {
        done(&self.program(ProgramRequest::TakeSnapshot).await?)
    }

    /// Puts the copy back, if there is one.
    pub(crate) async fn restore_snapshot(&self) -> Result<(), WorkerError> {
        done(&self.program(ProgramRequest::RestoreSnapshot).await?)
    }

    pub(crate) async fn drop_snapshot(&self) -> Result<(), WorkerError> {
        done(&self.program(ProgramRequest::DropSnapshot).await?)
    }

    /// Installs what is missing of a document's integrations; the ids of all its plugins.
    pub(crate) async fn add_integrations(
        &self,
        document: Sha256,
    ) -> Result<BTreeSet<String>, WorkerError> {
        match self.program(ProgramRequest::AddIntegrations { document }).await? {
            Answer::Integrations { plugins } => Ok(plugins),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// Removes what was installed and is not wanted by a document.
    pub(crate) async fn remove_integrations(&self, document: Sha256) -> Result<(), WorkerError> {
        done(&self.program(ProgramRequest::RemoveIntegrations { document }).await?)
    }

    /// Lets pairing requests in; those that were, and those that OpenClaw refused.
    pub(crate) async fn approve_pairings(
        &self,
        requests: BTreeSet<PairingId>,
    ) -> Result<(BTreeSet<PairingId>, BTreeSet<PairingId>), WorkerError> {
        match self.program(ProgramRequest::ApprovePairings { requests }).await? {
            Answer::Pairings { approved, refused } => Ok((approved, refused)),
            _ => Err(WorkerError::Unexpected),
        }
    }

    /// How many critical findings and warnings a security audit has.
    pub(crate) async fn audit(&self) -> Result<(u64, u64), WorkerError> {
        match self.program(ProgramRequest::Audit).await? {
            Answer::Audit { critical, warn } => Ok((critical, warn)),
            _ => Err(WorkerError::Unexpected),
        }
    }
}

fn refused(answer: Answer) -> Result<Answer, WorkerError> {
    match answer {
        Answer::Refused { reason, message } => Err(WorkerError::Refused { reason, message }),
        Answer::Failed { message, failure } => Err(WorkerError::Failed { message, failure }),
        answer => Ok(answer),
    }
}

fn done(answer: &Answer) -> Result<(), WorkerError> {
    if *answer == Answer::Done { Ok(()) } else { Err(WorkerError::Unexpected) }
}

/// The line of a request, in a buffer that is overwritten when dropped.
fn line_of(request: &Request) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
    let line = to_json(request, b"\n");
    if line.len() > LONGEST_REQUEST {
        return Err(io::Error::other("the document is too large"));
    }
    Ok(line)
}

fn exchange_now(socket: &Path, request: FileRequest) -> io::Result<Answer> {
    let patience = if request == FileRequest::Certificate { KEY_PATIENCE } else { FILE_PATIENCE };
    let line = line_of(&Request::File(request))?;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(FILE_PATIENCE))?;
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST_ANSWER as u64)).read_until(b'\n', &mut answer)?;
    conversation::parse(&answer)
}

async fn exchange(socket: &Path, request: &Request) -> io::Result<Answer> {
    line_of(request)?;
    let answer = conversation::ask(socket, request, LONGEST_ANSWER);
    match tokio::time::timeout(PROGRAM_PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

//! The clouds and the Secret of one pool in memory, with a failure of any write on demand.

mod cloudflare;
mod hetzner;

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use moorage_wire::Secret;

use super::access_secret::{AccessSecret, StoredToken, Version};
use crate::{
    agent::AccessHeaders,
    cloud::{Cloud, CloudError, Deletion, ErrorKind, SecretText},
    cloudflare::*,
    hetzner::*,
};

/// What the clouds hold and how they behave.
#[derive(Default)]
pub(super) struct State {
    pub(super) firewalls: Vec<Firewall>,
    pub(super) ssh_keys: Vec<SshKey>,
    pub(super) servers: Vec<Server>,
    pub(super) server_types: Vec<ServerType>,
    pub(super) zone: Option<Zone>,
    pub(super) records: Vec<DnsRecord>,
    pub(super) apps: Vec<AccessApp>,
    pub(super) policies: Vec<AccessPolicy>,
    pub(super) tokens: Vec<ServiceToken>,
    /// The only secret that each token accepts, by the token's client id.
    pub(super) valid_secrets: std::collections::BTreeMap<String, String>,
    pub(super) stored: Option<(String, String)>,
    pub(super) foreign_secret: bool,
    pub(super) reads: Vec<&'static str>,
    pub(super) writes: Vec<&'static str>,
    /// The write with this number fails: before or after it took effect.
    pub(super) fail_write: Option<(usize, bool)>,
    /// Every call fails like this.
    pub(super) refuse: Option<(Cloud, ErrorKind)>,
    last_id: u64,
}

/// Both clouds in memory, with failures on demand.
#[derive(Default)]
pub(super) struct Fakes(Mutex<State>);

/// What a write does once the failures are settled.
enum Fate {
    Done,
    LostAnswer(CloudError),
}

impl Fate {
    fn answer<T>(self, value: T) -> Result<T, CloudError> {
        match self {
            Self::Done => Ok(value),
            Self::LostAnswer(error) => Err(error),
        }
    }
}

impl Fakes {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn read(
        &self,
        cloud: Cloud,
        operation: &'static str,
    ) -> Result<MutexGuard<'_, State>, CloudError> {
        let mut state = self.state();
        state.reads.push(operation);
        state.refused(cloud, operation)?;
        Ok(state)
    }

    fn write(
        &self,
        cloud: Cloud,
        operation: &'static str,
    ) -> Result<(MutexGuard<'_, State>, Fate), CloudError> {
        let mut state = self.state();
        state.writes.push(operation);
        state.refused(cloud, operation)?;
        let number = state.writes.len() - 1;
        let fails = state.fail_write.filter(|(at, _)| *at == number);
        let error = |maybe_applied| {
            CloudError::new(cloud, operation, ErrorKind::Timeout { maybe_applied }, "")
        };
        match fails {
            Some((_, false)) => Err(error(false)),
            Some((_, true)) => Ok((state, Fate::LostAnswer(error(true)))),
            None => Ok((state, Fate::Done)),
        }
    }
}

impl State {
    fn refused(&self, cloud: Cloud, operation: &'static str) -> Result<(), CloudError> {
        match &self.refuse {
            Some((refusing, kind)) if *refusing == cloud => {
                Err(CloudError::new(cloud, operation, kind.clone(), ""))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn issue(&mut self, token: ServiceToken) -> IssuedServiceToken {
        let secret = format!("secret-{}", self.id());
        self.valid_secrets.insert(token.client_id.clone(), secret.clone());
        IssuedServiceToken { token, client_secret: SecretText::new(secret) }
    }

    /// Whether what is stored opens the door.
    pub(super) fn stored_token_works(&self) -> bool {
        self.stored.as_ref().is_some_and(|(id, secret)| self.valid_secrets.get(id) == Some(secret))
    }
}

fn removed<T>(list: &mut Vec<T>, is: impl Fn(&T) -> bool) -> Deletion {
    let before = list.len();
    list.retain(|item| !is(item));
    if list.len() == before { Deletion::AlreadyGone } else { Deletion::Accepted(()) }
}

const C: Cloud = Cloud::Cloudflare;

#[async_trait]
impl AccessSecret for Fakes {
    fn place(&self) -> String {
        "moorage-system/moorage-access-eu-1".to_owned()
    }

    async fn read(&self) -> Result<StoredToken, kube::Error> {
        let state = self.state();
        if state.foreign_secret {
            return Ok(StoredToken::Foreign);
        }
        Ok(state.stored.clone().map_or(StoredToken::Absent, |(client_id, secret)| {
            let client_secret = Secret::from(secret);
            let headers = Arc::new(AccessHeaders { client_id, client_secret });
            StoredToken::Intact(Version::default(), headers)
        }))
    }

    async fn store(
        &self,
        token: IssuedServiceToken,
        _: &StoredToken,
    ) -> Result<Arc<AccessHeaders>, kube::Error> {
        let lost = |_| kube::Error::LinesCodecMaxLineLengthExceeded;
        let (mut state, fate) = Fakes::write(self, C, "store_secret").map_err(lost)?;
        let secret = token.client_secret.expose_secret().to_owned();
        state.stored = Some((token.token.client_id.clone(), secret.clone()));
        let (client_id, client_secret) = (token.token.client_id, Secret::from(secret));
        fate.answer(Arc::new(AccessHeaders { client_id, client_secret })).map_err(lost)
    }

    async fn delete(&self, _: &StoredToken) -> Result<(), kube::Error> {
        self.state().stored = None;
        Ok(())
    }
}

/// What the status says of the master key where it does not matter.
pub(crate) fn master_key() -> crate::api::pool::MasterKeyStatus {
    crate::api::pool::MasterKeyStatus {
        id: "0123456789abcdef".to_owned(),
        source: crate::api::pool::MasterKeyPlace::Secret,
        older: Vec::new(),
        message: String::new(),
    }
}

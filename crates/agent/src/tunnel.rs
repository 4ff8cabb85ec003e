//! The tunnel's tokens and their rotation. While two tokens are on the server, cloudflared runs with
//! one of them, and with the other as soon as that one loses its connections. Only a connection
//! proves a token, and only a proven token lets the other one be erased: the server is never cut off.

mod rotation;

use std::time::Instant;

use moorage_wire::Sha256;
use serde::{Deserialize, Serialize};

pub(crate) use self::rotation::{Patience, Rotation, Step};
use crate::{
    disk::{Disk, DiskError},
    installer::token,
    layout::Layout,
    secret_text::SecretText,
};

/// One of the two tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Which {
    /// The one that is known to have worked.
    Proven,
    /// The one that is to replace it.
    Pending,
}

impl Which {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Proven => Self::Pending,
            Self::Pending => Self::Proven,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    proven: SecretText,
    pending: Option<SecretText>,
    /// What cloudflared was last started with.
    runs: Which,
    /// What cloudflared is being started with: a crash may have come before or after the restart, so
    /// it is repeated.
    switching_to: Option<Which>,
}

pub(crate) struct TunnelTokens {
    disk: Disk,
    layout: Layout,
    tokens: Option<Tokens>,
}

impl TunnelTokens {
    /// Reads the state; the first token is the one that user-data left.
    pub(crate) fn open(disk: &Disk, layout: &Layout) -> Result<Self, DiskError> {
        let tokens = match disk.read_json(&layout.tunnel_state())? {
            Some(tokens) => Some(tokens),
            None => token::read(disk, &layout.tunnel_token())?.map(Tokens::first),
        };
        Ok(Self { disk: disk.clone(), layout: layout.clone(), tokens })
    }

    /// Compares what cloudflared's file holds with what it should: a cloud-init that was made to run
    /// again writes the first token back, which is long gone. Gives the token to write for the next
    /// start of a `connected` cloudflared; one that is not is started with it as a step of
    /// [`Self::next_step`], which a crash does not stop.
    pub(crate) fn compare(&mut self, connected: bool) -> Result<Option<SecretText>, DiskError> {
        let file = token::read(&self.disk, &self.layout.tunnel_token())?;
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let wanted = tokens.get(tokens.runs);
        if tokens.switching_to.is_some() || file.as_ref() == Some(wanted) {
            return Ok(None);
        }
        let (wanted, runs) = (wanted.clone(), tokens.runs);
        if connected {
            return Ok(Some(wanted));
        }
        self.save(Tokens { switching_to: Some(runs), ..tokens.clone() })?;
        Ok(None)
    }

    /// Adds the token to go to; whether that changed anything. It replaces one that is still pending.
    pub(crate) fn add(&mut self, token: SecretText) -> Result<bool, DiskError> {
        let changed = match &self.tokens {
            None => Tokens {
                proven: token,
                pending: None,
                runs: Which::Proven,
                switching_to: Some(Which::Proven),
            },
            Some(tokens) if tokens.proven == token || tokens.pending.as_ref() == Some(&token) => {
                return Ok(false);
            }
            Some(tokens) => {
                let mut changed = tokens.clone();
                changed.pending = Some(token);
                if tokens.runs == Which::Pending || tokens.switching_to.is_some() {
                    // cloudflared was started with a token that is gone now.
                    changed.switching_to = Some(Which::Pending);
                }
                changed
            }
        };
        self.save(changed)?;
        Ok(true)
    }

    /// Whether a token with this digest is on the server.
    pub(crate) fn contains(&self, sha256: &Sha256) -> bool {
        self.sha256().contains(sha256)
    }

    /// Digests of all tokens on the server.
    pub(crate) fn sha256(&self) -> Vec<Sha256> {
        let Some(tokens) = &self.tokens else { return Vec::new() };
        std::iter::once(&tokens.proven).chain(&tokens.pending).map(SecretText::sha256).collect()
    }

    /// Digest of the token that cloudflared runs with, unless it is just being restarted.
    pub(crate) fn active_sha256(&self) -> Option<Sha256> {
        let tokens = self.tokens.as_ref().filter(|tokens| tokens.switching_to.is_none())?;
        Some(tokens.get(tokens.runs).sha256())
    }

    /// Whether a rotation is under way.
    pub(crate) fn is_rotating(&self) -> bool {
        self.tokens
            .as_ref()
            .is_some_and(|tokens| tokens.pending.is_some() || tokens.switching_to.is_some())
    }

    /// What `rotation` says to do now, given whether cloudflared is connected.
    pub(crate) fn next_step(&self, rotation: &mut Rotation, connected: bool, now: Instant) -> Step {
        match &self.tokens {
            None => Step::Wait,
            Some(tokens) => match tokens.switching_to {
                Some(which) => Step::Switch(which),
                None => rotation.next(tokens.pending.is_some(), tokens.runs, connected, now),
            },
        }
    }

    /// Notes that cloudflared is about to be started with a token, and gives that token.
    pub(crate) fn begin_switch(&mut self, to: Which) -> Result<Option<SecretText>, DiskError> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let token = tokens.get(to).clone();
        if tokens.switching_to != Some(to) {
            self.save(Tokens { switching_to: Some(to), ..tokens.clone() })?;
        }
        Ok(Some(token))
    }

    /// Notes that cloudflared was started with `token`, unless another one came in the meantime.
    pub(crate) fn finish_switch(&mut self, to: Which, token: &SecretText) -> Result<(), DiskError> {
        match &self.tokens {
            Some(tokens) if tokens.switching_to == Some(to) && tokens.get(to) == token => {
                self.save(Tokens { runs: to, switching_to: None, ..tokens.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The pending token is proven: the other one is erased.
    pub(crate) fn promote(&mut self) -> Result<(), DiskError> {
        match &self.tokens {
            Some(Tokens {
                pending: Some(pending),
                runs: Which::Pending,
                switching_to: None,
                ..
            }) => {
                let proven = pending.clone();
                self.save(Tokens { proven, pending: None, runs: Which::Proven, switching_to: None })
            }
            _ => Ok(()),
        }
    }

    fn save(&mut self, tokens: Tokens) -> Result<(), DiskError> {
        self.disk.write_json(&self.layout.tunnel_state(), &tokens)?;
        self.tokens = Some(tokens);
        Ok(())
    }
}

impl Tokens {
    fn first(token: SecretText) -> Self {
        Self { proven: token, pending: None, runs: Which::Proven, switching_to: None }
    }

    /// A pending token that is asked for but not there is a switch back.
    fn get(&self, which: Which) -> &SecretText {
        match which {
            Which::Proven => &self.proven,
            Which::Pending => self.pending.as_ref().unwrap_or(&self.proven),
        }
    }
}

#[cfg(test)]
mod tests;

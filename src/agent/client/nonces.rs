//! The nonces that agents gave and that were not used yet: the newest one of each server, in bounded
//! memory. Losing one costs a second request, no more.

use std::collections::HashMap;

use moorage_wire::{Epoch, InstanceId};
use parking_lot::Mutex;

use crate::agent::ServerKeys;

/// More servers than one operator is meant for; about 2 MiB.
const CAPACITY: usize = 16 * 1024;

/// The newest nonce of each server.
#[derive(Default)]
pub(super) struct Nonces(Mutex<Given>);

#[derive(Default)]
struct Given {
    nonces: HashMap<(InstanceId, Epoch), (u64, String)>,
    /// Counts what was kept, so that the oldest can be told.
    sequence: u64,
}

impl Nonces {
    /// Takes the server's nonce; each is good for one request.
    pub(super) fn take(&self, keys: &ServerKeys) -> Option<String> {
        self.0.lock().nonces.remove(&(keys.instance, keys.epoch)).map(|(_, nonce)| nonce)
    }

    /// Keeps a nonce for the server's next request.
    pub(super) fn keep(&self, keys: &ServerKeys, nonce: String) {
        self.0.lock().keep((keys.instance, keys.epoch), nonce, CAPACITY);
    }
}

impl Given {
    fn keep(&mut self, server: (InstanceId, Epoch), nonce: String, capacity: usize) {
        self.sequence += 1;
        self.nonces.insert(server, (self.sequence, nonce));
        if self.nonces.len() > capacity {
            let oldest = self.nonces.iter().min_by_key(|(_, (sequence, _))| *sequence);
            if let Some(server) = oldest.map(|(server, _)| *server) {
                self.nonces.remove(&server);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_newest_survive() {
        let mut given = Given::default();
        let server = |number: u8| (InstanceId::from_bytes([number; 16]), Epoch::from_bytes([0; 8]));
        for number in 0..10 {
            given.keep(server(number), number.to_string(), 3);
        }
        let mut kept: Vec<_> = given.nonces.values().map(|(_, nonce)| nonce.as_str()).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["7", "8", "9"]);
    }
}

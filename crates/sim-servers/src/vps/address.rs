//! The addresses of the servers: one of 127.64.0.0/10 for each, so that every server has all ports.

use std::net::{Ipv4Addr, TcpListener};

use moorage_wire::bootstrap::GATEWAY_PORT;

/// Where the agent listens on a server's address.
pub const AGENT_PORT: u16 = 7443;
/// Where the connector serves its metrics on a server's address.
pub const METRICS_PORT: u16 = 20241;
/// Held by the backend for as long as the server exists: two simulators on one machine never take the
/// same address.
const RESERVATION_PORT: u16 = 20240;

/// How many addresses the block has, without its first and last.
const ADDRESSES: u64 = (1 << 22) - 2;
/// How many addresses are tried before giving up.
const ATTEMPTS: u64 = 1000;

/// An address that nobody else takes while this lives.
#[derive(Debug)]
pub(super) struct Reservation {
    address: Ipv4Addr,
    _held: TcpListener,
}

impl Reservation {
    /// Takes the address that belongs to `id`, or the next one that is free.
    pub(super) fn take(id: u64) -> std::io::Result<Self> {
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            let address = nth(id.wrapping_add(attempt));
            match Self::try_address(address) {
                Ok(held) => return Ok(Self { address, _held: held }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()))
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn try_address(address: Ipv4Addr) -> std::io::Result<TcpListener> {
        let held = TcpListener::bind((address, RESERVATION_PORT))?;
        for port in [AGENT_PORT, METRICS_PORT, GATEWAY_PORT] {
            TcpListener::bind((address, port))?;
        }
        Ok(held)
    }
}

fn nth(id: u64) -> Ipv4Addr {
    let offset = u32::try_from(id % ADDRESSES).expect("below 2^22") + 1;
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 0).to_bits() + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_in_their_block() {
        assert_eq!(nth(0), Ipv4Addr::new(127, 64, 0, 1));
        assert_eq!(nth(4711), Ipv4Addr::new(127, 64, 18, 104));
        assert_eq!(nth(ADDRESSES - 1), Ipv4Addr::new(127, 127, 255, 254));
        assert_eq!(nth(ADDRESSES), Ipv4Addr::new(127, 64, 0, 1));
        assert!(nth(u64::MAX).is_loopback());
    }

    #[test]
    fn a_taken_address_is_left_to_its_holder() {
        let first = Reservation::take(3_000_000).unwrap();
        let second = Reservation::take(3_000_000).unwrap();
        assert_ne!(first.address(), second.address());
    }
}

//! Addresses that nobody else takes before the program binds them that they are meant for.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// Half of the loopback addresses. The simulator's servers have a part of the other half, and
/// 127.0.0.1 is where everybody else binds.
const BLOCK: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 0);

/// A port on a loopback address that only this process gives away, and only once (but for the first
/// of 256): between our looking and the program's binding no other process takes the port.
pub fn free_address() -> io::Result<SocketAddr> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    TcpListener::bind((own_address(std::process::id(), number), 0))?.local_addr()
}

fn own_address(process: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(BLOCK.to_bits() | (process & 0x7fff) << 8 | (number & 0xff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_programs_have_addresses_of_their_own() {
        assert_eq!(own_address(0x7fff, 0), Ipv4Addr::new(127, 255, 255, 0));
        assert_eq!(own_address(0x8001, 7), Ipv4Addr::new(127, 128, 1, 7));
        let given = [free_address().unwrap(), free_address().unwrap()];
        assert_ne!(given[0].ip(), given[1].ip());
    }
}

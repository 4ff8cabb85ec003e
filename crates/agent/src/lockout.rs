//! The growing lockout of client addresses that present wrong bearer tokens. It knows nothing of
//! tokens: a valid one is never brought here, so it can neither be locked out nor slowed down.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

/// So many failures within [`WINDOW`] lock an address out.
pub(crate) const FAILURES: u32 = 10;
/// The time in which failures add up.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// The first lockout; each further one is twice as long.
pub(crate) const FIRST: Duration = Duration::from_secs(30);
pub(crate) const LONGEST: Duration = Duration::from_secs(900);
/// So many addresses are remembered; those that failed least recently are forgotten first.
pub(crate) const CAPACITY: usize = 4096;

/// What became of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Counted,
    /// This failure began a lockout of this length.
    LockedOut(Duration),
    /// The address is locked out for so long yet.
    StillLockedOut(Duration),
}

struct Offender {
    window_began: Instant,
    failures: u32,
    lockouts: u32,
    locked_until: Option<Instant>,
    /// Key into the order of last failures.
    sequence: u64,
}

/// The failures of all addresses, in bounded memory.
#[derive(Default)]
pub(crate) struct Lockout {
    offenders: HashMap<IpAddr, Offender>,
    by_last_failure: BTreeMap<u64, IpAddr>,
    sequence: u64,
}

impl Lockout {
    /// Counts a failure of `client`.
    pub(crate) fn failed(&mut self, client: IpAddr, now: Instant) -> Verdict {
        let client = network_of(client);
        self.touch(client, now);
        let offender = self.offenders.get_mut(&client).expect("touch puts the client there");
        match offender.locked_until {
            Some(until) if now < until => return Verdict::StillLockedOut(until - now),
            Some(until) => {
                offender.locked_until = None;
                offender.window_began = now;
                offender.failures = 0;
                if now - until > LONGEST {
                    offender.lockouts = 0;
                }
            }
            None if now.saturating_duration_since(offender.window_began) >= WINDOW => {
                offender.window_began = now;
                offender.failures = 0;
            }
            None => {}
        }
        offender.failures += 1;
        if offender.failures < FAILURES {
            return Verdict::Counted;
        }
        let length = FIRST.saturating_mul(1 << offender.lockouts.min(10)).min(LONGEST);
        offender.lockouts += 1;
        offender.locked_until = Some(now + length);
        Verdict::LockedOut(length)
    }

    /// Marks `client` as the most recent, and makes room for it.
    fn touch(&mut self, client: IpAddr, now: Instant) {
        self.sequence += 1;
        let sequence = self.sequence;
        if let Some(offender) = self.offenders.get_mut(&client) {
            self.by_last_failure.remove(&offender.sequence);
            offender.sequence = sequence;
        } else {
            if self.offenders.len() >= CAPACITY
                && let Some((_, oldest)) = self.by_last_failure.pop_first()
            {
                self.offenders.remove(&oldest);
            }
            let offender = Offender {
                window_began: now,
                failures: 0,
                lockouts: 0,
                locked_until: None,
                sequence,
            };
            self.offenders.insert(client, offender);
        }
        self.by_last_failure.insert(sequence, client);
    }
}

/// One customer of an access provider commonly holds a whole IPv6 /64, so that counts as one client.
fn network_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn fail_until_locked(lockout: &mut Lockout, now: Instant) -> Duration {
        for _ in 1..FAILURES {
            assert_eq!(lockout.failed(CLIENT, now), Verdict::Counted);
        }
        match lockout.failed(CLIENT, now) {
            Verdict::LockedOut(length) => length,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lockouts_double_up_to_a_limit() {
        let (mut lockout, mut now) = (Lockout::default(), Instant::now());
        let mut lengths = Vec::new();
        for _ in 0..7 {
            let length = fail_until_locked(&mut lockout, now);
            assert_eq!(lockout.failed(CLIENT, now), Verdict::StillLockedOut(length));
            lengths.push(length.as_secs());
            now += length;
        }
        assert_eq!(lengths, [30, 60, 120, 240, 480, 900, 900]);
    }

    #[test]
    fn a_long_quiet_time_is_forgiven() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        fail_until_locked(&mut lockout, now);
        let later = now + FIRST + LONGEST + Duration::from_secs(1);
        assert_eq!(fail_until_locked(&mut lockout, later), FIRST);
    }

    #[test]
    fn slow_failures_do_not_add_up() {
        let (mut lockout, mut now) = (Lockout::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(lockout.failed(CLIENT, now), Verdict::Counted);
            now += WINDOW / 5;
        }
    }

    #[test]
    fn a_lockout_covers_an_ipv6_network_and_no_other_address() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        fail_until_locked(&mut lockout, now);
        assert_eq!(lockout.failed(Ipv4Addr::new(192, 0, 2, 8).into(), now), Verdict::Counted);
        for host in 0..FAILURES {
            let client = format!("2001:db8::{host:x}").parse().unwrap();
            lockout.failed(client, now);
        }
        let neighbour = "2001:db8::ffff".parse().unwrap();
        assert_eq!(lockout.failed(neighbour, now), Verdict::StillLockedOut(FIRST));
    }

    #[test]
    fn a_hundred_thousand_addresses_keep_memory_flat() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        for number in 0..100_000_u32 {
            lockout.failed(Ipv4Addr::from(number).into(), now);
        }
        assert_eq!(lockout.offenders.len(), CAPACITY);
        assert_eq!(lockout.by_last_failure.len(), CAPACITY);
    }
}

//! The name of everything that one run makes: it tells these objects from all others, and when they were
//! made.

use std::{fmt, time::Duration};

use jiff::Timestamp;

/// What all names begin with.
pub const PREFIX: &str = "moorage-doctor-";
/// The label of objects at Hetzner.
pub const LABEL: &str = "moorage.dev/doctor";
/// The comment of DNS records.
pub const COMMENT: &str = "made by moorage doctor";
const DIGITS: usize = 8;

/// Such as `moorage-doctor-692c3f00`: the prefix and the time of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunName(u32);

impl RunName {
    /// Of a run that begins now.
    pub fn new(now: Timestamp) -> Self {
        // Eight digits last until the year 2106.
        Self(u32::try_from(now.as_second()).unwrap_or(u32::MAX))
    }

    /// The run that made an object of this name; `None` if none did.
    pub fn of(name: &str) -> Option<Self> {
        let digits = name.strip_prefix(PREFIX)?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != DIGITS || !digits.bytes().all(is_hex) {
            return None;
        }
        u32::from_str_radix(digits, 16).ok().map(Self)
    }

    /// How long ago it began.
    pub fn age(self, now: Timestamp) -> Duration {
        let seconds = now.as_second().saturating_sub(i64::from(self.0));
        Duration::from_secs(seconds.try_into().unwrap_or_default())
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:0DIGITS$x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn a_name_tells_when_it_was_made() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let name = RunName::new(now).to_string();
        assert_eq!(name.len(), 23);
        let later = now + Duration::from_secs(90);
        assert_eq!(RunName::of(&name).unwrap().age(later), Duration::from_secs(90));
    }

    #[rstest]
    #[case::ours("moorage-doctor-692c3f00", true)]
    #[case::a_pools("moorage-eu-1-0123456789abcdef", false)]
    #[case::of_a_person("moorage-doctor-notes", false)]
    #[case::upper_case("moorage-doctor-692C3F00", false)]
    #[case::longer("moorage-doctor-692c3f000", false)]
    fn only_names_of_this_form_are_ours(#[case] name: &str, #[case] ours: bool) {
        assert_eq!(RunName::of(name).is_some(), ours);
    }
}

//! Annotations: their names, and the values that people write into them, each parsed here and nowhere
//! else. Whoever may edit an object can write any text. What cannot be read asks for nothing.

use std::collections::BTreeMap;

use moorage_wire::Sha256;

/// Any change makes the operator look now.
pub const RECONCILE_AT: &str = "moorage.dev/reconcile-at";
/// The id of the server that is to be replaced: the only way a server is replaced on purpose.
pub const REBUILD: &str = "moorage.dev/rebuild";
/// Any change makes failed digests and held-back deliveries be tried again.
pub const RETRY: &str = "moorage.dev/retry";
/// On a pool: how many missing servers a person accepts to have recreated.
pub const ACCEPT_LOSS: &str = "moorage.dev/accept-missing-servers";
/// The fingerprint of the certificate that the values of a Secret were sealed to.
pub const SEALED_WITH: &str = "moorage.dev/sealed-with";
/// On a sealed Secret: that its instance was seen beside it. Set by the operator.
pub const INSTANCE_SEEN: &str = "moorage.dev/instance-seen";

/// The longest mark that is kept as it is, in bytes.
const LONGEST_MARK: usize = 64;

/// Annotations as an object has them.
pub type Annotations = BTreeMap<String, String>;

/// What the annotation `moorage.dev/rebuild` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rebuild {
    /// Nothing: there is no such annotation.
    #[default]
    No,
    /// That the server with this id is replaced.
    Server(u64),
    /// Nothing: its value is no server id.
    Unreadable,
}

impl Rebuild {
    /// As these annotations have it.
    pub fn of(annotations: &Annotations) -> Self {
        annotations
            .get(REBUILD)
            .map_or(Self::No, |text| exact(text).map_or(Self::Unreadable, Self::Server))
    }

    /// Whether this server is to be replaced.
    pub fn asks_for(self, server: u64) -> bool {
        self == Self::Server(server)
    }
}

/// How many missing servers a person accepts to have recreated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedLoss(u64);

impl AcceptedLoss {
    /// As a pool's annotations have it. A value that is no number accepts nothing.
    pub fn of(annotations: &Annotations) -> Option<Self> {
        annotations.get(ACCEPT_LOSS).and_then(|text| exact(text)).map(Self)
    }

    /// Whether so many may be missing.
    pub fn covers(self, missing: usize) -> bool {
        u64::try_from(missing).is_ok_and(|missing| missing <= self.0)
    }
}

/// A text of which only changes matter, as it can be passed on: itself if it is short and plain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// As the annotation of this name has it.
    pub fn of(annotations: &Annotations, name: &str) -> Option<Self> {
        annotations.get(name).map(|text| Self::new(text))
    }

    /// The text itself, or its digest where it is long or not plain.
    pub fn new(text: &str) -> Self {
        let plain =
            text.len() <= LONGEST_MARK && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        Self(if plain { text.to_owned() } else { Sha256::of(text.as_bytes()).to_string() })
    }

    /// As it is passed on.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is exactly this id.
    pub fn names(&self, id: u64) -> bool {
        exact(&self.0) == Some(id)
    }
}

/// What a person asks of an instance. A change of any of it is a reason to ask its agent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    reconcile_at: Option<Mark>,
    retry: Option<Mark>,
    rebuild: Rebuild,
}

impl Requests {
    /// As these annotations have it.
    pub fn of(annotations: &Annotations) -> Self {
        Self {
            reconcile_at: Mark::of(annotations, RECONCILE_AT),
            retry: Mark::of(annotations, RETRY),
            rebuild: Rebuild::of(annotations),
        }
    }
}

/// A number in the one way in which this program writes it: digits, without sign, leading zeros or spaces.
fn exact(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn with(name: &str, value: &str) -> Annotations {
        Annotations::from([(name.to_owned(), value.to_owned())])
    }

    #[rstest]
    #[case::as_it_is_written("4711", Some(4711))]
    #[case::zero("0", Some(0))]
    #[case::the_largest("18446744073709551615", Some(u64::MAX))]
    #[case::too_large("18446744073709551616", None)]
    #[case::sign("+4711", None)]
    #[case::negative("-4711", None)]
    #[case::leading_zero("04711", None)]
    #[case::space_before(" 4711", None)]
    #[case::line_end("4711\n", None)]
    #[case::point("4711.0", None)]
    #[case::other_digits("\u{664}\u{667}", None)]
    #[case::empty("", None)]
    #[case::all("all", None)]
    fn a_number_is_read_in_one_way_only(#[case] text: &str, #[case] number: Option<u64>) {
        let rebuild = number.map_or(Rebuild::Unreadable, Rebuild::Server);
        assert_eq!(Rebuild::of(&with(REBUILD, text)), rebuild);
        assert_eq!(AcceptedLoss::of(&with(ACCEPT_LOSS, text)), number.map(AcceptedLoss));
        assert_eq!(Mark::new(text).names(4711), number == Some(4711));
    }

    #[test]
    fn an_unreadable_request_asks_for_no_server() {
        for request in [Rebuild::No, Rebuild::Unreadable] {
            assert!(![0, 4711, u64::MAX].into_iter().any(|server| request.asks_for(server)));
        }
        assert!(Rebuild::Server(4711).asks_for(4711));
        assert!(!Rebuild::Server(4711).asks_for(4712));
    }

    #[test]
    fn a_mark_that_cannot_be_passed_on_becomes_its_digest() {
        let long = "1".repeat(64 << 10);
        for text in ["", "1", "2026-11-30T12:00:00Z"] {
            assert_eq!(Mark::new(text).as_str(), text);
        }
        for text in [long.as_str(), "a\nb", "a\u{1b}[2Jb", "\u{430}da"] {
            assert_eq!(Mark::new(text).as_str(), Sha256::of(text.as_bytes()).to_string());
        }
    }

    #[test]
    fn a_value_that_moves_to_another_annotation_is_a_change() {
        let requests = |name| Requests::of(&with(name, "1"));
        assert_ne!(requests(RETRY), requests(RECONCILE_AT));
        assert_ne!(requests(RETRY), Requests::of(&Annotations::new()));
    }
}

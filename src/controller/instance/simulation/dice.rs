//! All chance of a life, out of one seed.

use std::ops::Range;

/// A small generator (`SplitMix64`, by Steele, Lea and Flood): the same seed, the same numbers.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number within the range, which is not empty.
    pub(super) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True in so many of a thousand cases.
    pub(super) fn per_mille(&mut self, part: u64) -> bool {
        self.within(0..1000) < part
    }

    /// One of them; `None` if there is none.
    pub(super) fn one_of<T: Clone>(&mut self, all: impl IntoIterator<Item = T>) -> Option<T> {
        let all: Vec<T> = all.into_iter().collect();
        if all.is_empty() {
            return None;
        }
        let index = usize::try_from(self.within(0..all.len() as u64)).ok()?;
        all.get(index).cloned()
    }
}

//! How much of something scarce one party may hold while others may come: less than so many times what
//! is free ("dynamic thresholds", Choudhury and Hahne 1998). With three times, one alone gets three
//! quarters of it at most, the next three quarters of the rest, and whoever comes always finds some. Pure.

/// Whether a party that holds `used` may take one more while `free` are left, of which it may hold at
/// most `times` as many.
pub(crate) const fn may_take(used: u32, free: u32, times: u32) -> bool {
    used < free.saturating_mul(times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn most(free: u32, times: u32) -> u32 {
        let mut used = 0;
        while may_take(used, free - used, times) {
            used += 1;
        }
        used
    }

    #[test]
    fn one_alone_gets_three_quarters_and_the_next_of_the_rest() {
        assert_eq!(most(64, 3), 48);
        assert_eq!(most(16, 3), 12);
        assert_eq!(most(1000, 9), 900);
        assert_eq!(most(1, 3), 1, "the last one is given to whoever has none");
    }

    proptest! {
        #[test]
        fn whoever_has_nothing_gets_something_while_there_is_any(free in 1_u32..10_000) {
            prop_assert!(may_take(0, free, 3));
        }
    }
}

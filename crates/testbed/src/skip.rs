//! What a test says when it cannot run here, and when that is an error. `hack/` and the SDKs' tests
//! say it in their own languages.

use std::{env, fmt::Display};

/// Whether everything has to run here: `MOORAGE_REQUIRE_ALL=1`.
pub(crate) fn is_all_required() -> bool {
    env::var_os("MOORAGE_REQUIRE_ALL").is_some_and(|all| all == "1")
}

/// Says that the test is skipped, and why.
///
/// # Panics
/// If `MOORAGE_REQUIRE_ALL=1`: then a skip is an error.
pub fn skip(reason: impl Display) {
    assert!(!is_all_required(), "MOORAGE_REQUIRE_ALL=1, but {reason}");
    eprintln!("skipped: {reason}");
}

/// What a test needs; `None`, said as [`skip`] does, where it is missing.
pub fn or_skip<T>(needed: Result<T, impl Display>) -> Option<T> {
    needed.map_err(skip).ok()
}

/// As [`skip`], for want of the real cloudflared, which no registry has: `CLOUDFLARED_BIN=none`, as
/// `hack/lab.sh` says where there is none, excuses it.
pub fn skip_without_cloudflared(reason: impl Display) {
    if env::var_os("CLOUDFLARED_BIN").is_some_and(|named| named == "none") {
        eprintln!("skipped: {reason}");
    } else {
        skip(reason);
    }
}

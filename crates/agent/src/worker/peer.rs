//! Who may ask: the kernel says which user is at the other end of the socket.

use std::str::FromStr;

use crate::installer::accounts::{self, AccountError};

/// The user that may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(u32);

impl Client {
    /// Whether this is the user.
    pub(super) fn is(self, user: u32) -> bool {
        self.0 == user
    }
}

impl FromStr for Client {
    type Err = AccountError;

    /// Takes a number, or the name of a local user.
    fn from_str(text: &str) -> Result<Self, AccountError> {
        accounts::user(text).map(|user| Self(user.uid))
    }
}

//! x
pub mod cli;
pub mod credentials;
pub mod master_key;
pub mod master_key_store;

//! The client for the API server, made in one place. Every call has a short deadline of its own and
//! is made once; what a path is made of is looked at again before it is sent; and no content of an
//! answer gets into an error. Which objects are read is said by those who read them.

mod guard;
mod pages;
mod refusal;
#[cfg(test)]
mod tests;
mod told;

use std::time::Duration;

use kube::{Client, Config, client::ClientBuilder};

pub use guard::{NotInTime, NotMeant, TooLarge};
pub use pages::{PAGE_SIZE, Pages};
pub use told::told;

use guard::Guard;

/// For one call, its answer included. A watch has it for the beginning of its answer.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);
/// The largest answer that is read. The API server takes no object of more than 3 MiB, and etcd by default
/// none of more than 1.5, so it is that of a page of the largest objects there can be.
const LARGEST_ANSWER: usize = PAGE_SIZE as usize * (3 << 20);

/// A client for the API server that `config` names.
///
/// # Errors
/// When the configuration does not make one, such as an unreadable certificate.
pub fn client(config: Config) -> Result<Client, kube::Error> {
    client_with(config, CALL_DEADLINE)
}

fn client_with(mut config: Config, deadline: Duration) -> Result<Client, kube::Error> {
    // kube would repeat a call fifteen times, writes included, and wait as long as the server says;
    // whoever made the call knows better when to try again.
    config.default_retry = false;
    config.connect_timeout = Some(deadline);
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder.with_layer(&Guard { deadline, largest: LARGEST_ANSWER }).build())
}

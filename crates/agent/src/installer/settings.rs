//! What an installer is started with.

use moorage_wire::Sha256;

use super::update::UpdateTiming;
use crate::{accounts::User, conversation::Client, layout::Layout, listen::UnixSocket};

/// What an installer is started with. Trusted: it comes from the command line.
#[derive(Debug, Clone)]
pub struct InstallerSettings {
    /// The paths on the server.
    pub layout: Layout,
    /// Where to answer; mode 0600 if the installer makes it.
    pub listen: UnixSocket,
    /// Who may talk to it, besides root.
    pub client: Client,
    /// Who may read the tunnel's token, besides root.
    pub token_group: Option<u32>,
    /// Who tries new agents; `None` for the installer's own user.
    pub trial_user: Option<User>,
    /// The version of this very process, if it is an installed one.
    pub running: Option<Sha256>,
    /// How patient updates are.
    pub timing: UpdateTiming,
}

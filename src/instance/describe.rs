//! Steps in words, as `moorage plan` prints them: what is done, to what, without any value that is
//! drawn at random or secret.

use std::fmt;

use super::{Step, deletion::DeletionStep, placeholders::NEW_TUNNEL};
use crate::cloudflare::{DnsPatch, NewDnsRecord, TunnelConfiguration, TunnelId};

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AttachFirewall(_, server) => {
                write!(formatter, "put the pool's firewall back in front of server {server}")
            }
            Self::LabelServer(server, _) => {
                write!(formatter, "give server {server} its labels back")
            }
            Self::NameTunnel(id) => write!(formatter, "give {} its name back", tunnel(id)),
            Self::RecordEpoch(_) => {
                formatter.write_str("record the epoch of a new server in the status")
            }
            Self::CreateTunnel => formatter.write_str("create the Cloudflare Tunnel"),
            Self::BootstrapTunnel(id) => {
                write!(
                    formatter,
                    "give {} a first token for the new server and cut its old connections",
                    tunnel(id)
                )
            }
            Self::PutRoutes(id, rules) => {
                write!(formatter, "set the routes of {}: {}", tunnel(id), routes(rules))
            }
            Self::CheckRoutes(id, _) => {
                write!(
                    formatter,
                    "compare the routes of {} and set them again if they differ",
                    tunnel(id)
                )
            }
            Self::EnsureRecords { posts, patches } => formatter.write_str(&records(posts, patches)),
            Self::CreateServer => {
                formatter.write_str("create the Hetzner server behind the deny-all firewall")
            }
            Self::DeleteServer(id) => {
                write!(
                    formatter,
                    "delete Hetzner server {id} with its data, as the annotation moorage.dev/rebuild asks"
                )
            }
            Self::DeliverCredential(name) => {
                write!(formatter, "deliver credential {name} to the server")
            }
            Self::DeliverGatewayToken => {
                formatter.write_str("deliver the dashboard's token to the server")
            }
            Self::DeliverTunnelToken => {
                formatter.write_str("deliver the lasting tunnel token to the server")
            }
            Self::RotateTunnel(id) => {
                write!(
                    formatter,
                    "make the lasting token the only one of {} and cut the connections of the first",
                    tunnel(id)
                )
            }
            Self::HandOver => formatter.write_str("tell the agent the next key that it obeys"),
            Self::TakeOver => {
                formatter.write_str("call the agent with the next key, and use that from now on")
            }
            Self::EndHandOver => formatter.write_str("have the agent obey no older key any more"),
            Self::PutDesired { document, .. } => {
                let release = &document.artifacts.release;
                write!(formatter, "send the server its configuration and release {release}")
            }
            Self::DeleteSecret { name, recreated, .. } if recreated.is_empty() => {
                write!(formatter, "delete Secret {name}: every value in it is stored on the server")
            }
            Self::DeleteSecret { name, .. } => {
                write!(formatter, "delete Secret {name} again: its values were delivered before")
            }
            Self::RecordDashboardSecret(Some(name)) => {
                write!(formatter, "record in the status that the dashboard's Secret is {name}")
            }
            Self::RecordDashboardSecret(None) => {
                formatter.write_str("record in the status that the dashboard has no Secret")
            }
            Self::WriteDashboardSecret { name, .. } => {
                write!(formatter, "write the dashboard's URL and token into Secret {name}")
            }
            Self::DeleteDashboardSecret { name, .. } => {
                write!(formatter, "delete Secret {name}, which was the dashboard's before")
            }
        }
    }
}

impl fmt::Display for DeletionStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(id) => write!(formatter, "delete Hetzner server {id} with its data"),
            Self::Tunnel(id) => {
                write!(formatter, "cut the connections of tunnel {id} and delete it")
            }
            Self::Records(ids) => write!(formatter, "delete {}", counted(ids.len(), "DNS record")),
            Self::Secrets(secrets) => {
                let names: Vec<_> = secrets.iter().map(|secret| secret.name.as_str()).collect();
                write!(formatter, "delete the Secrets {}", names.join(", "))
            }
            Self::RetainServer(id, _) => {
                write!(formatter, "label Hetzner server {id} as retained and leave it")
            }
            Self::RetainRecords(ids) => {
                write!(
                    formatter,
                    "mark {} as retained and leave them",
                    counted(ids.len(), "DNS record")
                )
            }
            Self::RetainTunnel(id) => {
                write!(formatter, "name tunnel {id} as retained and leave it")
            }
            Self::TellOfCopies(ids) => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                write!(formatter, "wait until somebody settles what server {} is", ids.join(", "))
            }
            Self::Confirm => formatter.write_str("ask both clouds whether anything remains"),
            Self::RemoveFinalizer => formatter.write_str("remove the finalizer"),
        }
    }
}

/// One that is not made yet has no id to show.
fn tunnel(id: &TunnelId) -> String {
    if id.as_str() == NEW_TUNNEL { "the new tunnel".to_owned() } else { format!("tunnel {id}") }
}

fn routes(rules: &TunnelConfiguration) -> String {
    let named = rules
        .ingress
        .iter()
        .filter_map(|rule| Some(format!("{} to {}", rule.hostname.as_ref()?, rule.service)));
    named.collect::<Vec<_>>().join(", ")
}

fn records(posts: &[NewDnsRecord], patches: &[DnsPatch]) -> String {
    let names: Vec<_> = posts.iter().map(|post| post.name.as_str()).collect();
    let made =
        (!names.is_empty()).then(|| format!("create the DNS records {}", names.join(" and ")));
    let corrected =
        (!patches.is_empty()).then(|| format!("correct {}", counted(patches.len(), "DNS record")));
    made.into_iter().chain(corrected).collect::<Vec<_>>().join("; ")
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

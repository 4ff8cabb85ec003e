//! The pool's own DNS record: a proxied name that is there for as long as the pool is. Agents are dialled by
//! its address, because a resolver that was asked for a new name too early denies it for half an hour.

use super::identity::PoolIdentity;
use crate::{
    cloudflare::{DnsPatch, DnsRecord, NewDnsRecord},
    names,
};

/// What to do about the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorStep {
    Keep,
    Create(NewDnsRecord),
    /// It does not lead to the edge any more.
    Correct(DnsPatch),
    /// Somebody else's record has the name, so that the pool has none.
    Foreign,
}

/// The record's name.
pub fn host(identity: &PoolIdentity, domain: &str) -> String {
    names::pool_host(&identity.installation, &identity.pool, domain)
}

/// Compares the record with those that have its name.
pub fn plan(identity: &PoolIdentity, domain: &str, found: &[DnsRecord]) -> AnchorStep {
    let comment = names::pool_comment(&identity.installation, &identity.pool);
    match found {
        [] => AnchorStep::Create(NewDnsRecord::originless(host(identity, domain), comment)),
        all => match all.iter().find(|record| is_own(identity, record)) {
            None => AnchorStep::Foreign,
            Some(own) if own.proxied == Some(true) => AnchorStep::Keep,
            Some(own) => AnchorStep::Correct(DnsPatch {
                id: own.id.clone(),
                content: None,
                proxied: Some(true),
                comment: None,
            }),
        },
    }
}

/// Whether a record is the pool's own. People may add words behind the comment.
pub fn is_own(identity: &PoolIdentity, record: &DnsRecord) -> bool {
    let own = names::pool_comment(&identity.installation, &identity.pool);
    let rest = record.comment.as_deref().and_then(|comment| comment.strip_prefix(&own));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use moorage_wire::InstallationId;

    use super::*;
    use crate::instance::placeholders::new_record;

    const DOMAIN: &str = "example.com";

    fn identity() -> PoolIdentity {
        PoolIdentity::new("eu-1", InstallationId::from_bytes([7; 8]))
    }

    #[test]
    fn the_record_is_made_once_and_kept_proxied() {
        let AnchorStep::Create(post) = plan(&identity(), DOMAIN, &[]) else {
            panic!("there is none")
        };
        let made = new_record(&post);
        assert_eq!(made.name, host(&identity(), DOMAIN));
        assert_eq!(plan(&identity(), DOMAIN, std::slice::from_ref(&made)), AnchorStep::Keep);
        let exposed = DnsRecord { proxied: Some(false), ..made.clone() };
        let corrected = plan(&identity(), DOMAIN, &[exposed]);
        assert!(matches!(corrected, AnchorStep::Correct(patch) if patch.proxied == Some(true)));
        let foreign = DnsRecord { comment: None, ..made.clone() };
        assert_eq!(plan(&identity(), DOMAIN, &[foreign]), AnchorStep::Foreign);
        let other = PoolIdentity::new("eu-11", InstallationId::from_bytes([7; 8]));
        assert!(
            !is_own(&other, &made)
                && !is_own(
                    &identity(),
                    &DnsRecord {
                        comment: Some(names::pool_comment(&other.installation, &other.pool)),
                        ..made
                    }
                )
        );
    }
}

//! What visitors of the zone meet at Cloudflare's edge. Moorage's own token need not see any of it.

use super::{
    cloudflare::DOMAIN,
    finding::{Check, Finding, Scope},
};
use crate::{
    api::conditions::Reason,
    cloud::CloudError,
    cloudflare::{BotManagement, CertificatePack},
};

/// The certificate of instances' names.
pub const CERTIFICATE: Check = Check { id: "edge.certificate", title: "Certificate of the edge" };
/// HTTPS at all.
pub const SSL: Check = Check { id: "edge.ssl", title: "Encryption mode" };
/// What the dashboard speaks.
pub const WEBSOCKETS: Check = Check { id: "edge.websockets", title: "WebSockets" };
/// Browser Integrity Check.
pub const BROWSER_CHECK: Check =
    Check { id: "edge.browser-check", title: "Browser Integrity Check" };
/// Bot Fight Mode.
pub const BOTS: Check = Check { id: "edge.bots", title: "Bot Fight Mode" };

const CERTIFICATES_READ: Scope = Scope::Optional("Zone: SSL and Certificates: Read");
const SETTINGS_READ: Scope = Scope::Optional("Zone: Zone Settings: Read");
const BOTS_READ: Scope = Scope::Optional("Zone: Bot Management: Read");

/// What was seen of the edge.
pub struct Seen {
    /// Certificates.
    pub certificates: Result<Vec<CertificatePack>, CloudError>,
    /// The setting `ssl`.
    pub ssl: Result<String, CloudError>,
    /// The setting `websockets`.
    pub websockets: Result<String, CloudError>,
    /// The setting `browser_check`.
    pub browser_check: Result<String, CloudError>,
    /// What is done about bots.
    pub bots: Result<BotManagement, CloudError>,
}

/// All checks of the edge, or the check because of which there is nothing to see. `domain` is none if it
/// does not fit the zone.
pub fn judge(domain: Option<&str>, seen: Result<&Seen, &Check>) -> Vec<Finding> {
    let seen = match seen {
        Ok(seen) => seen,
        Err(cause) => {
            let all = [&CERTIFICATE, &SSL, &WEBSOCKETS, &BROWSER_CHECK, &BOTS];
            return all.map(|check| check.blocked_by(cause)).to_vec();
        }
    };
    vec![
        match domain {
            Some(domain) => certificate(domain, seen.certificates.as_deref()),
            None => CERTIFICATE.blocked_by(&DOMAIN),
        },
        setting(&SSL, &seen.ssl, |mode| {
            (mode == "off").then_some(
                "Set the zone's encryption mode (SSL/TLS, Overview) to Full: browsers and the operator speak HTTPS only",
            )
        }),
        setting(&WEBSOCKETS, &seen.websockets, |mode| {
            (mode == "off").then_some(
                "Switch WebSockets on (the zone's Network page): the dashboard does not work without",
            )
        }),
        browser_check(&seen.browser_check),
        bots(&seen.bots),
    ]
}

fn certificate(domain: &str, seen: Result<&[CertificatePack], &CloudError>) -> Finding {
    let packs = match seen {
        Ok(packs) => packs,
        Err(error) => return CERTIFICATE.refused(error, CERTIFICATES_READ),
    };
    let wildcard = format!("*.{domain}");
    let covering: Vec<_> = packs.iter().filter(|pack| pack.hosts.contains(&wildcard)).collect();
    if let Some(pack) = covering.iter().find(|pack| pack.status == "active") {
        return CERTIFICATE.pass(format!("{wildcard} is covered (type {})", pack.kind));
    }
    match covering.first() {
        Some(pack) => CERTIFICATE.fail(
            format!("The certificate for {wildcard} is {}", pack.status),
            "Wait: the first certificate of a zone takes 15 minutes to 24 hours. If it lasts, look at SSL/TLS, Edge Certificates",
        ),
        None => CERTIFICATE.fail(
            format!("No certificate covers {wildcard}"),
            "Switch Universal SSL on (SSL/TLS, Edge Certificates), or order an advanced certificate for it",
        ),
    }
}

/// A setting of which `wrong` gives the remedy where it is wrong.
fn setting(
    check: &Check,
    seen: &Result<String, CloudError>,
    wrong: impl Fn(&str) -> Option<&'static str>,
) -> Finding {
    match seen {
        Err(error) => check.refused(error, SETTINGS_READ),
        Ok(value) => match wrong(value) {
            Some(remedy) => check.fail(format!("It is {value}"), remedy),
            None => check.pass(format!("It is {value}")),
        },
    }
}

/// On is the default, and lets Moorage's own calls pass.
fn browser_check(seen: &Result<String, CloudError>) -> Finding {
    match seen {
        Ok(value) if value == "on" => BROWSER_CHECK
            .pass("It is on; if calls are refused with error 1010, switch it off for names ending in -mgmt"),
        seen => setting(&BROWSER_CHECK, seen, |_| None),
    }
}

fn bots(seen: &Result<BotManagement, CloudError>) -> Finding {
    match seen {
        Err(error) => BOTS.refused(error, BOTS_READ),
        Ok(bots) if bots.fight_mode == Some(true) => {
            BOTS.fail("It is on, and no rule can make exceptions", Reason::EdgeChallenge.remedy())
        }
        Ok(BotManagement { sbfm_definitely_automated: Some(action), .. }) if action != "allow" => {
            BOTS.fail(
                format!("Super Bot Fight Mode answers programs with {action}"),
                "Let a WAF rule skip it for host names that end in -mgmt, or set it to allow",
            )
        }
        Ok(_) => BOTS.pass("It is off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::{Cloud, ErrorKind},
        doctor::finding::Verdict::{self, Fail, Pass, Unknown},
    };
    use rstest::rstest;

    fn healthy() -> Seen {
        let hosts = vec!["example.com".to_owned(), "*.example.com".to_owned()];
        let pack = |status: &str| CertificatePack {
            hosts: hosts.clone(),
            status: status.to_owned(),
            kind: "universal".to_owned(),
        };
        Seen {
            certificates: Ok(vec![pack("expired"), pack("active")]),
            ssl: Ok("full".to_owned()),
            websockets: Ok("on".to_owned()),
            browser_check: Ok("on".to_owned()),
            bots: Ok(BotManagement { fight_mode: Some(false), ..BotManagement::default() }),
        }
    }

    fn refused<T>() -> Result<T, CloudError> {
        let kind = ErrorKind::Forbidden { read_only: false };
        Err(CloudError::new(Cloud::Cloudflare, "get_zone_setting", kind, ""))
    }

    type Change = fn(&mut Seen);

    #[rstest]
    #[case::healthy(|_: &mut Seen| (), SSL, Pass)]
    #[case::ssl_off(|seen: &mut Seen| seen.ssl = Ok("off".to_owned()), SSL, Fail)]
    #[case::no_websockets(|seen: &mut Seen| seen.websockets = Ok("off".to_owned()), WEBSOCKETS, Fail)]
    #[case::bots(|seen: &mut Seen| seen.bots.as_mut().unwrap().fight_mode = Some(true), BOTS, Fail)]
    #[case::super_bots(|seen: &mut Seen| seen.bots.as_mut().unwrap().sbfm_definitely_automated = Some("block".to_owned()), BOTS, Fail)]
    #[case::not_issued_yet(|seen: &mut Seen| seen.certificates.as_mut().unwrap()[1].status = "pending_validation".to_owned(), CERTIFICATE, Fail)]
    #[case::no_universal_ssl(|seen: &mut Seen| seen.certificates = Ok(Vec::new()), CERTIFICATE, Fail)]
    #[case::one_level_too_deep(|seen: &mut Seen| for pack in seen.certificates.as_mut().unwrap() { pack.hosts = vec!["*.eu.example.com".to_owned()]; }, CERTIFICATE, Fail)]
    #[case::certificates_unseen(|seen: &mut Seen| seen.certificates = refused(), CERTIFICATE, Unknown)]
    #[case::settings_unseen(|seen: &mut Seen| seen.ssl = refused(), SSL, Unknown)]
    #[case::bots_unseen(|seen: &mut Seen| seen.bots = refused(), BOTS, Unknown)]
    fn what_is_wrong_at_the_edge_is_one_finding(
        #[case] change: Change,
        #[case] check: Check,
        #[case] verdict: Verdict,
    ) {
        let mut seen = healthy();
        change(&mut seen);
        for finding in judge(Some("example.com"), Ok(&seen)) {
            let expected = if finding.id == check.id { verdict } else { Pass };
            assert_eq!(finding.verdict, expected, "{finding:?}");
        }
    }
}

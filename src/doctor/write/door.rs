//! The door: an Access application before a host name that nobody serves, and who gets past it.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::{Run, record::Host};
use crate::{
    agent::client::is_challenge,
    api::conditions::Reason,
    cloud::CloudError,
    cloudflare::{AccessApi as _, AccessAppSpec, AccessDestination, IssuedServiceToken},
    doctor::{
        CloudflareTarget,
        finding::{Check, Finding, Scope},
        web::causes,
    },
    pool::{access, zone::LONGEST_APP_DOMAIN},
};

/// Access lets in who shows the right token, and nobody else.
pub const DOOR: Check = Check { id: "write.door", title: "Door before the management names" };

const EDIT: Scope = Scope::Required(
    "Account: Access: Apps and Policies: Edit and Account: Access: Service Tokens: Edit",
);
/// An application works everywhere within seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
const CALL_PATIENCE: Duration = Duration::from_secs(15);
/// The most that is read of a page.
const MOST_OF_A_PAGE: usize = 4096;

/// What the edge answers where no connector is: who gets this was let in.
const NO_CONNECTOR: u16 = 530;

/// What one knock came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Knock {
    Answer(u16),
    /// The edge takes us for a bot.
    Challenged,
    Failed(String),
}

/// With no token, a wrong one, the right one.
type Knocks = [Knock; 3];

pub(super) async fn check(run: &Run<'_>, target: &CloudflareTarget, host: &Host) -> Finding {
    if host.name.len() > LONGEST_APP_DOMAIN {
        return DOOR.unknown(format!(
            "Not tried: {} is longer than the {LONGEST_APP_DOMAIN} characters that Access takes; Moorage itself uses a shorter pattern",
            host.name
        ));
    }
    let token = match build(run, target, host).await {
        Ok(token) => token,
        Err(error) => return DOOR.refused(&error, EDIT),
    };
    let client = match client(run, host) {
        Ok(client) => client,
        Err(error) => return DOOR.fail(causes(&error), "Correct --edge-ca"),
    };
    let begin = Instant::now();
    loop {
        let knocks = knock(&client, host, &token).await;
        if is_shut(&knocks) || begin.elapsed() > PATIENCE || run.stop.is_cancelled() {
            return judge(&knocks, begin.elapsed());
        }
        run.pause(PAUSE).await;
    }
}

/// The token first: the policy names it, and the application the policy.
async fn build(
    run: &Run<'_>,
    target: &CloudflareTarget,
    host: &Host,
) -> Result<IssuedServiceToken, CloudError> {
    let (client, name) = (&target.client, run.name.to_string());
    let issued = client.create_service_token(&name, access::TOKEN_DURATION).await?;
    let policy = access::policy_spec(&name, &issued.token.id);
    let policy = client.create_access_policy(&policy).await?;
    let destinations = vec![AccessDestination::public(&host.name)];
    let app = AccessAppSpec { name, destinations, policies: vec![policy.id] };
    client.create_access_app(&app).await?;
    Ok(issued)
}

fn client(run: &Run<'_>, host: &Host) -> reqwest::Result<reqwest::Client> {
    let addresses: Vec<SocketAddr> = match run.ways.edge {
        Some(edge) => vec![edge],
        None => host.addresses.iter().map(|address| (*address, 443).into()).collect(),
    };
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("moorage/", env!("CARGO_PKG_VERSION")))
        .https_only(true)
        .no_proxy()
        .timeout(CALL_PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .resolve_to_addrs(&host.name, &addresses);
    if let Some(pem) = &run.ways.edge_roots {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    builder.build()
}

async fn knock(client: &reqwest::Client, host: &Host, token: &IssuedServiceToken) -> Knocks {
    let id = token.token.client_id.as_str();
    let secret = token.client_secret.expose_secret();
    // As long as a right one.
    let wrong = "0".repeat(secret.len().max(1));
    [
        one_knock(client, host, None).await,
        one_knock(client, host, Some((id, &wrong))).await,
        one_knock(client, host, Some((id, secret))).await,
    ]
}

async fn one_knock(client: &reqwest::Client, host: &Host, token: Option<(&str, &str)>) -> Knock {
    let mut request = client.get(format!("https://{}/", host.name));
    if let Some((id, secret)) = token {
        let (Ok(id), Ok(mut secret)) = (HeaderValue::from_str(id), HeaderValue::from_str(secret))
        else {
            return Knock::Failed("Cloudflare's token is no header".to_owned());
        };
        secret.set_sensitive(true);
        request =
            request.header("CF-Access-Client-Id", id).header("CF-Access-Client-Secret", secret);
    }
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Knock::Failed(causes(&error)),
    };
    let (status, headers) = (response.status(), response.headers().clone());
    let mut page = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        page.extend_from_slice(&chunk);
        if page.len() >= MOST_OF_A_PAGE {
            break;
        }
    }
    if is_challenge(status, &headers, &page) {
        Knock::Challenged
    } else {
        Knock::Answer(status.as_u16())
    }
}

/// Access refuses a service with 401 or 403, and sends a person to its login page.
fn is_refusal(knock: &Knock) -> bool {
    let Knock::Answer(status) = knock else { return false };
    let status = StatusCode::from_u16(*status).unwrap_or_default();
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::FOUND)
}

fn is_shut(knocks: &Knocks) -> bool {
    let [none, wrong, right] = knocks;
    is_refusal(none) && is_refusal(wrong) && *right == Knock::Answer(NO_CONNECTOR)
}

fn judge(knocks: &Knocks, elapsed: Duration) -> Finding {
    let [none, wrong, right] = knocks;
    if knocks.contains(&Knock::Challenged) {
        let detail = "The edge takes this program for a bot (cf-mitigated, 1010 or 1020)";
        return DOOR.fail(detail, Reason::EdgeChallenge.remedy());
    }
    if let Some(why) = knocks.iter().find_map(|knock| match knock {
        Knock::Failed(why) => Some(why),
        _ => None,
    }) {
        let remedy = if why.contains("certificate") || why.contains("handshake") {
            "See edge.certificate: the first certificate of a zone takes 15 minutes to 24 hours"
        } else {
            "Let HTTPS to Cloudflare's edge pass"
        };
        return DOOR.fail(format!("The edge cannot be reached: {why}"), remedy);
    }
    let status = |knock: &Knock| match knock {
        Knock::Answer(status) => status.to_string(),
        _ => String::new(),
    };
    let seen = format!(
        "{} without a token, {} with a wrong one, {} with the right one",
        status(none),
        status(wrong),
        status(right)
    );
    if is_shut(knocks) {
        return DOOR.pass(format!(
            "{seen} (530: let in, nobody serves it); after {:.1} s",
            elapsed.as_secs_f64()
        ));
    }
    if is_refusal(none) && is_refusal(wrong) && is_refusal(right) {
        return DOOR.fail(
            format!("Access refuses the right token: {seen}"),
            "Look in Zero Trust for another application or a policy that covers the whole zone",
        );
    }
    if is_refusal(none) && is_refusal(wrong) {
        return DOOR.warn(
            format!("Access works, but what follows is not as expected: {seen}"),
            "Look for a Worker, rule or tunnel that covers the whole zone",
        );
    }
    DOOR.fail(
        format!("The door is open: {seen}"),
        "Look in Zero Trust for an application that bypasses Access for the whole zone",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{self, Fail, Pass, Warn};
    use rstest::rstest;

    const fn answers(none: u16, wrong: u16, right: u16) -> Knocks {
        [Knock::Answer(none), Knock::Answer(wrong), Knock::Answer(right)]
    }

    #[rstest]
    #[case::shut(answers(401, 401, 530), Pass, "530")]
    #[case::shut_by_a_login_page(answers(302, 403, 530), Pass, "530")]
    #[case::open(answers(530, 530, 530), Fail, "open")]
    #[case::open_for_a_wrong_token(answers(401, 530, 530), Fail, "open")]
    #[case::shut_for_everybody(answers(403, 403, 403), Fail, "right token")]
    #[case::something_answers(answers(401, 401, 200), Warn, "not as expected")]
    #[case::bots([Knock::Challenged, Knock::Challenged, Knock::Challenged], Fail, "bot")]
    fn a_door_opens_for_the_right_token_alone(
        #[case] knocks: Knocks,
        #[case] verdict: Verdict,
        #[case] says: &str,
    ) {
        let finding = judge(&knocks, Duration::from_secs(1));
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        assert!(finding.detail.contains(says), "{finding:?}");
        assert_eq!(is_shut(&knocks), verdict == Pass);
    }

    #[test]
    fn an_untrusted_certificate_is_told_as_one() {
        let failed = || Knock::Failed("invalid peer certificate: UnknownIssuer".to_owned());
        let finding = judge(&[failed(), failed(), failed()], Duration::ZERO);
        assert!(finding.remedy.unwrap().contains("edge.certificate"));
    }
}

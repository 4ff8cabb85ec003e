//! A tunnel with routes as an instance has them, read back, and its secret replaced.

use super::Run;
use crate::{
    cloud::{CloudError, Priority},
    cloudflare::{
        CreateTunnel, IngressRule, Tunnel, TunnelApi as _, TunnelConfiguration, TunnelId,
    },
    doctor::{
        CloudflareTarget,
        finding::{Check, Finding, Scope},
    },
    master_key::TunnelSecret,
};

/// A tunnel can be made and configured.
pub const TUNNEL: Check = Check { id: "write.tunnel", title: "Tunnel" };

const EDIT: Scope = Scope::Required("Account: Cloudflare Tunnel: Edit");

/// The finding, and the tunnel if one was made.
pub(super) async fn check(run: &Run<'_>, target: &CloudflareTarget) -> (Finding, Option<TunnelId>) {
    let Some(secret) = random_secret() else {
        return (TUNNEL.fail("The system has no randomness", "Look at the machine"), None);
    };
    let name = run.name.to_string();
    let made = target.client.create_tunnel(&CreateTunnel { name: &name, secret: &secret }).await;
    let Tunnel { id, .. } = match made {
        Ok(tunnel) => tunnel,
        Err(error) => return (TUNNEL.refused(&error, EDIT), None),
    };
    let sent = routes();
    let finding = match configure(target, &id, &sent).await {
        Err(error) => TUNNEL.refused(&error, EDIT),
        Ok(None) => TUNNEL.fail(
            "Its routes are gone when they are read back",
            "Look for another program that changes tunnels of this account",
        ),
        Ok(Some(read)) => compare(&sent, &read),
    };
    (finding, Some(id))
}

async fn configure(
    target: &CloudflareTarget,
    id: &TunnelId,
    routes: &TunnelConfiguration,
) -> Result<Option<TunnelConfiguration>, CloudError> {
    target.client.put_tunnel_configuration(id, routes).await?;
    let read = target.client.get_tunnel_configuration(Priority::Normal, id).await?;
    if let Some(secret) = random_secret() {
        target.client.rotate_tunnel_secret(id, &secret).await?;
    }
    Ok(read.and_then(|read| read.config))
}

fn random_secret() -> Option<TunnelSecret> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).ok().map(|()| TunnelSecret::new(bytes))
}

/// The form that an instance's routes have: a socket, and nothing for everything else.
fn routes() -> TunnelConfiguration {
    let rule = |hostname: Option<&str>, service: &str| IngressRule {
        hostname: hostname.map(str::to_owned),
        path: None,
        service: service.to_owned(),
        origin_request: None,
    };
    let socket = rule(Some("moorage-doctor.invalid"), "unix:/run/moorage/agent.sock");
    TunnelConfiguration {
        ingress: vec![socket, rule(None, "http_status:404")],
        ..Default::default()
    }
}

/// What comes back may have more than what was sent, but must mean the same.
fn compare(sent: &TunnelConfiguration, read: &TunnelConfiguration) -> Finding {
    let meaning = |rule: &IngressRule| {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        (given(&rule.hostname), given(&rule.path), rule.service.clone())
    };
    let sent_rules: Vec<_> = sent.ingress.iter().map(meaning).collect();
    let read_rules: Vec<_> = read.ingress.iter().map(meaning).collect();
    if sent_rules != read_rules {
        let services: Vec<_> = read.ingress.iter().map(|rule| rule.service.as_str()).collect();
        return TUNNEL.fail(
            format!("The routes that are read back are others: {}", services.join(", ")),
            "Report it: this version of Moorage cannot tell its routes from changed ones",
        );
    }
    let mut added: Vec<_> = read.other.keys().cloned().collect();
    if read.ingress.iter().any(|rule| rule.origin_request.is_some()) {
        added.push("originRequest".to_owned());
    }
    let added = if added.is_empty() {
        "as they were sent".to_owned()
    } else {
        format!("with {} added", added.join(", "))
    };
    TUNNEL.pass(format!("One was made, its routes come back {added}, and its secret was replaced"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{self, Fail, Pass};
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::the_same(json!({}), Pass)]
    #[case::normalised(json!({"originRequest": {}}), Pass)]
    #[case::another_service(json!({"service": "http://127.0.0.1:1"}), Fail)]
    #[case::another_path(json!({"path": "^/x"}), Fail)]
    fn routes_are_compared_by_their_meaning(#[case] change: Value, #[case] verdict: Verdict) {
        let sent = routes();
        let mut read = serde_json::to_value(&sent).unwrap();
        read["ingress"][0].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        read["ingress"][1]["hostname"] = json!("");
        read["warp-routing"] = json!({"enabled": false});
        let finding = compare(&sent, &serde_json::from_value(read).unwrap());
        assert_eq!(finding.verdict, verdict, "{finding:?}");
    }
}

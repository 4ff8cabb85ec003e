//! What the operator orders: releases, and the signed documents that name them.

use http::HeaderMap;
use moorage_agent::installer::protocol::SignedCall;
use moorage_wire::{
    AgentPublicKey, DesiredState, Epoch, InstanceId, Program, Secret, Sha256,
    bootstrap::{Bootstrap, EnrolmentKeyText},
    desired::{Artifact, Artifacts, Integration, IntegrationKind},
    path,
    signature::{AgentKey, OperatorKey, Peers, RequestParts, sign_request},
};
use serde_json::json;

const NONCE: &str = "00112233445566778899aabbccddeeff";

pub(crate) fn artifact(version: &str, bytes: &[u8]) -> Artifact {
    Artifact {
        version: version.to_owned(),
        url: "https://releases.example/file".to_owned(),
        sha256: Sha256::of(bytes),
        size: bytes.len() as u64,
    }
}

/// What the operator orders.
#[derive(Clone)]
pub(crate) struct Release {
    artifacts: Artifacts,
    retry: Option<String>,
    integrations: Vec<Integration>,
}

impl Default for Release {
    fn default() -> Self {
        let some = || artifact("0", b"nothing");
        let (openclaw, node, cloudflared, agent) = (some(), some(), some(), some());
        let release = "1".to_owned();
        Self {
            artifacts: Artifacts { release, openclaw, node, cloudflared, agent },
            retry: None,
            integrations: Vec::new(),
        }
    }
}

impl Release {
    pub(crate) fn with(mut self, kind: Program, artifact: Artifact) -> Self {
        let place = match kind {
            Program::Openclaw => &mut self.artifacts.openclaw,
            Program::Node => &mut self.artifacts.node,
            Program::Cloudflared => &mut self.artifacts.cloudflared,
            Program::Agent => &mut self.artifacts.agent,
        };
        *place = artifact;
        self
    }

    pub(crate) fn integration(mut self, artifact: Artifact) -> Self {
        self.integrations.push(Integration {
            kind: IntegrationKind::Skill,
            name: "weather".to_owned(),
            version: artifact.version.clone(),
            integrity: None,
            artifact: Some(artifact),
            unpinned: false,
        });
        self
    }

    pub(crate) fn retry(mut self, retry: &str) -> Self {
        self.retry = Some(retry.to_owned());
        self
    }

    pub(crate) fn order(self) -> SignedCall {
        self.order_by(&operator())
    }

    pub(crate) fn order_by(self, signer: &OperatorKey) -> SignedCall {
        let state = DesiredState {
            config: json!({}),
            credentials: std::collections::BTreeSet::default(),
            artifacts: self.artifacts,
            integrations: self.integrations,
            approved_pairings: std::collections::BTreeSet::default(),
            retry: self.retry,
        };
        let (body, bootstrap, if_match) = (state.to_bytes(), bootstrap(), "\"none\"");
        let peers = Peers {
            instance: bootstrap.instance_id,
            epoch: bootstrap.epoch,
            agent: Some(agent_key()),
        };
        let parts = RequestParts {
            method: "PUT",
            path: path::DESIRED,
            query: "",
            if_match: Some(if_match),
            body: &body,
        };
        let mut headers: HeaderMap = sign_request(signer, &peers, NONCE, &parts).unwrap();
        headers.insert(http::header::IF_MATCH, if_match.parse().unwrap());
        SignedCall::new(&headers, agent_key(), &body).unwrap()
    }
}

fn operator() -> OperatorKey {
    OperatorKey::from_seed(&Secret::from([1; 32]))
}

fn agent_key() -> AgentPublicKey {
    AgentKey::from_seed(&Secret::from([2; 32])).public_key()
}

pub(crate) fn bootstrap() -> Bootstrap {
    Bootstrap {
        instance_id: InstanceId::from_bytes([1; 16]),
        epoch: Epoch::from_bytes([2; 8]),
        operator_key: operator().public_key(),
        bearer_sha256: Sha256::of(b""),
        enrolment_key: EnrolmentKeyText::new(String::new()),
    }
}

//! The agent of a server that has no tunnel, asked on its socket from within.

use http::{HeaderMap, HeaderName};
use moorage_testbed::{LabServer, wait_until};
use moorage_wire::{
    AgentPublicKey, Report,
    enrolment::EnrolmentAnswer,
    path,
    signature::{NEXT_NONCE, Peers, RequestParts, sign_request},
};

use crate::{BEARER, EPOCH, INSTANCE, enrolment_key, machine::PATIENCE, operator_key};

const CHALLENGE: &str = "0123456789abcdef0123456789abcdef";

/// An agent whose keys are known.
pub(crate) struct Agent<'a> {
    server: &'a LabServer,
    public_key: AgentPublicKey,
}

impl<'a> Agent<'a> {
    /// Waits until it has its keys, the sealing key among them, and checks their proof.
    pub(crate) async fn enrol(server: &'a LabServer) -> Self {
        let target = format!("{}?challenge={CHALLENGE}", path::ENROLMENT);
        let enrolment = wait_until("the agent shows its keys", PATIENCE, || async {
            let (_, body) = get(server, &target, &HeaderMap::new()).await?;
            serde_json::from_str::<EnrolmentAnswer>(&body)
                .map_err(|error| format!("{error}: {body}"))
        });
        let enrolment = enrolment.await.unwrap();
        enrolment.verify(&enrolment_key(), CHALLENGE, INSTANCE, EPOCH).unwrap();
        assert!(enrolment.identity.sealing_certificate.contains("BEGIN CERTIFICATE"));
        Self { server, public_key: enrolment.identity.public_key }
    }

    /// What it reports.
    pub(crate) async fn report(&self) -> Report {
        let report = wait_until("the agent reports", PATIENCE, || async {
            let (nonce, _) = get(self.server, path::REPORT, &HeaderMap::new()).await?;
            let peers = Peers { instance: INSTANCE, epoch: EPOCH, agent: Some(self.public_key) };
            let (method, path) = ("GET", path::REPORT);
            let parts = RequestParts { method, path, query: "", if_match: None, body: b"" };
            let headers = sign_request(&operator_key(), &peers, &nonce, &parts)
                .map_err(|error| error.to_string())?;
            let (_, body) = get(self.server, path, &headers).await?;
            serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
        });
        report.await.unwrap()
    }
}

/// The nonce and the body of an answer.
async fn get(
    server: &LabServer,
    target: &str,
    headers: &HeaderMap,
) -> Result<(String, String), String> {
    let bearer = format!("Authorization: Bearer {BEARER}");
    let line = |(name, value): (&HeaderName, &http::HeaderValue)| {
        format!("{name}: {}", value.to_str().unwrap())
    };
    let lines: Vec<String> = headers.iter().map(line).chain([bearer]).collect();
    let url = format!("http://agent{target}");
    let socket = ["curl", "-sS", "--include", "--unix-socket", "/run/moorage/agent.sock"];
    let headers = lines.iter().flat_map(|line| ["--header", line]);
    let argv: Vec<&str> = socket.into_iter().chain(headers).chain([&*url]).collect();
    let answer = server.exec(&argv).await.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let nonce = headers.rfind(|(name, _)| *name == NEXT_NONCE.as_str()).map(|(_, nonce)| nonce);
    Ok((nonce.unwrap_or_default().to_owned(), body.to_owned()))
}

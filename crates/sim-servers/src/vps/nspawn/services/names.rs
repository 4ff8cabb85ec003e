//! The name server: a few names, and a quick "no such name" for everything else. A resolver that does
//! not answer would hold cloudflared up for half a minute.

use std::net::Ipv4Addr;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;

use crate::vps::nspawn::network::{ARTIFACTS, SERVICES};

/// The name of the artifact server.
pub const ARTIFACTS_NAME: &str = "artifacts.moorage.test";
/// The names behind which the package mirror stands.
pub(super) const MIRROR_NAMES: [&str; 2] = ["deb.debian.org", "security.debian.org"];
/// The name of the npm registry.
pub(super) const REGISTRY_NAME: &str = "registry.npmjs.org";
const TTL: u32 = 60;
/// Longest question, in bytes.
const DATAGRAM: usize = 1500;

/// Answers until it is dropped.
pub(super) async fn serve(socket: UdpSocket) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, peer)) => {
                if let Some(reply) = answer(&buffer[..length])
                    && let Err(error) = socket.send_to(&reply, peer).await
                {
                    tracing::debug!(%error, "a name server's answer did not go out");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the name server cannot receive");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

fn address_of(name: &str) -> Option<Ipv4Addr> {
    let name = name.to_ascii_lowercase();
    if name == ARTIFACTS_NAME {
        Some(ARTIFACTS)
    } else if MIRROR_NAMES.contains(&&*name) || name == REGISTRY_NAME {
        Some(SERVICES)
    } else {
        None
    }
}

/// The reply to a question; nothing for what is no question.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let query =
        Packet::parse(question).ok().filter(|packet| !packet.has_flags(PacketFlag::RESPONSE))?;
    let asked = query.questions.first()?.clone();
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
    match address_of(&asked.qname.to_string()) {
        // The name exists, though perhaps without an address of this kind.
        Some(address) if asked.qtype == QTYPE::TYPE(TYPE::A) => {
            let data = RData::A(A::from(address));
            reply.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, TTL, data));
        }
        Some(_) => {}
        None => *reply.rcode_mut() = RCODE::NameError,
    }
    reply.questions.push(asked);
    reply.build_bytes_vec().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use simple_dns::{Name, Question};

    #[rstest]
    #[case::mirror("deb.debian.org", TYPE::A, RCODE::NoError, 1)]
    #[case::registry("registry.npmjs.org", TYPE::A, RCODE::NoError, 1)]
    #[case::any_case("Artifacts.Moorage.TEST", TYPE::A, RCODE::NoError, 1)]
    #[case::other_kind("deb.debian.org", TYPE::AAAA, RCODE::NoError, 0)]
    #[case::service("_http._tcp.deb.debian.org", TYPE::SRV, RCODE::NameError, 0)]
    #[case::foreign("example.com", TYPE::A, RCODE::NameError, 0)]
    fn every_question_gets_its_answer(
        #[case] name: &str,
        #[case] kind: TYPE,
        #[case] code: RCODE,
        #[case] answers: usize,
    ) {
        let mut query = Packet::new_query(7);
        let name = Name::new(name).unwrap();
        query.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        let reply = answer(&query.build_bytes_vec().unwrap()).unwrap();
        let reply = Packet::parse(&reply).unwrap();
        assert_eq!((reply.id(), reply.rcode(), reply.answers.len()), (7, code, answers));
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        assert_eq!(answer(b"hello"), None);
        assert_eq!(answer(&Packet::new_reply(7).build_bytes_vec().unwrap()), None);
    }
}

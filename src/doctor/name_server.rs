//! One question to one name server: the system's resolver keeps a "no such name" for up to half an hour, so
//! it is asked only when the zone's own servers know a name.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE, rdata::RData};
use thiserror::Error;
use tokio::{net::UdpSocket, time::timeout};

const PATIENCE: Duration = Duration::from_secs(2);
/// What fits into one datagram without extensions is 512.
const DATAGRAM: usize = 1500;

/// Why a name server said nothing of use.
#[derive(Debug, Error)]
pub enum NoAnswer {
    #[error("it cannot be asked: {0}")]
    Network(#[from] std::io::Error),
    /// Nothing came.
    #[error("no answer in time")]
    Silent,
    /// The name is none, or what came is no answer to it.
    #[error("no answer that can be read")]
    Malformed,
    /// It has trouble, or does not answer for this name.
    #[error("it refuses ({0})")]
    Refused(String),
}

/// The IPv4 addresses of a name; empty if there is no such name.
pub async fn addresses(server: SocketAddr, name: &str) -> Result<Vec<IpAddr>, NoAnswer> {
    let mut id = [0; 2];
    // Without randomness the id can be guessed; what comes is not trusted with anything.
    let _ = aws_lc_rs::rand::fill(&mut id);
    let id = u16::from_be_bytes(id);
    let question = question(id, name).ok_or(NoAnswer::Malformed)?;
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; DATAGRAM];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await;
    let length = length.map_err(|_| NoAnswer::Silent)??;
    read(id, &buffer[..length])
}

fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    let name = Name::new(name).ok()?;
    packet.questions.push(Question::new(name, TYPE::A.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().ok()
}

fn read(id: u16, answer: &[u8]) -> Result<Vec<IpAddr>, NoAnswer> {
    let packet = Packet::parse(answer).map_err(|_| NoAnswer::Malformed)?;
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        return Err(NoAnswer::Malformed);
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Vec::new()),
        other => return Err(NoAnswer::Refused(format!("{other:?}"))),
    }
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(found) => Some(IpAddr::from(Ipv4Addr::from(found.address))),
        _ => None,
    });
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::{ResourceRecord, rdata::A};

    fn reply(id: u16, code: RCODE, addresses: &[Ipv4Addr]) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        *packet.rcode_mut() = code;
        for address in addresses {
            let data = RData::A(A { address: (*address).into() });
            let name = Name::new_unchecked("x.example.com");
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
        }
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn only_an_answer_to_the_question_is_believed() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(
            read(7, &reply(7, RCODE::NoError, &[address])).unwrap(),
            [IpAddr::from(address)]
        );
        assert_eq!(read(7, &reply(7, RCODE::NameError, &[])).unwrap(), [] as [IpAddr; 0]);
        assert!(matches!(read(7, &reply(8, RCODE::NoError, &[])), Err(NoAnswer::Malformed)));
        assert!(matches!(read(7, &question(7, "x").unwrap()), Err(NoAnswer::Malformed)));
        assert!(matches!(read(7, &reply(7, RCODE::Refused, &[])), Err(NoAnswer::Refused(_))));
        assert!(read(7, b"nonsense").is_err());
    }
}

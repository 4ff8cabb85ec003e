//! What is on a server's disk before its first boot: what a cloud image would find on its virtual
//! hardware, and what the lab adds to find its own internet. User-data is passed on as it came.

use serde_json::json;

use super::disk::{Content, Planted};
use super::hardware::Hardware;
use super::network::{EDGE, GATEWAY, SERVICES};
use super::services::EDGE_PORT;
use moorage_sim_clouds::ServerBoot;

/// Where the lab's own files lie on a server.
const EDGE_AUTHORITY: &str = "/etc/moorage-lab/edge-ca.pem";

/// The files of a new disk. `edge_authority` is PEM.
pub(super) fn files(
    boot: &ServerBoot,
    hardware: Hardware,
    edge_authority: Vec<u8>,
) -> Vec<Planted> {
    // A new disk is a new instance for cloud-init, as the empty folder below /var/lib/cloud says.
    let metadata = json!({"instance-id": boot.id.to_string(), "local-hostname": boot.name});
    let hosts =
        format!("127.0.0.1 localhost\n127.0.1.1 {}\n::1 localhost ip6-localhost\n", boot.name);
    let file = |path, mode, text: String| {
        let content = Content::Bytes(text.into_bytes());
        Planted { path, mode, content }
    };
    let text = |path, content| file(path, 0o644, content);
    let seed = |path, content| file(path, 0o600, content);
    let mut files = vec![
        seed("/var/lib/cloud/seed/nocloud/user-data", boot.user_data.clone()),
        seed("/var/lib/cloud/seed/nocloud/meta-data", metadata.to_string()),
        text("/etc/hostname", format!("{}\n", boot.name)),
        text("/etc/hosts", hosts),
        // Impatient: cloudflared also asks resolvers of the real world, which the lab does not have, and
        // waits for each of them when it starts.
        text("/etc/resolv.conf", format!("nameserver {SERVICES}\noptions timeout:1 attempts:2\n")),
        text("/etc/systemd/system/cloudflared.service.d/50-lab.conf", cloudflared()),
        text("/etc/systemd/system/openclaw.service.d/50-lab.conf", npm()),
        text("/etc/systemd/system/moorage-worker.service.d/50-lab.conf", npm()),
        Planted { path: EDGE_AUTHORITY, mode: 0o644, content: Content::Bytes(edge_authority) },
    ];
    // A container finds its interface configured.
    if let Hardware::VirtualMachine { .. } = hardware {
        files.push(text("/etc/systemd/network/10-lab.network", network(boot)));
        files.extend(NETWORK_UNITS.map(|(path, unit)| Planted {
            path,
            mode: 0o777,
            content: Content::Link(unit),
        }));
    }
    files
}

/// What a cloud's image enables.
const NETWORK_UNITS: [(&str, &str); 2] = [
    (
        "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "/usr/lib/systemd/system/systemd-networkd.service",
    ),
    (
        "/etc/systemd/system/network-online.target.wants/systemd-networkd-wait-online.service",
        "/usr/lib/systemd/system/systemd-networkd-wait-online.service",
    ),
];

/// The interface, with the addresses and gateways that the cloud's metadata names.
fn network(boot: &ServerBoot) -> String {
    let mut text =
        "[Match]\nName=eth0\n\n[Network]\nIPv6AcceptRA=no\nLinkLocalAddressing=ipv6\n".to_owned();
    let mut add = |address: String, gateway: &str| {
        text.extend([
            format!("\n[Address]\nAddress={address}\nDuplicateAddressDetection=none\n"),
            format!("\n[Route]\nGateway={gateway}\nGatewayOnLink=yes\n"),
        ]);
    };
    if let Some(address) = boot.ipv4 {
        add(format!("{address}/32"), &GATEWAY.to_string());
    }
    if let Some(address) = boot.ipv6 {
        add(format!("{address}/64"), "fe80::1");
    }
    text
}

/// Leads cloudflared to the simulated edge. The address stands twice, because with a single one
/// cloudflared retries without a pause.
fn cloudflared() -> String {
    format!(
        "[Service]\n\
         Environment=TUNNEL_EDGE={EDGE}:{EDGE_PORT},{EDGE}:{EDGE_PORT}\n\
         Environment=TUNNEL_CACERT={EDGE_AUTHORITY}\n\
         Environment=TUNNEL_TRANSPORT_PROTOCOL=http2\n\
         Environment=TUNNEL_NO_PRECHECKS=true\n\
         Environment=TUNNEL_RETRIES=0\n\
         Environment=NO_AUTOUPDATE=true\n"
    )
}

/// Has npm, which OpenClaw and the worker run, believe the lab's registry.
fn npm() -> String {
    format!("[Service]\nEnvironment=NODE_EXTRA_CA_CERTS={EDGE_AUTHORITY}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_is_planted_as_it_came() {
        let user_data = "#cloud-config\n# \u{fc}\r\n{}\n\n".to_owned();
        let boot = ServerBoot {
            id: 7,
            name: "ada".into(),
            user_data: user_data.clone(),
            ipv4: None,
            ipv6: None,
        };
        let files = files(&boot, Hardware::Container, Vec::new());
        let planted = files.iter().find(|file| file.path.ends_with("user-data")).unwrap();
        assert_eq!(planted.content, Content::Bytes(user_data.into_bytes()));
        assert_eq!(planted.mode, 0o600);
    }
}

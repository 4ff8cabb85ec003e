//! Artifacts through the installer's socket: ordered, verified, unpacked, switched.

use std::{collections::BTreeSet, fs, io, os::unix::fs::symlink, path::Path};

use flate2::{Compression, write::GzEncoder};
use moorage_agent::{
    Disk,
    installer::protocol::{Reason, Request},
};
use moorage_wire::Program;
use rstest::rstest;

use crate::{
    order::Release,
    program::{Behaviour, program},
    server::{Server, disk_that_fails_at},
};

const OPENCLAW: Program = Program::Openclaw;

/// As `moorage release build` makes it: a link in `bin`, and what it leads to.
fn openclaw(version: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    let main = "../node_modules/openclaw/openclaw.mjs";
    builder.append_link(&mut header, "bin/openclaw", main).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(version.len() as u64);
    let path = "node_modules/openclaw/openclaw.mjs";
    builder.append_data(&mut header, path, version.as_bytes()).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

fn hostile() -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o755);
    header.as_gnu_mut().unwrap().name[..10].copy_from_slice(b"../../evil");
    header.set_cksum();
    builder.append(&header, &b"bad"[..]).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

async fn running_server() -> Server {
    let mut server = Server::new();
    server.boot(Disk::default()).await;
    server
}

fn current(server: &Server) -> Option<String> {
    fs::read_to_string(server.layout.programs().join("openclaw/current/bin/openclaw")).ok()
}

#[tokio::test]
async fn a_release_is_installed_and_switched_and_can_be_switched_back() {
    let server = running_server().await;
    let client = server.client();
    let mut digests = Vec::new();
    for version in ["1", "2"] {
        let (artifact, file) = server.fetched(&openclaw(version));
        let sha256 = artifact.sha256;
        let order = Release::default().with(OPENCLAW, artifact).order();
        let early = client.activate(OPENCLAW, sha256).await.unwrap_err();
        assert_eq!(early.reason(), Some(Reason::NotInstalled));
        client.install(&order, OPENCLAW, &file).await.unwrap();
        fs::remove_file(&file).unwrap();
        client.install(&order, OPENCLAW, &file).await.expect("it is there");
        client.activate(OPENCLAW, sha256).await.unwrap();
        assert_eq!(current(&server).as_deref(), Some(version));
        digests.push(sha256);
    }
    client.activate(OPENCLAW, digests[0]).await.unwrap();
    assert_eq!(current(&server).as_deref(), Some("1"));
    let inventory = client.inventory().await.unwrap();
    assert_eq!(inventory.active(OPENCLAW), Some(digests[0]));
    assert!(inventory.has(OPENCLAW, digests[1]));
}

#[tokio::test]
async fn cloudflared_is_a_program_and_the_agent_has_a_verb_of_its_own() {
    let server = running_server().await;
    let client = server.client();
    let (artifact, file) = server.fetched(&program("1", Behaviour::Good));
    let sha256 = artifact.sha256;
    let release = Release::default().with(Program::Cloudflared, artifact.clone());
    let order = release.with(Program::Agent, artifact).order();
    client.install(&order, Program::Cloudflared, &file).await.unwrap();
    client.activate(Program::Cloudflared, sha256).await.unwrap();
    assert!(server.layout.programs().join("cloudflared/current/cloudflared").is_file());
    let refused = client.install(&order, Program::Agent, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::Refused));
    let refused = client.activate(Program::Agent, sha256).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::Refused));
}

#[rstest]
#[case::other_bytes(b"other bytes".to_vec(), Reason::WrongBytes)]
#[case::nothing(Vec::new(), Reason::WrongBytes)]
#[tokio::test]
async fn bytes_that_are_not_the_pinned_ones_are_not_even_opened(
    #[case] bytes: Vec<u8>,
    #[case] reason: Reason,
) {
    let server = running_server().await;
    let (artifact, file) = server.fetched(&openclaw("1"));
    fs::write(&file, bytes).unwrap();
    let order = Release::default().with(OPENCLAW, artifact).order();
    let refused = server.client().install(&order, OPENCLAW, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(reason), "{refused}");
}

#[tokio::test]
async fn a_pinned_archive_that_leaves_its_folder_is_refused() {
    let server = running_server().await;
    let (artifact, file) = server.fetched(&hostile());
    let order = Release::default().with(OPENCLAW, artifact).order();
    let refused = server.client().install(&order, OPENCLAW, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::BadArtifact), "{refused}");
    assert_eq!(fs::read_dir(server.layout.programs().join("openclaw")).unwrap().count(), 0);
    assert!(!server.layout.programs().join("evil").exists());
}

#[tokio::test]
async fn a_link_and_a_file_elsewhere_are_not_read_with_roots_powers() {
    let server = running_server().await;
    let (artifact, file) = server.fetched(&openclaw("1"));
    let order = Release::default().with(OPENCLAW, artifact).order();
    let elsewhere = server.layout.state().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    let up = file.join("../../elsewhere");
    for file in [&*file, &elsewhere, &up, Path::new("elsewhere")] {
        let refused = server.client().install(&order, OPENCLAW, file).await.unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::Refused), "{refused}");
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_as_such_and_the_next_try_succeeds() {
    for at in 0..4 {
        let mut server = Server::new();
        // Before the installer's own steps: it makes no others at its start.
        let (disk, _) = disk_that_fails_at(at, io::ErrorKind::StorageFull);
        server.boot(disk).await;
        let (artifact, file) = server.fetched(&openclaw("1"));
        let sha256 = artifact.sha256;
        let order = Release::default().with(OPENCLAW, artifact).order();
        let refused = server.client().install(&order, OPENCLAW, &file).await.unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::DiskFull), "{refused}");
        assert!(!server.client().inventory().await.unwrap().has(OPENCLAW, sha256));
        server.boot(Disk::default()).await;
        server.client().install(&order, OPENCLAW, &file).await.unwrap();
        server.client().activate(OPENCLAW, sha256).await.unwrap();
        assert_eq!(current(&server).as_deref(), Some("1"));
    }
}

#[tokio::test]
async fn many_who_ask_for_the_same_get_it_once() {
    let server = running_server().await;
    let (artifact, file) = server.fetched(&openclaw("1"));
    let order = Release::default().with(OPENCLAW, artifact).order();
    let client = server.client();
    let all = (0..8).map(|_| client.install(&order, OPENCLAW, &file));
    for installed in futures::future::join_all(all).await {
        installed.unwrap();
    }
    assert_eq!(client.inventory().await.unwrap().artifacts.len(), 2, "one, and the agent");
}

/// As `moorage release build` makes it, as far as the installer looks.
fn integration(index: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in [(index, "{}"), ("skill/SKILL.md", "sun")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn only_pinned_integrations_are_installed_and_kept() {
    let server = running_server().await;
    let client = server.client();
    let (artifact, file) = server.fetched(&integration("integration.json"));
    let sha256 = artifact.sha256;
    let stranger = Release::default().order();
    let refused = client.install_integration(&stranger, sha256, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::BadOrder), "{refused}");
    let order = Release::default().integration(artifact).order();
    client.install_integration(&order, sha256, &file).await.unwrap();
    assert!(server.layout.integration(sha256).join("skill/SKILL.md").is_file());
    assert_eq!(client.inventory().await.unwrap().integrations, BTreeSet::from([sha256]));
    let keep = Request::RetainIntegrations { keep: BTreeSet::from([sha256]) };
    client.perform(&keep).await.unwrap();
    assert!(server.layout.integration(sha256).is_dir());
    client.perform(&Request::RetainIntegrations { keep: BTreeSet::new() }).await.unwrap();
    assert!(!server.layout.integration(sha256).exists());

    let (artifact, file) = server.fetched(&integration("something.json"));
    let sha256 = artifact.sha256;
    let order = Release::default().integration(artifact).order();
    let refused = client.install_integration(&order, sha256, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::BadArtifact), "{refused}");
}

use std::time::{Duration, Instant};

use super::*;
use crate::disk::crash::disk_that_dies_at;

const PATIENCE: Patience =
    Patience { disconnected_for: Duration::from_secs(2), grace: Duration::from_secs(3) };

fn token(text: &str) -> SecretText {
    SecretText::new(text)
}

fn server() -> (tempfile::TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path().to_owned());
    let disk = Disk::default();
    disk.create_folder(&layout.state()).unwrap();
    disk.create_folder(layout.tunnel_token().parent().unwrap()).unwrap();
    disk.write(&layout.tunnel_token(), b"first-token\n").unwrap();
    (folder, layout)
}

/// Plays the world: cloudflared connects if it was started with `accepted`.
fn run(tokens: &mut TunnelTokens, started_with: &mut SecretText, accepted: &str, seconds: u64) {
    let mut rotation = Rotation::new(PATIENCE);
    let begin = Instant::now();
    for second in 0..seconds {
        let connected = started_with.expose() == accepted;
        let now = begin + Duration::from_secs(second);
        match tokens.next_step(&mut rotation, connected, now) {
            Step::Wait => {}
            Step::Promote => tokens.promote().unwrap(),
            Step::Switch(which) => {
                let next = tokens.begin_switch(which).unwrap().unwrap();
                *started_with = next.clone();
                tokens.finish_switch(which, &next).unwrap();
            }
        }
    }
}

#[test]
fn a_rotation_moves_to_the_new_token_and_erases_the_old() {
    let (_folder, layout) = server();
    let mut tokens = TunnelTokens::open(&Disk::default(), &layout).unwrap();
    assert!(tokens.add(token("second-token")).unwrap());
    let mut running = token("first-token");
    run(&mut tokens, &mut running, "first-token", 60);
    assert_eq!(running.expose(), "first-token", "a connected tunnel is left alone");
    assert_eq!(tokens.sha256().len(), 2);

    run(&mut tokens, &mut running, "second-token", 5);
    assert_eq!(tokens.sha256(), [token("second-token").sha256()]);
    assert_eq!(tokens.active_sha256(), Some(token("second-token").sha256()));
    let reopened = TunnelTokens::open(&Disk::default(), &layout).unwrap();
    assert_eq!(reopened.sha256(), [token("second-token").sha256()]);
}

#[test]
fn an_outage_before_the_new_token_is_valid_keeps_the_old_one() {
    let (_folder, layout) = server();
    let mut tokens = TunnelTokens::open(&Disk::default(), &layout).unwrap();
    tokens.add(token("second-token")).unwrap();
    let mut running = token("first-token");
    run(&mut tokens, &mut running, "none", 100);
    run(&mut tokens, &mut running, "first-token", 70);
    assert_eq!(running.expose(), "first-token");
    assert_eq!(tokens.sha256().len(), 2, "nothing is erased before the new token is proven");
}

#[test]
fn a_single_token_is_never_restarted() {
    let (_folder, layout) = server();
    let tokens = TunnelTokens::open(&Disk::default(), &layout).unwrap();
    let mut rotation = Rotation::new(PATIENCE);
    let begin = Instant::now();
    for second in 0..1000 {
        let now = begin + Duration::from_secs(second);
        assert_eq!(tokens.next_step(&mut rotation, false, now), Step::Wait);
    }
}

#[test]
fn a_foreign_token_is_replaced_despite_crashes() {
    let (_folder, layout) = server();
    let mut tokens = TunnelTokens::open(&Disk::default(), &layout).unwrap();
    let first = token("first-token");
    let write = |text: &[u8]| Disk::default().write(&layout.tunnel_token(), text).unwrap();
    assert_eq!(tokens.compare(false).unwrap(), None);
    assert_eq!(tokens.active_sha256(), Some(first.sha256()), "nothing is to be done");
    write(b"other-token\n");
    assert_eq!(tokens.compare(true).unwrap(), Some(first.clone()));
    Disk::default().remove(&layout.tunnel_token()).unwrap();
    assert_eq!(tokens.compare(true).unwrap(), Some(first));

    write(b"other-token\n");
    assert_eq!(tokens.compare(false).unwrap(), None);
    let mut tokens = TunnelTokens::open(&Disk::default(), &layout).unwrap();
    // The file was written before the agent died, cloudflared not restarted.
    write(b"first-token\n");
    assert_eq!(tokens.compare(false).unwrap(), None);
    let mut rotation = Rotation::new(PATIENCE);
    let step = tokens.next_step(&mut rotation, false, Instant::now());
    assert_eq!(step, Step::Switch(Which::Proven));
}

#[test]
fn tries_become_rarer_while_neither_token_connects() {
    let mut rotation = Rotation::new(PATIENCE);
    let begin = Instant::now();
    let mut runs = Which::Proven;
    let mut switched_at = Vec::new();
    for second in 0..200 {
        let now = begin + Duration::from_secs(second);
        if let Step::Switch(which) = rotation.next(true, runs, false, now) {
            runs = which;
            switched_at.push(second);
        }
    }
    let waits: Vec<_> = switched_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(switched_at[0], 2);
    assert!(waits.starts_with(&[4, 4, 7, 7, 13, 13]), "{waits:?}");
}

#[test]
fn a_third_token_replaces_the_pending_one() {
    let (_folder, layout) = server();
    let mut tokens = TunnelTokens::open(&Disk::default(), &layout).unwrap();
    assert!(tokens.add(token("second-token")).unwrap());
    assert!(!tokens.add(token("second-token")).unwrap());
    assert!(tokens.add(token("third-token")).unwrap());
    assert_eq!(tokens.sha256(), [token("first-token").sha256(), token("third-token").sha256()]);
}

#[test]
fn a_rotation_survives_a_crash_at_any_write() {
    for at in 0.. {
        let (_folder, layout) = server();
        let (disk, crashed) = disk_that_dies_at(at);
        let mut started_with = token("first-token");
        let before = TunnelTokens::open(&disk, &layout).and_then(|mut tokens| {
            tokens.add(token("second-token"))?;
            let next = tokens.begin_switch(Which::Pending)?.unwrap();
            started_with = next.clone();
            tokens.finish_switch(Which::Pending, &next)?;
            tokens.promote()
        });
        if !crashed() {
            before.unwrap();
            assert!(at > 10, "only {at} steps were tried");
            break;
        }
        let mut tokens = TunnelTokens::open(&Disk::default(), &layout).unwrap();
        assert!(tokens.contains(&started_with.sha256()), "lost the running token at {at}");
        tokens.add(token("second-token")).unwrap();
        run(&mut tokens, &mut started_with, "second-token", 30);
        assert_eq!(started_with.expose(), "second-token", "stuck after step {at}");
        assert_eq!(tokens.sha256(), [token("second-token").sha256()], "not proven, step {at}");
    }
}

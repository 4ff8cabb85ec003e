//! Power cuts in an update of the agent: at each step of each write, and at any time.

use std::{io, time::Duration};

use moorage_agent::Disk;
use moorage_wire::{Program, Sha256};
use rstest::rstest;

use crate::{
    program::Behaviour,
    server::{Server, disk_that_fails_at},
};

const AGENT: Program = Program::Agent;

#[rstest]
#[case(Behaviour::Good)]
#[case(Behaviour::Silent)]
#[case(Behaviour::WithoutInstaller)]
#[tokio::test]
async fn an_update_of_the_agent_survives_a_crash_at_any_step(#[case] behaviour: Behaviour) {
    let mut crashes = 0;
    for at in 0.. {
        let mut server = Server::expecting(behaviour);
        let old = server.current_agent().unwrap();
        let (disk, has_died) = disk_that_fails_at(at, io::ErrorKind::Other);
        server.boot(disk).await;
        let (new, order, file) = server.new_agent(behaviour);
        let _ = server.client().update_agent(&order, &file).await;
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while !has_died() {
            let inventory = server.client().inventory().await;
            if inventory.is_ok_and(|inventory| inventory.agent_update.is_none()) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "stuck before step {at}");
            server.run_for(Duration::from_millis(5)).await;
        }
        server.power_cut();
        let current = server.current_agent().expect("something boots");
        assert!(current == old || current == new, "after step {at}");

        server.boot(Disk::default()).await;
        // An agent whose installer does not start is the current one only while a crash keeps it so.
        if server.current_agent() == Some(old) || behaviour == Behaviour::Good {
            server.until_settled().await;
        }
        insist(&mut server, behaviour, old).await;
        if !has_died() {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 20, "only {crashes} steps were tried");
}

/// What an agent does that knows nothing of the past: asks for the update, and again.
async fn insist(server: &mut Server, behaviour: Behaviour, old: Sha256) {
    let (new, order, file) = server.new_agent(behaviour);
    server.until_settled().await;
    let _ = server.client().update_agent(&order, &file).await;
    let inventory = server.until_settled().await;
    let failed = inventory.failed_agents.iter().any(|failed| failed.sha256 == new);
    if behaviour == Behaviour::Good {
        assert_eq!(inventory.active(AGENT), Some(new), "{inventory:?}");
        assert!(!failed);
    } else {
        assert_eq!(inventory.active(AGENT), Some(old), "{inventory:?}");
        assert!(failed, "{inventory:?}");
    }
}

#[rstest]
#[case(Behaviour::Good)]
#[case(Behaviour::Lonely)]
#[tokio::test]
async fn a_reboot_at_any_time_of_an_update_is_survived(#[case] behaviour: Behaviour) {
    for milliseconds in [0, 20, 60, 150, 400, 900] {
        let mut server = Server::expecting(behaviour);
        server.boot(Disk::default()).await;
        let old = server.current_agent().unwrap();
        let (_, order, file) = server.new_agent(behaviour);
        server.client().update_agent(&order, &file).await.unwrap();
        server.run_for(Duration::from_millis(milliseconds)).await;
        server.boot(Disk::default()).await;
        insist(&mut server, behaviour, old).await;
    }
}

#[tokio::test]
async fn an_agent_that_crashes_the_machine_is_rolled_back() {
    let mut server = Server::new();
    server.boot(Disk::default()).await;
    let old = server.current_agent().unwrap();
    let (new, order, file) = server.new_agent(Behaviour::Lonely);
    server.client().update_agent(&order, &file).await.unwrap();
    for _ in 0..8 {
        if server.current_agent() == Some(old) {
            break;
        }
        // Well before its time is over.
        server.run_for(Duration::from_millis(100)).await;
        server.boot(Disk::default()).await;
    }
    let inventory = server.until_settled().await;
    assert_eq!(inventory.active(AGENT), Some(old));
    assert_eq!(inventory.failed_agents[0].sha256, new);
}

#[tokio::test]
async fn two_updates_in_a_row_keep_two_versions() {
    let mut server = Server::expecting(Behaviour::Silent);
    server.boot(Disk::default()).await;
    for behaviour in [Behaviour::Good, Behaviour::Silent] {
        let old = server.current_agent().unwrap();
        insist(&mut server, behaviour, old).await;
    }
    let inventory = server.client().inventory().await.unwrap();
    assert!(inventory.artifacts.len() <= 2, "{inventory:?}");
}

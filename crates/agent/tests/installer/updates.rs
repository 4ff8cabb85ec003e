//! Updates of the agent, from the order to the end.

use std::{fs, time::Duration};

use jiff::Timestamp;
use moorage_agent::{
    Disk,
    installer::{
        protocol::{AgentFailure, Reason},
        roll_back::{Outcome, roll_back},
        update::machine::{Event, Record},
    },
};
use moorage_wire::{Program, Sha256};
use rstest::rstest;

use crate::{order::Release, program::Behaviour, server::Server};

const AGENT: Program = Program::Agent;

async fn running_server(expected: Behaviour) -> Server {
    let mut server = Server::expecting(expected);
    server.boot(Disk::default()).await;
    server
}

#[tokio::test]
async fn installer_and_worker_follow_an_update_of_the_agent() {
    let mut server = running_server(Behaviour::Good).await;
    let old = server.current_agent().unwrap();
    let (new, order, file) = server.new_agent(Behaviour::Good);
    server.client().update_agent(&order, &file).await.unwrap();
    let inventory = server.until_settled().await;
    assert_eq!(inventory.active(AGENT), Some(new));
    assert!(inventory.has(AGENT, old), "the old one is kept");
    assert_eq!(inventory.failed_agents, []);
    let previous = fs::read_link(server.layout.programs().join("agent/previous")).unwrap();
    assert_eq!(previous.to_str(), Some(&*old.to_string()));
    assert_eq!(
        server.calls(),
        [
            "restart moorage-agent.service",
            "refresh moorage-worker.service",
            "restart moorage-installer.service",
            "refresh moorage-worker.service",
        ]
    );
    // The same order again changes nothing.
    server.client().update_agent(&order, &file).await.unwrap();
    assert_eq!(server.until_settled().await, inventory);
    assert_eq!(server.calls().len(), 4);
}

#[rstest]
#[case(Behaviour::Silent, AgentFailure::NoSocket)]
#[case(Behaviour::Dead, AgentFailure::NoSocket)]
#[case(Behaviour::Lonely, AgentFailure::NotConfirmed)]
#[case(Behaviour::WithoutInstaller, AgentFailure::Installer)]
#[tokio::test]
async fn an_agent_that_is_not_confirmed_is_rolled_back(
    #[case] behaviour: Behaviour,
    #[case] reason: AgentFailure,
) {
    let mut server = running_server(behaviour).await;
    let old = server.current_agent().unwrap();
    let (new, order, file) = server.new_agent(behaviour);
    server.client().update_agent(&order, &file).await.unwrap();
    let inventory = server.until_settled().await;
    assert_eq!(inventory.active(AGENT), Some(old));
    let failed = &inventory.failed_agents[0];
    assert_eq!((failed.sha256, failed.reason), (new, reason));
    assert_eq!(
        server.calls().iter().rfind(|call| call.contains("agent")).unwrap(),
        "restart moorage-agent.service"
    );
    let refused = server.client().update_agent(&order, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::FailedBefore));

    let artifact = server.fetched(&fs::read(&file).unwrap()).0;
    let again = Release::default().with(AGENT, artifact).retry("1").order();
    server.client().update_agent(&again, &file).await.unwrap();
    let inventory = server.until_settled().await;
    assert_eq!(inventory.failed_agents.len(), 1);
    assert_eq!(inventory.failed_agents[0].retry.as_deref(), Some("1"));
    assert_eq!(inventory.active(AGENT), Some(old));
}

#[tokio::test]
async fn a_silent_new_agent_is_waited_for_during_a_boot() {
    let mut server = running_server(Behaviour::Silent).await;
    let machine = server.machine.clone();
    machine.running.lock().unwrap().boots = true;
    let (new, order, file) = server.new_agent(Behaviour::Silent);
    server.client().update_agent(&order, &file).await.unwrap();
    let asked = || machine.running.lock().unwrap().asked_whether_it_boots;
    let inventory = server.until("its time was over twice", |_| asked() >= 2).await;
    assert_eq!((inventory.agent_update, inventory.active(AGENT)), (Some(new), Some(new)));
    machine.start_agent_that_is(Behaviour::Good).unwrap();
    let inventory = server.until_settled().await;
    assert_eq!((inventory.active(AGENT), inventory.failed_agents), (Some(new), vec![]));
}

#[tokio::test]
async fn a_machine_that_never_ends_its_boot_gets_the_old_agent_back() {
    let mut server = Server::new();
    (server.timing.socket, server.timing.confirmation) =
        (Duration::from_millis(100), Duration::from_secs(3));
    server.boot(Disk::default()).await;
    let old = server.current_agent().unwrap();
    server.machine.running.lock().unwrap().boots = true;
    let (_, order, file) = server.new_agent(Behaviour::Silent);
    server.client().update_agent(&order, &file).await.unwrap();
    let inventory = server.until_settled().await;
    assert_eq!(inventory.active(AGENT), Some(old));
    assert_eq!(inventory.failed_agents[0].reason, AgentFailure::NoSocket);
    assert!(server.machine.running.lock().unwrap().asked_whether_it_boots >= 2);
}

#[rstest]
#[case(Behaviour::Crashing)]
#[case(Behaviour::Hanging)]
#[case(Behaviour::OtherVersion)]
#[tokio::test]
async fn an_agent_that_fails_its_trial_is_never_activated(#[case] behaviour: Behaviour) {
    let mut server = running_server(behaviour).await;
    let old = server.current_agent().unwrap();
    let (new, order, file) = server.new_agent(behaviour);
    for expected in [Reason::BadArtifact, Reason::FailedBefore] {
        let refused = server.client().update_agent(&order, &file).await.unwrap_err();
        assert_eq!(refused.reason(), Some(expected), "{refused}");
    }
    let inventory = server.until_settled().await;
    assert_eq!(inventory.active(AGENT), Some(old));
    assert!(!inventory.has(AGENT, new));
    assert_eq!(inventory.failed_agents[0].reason, AgentFailure::Trial);
    assert_eq!(server.calls(), Vec::<String>::new(), "nothing was restarted");
}

#[tokio::test]
async fn a_corrupted_binary_is_refused_and_may_come_again() {
    let mut server = running_server(Behaviour::Good).await;
    let (new, order, file) = server.new_agent(Behaviour::Good);
    let right = fs::read(&file).unwrap();
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(&file, wrong).unwrap();
    let refused = server.client().update_agent(&order, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::WrongBytes));
    fs::write(&file, right).unwrap();
    server.client().update_agent(&order, &file).await.unwrap();
    assert_eq!(server.until_settled().await.active(AGENT), Some(new));

    let mut foreign = crate::program::program("2.0.0", Behaviour::Good);
    foreign[18] = 0xf3;
    let (artifact, file) = server.fetched(&foreign);
    let order = Release::default().with(AGENT, artifact).order();
    let refused = server.client().update_agent(&order, &file).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::BadArtifact));
    assert!(refused.to_string().contains("another processor"), "{refused}");
}

#[tokio::test]
async fn one_update_at_a_time() {
    let mut server = Server::new();
    server.timing.confirmation = Duration::from_secs(3);
    server.boot(Disk::default()).await;
    let (first, order, file) = server.new_agent(Behaviour::Lonely);
    server.client().update_agent(&order, &file).await.unwrap();
    server.client().update_agent(&order, &file).await.expect("it is on its way already");
    let (artifact, other) = server.fetched(&crate::program::program("3.0.0", Behaviour::Good));
    let artifact = moorage_wire::desired::Artifact { version: "3.0.0".to_owned(), ..artifact };
    let other_order = Release::default().with(AGENT, artifact.clone()).order();
    let refused = server.client().update_agent(&other_order, &other).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::Busy));
    assert_eq!(server.client().inventory().await.unwrap().agent_update, Some(first));
    server.until_settled().await;
    server.client().update_agent(&other_order, &other).await.unwrap();
    let inventory = server.until_settled().await;
    assert_eq!(inventory.active(AGENT), Some(artifact.sha256));
    assert!(!inventory.has(AGENT, first), "the one that failed is gone");
}

#[tokio::test]
async fn without_an_agent_to_go_back_to_there_is_no_update() {
    let mut server = running_server(Behaviour::Good).await;
    fs::remove_file(server.layout.programs().join("agent/current")).unwrap();
    let (_, order, file) = server.new_agent(Behaviour::Good);
    let refused = server.client().update_agent(&order, &file).await.unwrap_err();
    assert!(refused.to_string().contains("no current agent"), "{refused}");
    server.power_cut();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_set_aside() {
    let mut server = Server::new();
    fs::create_dir_all(server.layout.installer_state()).unwrap();
    fs::write(server.layout.agent_updates(), b"{\"update\": 7}").unwrap();
    server.boot(Disk::default()).await;
    let inventory = server.client().inventory().await.unwrap();
    assert_eq!((inventory.agent_update, inventory.failed_agents.len()), (None, 0));
    assert!(server.layout.agent_updates().with_extension("damaged").exists());
}

#[tokio::test]
async fn a_roll_back_gives_up_if_the_old_installer_fails_too() {
    let server = Server::new();
    let old = server.current_agent().unwrap();
    let new = Sha256::of(b"new");
    let record = Record::default().begin(new, old, None);
    let record = record.after(Event::InstallerFailed, Timestamp::now());
    let disk = Disk::default();
    disk.create_folder(&server.layout.installer_state()).unwrap();
    disk.write_json(&server.layout.agent_updates(), &record).unwrap();
    let roll_back = async || roll_back(&disk, &server.layout, &server.machine).await.unwrap();
    // Cut off before the old one was put back.
    let current = server.layout.programs().join("agent/current");
    fs::remove_file(&current).unwrap();
    assert_eq!(roll_back().await, Outcome::RolledBack);
    assert_eq!(server.current_agent(), Some(old));
    assert_eq!(server.calls(), ["restart moorage-installer.service"]);
    assert_eq!(roll_back().await, Outcome::BackBefore);
    assert_eq!(server.calls().len(), 1, "it is not restarted on and on");
}

//! An update for which the disk has too little room.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use moorage_agent::{Programs, installer::protocol::Unit};
use moorage_wire::{
    Program, Sha256,
    failure::FailureCode,
    report::{ConvergenceState, OpenClawState},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy},
    net::{UnixListener, UnixStream},
};

use crate::world::World;

const MIB: u64 = 1024 * 1024;

/// What stands between agent and worker says of the room: free bytes, and used ones.
type Room = Arc<Mutex<Option<(u64, u64)>>>;

async fn relay(stream: UnixStream, worker: PathBuf, room: Room) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let played = room.lock().unwrap().filter(|_| line == "{\"program\":{\"verb\":\"room\"}}\n");
    if let Some((free, used)) = played {
        let answer = json!({"result": "room", "free": free, "used": used});
        return stream.write_all(format!("{answer}\n").as_bytes()).await;
    }
    let mut worker = UnixStream::connect(worker).await?;
    worker.write_all(line.as_bytes()).await?;
    copy(&mut worker, &mut stream).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_room_waits_and_says_so() {
    let mut world = World::managed().await;
    let room = Room::default();
    let socket = world.root().join("relay.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (worker, shared) = (world.layout.worker_socket(), Arc::clone(&room));
    let relay = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(relay(stream, worker.clone(), Arc::clone(&shared)));
        }
    });
    world.settings.programs = Programs::Managed { worker_socket: socket };
    let (_agent, mut operator) = world.enrolled().await;
    let first = world.release(json!({"a": 1}), [1, 1, 1]);
    operator.put_desired(&first).await;
    operator.wait_for(&first, ConvergenceState::Converged).await;
    let starts = || world.machine(|machine| machine.starts[&Unit::Openclaw]);
    let before = starts();

    *room.lock().unwrap() = Some((100 * MIB + 1, 300 * MIB));
    let second = world.release(json!({"a": 2}), [2, 1, 1]);
    operator.put_desired(&second).await;
    let report = operator.report_when("refused", |report| !report.desired.failed.is_empty()).await;
    let message = &report.desired.failed[0].message;
    let failure = report.desired.failed[0].failure.as_ref().unwrap();
    assert_eq!(failure.code, FailureCode::NoSpace);
    assert_eq!(failure.detail.as_str(), "1024 MiB have to be free", "in steps of 256 MiB");
    // Twice the data, and 256 MiB beside; for operators that do not read the fields.
    for bytes in [(300 * 2 + 256) * MIB, 100 * MIB + 1] {
        assert!(message.contains(&format!("{bytes} bytes")), "{message}");
    }
    assert_eq!(report.desired.state, ConvergenceState::Converging);
    assert_eq!(report.openclaw.state, OpenClawState::Ready);
    let active = world.machine(|machine| machine.active(Program::Openclaw));
    assert_eq!(active, Some(Sha256::of(b"openclaw-1")));
    assert_eq!((starts(), world.calls("backup")), (before, 0));
    assert_eq!(world.machine(|machine| machine.openclaw_config.clone()), json!({"a": 1}));

    // Somebody makes room.
    *room.lock().unwrap() = None;
    let report = operator.wait_for(&second, ConvergenceState::Converged).await;
    assert!(report.desired.failed.is_empty());
    relay.abort();
}

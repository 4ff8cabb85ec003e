//! QEMU's own line: presses the power button, and tells a reboot from a power-off.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::json_lines::{read_line, write_line};

/// How long QEMU may take to listen, in pauses: before that the disk is filled, which on a busy machine
/// takes minutes.
const CONNECT_ATTEMPTS: u32 = 24_000;
const PAUSE: Duration = Duration::from_millis(50);

/// The line to one running QEMU.
#[derive(Debug)]
pub(super) struct Monitor {
    presses: mpsc::UnboundedSender<()>,
    /// Gives whether the guest has asked to be started again. Ends with this: it must not take the line
    /// of the next QEMU.
    task: AbortOnDropHandle<io::Result<bool>>,
}

impl Monitor {
    /// Connects as soon as QEMU listens. Must be called within a tokio runtime.
    pub(super) fn of(socket: PathBuf) -> Self {
        let (presses, button) = mpsc::unbounded_channel();
        let task = AbortOnDropHandle::new(tokio::spawn(listen(socket, button)));
        Self { presses, task }
    }

    /// Presses the power button, which asks the system to power off.
    pub(super) fn press(&self) -> bool {
        self.presses.send(()).is_ok()
    }

    /// Whether the guest that has ended wants to be started again.
    pub(super) async fn reboots(self) -> io::Result<bool> {
        self.task.await.map_err(io::Error::other)?
    }
}

async fn listen(socket: PathBuf, mut button: mpsc::UnboundedReceiver<()>) -> io::Result<bool> {
    let (reader, mut writer) = connect(&socket).await?.into_split();
    let mut reader = BufReader::new(reader);
    let _greeting: Value = read_line(&mut reader).await?;
    write_line(&mut writer, &json!({"execute": "qmp_capabilities"})).await?;
    let commands = async {
        while button.recv().await.is_some() {
            write_line(&mut writer, &json!({"execute": "system_powerdown"})).await?;
        }
        std::future::pending::<io::Result<bool>>().await
    };
    let events = async {
        let mut reboots = false;
        loop {
            match read_line::<Value, _>(&mut reader).await {
                Ok(said) if said["event"] == "SHUTDOWN" => {
                    reboots = said["data"]["reason"] == "guest-reset";
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                // QEMU has ended.
                Err(_) => return Ok(reboots),
            }
        }
    };
    tokio::select! {
        ended = events => ended,
        failed = commands => failed,
    }
}

async fn connect(socket: &std::path::Path) -> io::Result<UnixStream> {
    let mut attempt = 1;
    loop {
        match UnixStream::connect(socket).await {
            Err(_) if attempt < CONNECT_ATTEMPTS => attempt += 1,
            connected => return connected,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

//! What the tests logged, for the search for secrets in it.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex, Once},
};

/// Everything that any test of this program logged, at the finest level.
pub(crate) static LOGS: LazyLock<Logs> = LazyLock::new(Logs::default);

#[derive(Clone, Default)]
pub(crate) struct Logs {
    text: Arc<Mutex<Vec<u8>>>,
    once: Arc<OnceHolder>,
}

struct OnceHolder(Once);

impl Default for OnceHolder {
    fn default() -> Self {
        Self(Once::new())
    }
}

impl Logs {
    pub(crate) fn begin(&self) {
        let logs = self.clone();
        self.once.0.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(move || logs.clone())
                .init();
        });
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        let logs = self.text.lock().unwrap();
        logs.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! SHA-256 and size of what flows past.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};
use moorage_wire::Sha256;
use serde::{Deserialize, Serialize};

use super::ReleaseError;

/// What pins a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Of its bytes.
    pub sha256: Sha256,
    /// In bytes.
    pub size: u64,
}

impl Digest {
    /// Reads a file to its end.
    pub fn of_file(path: &Path) -> Result<Self, ReleaseError> {
        let read = || {
            let mut digesting = Digesting::new(io::sink());
            io::copy(&mut File::open(path)?, &mut digesting)?;
            Ok(digesting.finish().1)
        };
        read().map_err(ReleaseError::reading(path))
    }
}

/// A reader or writer that digests what passes.
pub struct Digesting<T> {
    inner: T,
    context: Context,
    size: u64,
}

impl<T> Digesting<T> {
    /// Nothing has passed yet.
    pub fn new(inner: T) -> Self {
        Self { inner, context: Context::new(&SHA256), size: 0 }
    }

    pub fn finish(self) -> (T, Digest) {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.context.finish().as_ref());
        (self.inner, Digest { sha256: Sha256::from_bytes(bytes), size: self.size })
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.passed(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.passed(&buffer[..read]);
        Ok(read)
    }
}

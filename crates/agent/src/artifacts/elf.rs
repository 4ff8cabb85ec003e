//! The first bytes of a program: whether it is one, and for this machine.

use std::{fs::File, io, io::Read as _, path::Path};

/// What the header of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executable {
    /// A program that this machine can run.
    Native,
    /// A program for another processor.
    Foreign,
    NoProgram,
}

const HEADER: usize = 20;
/// `e_machine` of the machine that this was built for (ELF specification, and its processor supplements).
const NATIVE_MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXECUTABLE: u16 = 2;
/// Position-independent programs are shared objects by their type.
const TYPE_SHARED: u16 = 3;

impl Executable {
    /// Reads the header of a file.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut header = Vec::with_capacity(HEADER);
        File::open(path)?.take(HEADER as u64).read_to_end(&mut header)?;
        Ok(Self::by_header(&header))
    }

    fn by_header(header: &[u8]) -> Self {
        let Some(header) = header.first_chunk::<HEADER>() else { return Self::NoProgram };
        if !header.starts_with(b"\x7fELF") {
            return Self::NoProgram;
        }
        let kind = u16::from_le_bytes([header[16], header[17]]);
        let machine = u16::from_le_bytes([header[18], header[19]]);
        let width = (header[4], header[5]);
        if width != (CLASS_64, LITTLE_ENDIAN) || machine != NATIVE_MACHINE {
            Self::Foreign
        } else if kind == TYPE_EXECUTABLE || kind == TYPE_SHARED {
            Self::Native
        } else {
            Self::NoProgram
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_a_program_for_this_machine() {
        let itself = std::env::current_exe().unwrap();
        assert_eq!(Executable::of(&itself).unwrap(), Executable::Native);
    }

    #[test]
    fn other_processors_and_other_files_are_told_apart() {
        let mut header = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0";
        assert_eq!(Executable::by_header(&header), Executable::Foreign, "RISC-V");
        header[4] = 1;
        assert_eq!(Executable::by_header(&header), Executable::Foreign, "32 bits");
        assert_eq!(
            Executable::by_header(b"#!/usr/bin/node\n\n\n\n\n\n\n\n"),
            Executable::NoProgram
        );
        assert_eq!(Executable::by_header(b"\x7fELF"), Executable::NoProgram);
    }
}

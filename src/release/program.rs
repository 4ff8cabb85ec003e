//! What can be told of an executable file: the architecture that it is for, and the version that it
//! says of itself.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use super::ReleaseError;
use crate::api::release::Architecture;

/// Refuses what is not an ELF program for `architecture`.
pub fn check(path: &Path, architecture: Architecture) -> Result<(), ReleaseError> {
    let mut header = Vec::new();
    let file = File::open(path).map_err(ReleaseError::reading(path))?;
    file.take(20).read_to_end(&mut header).map_err(ReleaseError::reading(path))?;
    let wrong = |why: String| ReleaseError::WrongProgram {
        path: path.to_owned(),
        wanted: architecture.as_str(),
        why,
    };
    // Magic, 64 bits, little-endian; the machine is at offset 18.
    let machine = match &header[..] {
        [0x7f, b'E', b'L', b'F', 2, 1, .., low, high] if header.len() == 20 => {
            u16::from_le_bytes([*low, *high])
        }
        _ => return Err(wrong("it is not a 64-bit Linux program".to_owned())),
    };
    match (machine, architecture) {
        (62, Architecture::X86) | (183, Architecture::Arm) => Ok(()),
        (62, _) => Err(wrong("it is for x86".to_owned())),
        (183, _) => Err(wrong("it is for arm".to_owned())),
        (other, _) => Err(wrong(format!("it is for ELF machine {other}"))),
    }
}

/// Runs `path --version` with nothing of this environment.
pub fn version(path: &Path) -> Result<String, String> {
    let output = Command::new(path)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("--version: {}", output.status));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    version_in(&said).ok_or_else(|| format!("--version says {:?}", said.trim()))
}

/// The first word that starts with a number and has a dot, without a leading `v`.
fn version_in(said: &str) -> Option<String> {
    let words = said.split_whitespace().map(|word| word.strip_prefix('v').unwrap_or(word));
    let version = |word: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
        word.starts_with(|first: char| first.is_ascii_digit())
            && word.contains('.')
            && word.bytes().all(plain)
    };
    words.clone().find(version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::host_architecture;

    #[test]
    fn versions_are_found_in_what_the_programs_say() {
        let said = [
            ("cloudflared version 2026.8.2 (built 2026-08-20-1000 UTC)", Some("2026.8.2")),
            ("moorage-agent 0.1.0", Some("0.1.0")),
            ("v24.21.0", Some("24.21.0")),
            ("OpenClaw 2026.9.6 (eb377ac)", Some("2026.9.6")),
            ("help yourself", None),
        ];
        for (text, version) in said {
            assert_eq!(version_in(text).as_deref(), version, "{text}");
        }
    }

    #[test]
    fn a_program_for_another_architecture_is_refused() {
        let this = std::env::current_exe().unwrap();
        let here = host_architecture().expect("tests run where servers could");
        check(&this, here).unwrap();
        let other = match here {
            Architecture::X86 => Architecture::Arm,
            Architecture::Arm => Architecture::X86,
        };
        let refused = check(&this, other).unwrap_err().to_string();
        assert!(refused.contains(here.as_str()), "{refused}");
    }

    #[test]
    fn a_script_is_no_program() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#!/bin/sh\necho a long enough script\n").unwrap();
        assert!(check(file.path(), Architecture::X86).is_err());
        std::fs::write(file.path(), "").unwrap();
        assert!(check(file.path(), Architecture::X86).is_err());
    }
}

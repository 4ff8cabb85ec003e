//! No shell anywhere: commands are argument vectors. Looks through everything that is built into the
//! operator, the agent and the simulator, and through the files that they put on servers.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The lines that may name a shell. None of them lets it see a value.
const ALLOWED: [(&str, &str); 3] = [
    // The login shell of the person who may look around by SSH.
    ("src/user_data", "shell: \"/bin/bash\","),
    // What a person gets who goes into a server of the lab and names no program.
    (
        "crates/sim-servers/src/vps/nspawn/inside.rs",
        "[\"bash\", \"--login\"].map(OsString::from).into()",
    ),
    // A constant line of the first boot, which cloud-init runs before anything else is there.
    ("src/user_data/mod.rs", "\"sh\","),
];

/// A folder of sources, or one whose files go to servers as they are.
const FOLDERS: [&str; 7] = [
    "src",
    "crates/agent/src",
    "crates/wire/src",
    "crates/sim/src",
    "crates/sim-clouds/src",
    "crates/sim-servers/src",
    "crates/sim-tunnel/src",
];

const SHELLS: [&str; 5] = ["sh", "bash", "dash", "zsh", "busybox"];

/// What starts one without naming it, in Python.
const HIDDEN: [&str; 3] = ["shell=True", "os.system(", "os.popen("];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file below a folder that is not a test's.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !matches!(name.as_str(), "tests" | "snapshots") {
            files(&path, found);
        } else if path.is_file() && name != "tests.rs" && !name.ends_with("_tests.rs") {
            found.push(path);
        }
    }
}

/// The part of a file that is not its test module.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// Whether a line starts, or asks something to start, a shell.
fn names_a_shell(line: &str) -> bool {
    let code = line.trim_start();
    if code.starts_with("//") {
        return false;
    }
    HIDDEN.iter().any(|hidden| code.contains(hidden))
        || SHELLS.iter().any(|shell| {
            code.contains(&format!("\"{shell}\""))
                || [" -c", " -ec", " -lc", " -euc"]
                    .iter()
                    .any(|option| word_at(code, &format!("{shell}{option}")))
                || ["/bin/", "/usr/bin/", "env "].iter().any(|folder| {
                    let path = format!("{folder}{shell}");
                    code.match_indices(&path).any(|(at, _)| ends_at(code, at + path.len()))
                })
        })
}

fn word_at(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || matches!(before, '-' | '_' | '.'))
            && ends_at(text, at + word.len())
    })
}

fn ends_at(text: &str, end: usize) -> bool {
    !text[end..].chars().next().is_some_and(|next| next.is_alphanumeric() || next == '-')
}

#[test]
fn nothing_starts_a_shell() {
    let (root, mut found) = (root(), Vec::new());
    for folder in FOLDERS {
        files(&root.join(folder), &mut found);
    }
    assert!(found.len() > 100, "only {} files were looked through", found.len());
    let mut offences = Vec::new();
    for path in found {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in without_tests(&text).lines().enumerate() {
            let allowed = ALLOWED
                .iter()
                .any(|(file, allowed)| name.starts_with(file) && line.trim() == *allowed);
            if names_a_shell(line) && !allowed {
                offences.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(offences.is_empty(), "shells:\n{}", offences.join("\n"));
}

#[test]
fn the_search_finds_what_it_is_for() {
    for line in [
        r#"Command::new("sh")"#,
        r#"Command::new("bash").arg("-c")"#,
        r#"let program = "/bin/sh";"#,
        "ExecStart=/bin/bash /x.sh",
        r#"run(&["busybox", "sh"])"#,
        "ExecStartPre=sh -c 'echo $X'",
        "#!/usr/bin/env bash",
        "#!/bin/sh",
        "subprocess.run(command, shell=True)",
    ] {
        assert!(names_a_shell(line), "{line}");
    }
    for line in [
        "// sh -c is not used",
        "/bin/shutdown",
        "let hash = fish -count;",
        "/run/sshd.sock",
        r#"push("ssh")"#,
        "refresh -c",
    ] {
        assert!(!names_a_shell(line), "{line}");
    }
}

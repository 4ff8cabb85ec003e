//! The values that `moorage seal` is given: from files, standard input, the environment or, against
//! better advice, the command line.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStringExt as _,
};

use clap::Args;
use moorage_wire::{CredentialType, Secret, envelope::MAX_ENVELOPE_BYTES};

use super::SealError;
use crate::credentials::secret_source::{NotAnEnvelope, parse_envelope};

/// Larger values could not be delivered.
const MAX_VALUE_BYTES: u64 = MAX_ENVELOPE_BYTES as u64;

/// Where the values come from. Not `Debug`: it may hold one.
#[derive(Args)]
#[command(next_help_heading = "Values")]
pub(crate) struct ValueArgs {
    /// Take a value from a file, or from standard input with KEY=- (a line end after it is removed)
    #[arg(long, value_name = "KEY=PATH")]
    pub(super) from_file: Vec<String>,
    /// Take a value from an environment variable
    #[arg(long, value_name = "KEY=VARIABLE")]
    pub(super) from_env: Vec<String>,
    /// Take a value from the command line: it stays in the shell's history and in the process list
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) from_literal: Vec<String>,
    /// Check the format of a value before it is sealed
    #[arg(long, value_name = "KEY=TYPE")]
    pub(super) r#type: Vec<String>,
}

/// All values by their key, and what the person should know about how they were given.
pub(super) fn collect(
    args: &ValueArgs,
    stdin: &mut dyn Read,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(BTreeMap<String, Secret>, Vec<String>), SealError> {
    let mut values = Values::default();
    for option in &args.from_file {
        let (key, path) = assignment("from-file", "PATH", option)?;
        let read = match path {
            "-" => read_limited(stdin),
            path => File::open(path).and_then(|mut file| read_limited(&mut file)),
        };
        let from = if path == "-" { "standard input" } else { path };
        values.add_read(key, from, read)?;
    }
    for option in &args.from_env {
        let (key, variable) = assignment("from-env", "VARIABLE", option)?;
        let unset = || io::Error::new(io::ErrorKind::NotFound, "it is not set");
        let read = environment(variable).ok_or_else(unset);
        let from = format!("the variable {variable}");
        values.add_read(key, &from, read.map(|text| Secret::new(text.into_vec())))?;
    }
    for option in &args.from_literal {
        let (key, value) = assignment("from-literal", "VALUE", option)?;
        values.notes.push(format!(
            "the value of {key} is now in your shell's history; --from-file {key}=- reads it from standard input instead"
        ));
        values.add(key, Secret::from(value.to_owned()))?;
    }
    if values.by_key.is_empty() {
        return Err(SealError::NoValue);
    }
    for option in &args.r#type {
        values.check(option)?;
    }
    Ok((values.by_key, values.notes))
}

#[derive(Default)]
struct Values {
    by_key: BTreeMap<String, Secret>,
    notes: Vec<String>,
}

impl Values {
    fn add_read(
        &mut self,
        key: &str,
        from: &str,
        read: io::Result<Secret>,
    ) -> Result<(), SealError> {
        let value = read.map_err(|source| SealError::UnreadableValue {
            key: key.to_owned(),
            from: from.to_owned(),
            source,
        })?;
        let bytes = value.expose();
        // Editors and echo end a file with a line end that no API key has.
        let trimmed = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let trimmed = trimmed.strip_suffix(b"\r").unwrap_or(trimmed);
        if trimmed.len() < bytes.len() {
            self.notes.push(format!("the line end after the value of {key} was removed"));
        }
        self.add(key, Secret::new(trimmed.to_vec()))
    }

    fn add(&mut self, key: &str, value: Secret) -> Result<(), SealError> {
        if value.is_empty() {
            return Err(SealError::EmptyValue(key.to_owned()));
        }
        if parse_envelope(&value) != Err(NotAnEnvelope::Plaintext) {
            return Err(SealError::SealedAlready(key.to_owned()));
        }
        match self.by_key.insert(key.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(SealError::DuplicateKey(key.to_owned())),
        }
    }

    fn check(&self, option: &str) -> Result<(), SealError> {
        let (key, name) = assignment("type", "TYPE", option)?;
        let kind = CredentialType::parse_customer(name)
            .ok_or_else(|| SealError::UnknownType(name.to_owned()))?;
        let value =
            self.by_key.get(key).ok_or_else(|| SealError::TypeWithoutValue(key.to_owned()))?;
        let invalid = |source| SealError::InvalidFormat { key: key.to_owned(), source };
        kind.check(value.expose()).map_err(invalid)
    }
}

/// Splits `key=value`; the error does not repeat the text, which may be a value alone.
fn assignment<'a>(
    option: &'static str,
    form: &'static str,
    text: &'a str,
) -> Result<(&'a str, &'a str), SealError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_key = |key: &str| {
        (1..=253).contains(&key.len())
            && key.bytes().all(allowed)
            && key != "."
            && !key.starts_with("..")
    };
    let parts = text.split_once('=').filter(|(key, value)| is_key(key) && !value.is_empty());
    parts.ok_or(SealError::InvalidAssignment { option, form })
}

fn read_limited(source: &mut dyn Read) -> io::Result<Secret> {
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(MAX_ENVELOPE_BYTES + 1));
    source.take(MAX_VALUE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_ENVELOPE_BYTES {
        let problem = format!("it is larger than {MAX_ENVELOPE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(Secret::new(bytes.to_vec()))
}

//! The folder with all versions of one thing, and what an artifact of it looks like.

use moorage_wire::Program;

use crate::layout::INTEGRATIONS_FOLDER;

const MIB: u64 = 1 << 20;
/// What an integration's artifact says of itself.
pub(crate) const PACKED: &str = "integration.json";

/// The form of an artifact's file.
pub(super) enum Form {
    Executable(&'static str),
    Archive {
        /// What must be in it.
        program: &'static str,
        /// Whether that is a program for this machine, not a script.
        native: bool,
    },
}

/// The folder with all versions of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// A program of a release, of which one version is current.
    Program(Program),
    /// Integrations: all of them, told apart by their digests. None is current.
    Integrations,
}

impl From<Program> for Shelf {
    fn from(kind: Program) -> Self {
        Self::Program(kind)
    }
}

impl Shelf {
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Program(program) => program.name(),
            Self::Integrations => INTEGRATIONS_FOLDER,
        }
    }

    pub(super) fn form(self) -> Form {
        let Self::Program(kind) = self else {
            return Form::Archive { program: PACKED, native: false };
        };
        match kind {
            Program::Agent => Form::Executable("moorage-agent"),
            Program::Cloudflared => Form::Executable("cloudflared"),
            Program::Node => Form::Archive { program: "bin/node", native: true },
            Program::Openclaw => Form::Archive { program: "bin/openclaw", native: false },
        }
    }

    /// The largest file that is taken, in bytes.
    pub(super) fn largest(self) -> u64 {
        match self {
            Self::Program(Program::Agent) => 64 * MIB,
            Self::Program(Program::Cloudflared) => 256 * MIB,
            Self::Program(Program::Node) | Self::Integrations => 512 * MIB,
            Self::Program(Program::Openclaw) => 2048 * MIB,
        }
    }

    /// What must be in the folder of a version.
    fn program(self) -> &'static str {
        match self.form() {
            Form::Executable(program) | Form::Archive { program, .. } => program,
        }
    }
}

/// The executable of a program, relative to the folder of a version.
pub fn executable(program: Program) -> &'static str {
    Shelf::from(program).program()
}

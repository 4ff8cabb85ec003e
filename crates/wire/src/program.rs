//! The programs of a release, and what else a report can speak of.

use serde::{Deserialize, Serialize};

use crate::desired::{Artifact, Artifacts};

/// A program of a release.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::VariantArray,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Program {
    /// The Node.js runtime that OpenClaw needs; a `.tar.gz`.
    Node,
    /// OpenClaw with its dependency tree; a `.tar.gz`.
    Openclaw,
    /// The tunnel connector; a bare executable.
    Cloudflared,
    /// The agent itself; a bare executable.
    Agent,
}

impl Program {
    /// All of them, in the order in which a server gets them.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Its name in documents, statuses and paths.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Its name in sentences.
    pub fn title(self) -> &'static str {
        match self {
            Self::Node => "Node.js",
            Self::Openclaw => "OpenClaw",
            Self::Cloudflared => "cloudflared",
            Self::Agent => "the agent",
        }
    }

    /// What a release pins for it.
    pub fn pinned(self, artifacts: &Artifacts) -> &Artifact {
        match self {
            Self::Node => &artifacts.node,
            Self::Openclaw => &artifacts.openclaw,
            Self::Cloudflared => &artifacts.cloudflared,
            Self::Agent => &artifacts.agent,
        }
    }
}

/// What a report speaks of. Unlike [`Program`] it takes the names that a newer agent may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub enum Component {
    /// A program of the release.
    Program(Program),
    /// A plugin or skill of OpenClaw.
    Integration,
    /// Something that only a newer agent has.
    Unknown,
}

impl Component {
    const INTEGRATION: &str = "integration";

    /// The program, if it is one.
    pub fn program(self) -> Option<Program> {
        match self {
            Self::Program(program) => Some(program),
            Self::Integration | Self::Unknown => None,
        }
    }

    /// Its name in documents and statuses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Program(program) => program.name(),
            Self::Integration => Self::INTEGRATION,
            Self::Unknown => "unknown",
        }
    }
}

impl From<Program> for Component {
    fn from(program: Program) -> Self {
        Self::Program(program)
    }
}

impl From<Component> for &'static str {
    fn from(component: Component) -> Self {
        component.name()
    }
}

impl From<String> for Component {
    fn from(name: String) -> Self {
        let program = Program::ALL.iter().copied().find(|program| program.name() == name);
        match program {
            Some(program) => Self::Program(program),
            None if name == Self::INTEGRATION => Self::Integration,
            None => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_one_name_in_both_forms() {
        for &program in Program::ALL {
            let text = serde_json::to_string(&program).unwrap();
            assert_eq!(text, format!("\"{}\"", program.name()));
            assert_eq!(serde_json::to_string(&Component::from(program)).unwrap(), text);
            assert_eq!(serde_json::from_str::<Program>(&text).unwrap(), program);
            let component: Component = serde_json::from_str(&text).unwrap();
            assert_eq!(component.program(), Some(program));
        }
    }

    #[test]
    fn a_report_may_name_a_program_that_is_not_known() {
        assert_eq!(serde_json::from_str::<Component>("\"kernel\"").unwrap(), Component::Unknown);
        assert!(serde_json::from_str::<Program>("\"kernel\"").is_err());
    }
}

//! A skill as a file that servers install: a folder with `SKILL.md`, taken as it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    ReleaseError,
    archive::{Kind, Tree},
    bundle::write_json,
    digest::Digest,
    plugin::{INDEX, check_name, index},
};
use crate::api::release::IntegrationKind;

/// The folder of a skill in its artifact.
const FOLDER: &str = "skill";

/// A skill of this machine, as the command line names it: `NAME@VERSION=FOLDER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    /// How instances name it.
    pub name: String,
    /// What its maker calls this state of it.
    pub version: String,
    pub folder: PathBuf,
}

impl std::str::FromStr for Skill {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        let form = || ReleaseError::Invalid(format!("{text} is not NAME@VERSION=FOLDER"));
        let (name, folder) = text.split_once('=').ok_or_else(form)?;
        let (name, version) = name.rsplit_once('@').ok_or_else(form)?;
        check_name(name)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
        if !version.starts_with(|first: char| first.is_ascii_digit())
            || version.len() > 64
            || !version.bytes().all(plain)
        {
            return Err(form());
        }
        let folder = PathBuf::from(folder);
        Ok(Self { name: name.to_owned(), version: version.to_owned(), folder })
    }
}

impl Skill {
    /// Packs it to `file`; every time in it is `time`.
    pub fn pack(&self, file: &Path, time: u64) -> Result<Digest, ReleaseError> {
        if !self.folder.join("SKILL.md").is_file() {
            let folder = self.folder.display();
            return Err(ReleaseError::Invalid(format!("{folder} is no skill: it has no SKILL.md")));
        }
        let scratch = tempfile::tempdir().map_err(ReleaseError::writing("a temporary folder"))?;
        let index = index(IntegrationKind::Skill, &self.name, &self.version);
        write_json(&scratch.path().join(INDEX), &index)?;
        self.copy(&scratch.path().join(FOLDER))?;
        Tree::read(scratch.path())?.pack(file, time)
    }

    fn copy(&self, to: &Path) -> Result<(), ReleaseError> {
        fs::create_dir(to).map_err(ReleaseError::writing(to))?;
        for entry in Tree::read(&self.folder)?.entries() {
            let (from, to) = (self.folder.join(&entry.path), to.join(&entry.path));
            let copied = match &entry.kind {
                Kind::Folder => fs::create_dir(&to),
                Kind::File { .. } => fs::copy(&from, &to).map(drop),
                Kind::Symlink(_) => {
                    let why = "a skill has files and folders alone";
                    return Err(ReleaseError::Unpackable { path: entry.path.clone(), why });
                }
            };
            copied.map_err(ReleaseError::writing(to))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skill_is_named_with_its_version_and_folder() {
        let skill: Skill = "@acme/weather@1.2.0=./skills/weather".parse().unwrap();
        assert_eq!((skill.name.as_str(), skill.version.as_str()), ("@acme/weather", "1.2.0"));
        assert_eq!(skill.folder, Path::new("./skills/weather"));
        for text in ["weather@1.0.0", "weather=./x", "weather@latest=./x", "../x@1.0.0=./x", "@1=."]
        {
            assert!(text.parse::<Skill>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_skill_packs_to_the_same_bytes_every_time() {
        let folder = tempfile::tempdir().unwrap();
        let skill = |name: &str| Skill {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            folder: folder.path().join("weather"),
        };
        let file = folder.path().join("out.tar.gz");
        fs::create_dir_all(folder.path().join("weather/scripts")).unwrap();
        fs::write(folder.path().join("weather/scripts/a.sh"), "echo sun\n").unwrap();
        let refused = skill("weather").pack(&file, 7).unwrap_err().to_string();
        assert!(refused.contains("no SKILL.md"), "{refused}");
        fs::write(folder.path().join("weather/SKILL.md"), "---\nname: weather\n---\n").unwrap();
        let digest = skill("weather").pack(&file, 7).unwrap();
        assert_eq!(skill("weather").pack(&file, 7).unwrap(), digest);
        assert_ne!(skill("other").pack(&file, 7).unwrap(), digest);
        std::os::unix::fs::symlink("SKILL.md", folder.path().join("weather/link")).unwrap();
        assert!(skill("weather").pack(&file, 7).is_err());
    }
}

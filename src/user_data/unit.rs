//! systemd units as values. A unit is sections of assignments; what would break out of its line
//! cannot be put into one. Which units there are is not told here.

use std::fmt;

/// A unit file of systemd, by sections.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    name: &'static str,
    sections: Vec<Section>,
}

#[derive(Debug, Clone)]
struct Section {
    name: &'static str,
    assignments: Vec<(&'static str, String)>,
}

impl Unit {
    /// An empty unit. `name` has its suffix, such as `.service`.
    pub(super) fn new(name: &'static str) -> Self {
        assert!(
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.@".contains(&byte)),
            "{name:?} is no name of a unit"
        );
        Self { name, sections: Vec::new() }
    }

    /// Begins a section; what is set from here on belongs to it.
    #[must_use]
    pub(super) fn section(mut self, name: &'static str) -> Self {
        assert!(is_word(name), "{name:?} is no name of a section");
        self.sections.push(Section { name, assignments: Vec::new() });
        self
    }

    /// Assigns in the current section. A key may be set more than once; an empty value resets it.
    ///
    /// # Panics
    /// Without a section, and for text that is no key or that would not stay on its line. All units
    /// are constants of this program, so this is a mistake in it and not in what it was given.
    #[must_use]
    pub(super) fn set(mut self, key: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        assert!(is_word(key), "{key:?} is no key");
        assert!(stays_on_its_line(&value), "the value of {key} leaves its line: {value:?}");
        let section = self.sections.last_mut().expect("a section comes before its assignments");
        section.assignments.push((key, value));
        self
    }

    /// Assigns a list of words, separated by blanks.
    #[must_use]
    pub(super) fn words<const N: usize>(self, key: &'static str, words: [&str; N]) -> Self {
        assert!(
            words.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)),
            "a word of {key} is more or less than one"
        );
        self.set(key, words.join(" "))
    }

    /// Assigns many.
    #[must_use]
    pub(super) fn all(self, assignments: &[(&'static str, &'static str)]) -> Self {
        assignments.iter().fold(self, |unit, (key, value)| unit.set(key, *value))
    }

    /// Where it belongs on the server.
    pub(super) fn path(&self) -> String {
        format!("/etc/systemd/system/{}", self.name)
    }
}

fn stays_on_its_line(value: &str) -> bool {
    !value.contains(char::is_control) && !value.ends_with('\\') && value.trim() == value
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl fmt::Display for Unit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, section) in self.sections.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            writeln!(formatter, "{gap}[{}]", section.name)?;
            for (key, value) in &section.assignments {
                writeln!(formatter, "{key}={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[test]
    fn a_unit_is_written_as_systemd_reads_it() {
        let unit = Unit::new("a.service")
            .section("Unit")
            .set("Description", "A")
            .section("Service")
            .words("ExecStart", ["/bin/true", "--flag"])
            .all(&[("Type", "oneshot")]);
        assert_eq!(
            unit.to_string(),
            "[Unit]\nDescription=A\n\n[Service]\nExecStart=/bin/true --flag\nType=oneshot\n"
        );
        assert_eq!(unit.path(), "/etc/systemd/system/a.service");
    }

    #[rstest]
    #[case::second_line("x\nExecStartPre=/bin/sh")]
    #[case::continued("x\\")]
    #[case::nul("x\0")]
    #[case::blanks(" x")]
    #[should_panic(expected = "leaves its line")]
    fn a_value_that_leaves_its_line_is_refused(#[case] value: &str) {
        let _ = Unit::new("a.service").section("Service").set("ExecStart", value);
    }

    #[test]
    #[should_panic(expected = "more or less than one")]
    fn a_word_is_one_word() {
        let _ = Unit::new("a.service").section("Service").words("ExecStart", ["/bin/true x"]);
    }

    proptest! {
        #[test]
        fn a_value_that_is_taken_is_one_line(value in "\\PC{0,60}") {
            prop_assume!(stays_on_its_line(&value));
            let unit = Unit::new("a.service").section("Service").set("Environment", value.clone());
            let (text, wanted) = (unit.to_string(), format!("Environment={value}"));
            prop_assert_eq!(text.split('\n').collect::<Vec<_>>(), ["[Service]", &wanted, ""]);
        }
    }
}

//! What servers fetch at their first boot, over both versions of IP.

use super::finding::{Check, Finding};

/// One file of a release.
pub const ARTIFACT: Check = Check { id: "artifacts.file", title: "File of a release" };
/// A release for each architecture.
pub const ARCHITECTURE: Check = Check { id: "artifacts.architecture", title: "Releases" };

/// What a server has to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Such as `openclaw x86`, or the address.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// How large it must be, if a release says so.
    pub size: Option<u64>,
}

/// What one version of IP came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// An answer: its status, and how long it says that the file is.
    Answer(u16, Option<u64>),
    /// The name has no address of this version.
    NoAddress,
    /// This machine has no way out over this version.
    NoRoute,
    /// Anything else.
    Failed(String),
}

/// What both came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Over IPv4.
    pub v4: Way,
    /// Over IPv6.
    pub v6: Way,
}

/// The verdict on one file.
pub fn judge(artifact: &Artifact, seen: &Seen) -> Finding {
    verdict(artifact, seen).of(&artifact.name)
}

fn verdict(artifact: &Artifact, seen: &Seen) -> Finding {
    const PUBLISH: &str =
        "Serve the file that the release pins at this address, or make a release with another one";
    let url = &artifact.url;
    for (way, version) in [(&seen.v4, "IPv4"), (&seen.v6, "IPv6")] {
        match way {
            Way::Answer(200, Some(length))
                if artifact.size.is_some_and(|pinned| pinned != *length) =>
            {
                let pinned = artifact.size.unwrap_or_default();
                return ARTIFACT.fail(
                    format!("{url} has {length} bytes over {version}, and {pinned} are pinned"),
                    PUBLISH,
                );
            }
            Way::Answer(200, _) | Way::NoAddress | Way::NoRoute => {}
            Way::Answer(status, _) => {
                return ARTIFACT.fail(format!("{url} answers {status} over {version}"), PUBLISH);
            }
            Way::Failed(why) => {
                return ARTIFACT.fail(
                    format!("{url} cannot be fetched over {version}: {why}"),
                    "See that its server answers; servers fetch it at their first boot",
                );
            }
        }
    }
    let size = |way: &Way| match way {
        Way::Answer(_, length) => *length,
        _ => None,
    };
    let size = size(&seen.v4).or_else(|| size(&seen.v6));
    let size = size.map(|size| format!(", {size} bytes")).unwrap_or_default();
    match (&seen.v4, &seen.v6) {
        (Way::NoAddress, Way::NoAddress) => {
            ARTIFACT.fail(format!("The host of {url} has no address"), PUBLISH)
        }
        (Way::NoAddress, _) => ARTIFACT.fail(
            format!("The host of {url} has no IPv4 address"),
            "Serve it over IPv4 as well: most servers have only that way to it",
        ),
        (Way::NoRoute, Way::NoRoute) => {
            ARTIFACT.unknown(format!("This machine has no way to {url}"))
        }
        (Way::NoRoute, _) => {
            ARTIFACT.unknown(format!("{url} answers over IPv6{size}; this machine has no IPv4"))
        }
        (_, Way::NoAddress) => ARTIFACT.warn(
            format!("{url} answers over IPv4{size}, and its host has no IPv6 address"),
            "Give no instance spec.server.ipv4: false, or serve the release from a host with IPv6",
        ),
        (_, Way::NoRoute) => ARTIFACT.pass(format!(
            "{url} answers over IPv4{size}; its host has IPv6, which this machine cannot try"
        )),
        _ => ARTIFACT.pass(format!("{url} answers over IPv4 and IPv6{size}")),
    }
}

/// Whether there is a release for the architecture of every wanted server type.
pub fn architectures(wanted: &[String], released: &[String]) -> Option<Finding> {
    if released.is_empty() || wanted.is_empty() {
        return None;
    }
    let missing: Vec<_> = wanted.iter().filter(|one| !released.contains(one)).cloned().collect();
    let finding = if missing.is_empty() {
        ARCHITECTURE.pass(format!("There is one for {}", released.join(" and ")))
    } else if missing.len() < wanted.len() {
        ARCHITECTURE.warn(
            format!("There is none for {}", missing.join(" and ")),
            "Make a release for it, or take the server types of that architecture out of the pool",
        )
    } else {
        ARCHITECTURE.fail(
            format!("There is none for {}", missing.join(" and ")),
            "Make a release for the architecture of the pool's server types",
        )
    };
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict::{self, Fail, Pass, Unknown, Warn};
    use rstest::rstest;

    const OK: Way = Way::Answer(200, Some(7));

    #[rstest]
    #[case::both(OK, OK, Pass)]
    #[case::no_ipv6_here(OK, Way::NoRoute, Pass)]
    #[case::no_ipv6_there(OK, Way::NoAddress, Warn)]
    #[case::no_ipv4_here(Way::NoRoute, OK, Unknown)]
    #[case::no_ipv4_there(Way::NoAddress, OK, Fail)]
    #[case::no_network(Way::NoRoute, Way::NoRoute, Unknown)]
    #[case::no_host(Way::NoAddress, Way::NoAddress, Fail)]
    #[case::not_there(Way::Answer(404, None), OK, Fail)]
    #[case::only_over_ipv6_not(OK, Way::Answer(404, None), Fail)]
    #[case::another_file(Way::Answer(200, Some(8)), OK, Fail)]
    #[case::no_length(Way::Answer(200, None), Way::NoRoute, Pass)]
    #[case::refused(Way::Failed("connection refused".to_owned()), OK, Fail)]
    fn a_file_has_to_answer_over_ipv4(#[case] v4: Way, #[case] v6: Way, #[case] expected: Verdict) {
        let url = "https://x/y".to_owned();
        let artifact = Artifact { name: "node x86".to_owned(), url, size: Some(7) };
        let finding = judge(&artifact, &Seen { v4, v6 });
        assert_eq!(finding.verdict, expected, "{finding:?}");
    }

    #[rstest]
    #[case::all(&["x86", "arm"], &["x86", "arm"], Some(Pass))]
    #[case::one_missing(&["x86", "arm"], &["x86"], Some(Warn))]
    #[case::only_another(&["arm"], &["x86"], Some(Fail))]
    #[case::no_release_given(&["arm"], &[], None)]
    fn every_architecture_needs_a_release(
        #[case] wanted: &[&str],
        #[case] released: &[&str],
        #[case] expected: Option<Verdict>,
    ) {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let finding = architectures(&text(wanted), &text(released));
        assert_eq!(finding.map(|finding| finding.verdict), expected);
    }
}

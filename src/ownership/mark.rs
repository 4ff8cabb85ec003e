//! What an object says of itself: the labels of a server, the name of a tunnel, the comment of a DNS
//! record, each read back into a [`Mark`].

use std::fmt;

use moorage_wire::{InstallationId, InstanceId};

use crate::{
    api::label,
    cloudflare::{DnsRecord, MAX_COMMENT_CHARS, Tunnel},
    hetzner::Server,
    names,
};

/// What a Moorage object says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// It belongs to an instance.
    Live(Tag),
    /// It was left behind on purpose. Comments of earlier versions have no ids.
    Retained {
        /// `None` where an earlier version wrote no ids.
        tag: Option<Tag>,
        /// Where that instance was.
        place: Option<Place>,
    },
}

/// The ids of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub installation: InstallationId,
    pub instance: InstanceId,
    /// Where the instance is in the cluster, as far as it is said.
    pub place: Option<Place>,
}

/// `namespace/name` of an instance; the end may be cut off where room is short.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    text: String,
    cut: bool,
}

impl Place {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { text: format!("{namespace}/{name}"), cut: false }
    }

    /// Whether it is that of this instance, as far as it is said.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        let whole = format!("{namespace}/{name}");
        if self.cut { whole.starts_with(&self.text) } else { whole == self.text }
    }

    /// Whether it is exactly that of this instance.
    pub fn is_exactly(&self, namespace: &str, name: &str) -> bool {
        !self.cut && self.is(namespace, name)
    }

    /// The namespace, if it is said in full.
    pub fn namespace(&self) -> Option<&str> {
        self.text.split_once('/').map(|(namespace, _)| namespace)
    }

    /// Namespace and name, if they are said in full.
    pub fn parts(&self) -> Option<(&str, &str)> {
        self.text.split_once('/').filter(|_| !self.cut)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)?;
        if self.cut { formatter.write_str("…") } else { Ok(()) }
    }
}

impl Mark {
    /// Where its instance is or was.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Live(tag) => tag.place.as_ref(),
            Self::Retained { place, .. } => place.as_ref(),
        }
    }

    /// The owner that it names, if it was not let go.
    pub fn live(self) -> Option<Tag> {
        match self {
            Self::Live(tag) => Some(tag),
            Self::Retained { .. } => None,
        }
    }

    /// The owner that it names, and whether it was left behind on purpose.
    pub fn tag(self) -> Option<(Tag, bool)> {
        match self {
            Self::Live(tag) => Some((tag, false)),
            Self::Retained { tag, .. } => tag.map(|tag| (tag, true)),
        }
    }

    fn retained(tag: Tag) -> Self {
        Self::Retained { place: tag.place.clone(), tag: Some(tag) }
    }
}

/// A cloud object that may say whose it is.
pub trait Marked {
    /// What it says; nothing if it does not look like Moorage's.
    fn mark(&self) -> Option<Mark>;

    /// The instance of `installation` that it says it belongs to.
    fn owner(&self, installation: InstallationId) -> Option<InstanceId> {
        let tag = self.mark()?.live()?;
        (tag.installation == installation).then_some(tag.instance)
    }
}

impl Marked for Server {
    fn mark(&self) -> Option<Mark> {
        let label = |name: &str| self.labels.get(name);
        let place = label(label::NAMESPACE).zip(label(label::NAME));
        let tag = Tag {
            installation: label(label::INSTALLATION)?.parse().ok()?,
            instance: label(label::INSTANCE)?.parse().ok()?,
            place: place.map(|(namespace, name)| Place::new(namespace, name)),
        };
        let retained = self.labels.contains_key(label::RETAINED);
        Some(if retained { Mark::retained(tag) } else { Mark::Live(tag) })
    }
}

impl Marked for Tunnel {
    fn mark(&self) -> Option<Mark> {
        // A deleted tunnel stays in Cloudflare's books and holds nothing, its name neither.
        let name =
            self.name.strip_prefix(names::TUNNEL_PREFIX).filter(|_| self.deleted_at.is_none());
        let (installation, rest) = name?.split_once('-')?;
        let (instance, rest) =
            rest.split_once('-').map_or((rest, None), |(id, rest)| (id, Some(rest)));
        let (installation, instance) = (installation.parse().ok()?, instance.parse().ok()?);
        let tag = Tag { installation, instance, place: None };
        match rest {
            None => Some(Mark::Live(tag)),
            Some(rest) => rest.starts_with(names::RETAINED).then(|| Mark::retained(tag)),
        }
    }
}

impl Marked for DnsRecord {
    fn mark(&self) -> Option<Mark> {
        let comment = self.comment.as_deref()?;
        let cut = comment.chars().count() >= MAX_COMMENT_CHARS;
        // People may add words of their own behind it.
        let place = |word: Option<&str>| {
            let text = word.filter(|word| !word.is_empty())?.to_owned();
            Some(Place { cut: cut && comment.ends_with(&text), text })
        };
        if let Some(rest) = comment.strip_prefix(names::RETAINED_COMMENT_OF_OLD) {
            return Some(Mark::Retained { tag: None, place: place(rest.split(' ').next()) });
        }
        let (retained, rest) = match comment.strip_prefix(names::RETAINED_COMMENT) {
            Some(rest) => (true, rest),
            None => (false, comment.strip_prefix(names::COMMENT)?),
        };
        let mut words = rest.split(' ');
        let tag = Tag {
            installation: words.next()?.parse().ok()?,
            instance: words.next()?.parse().ok()?,
            place: place(words.next()),
        };
        Some(if retained { Mark::retained(tag) } else { Mark::Live(tag) })
    }
}

//! What a watch has brought so far, list by list, and what it shows to be gone.

use std::collections::{HashMap, HashSet};

use kube::runtime::watcher::Event;

use crate::controller::turns::Name;

/// All objects of the watches over one kind, cut down to a `V` each.
#[derive(Debug)]
pub(super) struct Mirror<V> {
    known: HashMap<Name, V>,
    /// What the lists that are still being read have brought.
    listed: HashMap<Name, V>,
    /// The watched namespaces of which one list is complete.
    complete: HashSet<Option<String>>,
}

impl<V> Default for Mirror<V> {
    fn default() -> Self {
        Self { known: HashMap::new(), listed: HashMap::new(), complete: HashSet::new() }
    }
}

impl<V> Mirror<V> {
    /// Takes in one event of the watch over `namespace`, or over all if there is none. Gives what is
    /// gone: as the event has it, or as it was known last where a new list lacks it.
    pub(super) fn take(
        &mut self,
        namespace: Option<&str>,
        event: Event<(Name, V)>,
    ) -> Vec<(Name, V)> {
        let watched = |key: &Name| namespace.is_none_or(|namespace| key.0 == namespace);
        match event {
            Event::Init => self.listed.retain(|key, _| !watched(key)),
            Event::InitApply((key, value)) => drop(self.listed.insert(key, value)),
            Event::InitDone => {
                let listed: HashMap<_, _> = self.listed.extract_if(|key, _| watched(key)).collect();
                let old = self.known.extract_if(|key, _| watched(key));
                let gone = old.filter(|(key, _)| !listed.contains_key(key)).collect();
                self.known.extend(listed);
                self.complete.insert(namespace.map(str::to_owned));
                return gone;
            }
            Event::Apply((key, value)) => drop(self.known.insert(key, value)),
            Event::Delete((key, value)) => {
                self.known.remove(&key);
                return vec![(key, value)];
            }
        }
        Vec::new()
    }

    /// Whether so many watches have each listed what there is.
    pub(super) fn is_complete(&self, watches: usize) -> bool {
        self.complete.len() >= watches
    }

    pub(super) fn get(&self, key: &Name) -> Option<&V> {
        self.known.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &V)> {
        self.known.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> Name {
        (namespace.to_owned(), name.to_owned())
    }

    fn names(gone: Vec<(Name, u64)>) -> Vec<(String, u64)> {
        gone.into_iter().map(|((_, name), version)| (name, version)).collect()
    }

    #[test]
    fn who_is_deleted_is_gone_and_who_is_missing_from_a_new_list_too() {
        let mut mirror = Mirror::default();
        mirror.take(None, Event::Init);
        mirror.take(None, Event::InitApply((key("tenants", "ada"), 1)));
        mirror.take(None, Event::InitApply((key("tenants", "bob"), 2)));
        assert!(!mirror.is_complete(1));
        assert!(mirror.take(None, Event::InitDone).is_empty());
        assert!(mirror.is_complete(1));
        mirror.take(None, Event::Apply((key("tenants", "eve"), 3)));
        let gone = mirror.take(None, Event::Delete((key("tenants", "ada"), 4)));
        assert_eq!(names(gone), [("ada".to_owned(), 4)]);
        mirror.take(None, Event::Init);
        mirror.take(None, Event::InitApply((key("tenants", "eve"), 3)));
        let gone = mirror.take(None, Event::InitDone);
        assert_eq!(names(gone), [("bob".to_owned(), 2)], "as it was known last");
        assert!(mirror.get(&key("tenants", "eve")).is_some());
    }

    #[test]
    fn a_new_list_of_one_namespace_says_nothing_of_another() {
        let mut mirror = Mirror::default();
        for (namespace, name) in [("a", "ada"), ("b", "bob")] {
            mirror.take(Some(namespace), Event::Init);
            mirror.take(Some(namespace), Event::InitApply((key(namespace, name), 1)));
            assert!(!mirror.is_complete(2));
            mirror.take(Some(namespace), Event::InitDone);
        }
        assert!(mirror.is_complete(2));
        mirror.take(Some("a"), Event::Init);
        let gone = mirror.take(Some("a"), Event::InitDone);
        assert_eq!(names(gone), [("ada".to_owned(), 1)]);
    }
}

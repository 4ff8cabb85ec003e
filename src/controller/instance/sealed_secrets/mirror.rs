//! What a watch has brought so far, list by list, and what it shows to be gone.

use std::collections::{HashMap, HashSet};

use kube::runtime::watcher::Event;

use crate::controller::turns::Name;

/// Objects by namespace and name.
type Table<V> = HashMap<String, HashMap<String, V>>;

/// All objects of the watches over one kind, cut down to a `V` each: at most `MOST` of a namespace. Those
/// that come when it is full are left out until a new list.
#[derive(Debug)]
pub(super) struct Mirror<V, const MOST: usize = { usize::MAX }> {
    known: Table<V>,
    /// What the lists that are still being read have brought.
    listed: Table<V>,
    /// The watched namespaces of which one list is complete.
    complete: HashSet<Option<String>>,
    /// The namespaces of which something was left out.
    full: HashSet<String>,
}

impl<V, const MOST: usize> Default for Mirror<V, MOST> {
    fn default() -> Self {
        Self {
            known: Table::new(),
            listed: Table::new(),
            complete: HashSet::new(),
            full: HashSet::new(),
        }
    }
}

impl<V, const MOST: usize> Mirror<V, MOST> {
    /// Takes in one event of the watch over `namespace`, or over all if there is none. Gives what is
    /// gone: as the event has it, or as it was known last where a new list lacks it.
    pub(super) fn take(
        &mut self,
        namespace: Option<&str>,
        event: Event<(Name, V)>,
    ) -> Vec<(Name, V)> {
        match event {
            Event::Init => drop(part(&mut self.listed, namespace)),
            Event::InitApply((key, value)) => {
                put::<V, MOST>(&mut self.listed, &mut self.full, key, value);
            }
            Event::InitDone => {
                let listed = part(&mut self.listed, namespace);
                let old = part(&mut self.known, namespace).into_iter();
                let old = old.flat_map(|(namespace, objects)| {
                    objects.into_iter().map(move |(name, value)| ((namespace.clone(), name), value))
                });
                let gone = old.filter(|((namespace, name), _)| {
                    !listed.get(namespace).is_some_and(|objects| objects.contains_key(name))
                });
                let gone = gone.collect();
                self.known.extend(listed);
                self.complete.insert(namespace.map(str::to_owned));
                return gone;
            }
            Event::Apply((key, value)) => {
                put::<V, MOST>(&mut self.known, &mut self.full, key, value);
            }
            Event::Delete((key, value)) => {
                if let Some(objects) = self.known.get_mut(&key.0) {
                    objects.remove(&key.1);
                    if objects.is_empty() {
                        self.known.remove(&key.0);
                    }
                }
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
        self.known.get(&key.0)?.get(&key.1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ((&String, &String), &V)> {
        self.known.iter().flat_map(|(namespace, objects)| {
            objects.iter().map(move |(name, value)| ((namespace, name), value))
        })
    }
}

/// Takes out what one watch is about.
fn part<V>(table: &mut Table<V>, namespace: Option<&str>) -> Table<V> {
    match namespace {
        Some(namespace) => table.remove_entry(namespace).into_iter().collect(),
        None => std::mem::take(table),
    }
}

fn put<V, const MOST: usize>(
    table: &mut Table<V>,
    full: &mut HashSet<String>,
    (namespace, name): Name,
    value: V,
) {
    if !table.contains_key(&namespace) {
        table.insert(namespace.clone(), HashMap::new());
    }
    let Some(objects) = table.get_mut(&namespace) else { return };
    if objects.len() < MOST || objects.contains_key(&name) {
        objects.insert(name, value);
    } else if full.insert(namespace.clone()) {
        tracing::warn!(
            namespace,
            most = MOST,
            "there are more objects in a namespace than are looked after"
        );
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
    fn what_is_missing_from_a_new_list_is_gone() {
        let mut mirror = Mirror::<u64>::default();
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
        let mut mirror = Mirror::<u64>::default();
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

    #[test]
    fn a_full_namespace_takes_nothing_from_another() {
        let mut mirror = Mirror::<u64, 2>::default();
        for (namespace, name) in [("a", "1"), ("a", "2"), ("a", "3"), ("b", "4")] {
            mirror.take(None, Event::Apply((key(namespace, name), 1)));
        }
        assert!(mirror.get(&key("a", "3")).is_none() && mirror.get(&key("b", "4")).is_some());
        mirror.take(None, Event::Apply((key("a", "2"), 2)));
        assert_eq!(mirror.get(&key("a", "2")), Some(&2), "what is known is kept up to date");
        mirror.take(None, Event::Delete((key("a", "1"), 3)));
        mirror.take(None, Event::Apply((key("a", "3"), 4)));
        assert_eq!(mirror.get(&key("a", "3")), Some(&4));
        assert_eq!(mirror.iter().count(), 3);
    }
}

//! One kind of cloud object by id, where a list that was begun before a write cannot undo it.

use std::collections::BTreeMap;

/// A moment in the life of a table; all tables of an inventory are marked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Mark(u64);

/// Objects of one kind as the sweeps and our own writes have them.
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, V>,
    /// What we wrote or confirmed ourselves, and after which mark; `None` for gone.
    own: BTreeMap<K, (Mark, Option<V>)>,
    mark: Mark,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), own: BTreeMap::new(), mark: Mark::default() }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Table<K, V> {
    /// Begins a list: what is noted from now on is newer than it.
    pub(super) fn mark(&mut self) -> Mark {
        self.mark.0 += 1;
        self.mark
    }

    /// Takes in what we made or saw; gives what was known of it.
    pub(super) fn note(&mut self, key: K, value: V) -> Option<V> {
        self.own.insert(key.clone(), (self.mark, Some(value.clone())));
        self.rows.insert(key, value)
    }

    /// Takes out what is gone; gives what was known of it.
    pub(super) fn forget(&mut self, key: &K) -> Option<V> {
        self.own.insert(key.clone(), (self.mark, None));
        self.rows.remove(key)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.rows.values()
    }

    pub(super) fn matching(&self, mut wanted: impl FnMut(&V) -> bool) -> Vec<V> {
        self.rows.values().filter(|value| wanted(value)).cloned().collect()
    }

    /// Those that a list has shown as they are, not only our own note.
    pub(super) fn listed(&self) -> impl Iterator<Item = &V> {
        let rows = self.rows.iter().filter(|(key, _)| !self.own.contains_key(key));
        rows.map(|(_, value)| value)
    }

    /// Takes over the list that was begun at `mark`, but for what we noted since; tells `changed` of
    /// everything that came, went or differs.
    pub(super) fn replace(
        &mut self,
        list: Vec<V>,
        key: impl Fn(&V) -> K,
        mark: Mark,
        mut changed: impl FnMut(&V),
    ) {
        self.own.retain(|_, (noted, _)| *noted >= mark);
        let mut rows: BTreeMap<K, V> = list.into_iter().map(|value| (key(&value), value)).collect();
        for (key, (_, value)) in &self.own {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        for (key, value) in &rows {
            if self.rows.get(key) != Some(value) {
                changed(value);
            }
        }
        for (key, value) in &self.rows {
            if !rows.contains_key(key) {
                changed(value);
            }
        }
        self.rows = rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(table: &mut Table<u32, u32>, list: &[u32], mark: Mark) -> Vec<u32> {
        let mut changed = Vec::new();
        table.replace(list.to_vec(), |value| value / 10, mark, |value| changed.push(*value));
        changed
    }

    #[test]
    fn a_list_that_was_begun_before_a_write_does_not_undo_it() {
        let mut table = Table::default();
        let mark = table.mark();
        replace(&mut table, &[10], mark);

        let mark = table.mark();
        table.note(2, 20);
        table.forget(&1);
        assert_eq!(replace(&mut table, &[10], mark), Vec::<u32>::new());
        assert_eq!(table.matching(|_| true), [20]);

        let mark = table.mark();
        assert_eq!(replace(&mut table, &[10], mark), [10, 20], "the next list is believed again");
    }

    #[test]
    fn what_came_went_or_differs_is_told() {
        let mut table = Table::default();
        let mark = table.mark();
        assert_eq!(replace(&mut table, &[10, 20], mark), [10, 20]);
        let mark = table.mark();
        assert_eq!(replace(&mut table, &[11, 30], mark), [11, 30, 20]);
        let mark = table.mark();
        assert_eq!(replace(&mut table, &[11, 30], mark), Vec::<u32>::new());
    }
}

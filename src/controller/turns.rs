//! Work that waits, at most one piece for each name, handed out in turns by namespace: whoever has ten
//! thousand names waiting delays another namespace by one piece of work.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Namespace and name.
pub type Name = (String, String);

/// A queue in which namespaces take turns.
#[derive(Debug)]
pub struct Turns<W> {
    state: Mutex<State<W>>,
    more: Notify,
}

#[derive(Debug)]
struct State<W> {
    /// The names that wait in each namespace, in the order of their coming, with their work.
    waiting: HashMap<String, (VecDeque<String>, HashMap<String, W>)>,
    /// The namespaces that wait, in the order of their turns.
    turns: VecDeque<String>,
}

impl<W> Default for Turns<W> {
    fn default() -> Self {
        let state = State { waiting: HashMap::new(), turns: VecDeque::new() };
        Self { state: Mutex::new(state), more: Notify::new() }
    }
}

impl<W> Turns<W> {
    /// Lets work wait for its turn. It replaces what waits under the same name, which keeps its place.
    pub fn put(&self, (namespace, name): Name, work: W) {
        let mut state = self.state.lock();
        let (order, works) = state.waiting.entry(namespace.clone()).or_default();
        let begins = order.is_empty();
        if works.insert(name.clone(), work).is_none() {
            order.push_back(name);
        }
        if begins {
            state.turns.push_back(namespace);
        }
        drop(state);
        self.more.notify_one();
    }

    /// Waits for the next piece of work.
    pub async fn take(&self) -> (Name, W) {
        loop {
            if let Some(next) = self.next() {
                return next;
            }
            self.more.notified().await;
        }
    }

    fn next(&self) -> Option<(Name, W)> {
        let mut state = self.state.lock();
        let namespace = state.turns.pop_front()?;
        let (order, works) = state.waiting.get_mut(&namespace)?;
        let name = order.pop_front()?;
        let work = works.remove(&name)?;
        if order.is_empty() {
            state.waiting.remove(&namespace);
        } else {
            state.turns.push_back(namespace.clone());
        }
        if !state.turns.is_empty() {
            // For another one who waits.
            self.more.notify_one();
        }
        Some(((namespace, name), work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn put(turns: &Turns<u32>, namespace: &str, name: &str, work: u32) {
        turns.put((namespace.to_owned(), name.to_owned()), work);
    }

    fn taken(turns: &Turns<u32>) -> Option<(String, u32)> {
        turns.take().now_or_never().map(|((_, name), work)| (name, work))
    }

    #[test]
    fn ten_thousand_names_of_one_namespace_delay_another_by_one() {
        let turns = Turns::default();
        for number in 0..10_000 {
            put(&turns, "heavy", &number.to_string(), 0);
        }
        put(&turns, "light", "ada", 0);
        assert_eq!(taken(&turns).unwrap().0, "0");
        assert_eq!(taken(&turns).unwrap().0, "ada");
        assert_eq!(taken(&turns).unwrap().0, "1");
    }

    #[test]
    fn a_name_that_comes_again_is_merged_and_keeps_its_place() {
        let turns = Turns::default();
        put(&turns, "tenants", "ada", 1);
        put(&turns, "tenants", "bob", 2);
        put(&turns, "tenants", "ada", 3);
        assert_eq!(taken(&turns), Some(("ada".to_owned(), 3)));
        assert_eq!(taken(&turns), Some(("bob".to_owned(), 2)));
        assert_eq!(taken(&turns), None);
        put(&turns, "tenants", "ada", 4);
        assert_eq!(taken(&turns), Some(("ada".to_owned(), 4)));
    }

    #[tokio::test]
    async fn all_who_wait_for_work_get_some() {
        let turns = Turns::default();
        let two = futures::future::join(turns.take(), turns.take());
        let come = async {
            put(&turns, "a", "ada", 1);
            put(&turns, "a", "bob", 2);
        };
        let ((first, second), ()) = futures::join!(two, come);
        assert_ne!(first, second);
    }
}

//! Who may run a pass now: so many at once, shared by namespaces. Whoever has many objects that need
//! something waits for its own share; another's pass begins at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::fair;

/// How many times what is left a namespace may hold: three quarters, if it is the only one.
const SHARE: u32 = 3;

/// Lets so many work at once; the others wait.
#[derive(Debug)]
pub struct Slots {
    at_once: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: u32,
    by_namespace: HashMap<String, u32>,
    /// Who waits in which namespace, in the order of their coming.
    waiting: HashMap<String, VecDeque<oneshot::Sender<Slot>>>,
    /// The namespaces that wait, in the order of their turns.
    turns: VecDeque<String>,
}

/// A slot; it ends with it.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    namespace: String,
}

impl Slots {
    /// So many free slots.
    pub fn new(at_once: u32) -> Arc<Self> {
        Arc::new(Self { at_once, state: Mutex::default() })
    }

    /// Waits for a slot.
    pub async fn enter(self: &Arc<Self>, namespace: &str) -> Slot {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state.lock();
            let queue = state.waiting.entry(namespace.to_owned()).or_default();
            queue.push_back(sender);
            if queue.len() == 1 {
                state.turns.push_back(namespace.to_owned());
            }
        }
        self.hand_out();
        // The sender is dropped only after it has sent; both live as long as `self`.
        receiver.await.unwrap_or_else(|_| unreachable!("a waiting caller is never forgotten"))
    }

    /// Gives out all that can be given out.
    fn hand_out(self: &Arc<Self>) {
        while let Some((namespace, sender)) = self.next() {
            let slot = Slot { slots: Arc::clone(self), namespace };
            // Whoever does not wait any more gives it back at once.
            drop(sender.send(slot));
        }
    }

    /// The next caller whose turn it is, with its slot counted.
    fn next(&self) -> Option<(String, oneshot::Sender<Slot>)> {
        let mut state = self.state.lock();
        let free = self.at_once.saturating_sub(state.taken);
        for _ in 0..state.turns.len() {
            let namespace = state.turns.pop_front()?;
            let taken = state.by_namespace.get(&namespace).copied().unwrap_or_default();
            if !fair::may_take(taken, free, SHARE) {
                state.turns.push_back(namespace);
                continue;
            }
            let queue = state.waiting.get_mut(&namespace)?;
            queue.retain(|sender| !sender.is_closed());
            let sender = queue.pop_front();
            if queue.is_empty() {
                state.waiting.remove(&namespace);
            } else {
                state.turns.push_back(namespace.clone());
            }
            let Some(sender) = sender else { continue };
            state.taken += 1;
            *state.by_namespace.entry(namespace.clone()).or_default() += 1;
            return Some((namespace, sender));
        }
        None
    }

    fn give_back(&self, namespace: &str) {
        let mut state = self.state.lock();
        state.taken = state.taken.saturating_sub(1);
        if let Some(taken) = state.by_namespace.get_mut(namespace) {
            *taken -= 1;
            if *taken == 0 {
                state.by_namespace.remove(namespace);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.give_back(&self.namespace);
        self.slots.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn enter(slots: &Arc<Slots>, namespace: &str) -> Option<Slot> {
        slots.enter(namespace).now_or_never()
    }

    #[test]
    fn a_namespace_with_much_to_do_leaves_slots_for_the_next() {
        let slots = Slots::new(64);
        let mut heavy = Vec::new();
        while let Some(slot) = enter(&slots, "heavy") {
            heavy.push(slot);
        }
        assert_eq!(heavy.len(), 48);
        let light = enter(&slots, "light");
        assert!(light.is_some(), "it begins at once");
        drop(light);
        drop(heavy);
        assert_eq!(slots.state.lock().taken, 0);
        assert!(slots.state.lock().by_namespace.is_empty() && slots.state.lock().turns.is_empty());
    }

    #[tokio::test]
    async fn those_who_wait_take_turns_by_namespace() {
        let slots = Slots::new(1);
        let held = enter(&slots, "a");
        let order = Mutex::new(Vec::new());
        let work = |namespace: &'static str, name: &'static str| {
            let (slots, order) = (&slots, &order);
            async move {
                let _slot = slots.enter(namespace).await;
                order.lock().push(name);
                tokio::task::yield_now().await;
            }
        };
        let all = futures::future::join_all([
            work("a", "a1"),
            work("a", "a2"),
            work("a", "a3"),
            work("b", "b1"),
        ]);
        let release = async { drop(held) };
        futures::join!(all, release);
        assert_eq!(*order.lock(), ["a1", "b1", "a2", "a3"]);
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_takes_no_slot() {
        let slots = Slots::new(1);
        let held = enter(&slots, "a");
        assert!(enter(&slots, "b").is_none(), "given up at once");
        drop(held);
        assert!(enter(&slots, "c").is_some());
        assert_eq!(slots.state.lock().taken, 0);
    }
}

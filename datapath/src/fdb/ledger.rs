//! Which port holds which learned entries, in about the order in which they were last seen. Writers alone use it.
//!
//! Each port has a list, threaded through an array with a node for every slot of the table. Readers refresh entries without
//! touching the lists, so a list is in the order in which entries were queued. One that comes to its head and has been seen
//! since gets a second chance: it goes to the end.

use std::collections::BTreeSet;

use crate::snapshot::PortId;

/// No node.
const NONE: u32 = u32::MAX;

/// Entries that one eviction looks at. With this many second chances in a row the best candidate so far has to go.
const CHANCES: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Node {
    prev: u32,
    next: u32,
    /// When the entry was last seen as it was queued.
    queued: u32,
}

#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    len: u32,
}

const EMPTY: List = List { head: NONE, tail: NONE, len: 0 };

#[derive(Debug)]
pub(super) struct Ledger {
    /// By slot of the table.
    nodes: Box<[Node]>,
    /// By port.
    lists: Vec<List>,
    /// Ports that hold any, by how many.
    by_count: BTreeSet<(u32, PortId)>,
    len: usize,
}

impl Ledger {
    /// For a table of that many slots.
    pub(super) fn new(slots: usize) -> Ledger {
        let node = Node { prev: NONE, next: NONE, queued: 0 };
        Ledger {
            nodes: vec![node; slots].into_boxed_slice(),
            lists: Vec::new(),
            by_count: BTreeSet::new(),
            len: 0,
        }
    }

    /// Entries of all ports.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Entries of one port.
    pub(super) fn count(&self, port: PortId) -> u32 {
        self.list(port).len
    }

    /// A port that has no fewer entries than any other; None when there are no entries.
    pub(super) fn fullest(&self) -> Option<PortId> {
        self.by_count.last().map(|(_, port)| *port)
    }

    /// The slot at the head of a port's list.
    pub(super) fn first(&self, port: PortId) -> Option<usize> {
        slot(self.list(port).head)
    }

    /// Every slot, each port's in the order of its list.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.lists
            .iter()
            .flat_map(|list| std::iter::successors(slot(list.head), |s| slot(self.nodes.get(*s)?.next)))
    }

    /// Puts a slot, which is in no list, at the end of a port's list.
    pub(super) fn push(&mut self, slot: usize, port: PortId, seen: u32) {
        self.append(slot, port, seen);
        self.recount(port, 1);
    }

    /// Takes a slot out of its port's list.
    pub(super) fn unlink(&mut self, slot: usize, port: PortId) {
        self.detach(slot, port);
        self.recount(port, -1);
    }

    /// The entry in `from` has moved to `to`.
    pub(super) fn relocate(&mut self, from: usize, to: usize, port: PortId) {
        let Some(node) = self.nodes.get(from).copied() else { return };
        if let Some(new) = self.nodes.get_mut(to) {
            *new = node;
        }
        self.join(node.prev, to as u32, port);
        self.join(to as u32, node.next, port);
    }

    /// Chooses an entry of `port` to give up: of the first ones in its list, those not seen since they were queued before
    /// the others, and of these the one seen least recently. `seen` tells when the entry in a slot was.
    pub(super) fn victim(&mut self, port: PortId, seen: impl Fn(usize) -> u32) -> Option<usize> {
        let mut best: Option<(u32, usize)> = None;
        for _ in 0..CHANCES.min(self.list(port).len as usize) {
            let first = self.first(port)?;
            let when = seen(first);
            if best.is_none_or(|(b, _)| when < b) {
                best = Some((when, first));
            }
            if self.nodes.get(first).is_some_and(|n| n.queued == when) {
                break;
            }
            self.detach(first, port);
            self.append(first, port, when);
        }
        best.map(|(_, slot)| slot)
    }

    fn append(&mut self, slot: usize, port: PortId, seen: u32) {
        let tail = self.list(port).tail;
        let Some(node) = self.nodes.get_mut(slot) else { return };
        *node = Node { prev: tail, next: NONE, queued: seen };
        self.join(tail, slot as u32, port);
        self.join(slot as u32, NONE, port);
    }

    fn detach(&mut self, slot: usize, port: PortId) {
        let Some(Node { prev, next, .. }) = self.nodes.get(slot).copied() else { return };
        self.join(prev, next, port);
    }

    fn list(&self, port: PortId) -> List {
        self.lists.get(usize::from(port.0)).copied().unwrap_or(EMPTY)
    }

    fn list_mut(&mut self, port: PortId) -> Option<&mut List> {
        let i = usize::from(port.0);
        if i >= self.lists.len() {
            self.lists.resize(i + 1, EMPTY);
        }
        self.lists.get_mut(i)
    }

    /// Makes `next` follow `prev`; NONE stands for the list's ends.
    fn join(&mut self, prev: u32, next: u32, port: PortId) {
        match slot(prev).and_then(|s| self.nodes.get_mut(s)) {
            Some(node) => node.next = next,
            None => {
                if let Some(list) = self.list_mut(port) {
                    list.head = next;
                }
            }
        }
        match slot(next).and_then(|s| self.nodes.get_mut(s)) {
            Some(node) => node.prev = prev,
            None => {
                if let Some(list) = self.list_mut(port) {
                    list.tail = prev;
                }
            }
        }
    }

    fn recount(&mut self, port: PortId, change: i32) {
        let Some(list) = self.list_mut(port) else { return };
        let before = list.len;
        let after = before.saturating_add_signed(change);
        list.len = after;
        self.len = self.len.saturating_add_signed(change as isize);
        self.by_count.remove(&(before, port));
        if after > 0 {
            self.by_count.insert((after, port));
        }
    }
}

fn slot(node: u32) -> Option<usize> {
    (node != NONE).then_some(node as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PortId = PortId(3);
    const B: PortId = PortId(700);

    fn order(ledger: &Ledger) -> Vec<usize> {
        ledger.iter().collect()
    }

    #[test]
    fn lists_keep_their_order() {
        let mut ledger = Ledger::new(16);
        for (slot, port) in [(5, A), (2, B), (9, A), (1, A)] {
            ledger.push(slot, port, 0);
        }
        assert_eq!((order(&ledger), ledger.fullest(), ledger.len()), (vec![5, 9, 1, 2], Some(A), 4));
        ledger.relocate(9, 10, A);
        ledger.relocate(1, 0, A);
        ledger.relocate(2, 3, B);
        assert_eq!(order(&ledger), [5, 10, 0, 3]);
        ledger.unlink(5, A);
        ledger.unlink(0, A);
        assert_eq!((order(&ledger), ledger.first(A), ledger.count(A)), (vec![10, 3], Some(10), 1));
        ledger.unlink(10, A);
        assert_eq!((ledger.first(A), ledger.fullest()), (None, Some(B)));
        ledger.unlink(3, B);
        assert_eq!((ledger.fullest(), ledger.len()), (None, 0));
    }

    #[test]
    fn one_seen_since_it_was_queued_has_a_second_chance() {
        let mut ledger = Ledger::new(16);
        for slot in 0..4 {
            ledger.push(slot, A, 10);
        }
        let seen = |slot: usize| [12, 11, 10, 10][slot];
        assert_eq!(ledger.victim(A, seen), Some(2));
        assert_eq!(order(&ledger), [2, 3, 0, 1]);
        assert_eq!(ledger.victim(B, seen), None);
    }

    #[test]
    fn when_all_were_seen_the_least_recent_goes() {
        let mut ledger = Ledger::new(64);
        for slot in 0..40 {
            ledger.push(slot, A, 0);
        }
        assert_eq!(ledger.victim(A, |slot| 100 - slot as u32), Some(CHANCES - 1));
        let mut three = Ledger::new(4);
        for slot in 0..3 {
            three.push(slot, A, 0);
        }
        assert_eq!(three.victim(A, |slot| [5, 3, 9][slot]), Some(1));
    }
}

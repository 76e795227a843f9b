//! The part of the MAC table that workers read without a lock: open addressing, two words an entry.
//!
//! One writer at a time (the caller's mutex sees to it) and any number of readers. The words of a slot are
//!
//! ```text
//! key     1 occupied | 3 zero | 12 VLAN | 48 MAC          0: empty
//! value  15 version | 1 static | 16 port | 32 last seen
//! ```
//!
//! **A slot is a seqlock.** The writer that gives a slot another key makes the version odd, stores the key, and stores the
//! new value with the next even version. A reader loads value, key, value, and believes what it saw if the version was even
//! and the same both times:
//!
//! - The first load of the value is an Acquire of the writer's Release store, so the key that is loaded next is the one that
//!   belongs to that value, or a later one.
//! - Were it a later one, its Release store came after an odd version had been stored; having acquired the key, the second
//!   load of the value would have to see that version or a later one, and does not.
//! - A refresh, by compare-and-exchange, changes neither version nor key. As a read-modify-write it continues the release
//!   sequence of the writer's store, so reading a refreshed value acquires the same.
//!
//! To be deceived, a reader would have to sleep between two loads while the slot changed its key exactly 2^14 times n.
//!
//! **Removal shifts back** the entries that had been displaced past the hole, so there are no tombstones. A reader may pass
//! the hole before an entry is copied there, and reach the entry's old place after it is gone: it misses what was there
//! all the time. So the writer counts up `shifts` after each copy and before the old place is touched (all Release), and a
//! reader that missed looks whether `shifts` has changed since it began. If it has, it tries again. If it has not: had it
//! seen the old place emptied, it would see the count that went before; and had the count come before it began, it would
//! have found the copy.

use std::hash::BuildHasher;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use foldhash::quality::RandomState;

use crate::snapshot::PortId;

/// How often a reader starts again before it calls an entry unknown. Each time, a writer has changed the very entry, or
/// shifted others while the reader looked for one that is not there.
const TRIES: usize = 64;

/// What an entry is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u64);

impl Key {
    const OCCUPIED: u64 = 1 << 63;

    #[inline]
    pub(super) fn new(vlan: u16, mac: [u8; 6]) -> Key {
        let [a, b, c, d, e, f] = mac;
        let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Key(Key::OCCUPIED | u64::from(vlan & 0xfff) << 48 | mac)
    }

    pub(super) fn vlan(self) -> u16 {
        (self.0 >> 48) as u16 & 0xfff
    }

    pub(super) fn mac(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }
}

/// What is known about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value(u64);

impl Value {
    const STATIC: u64 = 1 << 48;
    /// One step of the version, which is odd while the slot is being written.
    const STEP: u64 = 1 << 49;
    const VERSION: u64 = !(Value::STEP - 1);

    pub(super) fn learned(port: PortId, seen: u32) -> Value {
        Value(u64::from(port.0) << 32 | u64::from(seen))
    }

    pub(super) fn fixed(port: PortId) -> Value {
        Value(u64::from(port.0) << 32 | Value::STATIC)
    }

    #[inline]
    pub(super) fn port(self) -> PortId {
        PortId((self.0 >> 32) as u16)
    }

    #[inline]
    pub(super) fn is_static(self) -> bool {
        self.0 & Value::STATIC != 0
    }

    #[inline]
    pub(super) fn seen(self) -> u32 {
        self.0 as u32
    }

    /// Learned, and last seen more than `max_age` before `now`. Another worker's clock may be a little ahead.
    #[inline]
    pub(super) fn is_aged(self, now: u32, max_age: u32) -> bool {
        !self.is_static() && now.saturating_sub(self.seen()) > max_age
    }

    #[inline]
    fn version(self) -> u64 {
        self.0 & Value::VERSION
    }

    fn with_version(self, version: u64) -> Value {
        Value(self.0 & !Value::VERSION | version & Value::VERSION)
    }

    #[inline]
    fn is_being_written(self) -> bool {
        self.0 & Value::STEP != 0
    }
}

/// One place; both words in one cache line.
#[derive(Debug, Default)]
#[repr(align(16))]
struct Slot {
    key: AtomicU64,
    value: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Table {
    /// A power of two of them, at most half occupied.
    slots: Box<[Slot]>,
    /// Entries shifted since the table was made.
    shifts: AtomicU64,
    hasher: RandomState,
}

impl Table {
    /// A table that takes `entries`.
    pub(super) fn new(entries: usize) -> Table {
        let slots = (0..Table::slots_for(entries)).map(|_| Slot::default()).collect();
        Table { slots, shifts: AtomicU64::new(0), hasher: RandomState::default() }
    }

    /// How many slots a table for `entries` has.
    pub(super) fn slots_for(entries: usize) -> usize {
        entries.saturating_mul(2).next_power_of_two().max(16)
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slots where `key` may be, nearest to its home first.
    #[inline]
    fn path(&self, key: Key) -> impl Iterator<Item = (usize, &Slot)> {
        let (home, mask) = (self.home(key), self.slots.len() - 1);
        (0..self.slots.len()).filter_map(move |i| {
            let slot = (home + i) & mask;
            Some((slot, self.slots.get(slot)?))
        })
    }

    #[inline]
    fn home(&self, key: Key) -> usize {
        self.hasher.hash_one(key.0) as usize & (self.slots.len() - 1)
    }

    // Readers

    /// Where `key` stands, and what is known about it.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<(usize, Value)> {
        self.find_pausing(key, |_| {})
    }

    /// [`Table::find`], with something happening after each look at a slot.
    #[inline]
    fn find_pausing(&self, key: Key, pause: impl Fn(usize)) -> Option<(usize, Value)> {
        for _ in 0..TRIES {
            let shifts = self.shifts.load(Acquire);
            match self.probe(key, &pause) {
                Probe::Hit(slot, value) => return Some((slot, value)),
                Probe::Miss if self.shifts.load(Relaxed) == shifts => return None,
                Probe::Miss | Probe::Torn => std::hint::spin_loop(),
            }
        }
        None
    }

    #[inline]
    fn probe(&self, key: Key, pause: impl Fn(usize)) -> Probe {
        let mut missed = Probe::Miss;
        for (i, slot) in self.path(key) {
            match slot.key.load(Acquire) {
                0 => break,
                k if k == key.0 => match slot.read() {
                    Some((found, value)) if found == key => return Probe::Hit(i, value),
                    // Perhaps it is just being copied here, and still stands where it was.
                    _ => missed = Probe::Torn,
                },
                _ => {}
            }
            pause(i);
        }
        missed
    }

    /// The entry in a slot, if there is one and it is not just being written.
    pub(super) fn get(&self, slot: usize) -> Option<(Key, Value)> {
        self.slots.get(slot)?.read().filter(|(key, _)| key.0 != 0)
    }

    /// Notes that what `find` found was seen at `now`. Writes only when the second has changed. If the entry has been
    /// changed since, it stays as it is.
    #[inline]
    pub(super) fn refresh(&self, slot: usize, found: Value, now: u32) {
        if found.is_static() || now <= found.seen() {
            return;
        }
        if let Some(slot) = self.slots.get(slot) {
            let fresh = found.0 & !u64::from(u32::MAX) | u64::from(now);
            // Relaxed: nothing is published but the time itself.
            let _ = slot.value.compare_exchange(found.0, fresh, Relaxed, Relaxed);
        }
    }

    // The writer

    /// Adds an entry that is not there yet. None: there is no empty slot, which a caller that keeps to the size never sees.
    pub(super) fn insert(&self, key: Key, value: Value) -> Option<usize> {
        let (i, slot) = self.path(key).find(|(_, slot)| slot.key.load(Relaxed) == 0)?;
        slot.write(key.0, value);
        Some(i)
    }

    /// Changes what is known about the entry in `slot`. A refresh that comes between is lost.
    pub(super) fn set(&self, slot: usize, value: Value) {
        if let Some(slot) = self.slots.get(slot) {
            let version = slot.value.load(Relaxed);
            slot.value.store(value.with_version(version).0, Release);
        }
    }

    /// Removes the entry in `slot`, and closes the hole; `moved(from, to, value)` is called for each entry that moves.
    ///
    /// The hole keeps its old key until another is copied there, so that readers on their way to entries behind do not stop
    /// at it; only the last one, behind which nothing belongs, becomes empty.
    pub(super) fn remove(&self, slot: usize, mut moved: impl FnMut(usize, usize, Value)) {
        let mask = self.slots.len() - 1;
        let mut hole = slot;
        for step in 1..self.slots.len() {
            let next = (slot + step) & mask;
            let Some((key, value)) = self.get(next) else { break };
            // It may stand in the hole if that is no farther back than its home.
            let displaced = next.wrapping_sub(self.home(key)) & mask;
            let back = next.wrapping_sub(hole) & mask;
            if back > displaced {
                continue;
            }
            if let Some(to) = self.slots.get(hole) {
                to.write(key.0, value);
            }
            self.shifts.fetch_add(1, Release);
            moved(next, hole, value);
            hole = next;
        }
        if let Some(last) = self.slots.get(hole) {
            last.write(0, Value(0));
        }
    }
}

/// What one walk found.
enum Probe {
    Hit(usize, Value),
    Miss,
    /// The entry was being written.
    Torn,
}

impl Slot {
    /// Key and value that belong together; None while they are being written.
    #[inline]
    fn read(&self) -> Option<(Key, Value)> {
        let value = Value(self.value.load(Acquire));
        let key = Key(self.key.load(Acquire));
        let again = Value(self.value.load(Relaxed));
        (!value.is_being_written() && value.version() == again.version()).then_some((key, value))
    }

    /// Gives the slot another key; 0 empties it.
    fn write(&self, key: u64, value: Value) {
        let version = self.value.load(Relaxed);
        let odd = Value(version).with_version(version.wrapping_add(Value::STEP));
        self.value.store(odd.0, Relaxed);
        self.key.store(key, Release);
        self.value.store(value.with_version(version.wrapping_add(2 * Value::STEP)).0, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn keys_and_values_keep_their_parts() {
        let key = Key::new(4095, [0xff; 6]);
        assert_eq!((key.vlan(), key.mac()), (4095, [0xff; 6]));
        assert_ne!(Key::new(0, [0; 6]).0, 0);
        let value = Value::learned(PortId(65535), u32::MAX).with_version(u64::MAX);
        assert_eq!((value.port(), value.seen(), value.is_static()), (PortId(65535), u32::MAX, false));
        let value = Value::fixed(PortId(7));
        assert_eq!((value.port(), value.is_static(), value.version()), (PortId(7), true, 0));
    }

    #[test]
    fn age_counts_from_the_last_second_seen() {
        let value = Value::learned(PortId(1), 100);
        assert!(!value.is_aged(99, 0) && !value.is_aged(100, 0) && value.is_aged(101, 0));
        assert!(!value.is_aged(400, 300) && value.is_aged(401, 300));
        assert!(!Value::fixed(PortId(1)).is_aged(u32::MAX, 0));
    }

    #[test]
    fn versions_wrap_without_touching_the_rest() {
        let slot = Slot::default();
        for i in 0..40_000u32 {
            slot.write(Key::new(1, [2; 6]).0, Value::learned(PortId(i as u16), i));
            let (key, value) = slot.read().unwrap();
            assert_eq!(
                (key, value.port(), value.seen()),
                (Key::new(1, [2; 6]), PortId(i as u16), i),
                "write {i}"
            );
        }
    }

    #[test]
    fn a_stale_refresh_changes_nothing() {
        let table = Table::new(10);
        let key = Key::new(0, [2, 0, 0, 0, 0, 1]);
        table.insert(key, Value::learned(PortId(1), 5));
        let (slot, found) = table.find(key).unwrap();
        table.refresh(slot, found, 4);
        assert_eq!(table.find(key).unwrap().1, found);
        table.set(slot, Value::learned(PortId(2), 6));
        table.refresh(slot, found, 9);
        let (_, now) = table.find(key).unwrap();
        assert_eq!((now.port(), now.seen()), (PortId(2), 6));
        table.remove(slot, |_, _, _| panic!("alone"));
        table.refresh(slot, now, 10);
        assert_eq!(table.find(key), None);
    }

    /// Readers that meet a slot between any two stores of the writer do not believe it.
    #[test]
    fn a_half_written_slot_is_torn() {
        let slot = Slot::default();
        slot.write(Key::new(0, [1; 6]).0, Value::learned(PortId(1), 1));
        let version = slot.value.load(Relaxed);
        slot.value.store(version.wrapping_add(Value::STEP), Relaxed);
        assert_eq!(slot.read(), None);
    }

    #[test]
    fn at_every_step_of_a_removal_the_others_are_found() {
        let mut shifts = 0;
        for round in 0..200u16 {
            let table = Table::new(8);
            let key = |i: u16| Key::new(i, [2, 0, 0, 0, 0, round as u8]);
            for i in 0..15 {
                table.insert(key(i), Value::learned(PortId(i), 0));
            }
            for removed in 0..15 {
                let check = || {
                    for i in removed + 1..15 {
                        assert_eq!(table.find(key(i)).map(|(_, v)| v.port()), Some(PortId(i)));
                    }
                };
                let (slot, _) = table.find(key(removed)).unwrap();
                table.remove(slot, |from, to, _| {
                    assert_ne!(from, to);
                    shifts += 1;
                    check();
                });
                check();
                assert_eq!(table.find(key(removed)), None);
            }
        }
        assert_ne!(shifts, 0);
    }

    /// The reader is past the hole when the entry is copied there, and comes to the old place when it is empty.
    #[test]
    fn an_entry_that_moves_behind_the_reader_is_found() {
        let moved_past = Cell::new(0);
        for round in 0..200u16 {
            let table = Table::new(8);
            let key = |i: u16| Key::new(i, [2, 0, 0, 0, 0, round as u8]);
            for i in 0..12 {
                table.insert(key(i), Value::learned(PortId(i), 0));
            }
            let place = |i: u16| table.find(key(i)).unwrap().0;
            let wanted = (0..12).find(|i| place(*i) != table.home(key(*i)));
            let Some(wanted) = wanted else { continue };
            let removed = Cell::new(false);
            let found = table.find_pausing(key(wanted), |passed| {
                if !removed.replace(true) {
                    let before = place(wanted);
                    table.remove(passed, |_, _, _| {});
                    moved_past.set(moved_past.get() + usize::from(place(wanted) != before));
                }
            });
            assert_eq!(found.map(|(_, v)| v.port()), Some(PortId(wanted)));
        }
        assert_ne!(moved_past.get(), 0);
    }

    /// A crowded table, so that every removal shifts others and every slot changes its key all the time. What stays must be
    /// found wherever it stands, and what is found must be told apart from its neighbours.
    #[test]
    fn readers_find_what_stays_while_all_around_it_moves() {
        // Several, for their hashes are seeded differently.
        (0..6).for_each(|_| stay_while_others_move(&Table::new(8)));
    }

    fn stay_while_others_move(table: &Table) {
        let key = |i: u16| Key::new(i, [2, 0, 0, 0, 0, 1]);
        let staying = 0..5;
        for i in staying.clone() {
            table.insert(key(i), Value::learned(PortId(i), 0));
        }
        let (stop, begin) = (AtomicBool::new(false), Barrier::new(3));
        thread::scope(|s| {
            let read = || {
                begin.wait();
                // once at least: on a busy machine a reader may get no core before all is over
                loop {
                    for i in 0..20 {
                        let found = table.find(key(i)).map(|(_, value)| value.port());
                        if found != Some(PortId(i)) && (found.is_some() || staying.contains(&i)) {
                            return Err((i, found));
                        }
                    }
                    if stop.load(Relaxed) {
                        return Ok(());
                    }
                }
            };
            let readers = [s.spawn(read), s.spawn(read)];
            begin.wait();
            let (mut random, mut present) = (0x9e37_79b9_7f4a_7c15u64, 5);
            for _ in 0..500_000 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let i = 5 + (random % 15) as u16;
                match table.find(key(i)) {
                    Some((slot, _)) => {
                        table.remove(slot, |_, _, _| {});
                        present -= 1;
                    }
                    None if present < 14 => {
                        table.insert(key(i), Value::learned(PortId(i), 0));
                        present += 1;
                    }
                    None => {}
                }
            }
            stop.store(true, Relaxed);
            for reader in readers {
                assert_eq!(reader.join().unwrap(), Ok(()));
            }
        });
        assert_ne!(table.shifts.load(Relaxed), 0);
    }
}

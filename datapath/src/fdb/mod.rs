//! The forwarding database (MAC table) of one bridge: (VLAN, MAC) → port.
//!
//! Workers look up and refresh entries without a lock ([`table`]); only learning a new address or moving one takes the
//! writers' mutex, which steady traffic never does. The table is bounded. When it is full, the port that holds the most
//! entries gives up one that has not been seen for long ([`ledger`]), so no port can push out the others' entries (as in
//! OVS's mac-learning). Hashing is seeded at random: addresses are chosen by attackers.

mod ledger;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::snapshot::PortId;
use ledger::Ledger;
use table::{Key, Table, Value};

/// Counters and limits, as `fdb/stats-show` prints them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FdbStats {
    /// Entries now, static ones included.
    pub entries: usize,
    /// How many there may be.
    pub max_entries: usize,
    /// Static entries now.
    pub static_entries: usize,
    /// Addresses learned that were not known.
    pub learned: u64,
    /// Entries forgotten for their age.
    pub expired: u64,
    /// Entries given up for another, or because the limit came down.
    pub evicted: u64,
    /// Addresses learned on another port than before.
    pub moved: u64,
}

/// One entry, as `fdb/show` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbEntry {
    /// VLAN id, 0 when untagged.
    pub vlan: u16,
    /// The address.
    pub mac: [u8; 6],
    /// Where it is.
    pub port: PortId,
    /// Seconds since it was last seen as a source. None: a static entry.
    pub age: Option<u32>,
}

/// What learning did; see [`Fdb::learn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// Known on this port already.
    Known,
    /// New.
    New,
    /// Was on another port.
    Moved,
    /// A static entry says otherwise, and stands; or static entries fill the table.
    Refused,
}

/// The table; see the module.
#[derive(Debug)]
pub struct Fdb {
    /// What workers read. Replaced when its size changes.
    table: ArcSwap<Table>,
    /// Seconds.
    max_age: AtomicU32,
    writer: Mutex<Writer>,
}

/// Everything that only writers need.
#[derive(Debug)]
struct Writer {
    /// The same table as [`Fdb::table`].
    table: Arc<Table>,
    /// Learned entries.
    ledger: Ledger,
    /// Static entries.
    statics: BTreeSet<Key>,
    /// `entries` and `static_entries` are filled in when asked for.
    stats: FdbStats,
    /// Since they were last taken.
    moves: Moves,
}

/// Which addresses moved; see [`Fdb::take_moves`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// How often one did.
    pub count: u64,
    /// Ports that they moved from and to, and the VLAN. Not all, if there are many.
    pub places: Vec<(PortId, u16)>,
}

impl Moves {
    /// Places that are noted at most.
    const MOST: usize = 64;

    fn note(&mut self, vlan: u16, from: PortId, to: PortId) {
        self.count += 1;
        for port in [from, to] {
            if self.places.len() < Moves::MOST && !self.places.contains(&(port, vlan)) {
                self.places.push((port, vlan));
            }
        }
    }
}

impl Fdb {
    /// A table for at most `max_entries` addresses that forgets one after `max_age` seconds without a frame from it.
    pub fn new(max_entries: usize, max_age: u32) -> Fdb {
        let max_entries = max_entries.max(1);
        let table = Arc::new(Table::new(max_entries));
        let writer = Writer {
            ledger: Ledger::new(table.slots()),
            table: Arc::clone(&table),
            statics: BTreeSet::new(),
            stats: FdbStats { max_entries, ..FdbStats::default() },
            moves: Moves::default(),
        };
        Fdb { table: ArcSwap::new(table), max_age: AtomicU32::new(max_age), writer: Mutex::new(writer) }
    }

    /// `mac` was seen on `port` at `now` (seconds of a monotonic clock). Lock-free when nothing changes.
    #[inline]
    pub fn learn(&self, vlan: u16, mac: [u8; 6], port: PortId, now: u32) -> Learned {
        let key = Key::new(vlan, mac);
        let table = self.table.load();
        match table.find(key) {
            Some((slot, value)) if value.port() == port => {
                table.refresh(slot, value, now);
                Learned::Known
            }
            Some((_, value)) if value.is_static() => Learned::Refused,
            _ => self.writer().learn(key, port, now),
        }
    }

    /// Where `mac` is, if known and not older than the maximum age. Lock-free.
    #[inline]
    pub fn lookup(&self, vlan: u16, mac: [u8; 6], now: u32) -> Option<PortId> {
        let (_, value) = self.table.load().find(Key::new(vlan, mac))?;
        (!value.is_aged(now, self.max_age.load(Relaxed))).then(|| value.port())
    }

    /// Change the limits; shrinking evicts.
    pub fn configure(&self, max_entries: usize, max_age: u32) {
        self.max_age.store(max_age, Relaxed);
        let mut writer = self.writer();
        if writer.resize(max_entries.max(1)) {
            self.table.store(Arc::clone(&writer.table));
        }
    }

    /// Forget entries older than the maximum age. Control calls it about once a second.
    pub fn expire(&self, now: u32) {
        let max_age = self.max_age.load(Relaxed);
        let table = self.table.load();
        // Looks at everything without the lock; takes it for each that must go. What removal moves in its place is looked at
        // next; what it moves elsewhere, the next second.
        for slot in 0..table.slots() {
            while let Some((key, _)) = table.get(slot).filter(|(_, v)| v.is_aged(now, max_age)) {
                if !self.writer().expire(key, now, max_age) {
                    break;
                }
            }
        }
    }

    /// Forget all learned entries (`fdb/flush`).
    pub fn flush(&self) {
        let mut writer = self.writer();
        while writer.ledger.fullest().is_some_and(|port| writer.forget_first(port)) {}
    }

    /// Forget what was learned on one port (the topology behind it has changed).
    pub fn flush_learned(&self, port: PortId) {
        let mut writer = self.writer();
        while writer.forget_first(port) {}
    }

    /// Forget all of one port, static ones too (the port is going).
    pub fn flush_port(&self, port: PortId) {
        let mut writer = self.writer();
        while writer.forget_first(port) {}
        for key in writer.statics.clone() {
            if let Some((slot, _)) = writer.table.find(key).filter(|(_, v)| v.port() == port) {
                writer.forget(slot);
            }
        }
    }

    /// Add or replace a static entry (`fdb/add`), in place of a learned one if need be. False: static entries fill the table.
    pub fn add_static(&self, vlan: u16, mac: [u8; 6], port: PortId) -> bool {
        self.writer().add_static(Key::new(vlan, mac), port)
    }

    /// Remove an entry, static or learned (`fdb/del`). False: there was none.
    pub fn remove(&self, vlan: u16, mac: [u8; 6]) -> bool {
        let mut writer = self.writer();
        let found = writer.table.find(Key::new(vlan, mac));
        if let Some((slot, _)) = found {
            writer.forget(slot);
        }
        found.is_some()
    }

    /// All entries, least recently used first, static ones last.
    pub fn entries(&self, now: u32) -> Vec<FdbEntry> {
        let writer = self.writer();
        let table = &writer.table;
        let mut found: Vec<(Key, Value)> = (0..table.slots()).filter_map(|slot| table.get(slot)).collect();
        drop(writer);
        found.sort_by_key(|(key, value)| (value.is_static(), value.seen(), *key));
        let entry = |(key, value): (Key, Value)| FdbEntry {
            vlan: key.vlan(),
            mac: key.mac(),
            port: value.port(),
            age: (!value.is_static()).then(|| now.saturating_sub(value.seen())),
        };
        found.into_iter().map(entry).collect()
    }

    /// Counters and limits.
    pub fn stats(&self) -> FdbStats {
        let writer = self.writer();
        let static_entries = writer.statics.len();
        FdbStats { entries: writer.ledger.len() + static_entries, static_entries, ..writer.stats }
    }

    /// Addresses that have moved since this was last asked.
    pub fn take_moves(&self) -> Moves {
        std::mem::take(&mut self.writer().moves)
    }

    /// Zero the counters (`fdb/stats-clear`).
    pub fn clear_stats(&self) {
        let stats = &mut self.writer().stats;
        *stats = FdbStats { max_entries: stats.max_entries, ..FdbStats::default() };
    }

    /// A writer that panicked is no reason for the others to: each step leaves table and ledger usable.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn learn(&mut self, key: Key, port: PortId, now: u32) -> Learned {
        match self.table.find(key) {
            // Another worker was faster.
            Some((_, value)) if value.port() == port => Learned::Known,
            Some((_, value)) if value.is_static() => Learned::Refused,
            Some((slot, value)) => {
                self.ledger.unlink(slot, value.port());
                self.table.set(slot, Value::learned(port, now));
                self.ledger.push(slot, port, now);
                self.stats.moved += 1;
                self.moves.note(key.vlan(), value.port(), port);
                Learned::Moved
            }
            None => {
                if !self.make_room(port) {
                    return Learned::Refused;
                }
                let Some(slot) = self.table.insert(key, Value::learned(port, now)) else {
                    return Learned::Refused;
                };
                self.ledger.push(slot, port, now);
                self.stats.learned += 1;
                Learned::New
            }
        }
    }

    fn add_static(&mut self, key: Key, port: PortId) -> bool {
        let value = Value::fixed(port);
        match self.table.find(key) {
            Some((slot, old)) => {
                if !old.is_static() {
                    self.ledger.unlink(slot, old.port());
                }
                self.table.set(slot, value);
            }
            None => {
                if !self.make_room(port) || self.table.insert(key, value).is_none() {
                    return false;
                }
            }
        }
        self.statics.insert(key);
        true
    }

    /// Evicts if there is no room for one more entry, of `port`. False: nothing can be evicted.
    fn make_room(&mut self, port: PortId) -> bool {
        self.ledger.len() + self.statics.len() < self.stats.max_entries || self.evict(Some(port))
    }

    /// Takes one entry from the port that has the most; from `rather` if it has as many as any.
    fn evict(&mut self, rather: Option<PortId>) -> bool {
        let Some(fullest) = self.ledger.fullest() else { return false };
        let port = rather.filter(|p| self.ledger.count(*p) == self.ledger.count(fullest)).unwrap_or(fullest);
        let table = &self.table;
        let victim = self.ledger.victim(port, |slot| table.get(slot).map_or(0, |(_, v)| v.seen()));
        let evicted = victim.is_some_and(|slot| self.forget(slot));
        self.stats.evicted += u64::from(evicted);
        evicted
    }

    fn expire(&mut self, key: Key, now: u32, max_age: u32) -> bool {
        let aged = self.table.find(key).filter(|(_, value)| value.is_aged(now, max_age));
        if let Some((slot, _)) = aged {
            self.forget(slot);
            self.stats.expired += 1;
        }
        aged.is_some()
    }

    /// Removes the first entry in a port's list. False: there is none.
    fn forget_first(&mut self, port: PortId) -> bool {
        self.ledger.first(port).is_some_and(|slot| self.forget(slot))
    }

    /// Removes the entry in a slot from wherever it is noted. False: there is none.
    fn forget(&mut self, slot: usize) -> bool {
        let Some((key, value)) = self.table.get(slot) else { return false };
        if value.is_static() {
            self.statics.remove(&key);
        } else {
            self.ledger.unlink(slot, value.port());
        }
        let (table, ledger) = (&self.table, &mut self.ledger);
        table.remove(slot, |from, to, value| {
            if !value.is_static() {
                ledger.relocate(from, to, value.port());
            }
        });
        true
    }

    /// Brings the limit to `max_entries`. True: there is a new table.
    fn resize(&mut self, max_entries: usize) -> bool {
        self.stats.max_entries = max_entries;
        while self.ledger.len() + self.statics.len() > max_entries && self.evict(None) {}
        let needed = self.statics.len().max(max_entries);
        if Table::slots_for(needed) == self.table.slots() {
            return false;
        }
        let table = Table::new(needed);
        let mut ledger = Ledger::new(table.slots());
        for slot in self.ledger.iter() {
            if let Some((key, value)) = self.table.get(slot)
                && let Some(to) = table.insert(key, value)
            {
                ledger.push(to, value.port(), value.seen());
            }
        }
        for key in &self.statics {
            if let Some((_, value)) = self.table.find(*key) {
                table.insert(*key, value);
            }
        }
        self.ledger = ledger;
        self.table = Arc::new(table);
        true
    }
}

//! The forwarding database (MAC table) of one bridge: (VLAN, MAC) → port.
//!
//! Workers look up and refresh entries without a lock; only learning a new address or moving one takes the writers'
//! mutex, which steady traffic never does. The table is bounded. When it is full, the port that holds the most entries
//! gives up its least recently used one, so no port can push out the others' entries (as in OVS's mac-learning).
//! Hashing is seeded at random: addresses are chosen by attackers.

use crate::snapshot::PortId;

/// Counters and limits, as `fdb/stats-show` prints them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FdbStats {
    pub entries: usize,
    pub max_entries: usize,
    pub static_entries: usize,
    pub learned: u64,
    pub expired: u64,
    pub evicted: u64,
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
    /// A static entry says otherwise, and stands.
    Refused,
}

#[derive(Debug, Default)]
struct Inner {
    entries: std::collections::HashMap<(u16, [u8; 6]), (PortId, Option<u32>)>,
    stats: FdbStats,
    max_age: u32,
}

/// The table; see the module.
#[derive(Debug)]
pub struct Fdb {
    inner: std::sync::Mutex<Inner>,
}

#[allow(missing_docs)] // a plain table that stands in until the lock-free one lands
impl Fdb {
    pub fn new(max_entries: usize, max_age: u32) -> Fdb {
        let stats = FdbStats { max_entries, ..FdbStats::default() };
        Fdb { inner: std::sync::Mutex::new(Inner { stats, max_age, ..Inner::default() }) }
    }
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    pub fn learn(&self, vlan: u16, mac: [u8; 6], port: PortId, now: u32) -> Learned {
        let mut t = self.inner();
        let full = t.entries.len() >= t.stats.max_entries;
        match t.entries.get(&(vlan, mac)).copied() {
            Some((_, None)) => return Learned::Refused,
            None if full => return Learned::Refused,
            _ => {}
        }
        match t.entries.insert((vlan, mac), (port, Some(now))) {
            None => {
                t.stats.learned += 1;
                Learned::New
            }
            Some((old, _)) if old != port => {
                t.stats.moved += 1;
                Learned::Moved
            }
            Some(_) => Learned::Known,
        }
    }
    pub fn lookup(&self, vlan: u16, mac: [u8; 6], now: u32) -> Option<PortId> {
        let t = self.inner();
        let (port, seen) = t.entries.get(&(vlan, mac))?;
        seen.is_none_or(|seen| now.saturating_sub(seen) <= t.max_age).then_some(*port)
    }
    pub fn configure(&self, max_entries: usize, max_age: u32) {
        let mut t = self.inner();
        t.stats.max_entries = max_entries;
        t.max_age = max_age;
    }
    pub fn expire(&self, now: u32) {
        let mut t = self.inner();
        let (before, max_age) = (t.entries.len(), t.max_age);
        t.entries.retain(|_, (_, seen)| seen.is_none_or(|seen| now.saturating_sub(seen) <= max_age));
        t.stats.expired += (before - t.entries.len()) as u64;
    }
    pub fn flush(&self) {
        self.inner().entries.retain(|_, (_, seen)| seen.is_none());
    }
    pub fn flush_port(&self, port: PortId) {
        self.inner().entries.retain(|_, (p, _)| *p != port);
    }
    pub fn add_static(&self, vlan: u16, mac: [u8; 6], port: PortId) -> bool {
        self.inner().entries.insert((vlan, mac), (port, None));
        true
    }
    pub fn remove(&self, vlan: u16, mac: [u8; 6]) -> bool {
        self.inner().entries.remove(&(vlan, mac)).is_some()
    }
    pub fn entries(&self, now: u32) -> Vec<FdbEntry> {
        let t = self.inner();
        let mut all: Vec<_> = t
            .entries
            .iter()
            .map(|(&(vlan, mac), &(port, seen))| FdbEntry {
                vlan,
                mac,
                port,
                age: seen.map(|seen| now.saturating_sub(seen)),
            })
            .collect();
        all.sort_by_key(|e| std::cmp::Reverse(e.age));
        all
    }
    pub fn stats(&self) -> FdbStats {
        let t = self.inner();
        let static_entries = t.entries.values().filter(|(_, seen)| seen.is_none()).count();
        FdbStats { entries: t.entries.len(), static_entries, ..t.stats }
    }
    pub fn clear_stats(&self) {
        let mut t = self.inner();
        t.stats = FdbStats { max_entries: t.stats.max_entries, ..FdbStats::default() };
    }
}

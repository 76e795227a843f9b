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

/// The table; see the module.
#[derive(Debug)]
pub struct Fdb {}

#[allow(unused_variables, clippy::unimplemented)] // replaced by the real table before anything links to it
impl Fdb {
    /// A table for at most `max_entries` addresses that forgets one after `max_age` seconds without a frame from it.
    pub fn new(max_entries: usize, max_age: u32) -> Fdb {
        Fdb {}
    }
    /// `mac` was seen on `port` at `now` (seconds of a monotonic clock). Lock-free when nothing changes.
    pub fn learn(&self, vlan: u16, mac: [u8; 6], port: PortId, now: u32) -> Learned {
        unimplemented!()
    }
    /// Where `mac` is, if known and not older than the maximum age. Lock-free.
    pub fn lookup(&self, vlan: u16, mac: [u8; 6], now: u32) -> Option<PortId> {
        unimplemented!()
    }
    /// Change the limits; shrinking evicts.
    pub fn configure(&self, max_entries: usize, max_age: u32) {}
    /// Forget entries older than the maximum age. Control calls it about once a second.
    pub fn expire(&self, now: u32) {}
    /// Forget all learned entries (`fdb/flush`).
    pub fn flush(&self) {}
    /// Forget all of one port, static ones too (the port is going).
    pub fn flush_port(&self, port: PortId) {}
    /// Add or replace a static entry (`fdb/add`). False: the table is full.
    pub fn add_static(&self, vlan: u16, mac: [u8; 6], port: PortId) -> bool {
        unimplemented!()
    }
    /// Remove an entry, static or learned (`fdb/del`). False: there was none.
    pub fn remove(&self, vlan: u16, mac: [u8; 6]) -> bool {
        unimplemented!()
    }
    /// All entries, least recently used first.
    pub fn entries(&self, now: u32) -> Vec<FdbEntry> {
        unimplemented!()
    }
    /// Counters and limits.
    pub fn stats(&self) -> FdbStats {
        unimplemented!()
    }
    /// Zero the counters (`fdb/stats-clear`).
    pub fn clear_stats(&self) {}
}

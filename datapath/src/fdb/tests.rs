//! The table against a plain model, under flooding, and with readers and writers at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use proptest::prelude::*;

use super::*;

fn mac(n: u32) -> [u8; 6] {
    let [a, b, c, d] = n.to_be_bytes();
    [2, 0, a, b, c, d]
}

#[derive(Debug, Clone)]
enum Op {
    Learn { vlan: u16, mac: u32, port: u16 },
    Lookup { vlan: u16, mac: u32 },
    Wait(u32),
    Expire,
    Flush,
    FlushPort(u16),
    FlushLearned(u16),
    AddStatic { vlan: u16, mac: u32, port: u16 },
    Remove { vlan: u16, mac: u32 },
    Configure { max_entries: usize, max_age: u32 },
    ClearStats,
}

fn op() -> impl Strategy<Value = Op> {
    let vlan = 0..2u16;
    let mac = 0..60u32;
    let port = 0..5u16;
    prop_oneof![
        20 => (vlan.clone(), mac.clone(), port.clone())
            .prop_map(|(vlan, mac, port)| Op::Learn { vlan, mac, port }),
        10 => (vlan.clone(), mac.clone()).prop_map(|(vlan, mac)| Op::Lookup { vlan, mac }),
        8 => (0..20u32).prop_map(Op::Wait),
        2 => Just(Op::Expire),
        1 => Just(Op::Flush),
        1 => port.clone().prop_map(Op::FlushPort),
        1 => port.clone().prop_map(Op::FlushLearned),
        2 => (vlan.clone(), mac.clone(), port).prop_map(|(vlan, mac, port)| Op::AddStatic { vlan, mac, port }),
        3 => (vlan, mac).prop_map(|(vlan, mac)| Op::Remove { vlan, mac }),
        1 => (1..50usize, 5..60u32)
            .prop_map(|(max_entries, max_age)| Op::Configure { max_entries, max_age }),
        1 => Just(Op::ClearStats),
    ]
}

type Entries = HashMap<(u16, [u8; 6]), (PortId, Option<u32>)>;

/// What the table should hold. It cannot know which entry an eviction takes: it checks that the choice was fair, and follows.
#[derive(Debug, Default)]
struct Model {
    entries: Entries,
    stats: FdbStats,
    max_age: u32,
    now: u32,
}

impl Model {
    fn count(&self, port: PortId) -> usize {
        self.entries.values().filter(|(p, seen)| *p == port && seen.is_some()).count()
    }

    fn most(&self) -> usize {
        self.entries.values().map(|(p, _)| self.count(*p)).max().unwrap_or(0)
    }

    /// Follows the evictions that brought the table to what it holds now; `added` is not looked at.
    fn follow(&mut self, table: &Entries, added: Option<(u16, [u8; 6])>, rather: Option<PortId>) {
        let mut gone: Vec<_> =
            self.entries.iter().filter(|(k, _)| !table.contains_key(k) && Some(**k) != added).collect();
        assert!(gone.len() <= 1 || added.is_none(), "one evicted for one added: {gone:?}");
        // The order in which several went is not known: the fullest port gave first.
        let mut victims = Vec::new();
        let mut counts: HashMap<PortId, usize> =
            self.entries.values().map(|(p, _)| (*p, self.count(*p))).collect();
        while !gone.is_empty() {
            let most = counts.values().copied().max().unwrap_or(0);
            let i = gone
                .iter()
                .position(|(_, (p, seen))| seen.is_some() && counts[p] == most)
                .unwrap_or_else(|| panic!("{gone:?} not of a fullest port, {counts:?}"));
            let (key, (port, _)) = gone.swap_remove(i);
            if let Some(own) = rather {
                assert!(*port == own || counts.get(&own) != Some(&most), "took from another than its own");
            }
            *counts.entry(*port).or_default() -= 1;
            victims.push(*key);
        }
        for key in victims {
            self.entries.remove(&key);
            self.stats.evicted += 1;
        }
    }

    fn learn(&mut self, fdb: &Fdb, key: (u16, [u8; 6]), port: PortId) {
        let learned = fdb.learn(key.0, key.1, port, self.now);
        match self.entries.get(&key) {
            Some((p, None)) if *p == port => return assert_eq!(learned, Learned::Known),
            Some((_, None)) => return assert_eq!(learned, Learned::Refused),
            Some((p, _)) if *p == port => assert_eq!(learned, Learned::Known),
            Some(_) => {
                assert_eq!(learned, Learned::Moved);
                self.stats.moved += 1;
            }
            None => {
                if self.entries.len() >= self.stats.max_entries {
                    if self.most() == 0 {
                        return assert_eq!(learned, Learned::Refused);
                    }
                    let evicted = self.stats.evicted;
                    self.follow(&held(fdb, self.now), Some(key), Some(port));
                    assert_eq!(self.stats.evicted, evicted + 1);
                }
                assert_eq!(learned, Learned::New);
                self.stats.learned += 1;
            }
        }
        self.entries.insert(key, (port, Some(self.now)));
    }

    fn add_static(&mut self, fdb: &Fdb, key: (u16, [u8; 6]), port: PortId) {
        let added = fdb.add_static(key.0, key.1, port);
        if !self.entries.contains_key(&key) && self.entries.len() >= self.stats.max_entries {
            assert_eq!(added, self.most() > 0);
            if !added {
                return;
            }
            self.follow(&held(fdb, self.now), Some(key), Some(port));
        }
        assert!(added);
        self.entries.insert(key, (port, None));
    }

    fn apply(&mut self, fdb: &Fdb, op: &Op) {
        let aged =
            |now: u32, max_age, seen: &Option<u32>| seen.is_some_and(|s| now.saturating_sub(s) > max_age);
        match *op {
            Op::Learn { vlan, mac: m, port } => self.learn(fdb, (vlan, mac(m)), PortId(port)),
            Op::Lookup { vlan, mac: m } => {
                let known = self.entries.get(&(vlan, mac(m)));
                let known = known.filter(|(_, seen)| !aged(self.now, self.max_age, seen)).map(|(p, _)| *p);
                assert_eq!(fdb.lookup(vlan, mac(m), self.now), known);
            }
            Op::Wait(seconds) => self.now += seconds,
            Op::Expire => {
                fdb.expire(self.now);
                let before = self.entries.len();
                self.entries.retain(|_, (_, seen)| !aged(self.now, self.max_age, seen));
                self.stats.expired += (before - self.entries.len()) as u64;
            }
            Op::Flush => {
                fdb.flush();
                self.entries.retain(|_, (_, seen)| seen.is_none());
            }
            Op::FlushPort(port) => {
                fdb.flush_port(PortId(port));
                self.entries.retain(|_, (p, _)| *p != PortId(port));
            }
            Op::FlushLearned(port) => {
                fdb.flush_learned(PortId(port));
                self.entries.retain(|_, (p, seen)| *p != PortId(port) || seen.is_none());
            }
            Op::AddStatic { vlan, mac: m, port } => self.add_static(fdb, (vlan, mac(m)), PortId(port)),
            Op::Remove { vlan, mac: m } => {
                assert_eq!(fdb.remove(vlan, mac(m)), self.entries.remove(&(vlan, mac(m))).is_some());
            }
            Op::Configure { max_entries, max_age } => {
                fdb.configure(max_entries, max_age);
                (self.stats.max_entries, self.max_age) = (max_entries, max_age);
                self.follow(&held(fdb, self.now), None, None);
                let statics = self.entries.values().filter(|(_, seen)| seen.is_none()).count();
                assert!(self.entries.len() <= max_entries.max(statics));
            }
            Op::ClearStats => {
                fdb.clear_stats();
                self.stats = FdbStats { max_entries: self.stats.max_entries, ..FdbStats::default() };
            }
        }
    }
}

/// What the table holds, checked to be in the promised order.
fn held(fdb: &Fdb, now: u32) -> Entries {
    let entries = fdb.entries(now);
    let age = |e: &FdbEntry| e.age.map_or(-1, i64::from);
    assert!(entries.is_sorted_by_key(|e| -age(e)), "least recently used first, static last: {entries:?}");
    let map: Entries =
        entries.iter().map(|e| ((e.vlan, e.mac), (e.port, e.age.map(|age| now - age)))).collect();
    assert_eq!(map.len(), entries.len(), "twice the same: {entries:?}");
    map
}

/// Twice as many histories as by default, as a table has many states; `PROPTEST_CASES` has the last word.
fn configuration() -> ProptestConfig {
    let default = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        default
    } else {
        ProptestConfig { cases: 512, ..default }
    }
}

proptest! {
    #![proptest_config(configuration())]

    #[test]
    fn behaves_as_the_model(ops in prop::collection::vec(op(), 1..300), max_entries in 1..50usize) {
        let max_age = 30;
        let fdb = Fdb::new(max_entries, max_age);
        let mut model = Model { max_age, stats: FdbStats { max_entries, ..FdbStats::default() }, ..Model::default() };
        for op in &ops {
            model.apply(&fdb, op);
            prop_assert_eq!(&held(&fdb, model.now), &model.entries, "after {:?}", op);
            let static_entries = model.entries.values().filter(|(_, seen)| seen.is_none()).count();
            let stats = FdbStats { entries: model.entries.len(), static_entries, ..model.stats };
            prop_assert_eq!(fdb.stats(), stats, "after {:?}", op);
        }
    }
}

/// A million addresses from one port leave the others' entries alone, and find room for a newcomer of another port.
#[test]
fn flooding_from_one_port_costs_the_others_nothing() {
    let fdb = Fdb::new(8192, 300);
    for i in 0..3000 {
        fdb.learn(0, mac(i), PortId((i % 3) as u16), 1);
    }
    for i in 0..1_000_000 {
        assert_eq!(fdb.learn(0, mac(10_000 + i), PortId(9), 1 + i / 100_000), Learned::New);
    }
    for i in 0..3000 {
        assert_eq!(fdb.lookup(0, mac(i), 11), Some(PortId((i % 3) as u16)));
    }
    let stats = fdb.stats();
    assert_eq!((stats.entries, stats.learned, stats.evicted), (8192, 1_003_000, 1_003_000 - 8192));
    fdb.learn(0, mac(5_000), PortId(4), 11);
    assert_eq!(fdb.lookup(0, mac(5_000), 11), Some(PortId(4)));
}

/// Two ports that flood share what is left; one that floods within its own entries keeps those that are in use.
#[test]
fn addresses_in_use_outlive_a_flood_on_their_own_port() {
    let fdb = Fdb::new(1000, 300);
    let mut flood = 1_000_000;
    for now in 1..100 {
        for i in 0..100 {
            fdb.learn(0, mac(i), PortId(1), now);
        }
        for _ in 0..500 {
            fdb.learn(0, mac(flood), PortId(1), now);
            flood += 1;
        }
    }
    assert!((0..100).all(|i| fdb.lookup(0, mac(i), 100) == Some(PortId(1))));
}

#[test]
fn a_vlan_is_part_of_the_address() {
    let fdb = Fdb::new(10, 300);
    fdb.learn(1, mac(1), PortId(1), 0);
    fdb.learn(2, mac(1), PortId(2), 0);
    assert_eq!(fdb.lookup(1, mac(1), 0), Some(PortId(1)));
    assert_eq!(fdb.lookup(2, mac(1), 0), Some(PortId(2)));
    assert_eq!(fdb.lookup(3, mac(1), 0), None);
}

#[test]
fn a_clock_that_is_behind_does_no_harm() {
    let fdb = Fdb::new(10, 300);
    fdb.learn(0, mac(1), PortId(1), 1000);
    fdb.learn(0, mac(1), PortId(1), 999);
    assert_eq!(fdb.entries(1000).first().and_then(|e| e.age), Some(0));
    assert_eq!(fdb.lookup(0, mac(1), 0), Some(PortId(1)));
}

#[test]
fn a_poisoned_lock_is_no_end() {
    let fdb = Fdb::new(10, 300);
    let _ = thread::scope(|s| {
        s.spawn(|| {
            let _guard = fdb.writer.lock().unwrap();
            panic!("on purpose");
        })
        .join()
    });
    assert!(fdb.writer.is_poisoned());
    assert_eq!(fdb.learn(0, mac(1), PortId(1), 0), Learned::New);
    assert_eq!(fdb.stats().entries, 1);
}

/// Default size: the two words and the list node of each slot.
#[test]
fn the_default_table_is_small() {
    let slots = Table::slots_for(8192);
    assert!(slots * (16 + 12) < 512 << 10, "{slots} slots");
}

/// Writers churn, move, flush and resize while readers look on. What is resident must be found at every moment; what comes
/// and goes must only ever be on a port where it has been.
#[test]
fn readers_see_nothing_that_never_was() {
    const RESIDENTS: u32 = 200;
    const GUESTS: u32 = 3000;
    // Even guests come and go on one port, odd ones move between two.
    let allowed = |guest: u32, port: PortId| {
        let home = 10 + (guest % 7) as u16;
        port == PortId(home) || guest % 2 == 1 && port == PortId(home + 100)
    };
    // Small enough for long chains, large enough that nothing is evicted.
    let fdb = Fdb::new(4096, 300);
    for i in 0..RESIDENTS {
        fdb.learn(0, mac(i), PortId(1), 0);
    }
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                s.spawn(|| {
                    let mut now = 0;
                    while !stop.load(Relaxed) {
                        now += 1;
                        for i in 0..RESIDENTS {
                            assert_eq!(fdb.lookup(0, mac(i), 0), Some(PortId(1)), "resident {i}");
                            assert_eq!(fdb.learn(0, mac(i), PortId(1), now), Learned::Known);
                        }
                        for i in 0..GUESTS {
                            let port = fdb.lookup(0, mac(1000 + i), 0);
                            assert!(port.is_none_or(|p| allowed(i, p)), "guest {i} on {port:?}");
                        }
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|w: u32| {
                let fdb = &fdb;
                s.spawn(move || {
                    for round in 0..400 {
                        for i in (w..GUESTS).step_by(2) {
                            let home = 10 + (i % 7) as u16;
                            fdb.learn(0, mac(1000 + i), PortId(home), 0);
                            if i % 2 == 1 {
                                fdb.learn(0, mac(1000 + i), PortId(home + 100), 0);
                            }
                            if (i + round) % 3 == 0 {
                                fdb.remove(0, mac(1000 + i));
                            }
                        }
                        fdb.flush_port(PortId(10 + (round % 7) as u16));
                        if round % 8 == 0 {
                            fdb.configure(if round % 16 == 0 { 9000 } else { 4096 }, 300);
                        }
                    }
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(|t| t.join()).collect();
        stop.store(true, Relaxed);
        assert!(readers.into_iter().map(|t| t.join()).chain(written).all(|r| r.is_ok()));
    });
    assert_eq!(fdb.stats().evicted, 0);
}

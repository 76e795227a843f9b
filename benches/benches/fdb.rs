//! The MAC table with one address, at its default bound, and with a million.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datapath::fdb::Fdb;
use datapath::snapshot::PortId;

const NOW: u32 = 1000;
const PORT: PortId = PortId(1);

type Mac = [u8; 6];

/// The `i`th of a row of addresses that look random.
fn mac(i: u64) -> Mac {
    let x = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let [a, b, c, d, e, ..] = x.to_be_bytes();
    [2, a, b, c, d, e]
}

/// A full table, and what is in it, in another order than it was learned in.
fn full(entries: usize) -> (Fdb, Vec<Mac>) {
    let fdb = Fdb::new(entries, 300);
    let mut macs: Vec<Mac> = (0..entries as u64).map(mac).collect();
    for m in &macs {
        fdb.learn(0, *m, PORT, NOW);
    }
    macs.sort_unstable();
    (fdb, macs)
}

fn fdb(c: &mut Criterion) {
    for entries in [1, 8192, 1_000_000] {
        let mut g = c.benchmark_group("fdb");
        g.throughput(Throughput::Elements(1));
        let (fdb, macs) = full(entries);
        let mut known = macs.iter().cycle();
        let mut next = || known.next().copied().unwrap_or_default();
        g.bench_function(BenchmarkId::new("lookup", entries), |b| {
            b.iter(|| fdb.lookup(0, black_box(next()), NOW));
        });
        g.bench_function(BenchmarkId::new("learn_known", entries), |b| {
            b.iter(|| fdb.learn(0, black_box(next()), PORT, NOW));
        });
        let mut unknown = (entries as u64..).map(mac);
        let mut next = || unknown.next().unwrap_or_default();
        g.bench_function(BenchmarkId::new("lookup_unknown", entries), |b| {
            b.iter(|| fdb.lookup(0, black_box(next()), NOW));
        });
        g.bench_function(BenchmarkId::new("learn_new_evict", entries), |b| {
            b.iter(|| fdb.learn(0, black_box(next()), PORT, NOW));
        });
    }
}

criterion_group!(benches, fdb);
criterion_main!(benches);

//! Reading headers, and the Internet checksum.

mod frames;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datapath::wire::checksum::Sum;
use datapath::wire::parse;

fn parsing(c: &mut Criterion) {
    let mut g = c.benchmark_group("parse");
    g.throughput(Throughput::Elements(1));
    let kinds = [
        ("tcp4", frames::tcp4(1, frames::MSS)),
        ("tcp6", frames::tcp6(frames::MSS)),
        ("vlan_udp4", frames::vlan_udp4(64)),
        ("arp", frames::arp()),
    ];
    for (kind, frame) in &kinds {
        g.bench_function(*kind, |b| b.iter(|| parse(black_box(frame))));
    }
}

fn checksum(c: &mut Criterion) {
    for (name, copy) in [("checksum", false), ("checksum_and_copy", true)] {
        let mut g = c.benchmark_group(name);
        for len in [64, 256, 1448, 9000, 65_536] {
            let from = vec![0x5a; len];
            let mut to = vec![0; len];
            g.throughput(Throughput::Bytes(len as u64));
            g.bench_with_input(BenchmarkId::from_parameter(len), &from, |b, from| match copy {
                false => b.iter(|| Sum::of(black_box(from)).checksum()),
                true => b.iter(|| Sum::copy(black_box(from), &mut to).checksum()),
            });
        }
    }
}

criterion_group!(benches, parsing, checksum);
criterion_main!(benches);

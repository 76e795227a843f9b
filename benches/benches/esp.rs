//! ESP: a packet sealed and opened, a superframe sealed on its way into a tunnel, the replay window.

mod frames;

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datapath::esp::replay::{DEFAULT_WINDOW, ReplayWindow};
use datapath::esp::{InboundSa, OutboundSa, Road, SaConfig, SaKey, Selector, sealed_len};
use datapath::offload::{Fit, fit};
use datapath::snapshot::{PolicyId, PortId};
use datapath::tunnel::encap::Encap;
use datapath::tunnel::{Outbox, Tunnel, TunnelConfig, Way};
use datapath::wire::parse;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1));
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 2));

/// Bytes of key and salt.
const KEYS: [(&str, usize); 2] = [("aes128", 20), ("aes256", 36)];
/// Bytes of GRE packet.
const SIZES: [usize; 5] = [64, 256, 1400, 8900, 65_000];

fn config() -> SaConfig {
    SaConfig {
        spi: 0x1234_5678,
        selector: Selector::Gre,
        local: HERE,
        remote: HERE,
        esn: true,
        road: Road::Esp,
        hard_packets: u64::MAX,
        hard_bytes: u64::MAX,
    }
}

fn key(len: usize) -> SaKey {
    SaKey::aes_gcm(&vec![7; len]).unwrap_or_else(|| unreachable!("a right length"))
}

fn seal(c: &mut Criterion) {
    let mut g = c.benchmark_group("esp_seal");
    for (name, len) in KEYS {
        let sa = OutboundSa::new(config(), key(len));
        for size in SIZES {
            let mut packet = vec![0xa5; sealed_len(size)];
            g.throughput(Throughput::Bytes(size as u64));
            g.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| {
                    let number = sa.number(size as u64, 1).unwrap_or(0);
                    sa.seal(number, size, black_box(&mut packet))
                });
            });
        }
    }
}

fn open(c: &mut Criterion) {
    let mut g = c.benchmark_group("esp_open");
    for (name, len) in KEYS {
        for size in SIZES {
            // The same packets over and over: a batch of them, and a fresh SA to receive them by.
            let out = OutboundSa::new(config(), key(len));
            let packets: Vec<Vec<u8>> = (0..64)
                .map(|_| {
                    let mut packet = vec![0xa5; sealed_len(size)];
                    let number = out.number(size as u64, 1).unwrap_or(0);
                    assert!(out.seal(number, size, &mut packet));
                    packet
                })
                .collect();
            g.throughput(Throughput::Bytes((size * packets.len()) as u64));
            g.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter_batched_ref(
                    || (InboundSa::new(config(), key(len), PolicyId(0), DEFAULT_WINDOW), packets.clone()),
                    |(sa, packets)| {
                        for packet in packets {
                            assert!(sa.open(black_box(packet), 1).is_ok());
                        }
                    },
                    criterion::BatchSize::SmallInput,
                );
            });
        }
    }
}

/// What protection adds to a superframe: taken apart, headed, and sealed or not.
fn superframe(c: &mut Criterion) {
    let mut g = c.benchmark_group("encap_superframe_64k");
    let (frame, vnet) = frames::superframe(44);
    let inner = parse(&frame).and_then(|parsed| parsed.ip);
    let mut outbox = Outbox::new();
    let tunnel = Tunnel::new(TunnelConfig::to(THERE), Some(HERE), 1500);
    let sas =
        KEYS.map(|(name, len)| (name, OutboundSa::new(SaConfig { remote: THERE, ..config() }, key(len))));
    let ways = [("plain", Way::Plain)].into_iter();
    let ways = ways.chain(sas.iter().map(|(name, sa)| (*name, Way::Protected(sa))));
    g.throughput(Throughput::Bytes(frame.len() as u64));
    for (name, way) in ways {
        g.bench_function(name, |b| {
            b.iter(|| {
                outbox.clear();
                let encap = Encap::new(&tunnel, PortId(0), way, inner.as_ref(), 1, &mut outbox);
                let Some(mut encap) = encap else { return Fit::Sent(0) };
                let fitted = fit(black_box(&frame), &vnet, tunnel.max_frame(way.road()), &mut encap);
                encap.finish();
                debug_assert!(encap.packets > 44);
                fitted
            });
        });
    }
}

fn replay(c: &mut Criterion) {
    let mut g = c.benchmark_group("replay");
    g.bench_function("in_order", |b| {
        let (window, mut number) = (ReplayWindow::new(DEFAULT_WINDOW), 0);
        b.iter(|| {
            number += 1;
            (window.check(black_box(number)), window.claim(number))
        });
    });
    g.bench_function("reordered", |b| {
        let (window, mut number) = (ReplayWindow::new(DEFAULT_WINDOW), 4096);
        b.iter(|| {
            number += 1;
            // neighbours change places within blocks of 32
            let number = number ^ 31;
            (window.check(black_box(number)), window.claim(number))
        });
    });
    g.bench_function("replayed", |b| {
        let window = ReplayWindow::new(DEFAULT_WINDOW);
        let claimed = window.claim(1);
        b.iter(|| (claimed, window.check(black_box(1))));
    });
    g.bench_function("jump_2_32", |b| {
        let (window, mut number) = (ReplayWindow::new(DEFAULT_WINDOW), 0u64);
        b.iter(|| {
            number = number.wrapping_add(u32::MAX.into());
            window.claim(black_box(number))
        });
    });
}

criterion_group!(benches, seal, open, superframe, replay);
criterion_main!(benches);

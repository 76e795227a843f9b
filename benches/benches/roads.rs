//! What the kernel takes for carrying a superframe's packets out and in again, by road. Over the loopback device of a network
//! namespace of its own; needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datapath::port::{TxPacket, Underlay};
use datapath::slab::Slab;
use datapath::snapshot::PortId;
use nix::sched::{CloneFlags, unshare};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PORT: u16 = 4500;
/// Packets, and bytes of each without outer headers: about what 64 KiB of TCP become.
const PACKETS: usize = 46;
const LEN: usize = 1400;

/// Packets as an outbox holds them, with an IP header if the socket wants one.
fn outbox(header: &[u8]) -> (Vec<u8>, Vec<TxPacket>) {
    let len = header.len() + LEN;
    let buf = [header, &[0x5a; LEN]].concat().repeat(PACKETS);
    let packet = |i: usize| TxPacket {
        dst_port: PORT,
        src: Some(HERE),
        ..TxPacket::raw((i * len) as u32, len as u32, HERE, PortId(0))
    };
    (buf, (0..PACKETS).map(packet).collect())
}

fn ipv4(protocol: u8) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + LEN as u16).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
    header
}

fn roads(c: &mut Criterion) {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        eprintln!("roads: left out, needs root");
        return;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    let mut g = c.benchmark_group("roads");
    g.throughput(Throughput::Elements(PACKETS as u64));
    let underlays = [
        ("gre4", Underlay::gre4().unwrap(), ipv4(47)),
        ("esp4", Underlay::esp4().unwrap(), ipv4(50)),
        ("udp4", Underlay::udp4(PORT).unwrap(), vec![]),
    ];
    for (name, underlay, header) in &underlays {
        let (buf, packets) = outbox(header);
        let (mut slab, mut got) = (Slab::new(), Vec::new());
        g.bench_function(*name, |b| {
            b.iter(|| {
                let sent = underlay.tx(&buf, &packets, &mut |packet, why| panic!("{packet:?} {why:?}"));
                let mut received = 0;
                while received < sent.ok {
                    underlay.rx(&mut slab, underlay.batch(), &mut got).unwrap();
                    received += got.len();
                }
            });
        });
    }
}

criterion_group!(benches, roads);
criterion_main!(benches);

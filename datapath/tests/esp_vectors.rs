//! ESP against packets that others made: the published test cases, and a kernel's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use datapath::counters::DropReason;
use datapath::esp::key::Aad;
use datapath::esp::open::{decrypt, spi, unpad};
use datapath::esp::replay::DEFAULT_WINDOW;
use datapath::esp::seal::seal;
use datapath::esp::{InboundSa, Road, SaConfig, SaKey, Selector};
use datapath::port::{RxPacket, RxRoad};
use datapath::slab::{Piece, Slab};
use datapath::snapshot::{BridgeId, Policy, PolicyId, Port, PortId, PortKind, Snapshot};
use datapath::tunnel::decap::decap;
use datapath::tunnel::{Demux, Tunnel, TunnelConfig};
use etherparse::{Icmpv4Type, NetSlice, SlicedPacket, TransportSlice};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().map(|c| char::from(c).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The fields of each line that is no comment.
fn lines(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect())
}

/// The packet opens to that plaintext, and sealing that with the same IV gives the packet again.
fn both_ways(key: &SaKey, aad: Aad, packet: &[u8], plain: Option<&[u8]>) {
    let mut opened = packet.to_vec();
    let got = decrypt(key, aad, &mut opened).unwrap().to_vec();
    if let Some(plain) = plain {
        assert_eq!(got, plain);
    }
    let (payload, next_header) = unpad(&got).unwrap();
    let mut sealed = vec![0xee; packet.len()];
    sealed[16..][..payload].copy_from_slice(&got[..payload]);
    let iv = packet[8..16].try_into().unwrap();
    seal(key, aad, iv, payload, next_header, &mut sealed).unwrap();
    assert_eq!(sealed, packet);
}

#[test]
fn published_test_cases() {
    let mut seen = 0;
    for fields in lines(include_str!("vectors/mcgrew-gcm.txt")) {
        let [_, key, salt, esn, number, plain, packet] = fields[..] else { panic!("{fields:?}") };
        let (key, packet) = (SaKey::aes_gcm(&hex(&[key, salt].concat())).unwrap(), hex(packet));
        let aad = Aad {
            spi: spi(&packet).unwrap(),
            number: u64::from_str_radix(number, 16).unwrap(),
            esn: esn == "1",
        };
        both_ways(&key, aad, &packet, Some(&hex(plain)));
        // the high half counts where it should, and the SPI everywhere
        for wrong in [Aad { number: aad.number ^ 1 << 32, ..aad }, Aad { spi: aad.spi ^ 1, ..aad }] {
            let result = decrypt(&key, wrong, &mut packet.clone()).map(|_| ());
            let irrelevant = wrong.spi == aad.spi && !aad.esn;
            assert_eq!(result, if irrelevant { Ok(()) } else { Err(DropReason::EspIcv) });
        }
        seen += 1;
    }
    assert_eq!(seen, 13);
}

/// One direction of one case of the capture.
struct Receiver {
    snapshot: Snapshot,
    sa: Arc<InboundSa>,
    key: SaKey,
}

impl Receiver {
    fn new(key: &str, esn: bool, road: RxRoad, src: IpAddr, dst: IpAddr, spi: u32) -> Receiver {
        let key = || SaKey::aes_gcm(&hex(key)).unwrap();
        let road = match road {
            RxRoad::Udp => Road::Udp { remote_port: Arc::new(AtomicU16::new(4500)), local_port: 4500 },
            _ => Road::Esp,
        };
        let (hard_packets, hard_bytes) = (u64::MAX, u64::MAX);
        let config = SaConfig {
            spi,
            selector: Selector::Gre,
            local: dst,
            remote: src,
            esn,
            road,
            hard_packets,
            hard_bytes,
        };
        let sa = Arc::new(InboundSa::new(config, key(), PolicyId(0), DEFAULT_WINDOW));
        let policy =
            Policy { name: "gre0".into(), local: None, remote: src, outbound: None, may_send_plain: false };
        let tunnel = Tunnel::new(TunnelConfig::to(src), Some(dst), 1500);
        let port = Arc::new(Port::new(
            PortId(0),
            BridgeId(0),
            1,
            "gre0",
            PortKind::Tunnel(Arc::new(Tunnel { policy: Some(PolicyId(0)), ..tunnel })),
        ));
        let mut snapshot = Snapshot {
            demux: Demux::build([&port].into_iter()).unwrap(),
            ports: vec![Some(port)],
            policies: vec![Some(Arc::new(policy))],
            ..Snapshot::default()
        };
        snapshot.inbound.insert(spi, Arc::clone(&sa));
        Receiver { snapshot, sa, key: key() }
    }
}

/// Whether the frame is an echo request or reply; of what else there is it must be ARP.
fn is_ping(frame: &[u8]) -> bool {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    match (&sliced.transport, &sliced.net) {
        (Some(TransportSlice::Icmpv4(icmp)), _) => {
            matches!(icmp.icmp_type(), Icmpv4Type::EchoRequest(_) | Icmpv4Type::EchoReply(_))
        }
        (None, Some(NetSlice::Arp(_))) => false,
        _ => panic!("{sliced:?}"),
    }
}

#[test]
fn packets_of_a_kernel() {
    let mut slab = Slab::new();
    let mut receivers: HashMap<(&str, u32), Receiver> = HashMap::new();
    let (mut pings, mut wrapped) = (0, 0);
    for fields in lines(include_str!("vectors/kernel-xfrm.txt")) {
        let [case, road, key, esn, src, dst, packet] = fields[..] else { panic!("{fields:?}") };
        let road = if road == "udp" { RxRoad::Udp } else { RxRoad::Esp };
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let packet = hex(packet);
        let spi = spi(&packet).unwrap();
        let receiver = receivers
            .entry((case, spi))
            .or_insert_with(|| Receiver::new(key, esn == "1", road, src, dst, spi));

        let data = Piece { len: packet.len() as u32, ..Slab::slot(0) };
        slab.get_mut(data).copy_from_slice(&packet);
        let rx = RxPacket { data, road, src, src_port: 4500, dst, tos: 0 };
        let (port, frame, _) = decap(&receiver.snapshot, &mut slab, &rx, 0).unwrap();
        assert_eq!(port, PortId(0));
        pings += usize::from(is_ping(slab.get(frame)));
        // again
        slab.get_mut(data).copy_from_slice(&packet);
        assert_eq!(decap(&receiver.snapshot, &mut slab, &rx, 0), Err(DropReason::EspReplayed));

        let number = receiver.sa.usage().sequence;
        wrapped += usize::from(number > u64::from(u32::MAX));
        let aad = Aad { spi, number, esn: esn == "1" };
        both_ways(&receiver.key, aad, &packet, None);
    }
    assert_eq!((receivers.len(), pings), (8, 40));
    assert!(wrapped > 0);
}

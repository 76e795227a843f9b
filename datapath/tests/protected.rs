//! Two switches with a protected tunnel between them, over real sockets: this host and another, and a wire that is watched.
//!
//! ```text
//! c (the test) ==veth== p [switch] here ----wire---- there [switch] p ==veth== c (the test)
//! ```
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

#[path = "namespace/mod.rs"]
mod namespace;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use datapath::counters::DropReason;
use datapath::esp::replay::DEFAULT_WINDOW;
use datapath::esp::{InboundSa, OutboundSa, Road, SaConfig, SaKey, Selector};
use datapath::fdb::Fdb;
use datapath::handle::Datapath;
use datapath::port::{LocalPort, RxRoad, Underlay};
use datapath::snapshot::{Bridge, BridgeId, Policy, PolicyId, Port, PortId, PortKind, Snapshot};
use datapath::tunnel::{Demux, Tunnel, TunnelConfig};
use datapath::vnet::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use datapath::wire::checksum::{Sum, pseudo};
use datapath::wire::{parse, proto, put16};
use etherparse::PacketBuilder;
use namespace::{Host, PATIENCE, drain, in_namespace, send, sh, veth, wait_for, wait_up};

const POLICY: PolicyId = PolicyId(0);
const UDP_PORT: u16 = 4500;
const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

#[derive(Debug, Clone, Copy)]
struct Case {
    road: RxRoad,
    v6: bool,
    workers: usize,
}

const CASES: [Case; 5] = [
    Case { road: RxRoad::Esp, v6: false, workers: 1 },
    Case { road: RxRoad::Esp, v6: true, workers: 2 },
    Case { road: RxRoad::Udp, v6: false, workers: 2 },
    Case { road: RxRoad::Udp, v6: true, workers: 1 },
    Case { road: RxRoad::Udp, v6: false, workers: 1 },
];

fn addresses(v6: bool) -> [IpAddr; 2] {
    let [here, there] = if v6 { ["fd00:9::1", "fd00:9::2"] } else { ["10.9.1.1", "10.9.1.2"] };
    [here.parse().unwrap(), there.parse().unwrap()]
}

/// One of the two hosts.
struct Side {
    datapath: Datapath,
    /// The far end of its local port.
    container: LocalPort,
    /// What comes in by its underlay device.
    wire: LocalPort,
    case: Case,
    ports: Vec<Option<Arc<Port>>>,
    underlays: Vec<Arc<Underlay>>,
    fdb: Arc<Fdb>,
    inbound: Vec<Arc<InboundSa>>,
    outbound: Option<Arc<OutboundSa>>,
    local: IpAddr,
    remote: IpAddr,
}

impl Side {
    /// Opens everything in the calling thread's namespace. `device` is the wire's end there.
    fn open(case: Case, device: &str, [local, remote]: [IpAddr; 2]) -> Side {
        let tunnel = Tunnel::new(TunnelConfig::to(remote), Some(local), 1500);
        let tunnel = Arc::new(Tunnel { policy: Some(POLICY), ..tunnel });
        let local_port = Arc::new(LocalPort::packet("p").unwrap());
        let port = |id, kind| {
            Some(Arc::new(Port {
                worker: usize::from(id),
                ..Port::new(PortId(id), BridgeId(0), id + 1, format!("port{id}"), kind)
            }))
        };
        let [gre, esp, udp] = match case.v6 {
            false => [Underlay::gre4(), Underlay::esp4(), Underlay::udp4(UDP_PORT)],
            true => [Underlay::gre6(), Underlay::esp6(), Underlay::udp6(UDP_PORT)],
        };
        Side {
            datapath: Datapath::start(case.workers).unwrap(),
            container: LocalPort::packet("c").unwrap(),
            wire: LocalPort::packet(device).unwrap(),
            case,
            ports: vec![port(0, PortKind::Local(local_port)), port(1, PortKind::Tunnel(tunnel))],
            underlays: [gre, esp, udp].map(|u| Arc::new(u.unwrap())).to_vec(),
            fdb: Arc::new(Fdb::new(64, 300)),
            inbound: Vec::new(),
            outbound: None,
            local,
            remote,
        }
    }

    /// What SA `generation` of that direction is made of.
    fn config(&self, spi: u32, generation: u32) -> (SaConfig, SaKey) {
        let config = SaConfig {
            selector: Selector::Gre,
            spi: spi + generation,
            local: self.local,
            remote: self.remote,
            esn: generation.is_multiple_of(2),
            road: match self.case.road {
                RxRoad::Udp => {
                    Road::Udp { remote_port: Arc::new(AtomicU16::new(UDP_PORT)), local_port: UDP_PORT }
                }
                _ => Road::Esp,
            },
            hard_packets: u64::MAX,
            hard_bytes: u64::MAX,
        };
        let keymat = [spi.to_be_bytes(), generation.to_be_bytes()].concat();
        let keymat: Vec<u8> = keymat.into_iter().cycle().take(36).collect();
        (config, SaKey::aes_gcm(&keymat).unwrap())
    }

    fn add_inbound(&mut self, spi: u32, generation: u32) {
        let (config, key) = self.config(spi, generation);
        self.inbound.push(Arc::new(InboundSa::new(config, key, POLICY, DEFAULT_WINDOW)));
        self.publish();
    }

    fn set_outbound(&mut self, spi: u32, generation: u32) {
        let (config, key) = self.config(spi, generation);
        self.outbound = Some(Arc::new(OutboundSa::new(config, key)));
        self.publish();
    }

    /// Puts what it has in force.
    fn publish(&self) {
        let bridge =
            Bridge { flood: vec![PortId(0), PortId(1)], ..Bridge::new("br0", Arc::clone(&self.fdb)) };
        let policy = Policy {
            name: "gre0".into(),
            local: None,
            remote: self.remote,
            outbound: self.outbound.clone(),
            may_send_plain: false,
        };
        let snapshot = Snapshot {
            bridges: vec![Some(Arc::new(bridge))],
            ports: self.ports.clone(),
            demux: Demux::build(self.ports.iter().flatten()).unwrap(),
            underlays: self.underlays.clone(),
            policies: vec![Some(Arc::new(policy))],
            inbound: self.inbound.iter().map(|sa| (sa.config.spi, Arc::clone(sa))).collect(),
            ..Snapshot::default()
        };
        let generation = self.datapath.publish(snapshot);
        assert!(self.datapath.wait_applied(generation, PATIENCE));
    }

    fn drops(&self, why: DropReason) -> u64 {
        self.datapath.drops().into_iter().find(|(reason, _)| *reason == why).unwrap().1
    }

    fn dropped(&self, why: DropReason, count: u64) {
        wait_for(&format!("{count} {why:?}, {:?}", self.datapath.drops()), || self.drops(why) >= count);
        assert_eq!(self.drops(why), count, "{why:?}");
    }
}

const TO_THERE: u32 = 0x1000;
const TO_HERE: u32 = 0x2000;

struct Network {
    here: Side,
    there: Side,
    /// Every frame that was on the wire, by either end that it came to.
    seen: [Vec<Vec<u8>>; 2],
    /// SPI and sequence number of every packet in them, as often as it was there.
    numbers: Vec<[u8; 8]>,
    // last, so that its namespace outlives what is in it
    _host: Host,
}

impl Network {
    fn new(case: Case) -> Network {
        let host = Host::new();
        sh(&format!(
            "ip link add name here type veth peer name there netns {}
             ip link set dev here up
             ip address add 10.9.1.1/24 dev here; ip address add fd00:9::1/64 dev here nodad",
            host.pid()
        ));
        host.sh("ip link set dev there up
                 ip address add 10.9.1.2/24 dev there; ip address add fd00:9::2/64 dev there nodad");
        wait_up("here");
        sh(
            "timeout 10 sh -c 'until ping -qc1 -W1 10.9.1.2 && ping -6qc1 -W1 fd00:9::2; do sleep 0.01; done' \
            >/dev/null",
        );
        veth("p", "c");
        let [a, b] = addresses(case.v6);
        let here = Side::open(case, "here", [a, b]);
        let there = host.enter(move || {
            veth("p", "c");
            Side::open(case, "there", [b, a])
        });
        let network = Network { here, there, seen: Default::default(), numbers: Vec::new(), _host: host };
        network.here.publish();
        network.there.publish();
        network
    }

    /// New SAs both ways: first what receives, then what sends.
    fn rekey(&mut self, generation: u32) {
        self.there.add_inbound(TO_THERE, generation);
        self.here.add_inbound(TO_HERE, generation);
        self.here.set_outbound(TO_THERE, generation);
        self.there.set_outbound(TO_HERE, generation);
    }

    /// Takes down what has passed on the wire, and sees to it that it is nothing but ESP between the two.
    fn watch(&mut self) {
        for (side, seen) in [(&self.here, 0), (&self.there, 1)] {
            for (vnet, frame) in drain(&side.wire) {
                let Some(ip) = parse(&frame).and_then(|p| p.ip) else { continue };
                if ip.proto == proto::ICMPV6 {
                    continue;
                }
                let (want, header) =
                    if side.case.road == RxRoad::Udp { (proto::UDP, 8) } else { (proto::ESP, 0) };
                assert_eq!(ip.proto, want, "{frame:02x?}");
                // a train of datagrams that the kernel has not taken apart
                let size = if vnet.is_gso() { usize::from(vnet.gso_size.get()) } else { frame.len() };
                let packets = frame[ip.l4 + header..ip.end].chunks(size);
                self.numbers.extend(packets.map(|esp| <[u8; 8]>::try_from(&esp[..8]).unwrap()));
                self.seen[seen].push(frame);
            }
        }
    }
}

/// A frame that says its number.
fn numbered(dst: [u8; 6], src: [u8; 6], number: u32, len: usize) -> Vec<u8> {
    let mut frame = [&dst[..], &src, &[0x88, 0xb5], &number.to_be_bytes()].concat();
    frame.resize(frame.len() + len, number as u8);
    frame
}

fn number_of(frame: &[u8]) -> Option<u32> {
    let [_, rest @ ..] = frame.get(12..)? else { return None };
    (rest.first() == Some(&0xb5)).then(|| u32::from_be_bytes(frame[14..18].try_into().unwrap()))
}

/// A TCP superframe as a container's kernel makes it, and its payload.
fn superframe(len: usize) -> (VnetHdr, Vec<u8>, Vec<u8>) {
    let payload: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.tcp(1, 2, 1000, 9).ack(3).write(&mut frame, &payload).unwrap();
    let ip = parse(&frame).unwrap().ip.unwrap();
    let sum = pseudo(ip.addresses(&frame), proto::TCP, frame.len() - ip.l4).fold();
    put16(&mut frame, ip.l4 + 16, sum);
    let vnet = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54.into(),
        gso_size: 1448.into(),
        csum_start: 34.into(),
        csum_offset: 16.into(),
    };
    (vnet, frame, payload)
}

fn each_case(body: fn(&mut Network)) {
    for case in CASES {
        eprintln!("{case:?}");
        let mut network = Network::new(case);
        body(&mut network);
        network.watch();
        let numbers = &network.numbers;
        assert_eq!(numbers.len(), numbers.iter().collect::<HashSet<_>>().len(), "a number was used twice");
        drop(network);
        // the wire goes with the other namespace, when the kernel comes to that
        sh("ip link del dev p
            timeout 10 sh -c 'while ip link show dev here; do sleep 0.01; done' >/dev/null 2>&1");
    }
}

#[test]
fn frames_cross_and_nobody_reads_them() {
    in_namespace("frames_cross_and_nobody_reads_them", || {
        each_case(|network| {
            let frame = |number| numbered(B, A, number, 100);
            // nothing leaves before there is an SA
            send(&network.here.container, VnetHdr::default(), &[&frame(1)]);
            network.here.dropped(DropReason::EspNoOutbound, 1);
            network.rekey(0);

            send(&network.here.container, VnetHdr::default(), &[&frame(2)]);
            let mut got = Vec::new();
            wait_for("the frame", || {
                got.extend(drain(&network.there.container));
                got.iter().any(|(_, f)| number_of(f).is_some())
            });
            assert!(got.iter().any(|(_, f)| *f == frame(2)));
            assert!(!got.iter().any(|(_, f)| *f == frame(1)));

            let (vnet, whole, payload) = superframe(50_000);
            send(&network.there.container, vnet, &[&whole]);
            let mut stream = Vec::new();
            wait_for("the stream", || {
                for (_, frame) in drain(&network.here.container) {
                    match parse(&frame).and_then(|p| p.ip) {
                        Some(ip) if ip.proto == proto::TCP => {
                            let seq = u32::from_be_bytes(frame[ip.l4 + 4..][..4].try_into().unwrap());
                            assert_eq!(seq as usize, 1000 + stream.len());
                            stream.extend_from_slice(&frame[ip.l4 + 20..ip.end]);
                        }
                        _ => {}
                    }
                }
                stream.len() >= payload.len()
            });
            assert_eq!(stream, payload);
            network.watch();
            assert!(!network.seen.iter().flatten().any(|f| f.windows(64).any(|w| payload.starts_with(w))));
            let carried = network.here.inbound[0].usage();
            assert!(carried.packets >= 35 && carried.forged == 0 && carried.last.is_some(), "{carried:?}");
        });
    });
}

/// Streams both ways while SAs come and go: what was sent comes, once, and in order.
#[test]
fn no_frame_is_lost_to_a_rekey() {
    in_namespace("no_frame_is_lost_to_a_rekey", || {
        each_case(|network| {
            network.rekey(0);
            let (mut next, mut here, mut there) = (0, Vec::new(), Vec::new());
            for generation in 1..40 {
                for step in 0..4 {
                    for _ in 0..8 {
                        send(&network.here.container, VnetHdr::default(), &[&numbered(B, A, next, 200)]);
                        send(&network.there.container, VnetHdr::default(), &[&numbered(A, B, next, 900)]);
                        next += 1;
                    }
                    // between the steps of a rekey, too
                    match step {
                        0 => network.there.add_inbound(TO_THERE, generation),
                        1 => network.here.add_inbound(TO_HERE, generation),
                        2 => network.here.set_outbound(TO_THERE, generation),
                        _ => network.there.set_outbound(TO_HERE, generation),
                    }
                    here.extend(drain(&network.here.container).iter().filter_map(|(_, f)| number_of(f)));
                    there.extend(drain(&network.there.container).iter().filter_map(|(_, f)| number_of(f)));
                    network.watch();
                }
            }
            wait_for("the last frame", || {
                here.extend(drain(&network.here.container).iter().filter_map(|(_, f)| number_of(f)));
                there.extend(drain(&network.there.container).iter().filter_map(|(_, f)| number_of(f)));
                here.len() >= next as usize && there.len() >= next as usize
            });
            let all: Vec<u32> = (0..next).collect();
            assert_eq!(here, all);
            assert_eq!(there, all);
            let used = network.there.inbound.iter().filter(|sa| sa.usage().packets > 0).count();
            assert!(used > 30, "{used} generations were used");
        });
    });
}

/// Somebody on the wire sends what he has seen, changed or not.
#[test]
fn what_an_attacker_sends_is_dropped_and_counted() {
    in_namespace("what_an_attacker_sends_is_dropped_and_counted", || {
        each_case(|network| {
            network.rekey(0);
            for number in 0..10 {
                send(&network.here.container, VnetHdr::default(), &[&numbered(B, A, number, 100)]);
                wait_for("the frame", || {
                    drain(&network.there.container).iter().any(|(_, f)| number_of(f) == Some(number))
                });
            }
            network.watch();
            let mut seen = std::mem::take(&mut network.seen[1]);
            assert_eq!(seen.len(), 10);
            let udp = network.here.case.road == RxRoad::Udp;
            if udp {
                // a veth pair leaves checksums to a device that there is none of
                seen.iter_mut().for_each(|frame| finish_udp(frame));
            }
            let inject = |frame: &[u8]| {
                assert_eq!(send(&network.here.wire, VnetHdr::default(), &[frame]).ok, 1);
            };
            seen.iter().for_each(|frame| inject(frame));
            network.there.dropped(DropReason::EspReplayed, 10);

            let good = &seen[3];
            let ip = parse(good).unwrap().ip.unwrap();
            let esp = ip.l4 + if udp { 8 } else { 0 };
            let change = |at: usize, by: u8| {
                let mut frame = good.clone();
                frame[at] ^= by;
                if udp {
                    finish_udp(&mut frame);
                }
                frame
            };
            // far ahead, and damaged
            inject(&change(esp + 5, 0x40));
            let last = good.len() - 1;
            inject(&change(esp + 6, 1));
            network.there.dropped(DropReason::EspIcv, 2);
            inject(&change(last, 1));
            network.there.dropped(DropReason::EspReplayed, 11);
            inject(&change(esp, 0x80));
            network.there.dropped(DropReason::EspNoSa, 1);

            // in the clear
            let mut clear = good[..ip.l4].to_vec();
            clear.extend([0, 0, 0x65, 0x58]);
            clear.extend(numbered(B, A, 99, 100));
            let (at, len, field) =
                if network.here.case.v6 { (14 + 6, ip.l4, 14 + 4) } else { (14 + 9, 14, 14 + 2) };
            clear[at] = proto::GRE;
            let len = (clear.len() - len) as u16;
            put16(&mut clear, field, len);
            if !network.here.case.v6 {
                datapath::wire::ipv4::set_checksum(&mut clear[14..34]);
            }
            inject(&clear);
            network.there.dropped(DropReason::GrePlain, 1);
            assert_eq!(drain(&network.there.container).iter().filter_map(|(_, f)| number_of(f)).count(), 0);
            // what was injected is not what the watch is for
            drain(&network.there.wire);
        });
    });
}

/// Makes the UDP checksum right.
fn finish_udp(frame: &mut [u8]) {
    let ip = parse(frame).unwrap().ip.unwrap();
    let at = ip.l4 + 6;
    put16(frame, at, 0);
    let datagram = &frame[ip.l4..ip.end];
    let sum = pseudo(ip.addresses(frame), proto::UDP, datagram.len()) + Sum::of(datagram);
    put16(frame, at, sum.udp_checksum());
}

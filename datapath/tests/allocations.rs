//! No allocation per forwarded frame: every kind of frame passes again and again on every path, in both directions of two
//! switches joined by a tunnel, and the heap of the whole process stands still.
//!
//! ```text
//! c ==veth== p [here] wire ---- wire [there] p ==veth== c
//! d ==veth== q [here]
//! ```
//! Buffers may grow to their working size at first. So rounds are counted in windows, and one window must pass without any
//! allocation: whatever allocates for a frame does so in each, for every window has every kind of frame.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

#[path = "namespace/mod.rs"]
mod namespace;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use datapath::counters::{DropReason, PortStats};
use datapath::esp::replay::DEFAULT_WINDOW;
use datapath::esp::{InboundSa, OutboundSa, Road, SaConfig, SaKey, Selector};
use datapath::fdb::Fdb;
use datapath::handle::Datapath;
use datapath::port::esp_device::{Attached, Hop, Hops, Inlet, Lane};
use datapath::port::{DeviceRoad, InUdp, LocalPort, RxFrame, RxRoad, Underlay};
use datapath::slab::{SLOTS, Slab};
use datapath::snapshot::{Bridge, BridgeId, Policy, PolicyId, Port, PortId, PortKind, Snapshot};
use datapath::sys;
use datapath::tunnel::{Demux, Tunnel, TunnelConfig};
use datapath::txq::TxQueue;
use datapath::vnet::{F_NEEDS_CSUM, GSO_TCPV4, GSO_UDP_L4, VnetHdr};
use datapath::wire::checksum::pseudo;
use datapath::wire::{ipv4, parse, proto, put16};
use etherparse::PacketBuilder;
use namespace::{Host, PATIENCE, drain, in_namespace, sh, veth, wait_for, wait_up};

#[global_allocator]
static HEAP: dhat::Alloc = dhat::Alloc;

const UDP_PORT: u16 = 4500;
const POLICY: PolicyId = PolicyId(0);
/// The last frame of every round, so that its coming tells that the others have come.
const MARK: [u8; 2] = [0x88, 0xb5];
const OTHER: [u8; 2] = [0x88, 0xb6];
/// At least, in a window.
const ROUNDS: usize = 40;
const WINDOWS: usize = 10;

type Mac = [u8; 6];
const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
/// Behind `q`, here.
const D: Mac = [2, 0, 0, 0, 0, 0xd];
const EVERYBODY: Mac = [0xff; 6];

#[derive(Debug, Clone, Copy)]
struct Case {
    road: RxRoad,
    v6: bool,
    workers: usize,
    /// The kernel cuts what leaves: by [`DeviceRoad`] or, of ESP, by [`Lane`].
    device: bool,
}

const CASES: [Case; 12] = [
    Case { road: RxRoad::Gre, v6: false, workers: 1, device: false },
    Case { road: RxRoad::Gre, v6: true, workers: 2, device: false },
    Case { road: RxRoad::InUdp(InUdp::Gre), v6: false, workers: 1, device: false },
    Case { road: RxRoad::InUdp(InUdp::Vxlan(4789)), v6: true, workers: 1, device: false },
    Case { road: RxRoad::Esp, v6: false, workers: 1, device: false },
    Case { road: RxRoad::Esp, v6: true, workers: 1, device: false },
    Case { road: RxRoad::Udp, v6: false, workers: 1, device: false },
    Case { road: RxRoad::Udp, v6: false, workers: 2, device: false },
    Case { road: RxRoad::Udp, v6: true, workers: 1, device: false },
    Case { road: RxRoad::Gre, v6: false, workers: 1, device: true },
    Case { road: RxRoad::Gre, v6: true, workers: 2, device: true },
    Case { road: RxRoad::Esp, v6: false, workers: 2, device: true },
];

/// Ethernet addresses of the wire's ends.
const ENDS: [Mac; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];

/// The far end of a local port: sends a list of frames made beforehand, and counts what comes. Neither allocates.
struct Container {
    port: LocalPort,
    memory: Slab,
    queue: TxQueue,
    inbox: Slab,
    frames: Vec<RxFrame>,
    packets: u64,
}

impl Container {
    fn new(device: &str, frames: &[(VnetHdr, Vec<u8>)]) -> Container {
        let (mut memory, mut queue) = (Slab::new(), TxQueue::new());
        for (vnet, frame) in frames {
            let piece = memory.alloc(frame.len()).unwrap();
            memory.get_mut(piece).copy_from_slice(frame);
            queue.push(*vnet, &[piece]);
        }
        let port = LocalPort::packet(device).unwrap();
        Container { port, memory, queue, inbox: Slab::new(), frames: Vec::with_capacity(SLOTS), packets: 0 }
    }

    fn send(&self) {
        let sent = self.port.tx(&self.memory, &self.queue);
        assert_eq!(sent.ok, self.queue.frames().len());
    }

    /// Takes what has come; whether the mark was among it.
    fn marked(&mut self) -> bool {
        let mut marked = false;
        while self.port.rx(&mut self.inbox, SLOTS, &mut self.frames).unwrap() > 0 {
            for frame in &self.frames {
                self.packets += frame.vnet.packets(frame.data.len);
                marked |= self.inbox.get(frame.data).get(12..14) == Some(&MARK);
            }
        }
        marked
    }
}

/// One of the two hosts.
struct Side {
    datapath: Datapath,
    ports: Vec<Option<Arc<Port>>>,
    // holds the sockets that the workers use
    container: Container,
    _trains: Option<Trains>,
}

/// ESP by trains: what a side has of it.
struct Trains {
    _attached: Attached,
    _inlet: Inlet,
    _lane: Host,
}

impl Trains {
    /// In the calling thread's namespace: outward by `esp`, inward to an SA's address and SPI.
    fn open(esp: &Underlay, [local, remote]: [IpAddr; 2], spi: u32) -> Trains {
        let [IpAddr::V4(local), IpAddr::V4(remote)] = [local, remote] else { panic!("trains are for IPv4") };
        let wire = sys::ifindex("wire").unwrap();
        let inlet = Inlet::open(UDP_PORT).unwrap();
        inlet.take([(local, spi)].into()).unwrap();
        let attached = inlet.attach(wire).unwrap();
        let host = Host::new();
        let mtu = Lane::MTU;
        host.sh(&format!(
            "ip link add near mtu {mtu} type veth peer name far mtu {mtu}
             ip link set dev near up; ip link set dev far up"
        ));
        let lane = host.enter(|| Lane::open("near", "far").unwrap());
        lane.reach(wire).unwrap();
        let [from, to] = if local < remote { ENDS } else { [ENDS[1], ENDS[0]] };
        let to = [(remote, Hop { ifindex: wire, from, to, mtu: 1500 })].into_iter().collect();
        esp.set_hops(Some(Arc::new(Hops { lane: Arc::new(lane), to })));
        Trains { _attached: attached, _inlet: inlet, _lane: host }
    }
}

impl Side {
    /// Opens everything in the calling thread's namespace. `locals`: its local devices and their MTUs.
    fn open(case: Case, locals: &[(&str, u32)], ends: [IpAddr; 2], frames: &[(VnetHdr, Vec<u8>)]) -> Side {
        let [local, remote] = ends;
        let policy = matches!(case.road, RxRoad::Esp | RxRoad::Udp).then_some(POLICY);
        let in_udp = match case.road {
            RxRoad::InUdp(kind) => Some(kind),
            _ => None,
        };
        let tunnel = TunnelConfig { in_udp, ..TunnelConfig::to(remote) };
        let tunnel = Tunnel { policy, ..Tunnel::new(tunnel, Some(local), 1500) };
        let device = (case.device && policy.is_none()).then(|| Arc::new(DeviceRoad::open().unwrap()));
        if device.is_some() {
            tunnel.egress.store(sys::ifindex("wire").unwrap(), Relaxed);
        }
        let kinds = locals.iter().map(|(device, mtu)| {
            let port = LocalPort::packet(device).unwrap();
            port.set_mtu(*mtu);
            PortKind::Local(Arc::new(port))
        });
        let kinds = kinds.chain([PortKind::Tunnel(Arc::new(tunnel))]).enumerate();
        let ports: Vec<_> = kinds.map(|(i, kind)| Some(Arc::new(port(i, kind)))).collect();
        let underlays = match case.v6 {
            false => {
                [Underlay::gre4(), Underlay::in_udp4(InUdp::Gre), Underlay::esp4(), Underlay::udp4(UDP_PORT)]
            }
            true => [
                Underlay::gre6(),
                Underlay::in_udp6(InUdp::Vxlan(4789)),
                Underlay::esp6(),
                Underlay::udp6(UDP_PORT),
            ],
        };
        let underlays = underlays.map(|u| Arc::new(u.unwrap()));
        let (outbound, inbound) = (config(case, ends, local), config(case, ends, remote));
        let trains =
            (case.device && policy.is_some()).then(|| Trains::open(&underlays[2], ends, inbound.spi));
        let inbound = Arc::new(InboundSa::new(inbound, key(), POLICY, DEFAULT_WINDOW));
        let policy = Policy {
            name: "gre0".into(),
            local: None,
            remote,
            outbound: Some(Arc::new(OutboundSa::new(outbound, key()))),
            may_send_plain: false,
        };
        let bridge = Bridge {
            flood: ports.iter().flatten().map(|port| port.id).collect(),
            ..Bridge::new("br0", Arc::new(Fdb::new(64, 300)))
        };
        let snapshot = Snapshot {
            bridges: vec![Some(Arc::new(bridge))],
            demux: Demux::build(ports.iter().flatten()).unwrap(),
            ports: ports.clone(),
            underlays: underlays.to_vec(),
            device,
            policies: vec![Some(Arc::new(policy))],
            inbound: [(inbound.config.spi, inbound)].into_iter().collect(),
            ..Snapshot::default()
        };
        let datapath = Datapath::start(case.workers).unwrap();
        let generation = datapath.publish(snapshot);
        assert!(datapath.wait_applied(generation, PATIENCE));
        Side { datapath, ports, container: Container::new("c", frames), _trains: trains }
    }

    fn stats(&self, port: usize) -> PortStats {
        self.ports[port].as_ref().unwrap().counters.sum()
    }

    fn drops(&self, why: DropReason) -> u64 {
        self.datapath.drops().into_iter().find(|(reason, _)| *reason == why).unwrap().1
    }
}

fn port(i: usize, kind: PortKind) -> Port {
    Port { worker: i, ..Port::new(PortId(i as u16), BridgeId(0), i as u16 + 1, format!("port{i}"), kind) }
}

fn key() -> SaKey {
    SaKey::aes_gcm(&[7; 36]).unwrap()
}

/// The SA by which `from` sends, as the host sees it whose ends these are.
fn config(case: Case, [local, remote]: [IpAddr; 2], from: IpAddr) -> SaConfig {
    let last = match from {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    let road = match case.road {
        RxRoad::Udp => Road::Udp { remote_port: Arc::new(AtomicU16::new(UDP_PORT)), local_port: UDP_PORT },
        _ => Road::Esp,
    };
    SaConfig {
        selector: Selector::Gre,
        spi: 0x1000 + u32::from(last),
        local,
        remote,
        esn: true,
        road,
        hard_packets: u64::MAX,
        hard_bytes: u64::MAX,
    }
}

type Frame = (VnetHdr, Vec<u8>);

fn plain(frame: Vec<u8>) -> Frame {
    (VnetHdr::default(), frame)
}

fn raw(dst: Mac, src: Mac, kind: [u8; 2], len: usize) -> Frame {
    let mut frame = [&dst[..], &src, &kind].concat();
    frame.resize(14 + len, 0x5a);
    plain(frame)
}

fn udp(dst: Mac, src: Mac, payload: usize, df: bool) -> Frame {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(src, dst).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(1, 2).write(&mut frame, &vec![7; payload]).unwrap();
    frame[20] = if df { 0x40 } else { 0 };
    ipv4::set_checksum(&mut frame[14..34]);
    plain(frame)
}

fn udp6(dst: Mac, src: Mac, payload: usize) -> Frame {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(src, dst).ipv6([0xfd; 16], [0xfe; 16], 64);
    builder.udp(1, 2).write(&mut frame, &vec![7; payload]).unwrap();
    plain(frame)
}

/// A superframe as a container's kernel makes it.
fn superframe(dst: Mac, src: Mac, gso_type: u8, len: usize) -> Frame {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(src, dst).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    let payload = vec![0x5a; len];
    let (header, size, csum_offset) = match gso_type {
        GSO_TCPV4 => {
            builder.tcp(3, 4, 1000, 9).ack(3).write(&mut frame, &payload).unwrap();
            (54, 1448, 16)
        }
        // what cannot be cut smaller must fit
        _ => {
            builder.udp(3, 4).write(&mut frame, &payload).unwrap();
            (42, 1200, 6)
        }
    };
    let ip = parse(&frame).unwrap().ip.unwrap();
    let sum = pseudo(ip.addresses(&frame), ip.proto, frame.len() - ip.l4).fold();
    put16(&mut frame, ip.l4 + usize::from(csum_offset), sum);
    let vnet = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type,
        hdr_len: header.into(),
        gso_size: size.into(),
        csum_start: 34.into(),
        csum_offset: csum_offset.into(),
    };
    (vnet, frame)
}

/// What each container sends in a round, small to large: the superframes are taken apart, fragments are made, what may not
/// be cut is answered (50 times a second, after that refused).
fn round(dst: Mac, src: Mac) -> Vec<Frame> {
    vec![
        raw(EVERYBODY, src, [8, 6], 46),
        raw([2, 0, 0, 0, 9, 9], src, OTHER, 46), // known to nobody
        udp(dst, src, 64, true),
        udp(dst, src, 1400, true),
        udp(dst, src, 1472, false), // in fragments
        udp(dst, src, 1472, true),  // too big
        udp6(dst, src, 1452),       // too big
        superframe(dst, src, GSO_TCPV4, 60_000),
        superframe(dst, src, GSO_UDP_L4, 28_000),
        raw(dst, src, MARK, 100),
    ]
}

/// To D, whose device takes 1000 bytes: between local ports, whole, in fragments, and answered.
fn local_round() -> Vec<Frame> {
    vec![
        udp(D, A, 64, true),
        udp(D, A, 1400, false),
        udp(D, A, 1400, true),
        superframe(D, A, GSO_TCPV4, 30_000),
        raw(D, A, MARK, 100),
    ]
}

struct Network {
    here: Side,
    there: Side,
    d: Container,
    // last, so that its namespace outlives what is in it
    _host: Host,
}

impl Network {
    fn new(case: Case) -> Network {
        let host = Host::new();
        let [here, there] = ENDS.map(|mac| mac.map(|b| format!("{b:02x}")).join(":"));
        sh(&format!(
            "ip link add name wire address {here} type veth peer name wire address {there} netns {}
             ip link set dev wire up
             ip address add 10.9.1.1/24 dev wire; ip address add fd00:9::1/64 dev wire nodad",
            host.pid()
        ));
        host.sh("ip link set dev wire up
                 ip address add 10.9.1.2/24 dev wire; ip address add fd00:9::2/64 dev wire nodad");
        wait_up("wire");
        sh(
            "timeout 10 sh -c 'until ping -qc1 -W1 10.9.1.2 && ping -6qc1 -W1 fd00:9::2; do sleep 0.01; done' \
            >/dev/null",
        );
        veth("p", "c");
        veth("q", "d");
        let [a, b] = if case.v6 { ["fd00:9::1", "fd00:9::2"] } else { ["10.9.1.1", "10.9.1.2"] };
        let [a, b]: [IpAddr; 2] = [a, b].map(|ip| ip.parse().unwrap());
        let frames: Vec<Frame> = local_round().into_iter().chain(round(B, A)).collect();
        let here = Side::open(case, &[("p", 1500), ("q", 1000)], [a, b], &frames);
        let there = host.enter(move || {
            veth("p", "c");
            Side::open(case, &[("p", 1500)], [b, a], &round(A, B))
        });
        let d = Container::new("d", &[raw(A, D, OTHER, 46)]);
        Network { here, there, d, _host: host }
    }

    /// Every kind of frame once, in every direction.
    fn round(&mut self) {
        self.d.send();
        self.here.container.send();
        self.there.container.send();
        let (mut here, mut there, mut d) = (false, false, false);
        wait_for("the last frames of a round", || {
            here |= self.here.container.marked();
            there |= self.there.container.marked();
            d |= self.d.marked();
            here && there && d
        });
    }

    /// Whether what arrives here is what the kernel has yet to cut, or what our XDP program has given a UDP header.
    fn by_device(&mut self, road: RxRoad) -> bool {
        let wire = LocalPort::packet("wire").unwrap();
        self.round();
        let arrived = drain(&wire).into_iter();
        let mut packets = arrived.filter_map(|(vnet, frame)| Some((vnet, parse(&frame)?.ip?.proto)));
        packets.any(|(vnet, proto)| match road {
            RxRoad::Gre => proto == proto::GRE && vnet.is_gso(),
            RxRoad::Esp => proto == proto::UDP,
            RxRoad::Udp | RxRoad::InUdp(_) => false,
        })
    }

    /// Blocks that a window of rounds allocates; every path must have had its part.
    fn window(&mut self) -> u64 {
        let before = (self.here.drops(DropReason::TooBigAnswered), self.here.stats(2), self.here.stats(1));
        let packets = self.there.container.packets;
        let profiler = dhat::Profiler::builder().testing().build();
        let blocks = || dhat::HeapStats::get().total_blocks;
        // so many rounds, and on until the second comes in which there are answers again
        let (mut rounds, mut allocated) = (0, 0);
        while rounds < ROUNDS as u64 || self.here.drops(DropReason::TooBigAnswered) == before.0 {
            let start = blocks();
            self.round();
            allocated += blocks() - start;
            rounds += 1;
            assert!(rounds < 10_000, "nothing is answered");
        }
        drop(profiler);
        let (tunnel, q) = (self.here.stats(2), self.here.stats(1));
        // TCP in 42 segments or more, UDP in 24, and the others
        assert!(tunnel.tx_packets - before.1.tx_packets >= 65 * rounds, "{tunnel:?}");
        assert!(tunnel.rx_packets - before.1.rx_packets >= 60 * rounds, "{tunnel:?}");
        assert!(q.tx_packets - before.2.tx_packets >= 24 * rounds, "{q:?}");
        assert!(self.there.container.packets - packets >= 60 * rounds);
        allocated
    }
}

#[test]
fn forwarding_allocates_nothing() {
    in_namespace("forwarding_allocates_nothing", || {
        for case in CASES {
            let mut network = Network::new(case);
            assert_eq!(network.by_device(case.road), case.device, "{case:?}");
            for _ in 0..ROUNDS {
                network.round();
            }
            let mut allocated = Vec::with_capacity(WINDOWS);
            while allocated.last() != Some(&0) && allocated.len() < WINDOWS {
                allocated.push(network.window());
            }
            eprintln!("{case:?}: blocks allocated in windows of {ROUNDS} rounds: {allocated:?}");
            assert_eq!(allocated.last(), Some(&0), "{case:?}: {allocated:?}");
            drop(network);
            // the wire goes with the other namespace, when the kernel comes to that
            sh("ip link del dev p; ip link del dev q
                timeout 10 sh -c 'while ip link show dev wire; do sleep 0.01; done' >/dev/null 2>&1");
        }
    });
}

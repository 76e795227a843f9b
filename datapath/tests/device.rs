//! The device road against a real kernel: this host has one end of a veth pair, the test plays the network at the other end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

#[path = "namespace/mod.rs"]
mod namespace;

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use datapath::offload::Fit;
use datapath::offload::recognize;
use datapath::port::{DeviceRoad, LocalPort, Refusal, Sent, TxPacket, Underlay};
use datapath::slab::{Piece, Slab};
use datapath::snapshot::PortId;
use datapath::sys;
use datapath::sys::bpf::{Assembler, Hook, Program, ProgramKind, Reg};
use datapath::tunnel::carry::{Carry, Freight, Parcels};
use datapath::tunnel::{Tunnel, TunnelConfig};
use datapath::vnet::{F_NEEDS_CSUM, GSO_TCPV4, GSO_TCPV6, VnetHdr};
use datapath::wire::{gre, parse};
use etherparse::{PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use namespace::{Host, drain, in_namespace, sh, wait_for, wait_up};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The host's end of the pair with its addresses; returns the network's end. `offload`: it leaves checksums and segmentation to a
/// device that is not there.
fn network(offload: bool) -> LocalPort {
    sh("ip link add name host address 02:00:00:00:00:01 type veth peer name net address 02:00:00:00:00:02
        sysctl -qw net.ipv6.conf.net.disable_ipv6=1 net.ipv6.conf.host.accept_dad=0
        ip link set dev net up; ip link set dev host up
        ip address add 10.9.1.1/24 dev host
        ip address add fd00:9::1/64 dev host nodad
        ip neigh replace 10.9.1.2 lladdr 02:00:00:00:00:02 dev host nud permanent
        ip neigh replace fd00:9::2 lladdr 02:00:00:00:00:02 dev host nud permanent");
    if !offload {
        sh("ethtool -K host tx off >/dev/null");
    }
    wait_up("host");
    wait_up("net");
    sh(
        "timeout 10 sh -c 'until ip -6 route show table local | grep -q ^local.fd00:9::1; do sleep 0.01; done'",
    );
    LocalPort::packet("net").unwrap()
}

/// A tunnel that leaves by the host's end.
fn tunnel(v6: bool, change: impl FnOnce(&mut TunnelConfig)) -> Tunnel {
    let address = |host: u8| -> IpAddr {
        if v6 { format!("fd00:9::{host}").parse().unwrap() } else { [10, 9, 1, host].into() }
    };
    let mut config = TunnelConfig::to(address(2));
    change(&mut config);
    let tunnel = Tunnel::new(config, Some(address(1)), 1500);
    tunnel.egress.store(sys::ifindex("host").unwrap(), Relaxed);
    tunnel
}

/// A TCP stream's `len` bytes in one frame, `tags` VLAN tags in front, and the header that a kernel would say of it.
fn superframe(v6: bool, tags: usize, len: usize, size: u16) -> (Vec<u8>, VnetHdr) {
    let eth = PacketBuilder::ethernet2([0x33, 0x33, 0, 0, 0, 9], [4; 6]);
    let ip = |step: PacketBuilderStep<etherparse::Ethernet2Header>| {
        if v6 { step.ipv6([1; 16], [2; 16], 64) } else { step.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) }
    };
    let tcp = ip(eth).tcp(1, 2, 100, 9).ack(3).psh();
    let mut frame = Vec::new();
    let payload: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
    tcp.write(&mut frame, &payload).unwrap();
    let ect = if v6 { (15, 0x20) } else { (15, 2) };
    frame[ect.0] |= ect.1;
    for tag in 0..tags {
        frame.splice(12..12, [0x81, 0, 0, tag as u8 + 5]);
    }
    let ip = parse(&frame).unwrap().ip.unwrap();
    if !v6 {
        datapath::wire::ipv4::set_checksum(&mut frame[ip.l3..ip.l4]);
    }
    let mut vnet = VnetHdr {
        flags: F_NEEDS_CSUM,
        csum_start: (ip.l4 as u16).into(),
        csum_offset: 16.into(),
        ..VnetHdr::default()
    };
    if usize::from(size) < len {
        vnet.gso_type = if v6 { GSO_TCPV6 } else { GSO_TCPV4 };
        vnet.gso_size = size.into();
        vnet.hdr_len = (ip.l4 as u16 + 20).into();
    }
    let (mut sum, mut at) = (6 + (frame.len() - ip.l4) as u32, if v6 { ip.l3 + 8 } else { ip.l3 + 12 });
    while at < if v6 { ip.l3 + 40 } else { ip.l3 + 20 } {
        sum += u32::from(frame[at]) << 8 | u32::from(frame[at + 1]);
        at += 2;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    frame[ip.l4 + 16..ip.l4 + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    (frame, vnet)
}

/// Sends a frame; what became of it, and of its parcels.
fn carry(road: &DeviceRoad, tunnel: &Tunnel, frame: &[u8], vnet: &VnetHdr) -> (Fit, Sent, Vec<Refusal>) {
    let (mut slab, mut parcels) = (Slab::new(), Parcels::new());
    let data = Piece { len: frame.len() as u32, ..Slab::slot(0) };
    slab.get_mut(data).copy_from_slice(frame);
    let ip = parse(frame).unwrap().ip.unwrap();
    let mut carry = Carry::new(tunnel, PortId(1), &ip, &mut parcels).unwrap();
    let fit = carry.carry(&Freight { slab: &slab, data, vnet, ip: &ip });
    assert_eq!(carry.refused, None);
    let Fit::Sent(count) = fit else { panic!("{fit:?}") };
    assert_eq!(carry.packets, count as u64);
    let mut refused = Vec::new();
    let (buf, list) = parcels.list();
    let sent = road.tx(buf, &slab, list, &mut |_: &TxPacket, why| refused.push(why));
    (fit, sent, refused)
}

/// Waits for `count` packets at the network's end.
fn arrive(net: &LocalPort, count: usize) -> Vec<(VnetHdr, Vec<u8>)> {
    let mut got = Vec::new();
    wait_for("packets", || {
        got.extend(drain(net).into_iter().filter(|(_, f)| f[..6] == PEER));
        got.len() >= count
    });
    assert_eq!(got.len(), count);
    got
}

/// The frame inside a packet of the tunnel, whose headers must be right.
fn inner<'a>(packet: &'a [u8], tunnel: &Tunnel, key: Option<u32>) -> &'a [u8] {
    assert_eq!((&packet[..6], &packet[6..12]), (&PEER[..], &OURS[..]));
    let ip = parse(packet).unwrap().ip.unwrap();
    assert_eq!((ip.proto, ip.ttl, ip.end, ip.df), (47, 64, packet.len(), true));
    if tunnel.config.remote.is_ipv4() {
        assert!(datapath::wire::ipv4::checksum_ok(&packet[14..34]));
        assert_eq!((&packet[26..30], &packet[30..34]), (&[10, 9, 1, 1][..], &[10, 9, 1, 2][..]));
    }
    let (header, len) = gre::decode(&packet[ip.l4..]).unwrap();
    assert_eq!((header.protocol, header.key), (0x6558, key));
    let frame = &packet[ip.l4 + len..];
    assert_eq!(ip.tos & 3, parse(frame).unwrap().ip.unwrap().tos & 3);
    frame
}

/// The TCP payload of a frame, whose checksum must be right.
fn payload(frame: &[u8]) -> (u32, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
    let (checksum, header) = (tcp.checksum(), tcp.to_header());
    let want = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()),
        etherparse::NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()),
        other => panic!("{other:?}"),
    };
    assert_eq!(Some(checksum), want.ok());
    (tcp.sequence_number(), tcp.payload().to_vec())
}

/// Every kind of header, cut by the kernel in software because the device does nothing.
#[test]
fn segments_are_finished_where_the_device_does_not() {
    in_namespace("segments_are_finished_where_the_device_does_not", || {
        let net = network(false);
        let road = DeviceRoad::open().unwrap();
        for outer6 in [false, true] {
            for key in [None, Some(7)] {
                let tunnel = tunnel(outer6, |c| c.out_key = key);
                for (inner6, tags) in [(false, 0), (true, 0), (false, 1), (true, 2)] {
                    let (frame, vnet) = superframe(inner6, tags, 20_000, 1000);
                    let (fit, sent, refused) = carry(&road, &tunnel, &frame, &vnet);
                    let case = format!("outer6 {outer6} key {key:?} inner6 {inner6} tags {tags}");
                    assert_eq!((fit, sent.ok, refused), (Fit::Sent(20), 1, vec![]), "{case}");
                    let mut stream = Vec::new();
                    for (vnet, packet) in arrive(&net, 20) {
                        assert!(!vnet.is_gso() && !vnet.needs_csum(), "{case}");
                        let frame = inner(&packet, &tunnel, key);
                        let (seq, bytes) = payload(frame);
                        assert_eq!(seq, 100 + stream.len() as u32, "{case}");
                        stream.extend(bytes);
                    }
                    assert_eq!(stream, frame[frame.len() - 20_000..], "{case}");
                }
            }
        }
    });
}

/// Superframes that no one packet can hold, and small ones, go in finished packets.
#[test]
fn what_the_kernel_cannot_cut_is_cut_here() {
    in_namespace("what_the_kernel_cannot_cut_is_cut_here", || {
        let net = network(true);
        let road = DeviceRoad::open().unwrap();
        let tunnel = tunnel(false, |_| {});
        // too long with the outer headers; one segment alone; no superframe
        for (len, size, packets) in [(65_490, 1400, 47), (900, 1000, 1), (1, 1, 1)] {
            let (frame, vnet) = superframe(false, 0, len, size);
            let (fit, sent, refused) = carry(&road, &tunnel, &frame, &vnet);
            assert_eq!((fit, sent.ok, refused), (Fit::Sent(packets), packets, vec![]), "{len} bytes");
            let got = arrive(&net, packets);
            let bytes: usize =
                got.iter().map(|(_, packet)| payload(inner(packet, &tunnel, None)).1.len()).sum();
            assert_eq!(bytes, len);
        }
    });
}

/// Without a device that does it nothing is cut at all, and the other end is told by nothing but the packet itself.
#[test]
fn another_stack_of_this_machine_gets_the_whole() {
    in_namespace("another_stack_of_this_machine_gets_the_whole", || {
        let net = network(true);
        let peer = Host::new();
        let pid = peer.pid();
        drop(net);
        sh(&format!("ip link set dev net netns {pid}"));
        peer.sh("ip link set dev net up; ip address add 10.9.1.2/24 dev net");
        let raw = peer.enter(|| Underlay::gre4().unwrap());
        let road = DeviceRoad::open().unwrap();
        let tunnel = tunnel(false, |c| c.out_key = Some(5));
        let (frame, vnet) = superframe(true, 0, 50_000, 1400);
        let (mut slab, mut packets) = (Slab::new(), Vec::new());
        wait_for("the packet", || {
            assert_eq!(carry(&road, &tunnel, &frame, &vnet).1.ok, 1);
            raw.rx(&mut slab, 1, &mut packets).unwrap() > 0
        });
        let packet = slab.get(packets[0].data);
        let (header, at) = gre::decode(packet).unwrap();
        assert_eq!((header.key, packets[0].tos), (Some(5), 2));
        assert_eq!(&packet[at..], &frame[..]);
        let told = recognize(&frame, &parse(&frame).unwrap().ip.unwrap());
        assert!(told.is_gso() && told.needs_csum());
    });
}

/// What has not our mark is not touched, and when the road is closed, or cannot be used, that is known.
#[test]
fn others_are_left_alone_and_failure_is_told() {
    in_namespace("others_are_left_alone_and_failure_is_told", || {
        let net = network(true);
        // somebody else's program that ends the chain
        let mut pass = Assembler::new();
        pass.mov(Reg::R0, 0);
        pass.exit();
        let pass = Program::load(ProgramKind::SchedCls, Hook::TcxEgress, "other", pass).unwrap();
        let _other = pass.attach(Hook::TcxEgress, sys::ifindex("lo").unwrap()).unwrap();
        let road = DeviceRoad::open().unwrap();
        let second = DeviceRoad::open().unwrap();
        sh("ping -c2 -i0.1 -W2 127.0.0.1 >/dev/null");
        sh("ping -m 77 -c2 -i0.1 -W2 127.0.0.1 >/dev/null");
        let tunnel = tunnel(false, |_| {});
        let (frame, vnet) = superframe(false, 0, 900, 1000);
        for road in [&road, &second] {
            carry(road, &tunnel, &frame, &vnet);
            arrive(&net, 1);
        }
        // a device that is gone takes nothing, and harms nobody
        tunnel.egress.store(4242, Relaxed);
        assert_eq!(carry(&road, &tunnel, &frame, &vnet).1.ok, 1);
        sh("ip link set dev lo down");
        let (_, sent, refused) = carry(&road, &tunnel, &frame, &vnet);
        assert_eq!((sent.ok, sent.failed, refused), (0, 1, vec![Refusal::Failed]));
        assert!(drain(&net).iter().all(|(_, frame)| frame[..6] != PEER));
    });
}

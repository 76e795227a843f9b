//! GRE and ESP by raw sockets against a real kernel: this host has one end of a veth pair, the test plays the network at the other
//! end with a packet port, and sees and says every byte.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

#[path = "namespace/mod.rs"]
mod namespace;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use datapath::offload::recognize;
use datapath::port::{LocalPort, Refusal, RxPacket, Sent, TxPacket, Underlay};
use datapath::slab::{SLOTS, Slab};
use datapath::snapshot::PortId;
use datapath::sys::epoll::{Epoll, Event};
use datapath::txq::TxQueue;
use datapath::vnet::{GSO_TCPV4, VnetHdr};
use datapath::wire::{gre, parse};
use namespace::{drain, in_namespace, send, sh, wait_for, wait_up};

const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST4: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);
const PEER4: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);
const HOST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
/// Don't fragment.
const DF: u16 = 0x4000;
/// More fragments.
const MF: u16 = 0x2000;

/// The host's end of the pair with its addresses; returns the network's end.
fn network() -> LocalPort {
    sh("ip link add name host address 02:00:00:00:00:01 type veth peer name net address 02:00:00:00:00:02
        sysctl -qw net.ipv6.conf.net.disable_ipv6=1 net.ipv6.conf.host.accept_dad=0
        ip link set dev net up; ip link set dev host up
        ip address add 10.9.1.1/24 dev host
        ip address add fd00:9::1/64 dev host nodad
        ip neigh replace 10.9.1.2 lladdr 02:00:00:00:00:02 dev host nud permanent
        ip neigh replace fd00:9::2 lladdr 02:00:00:00:00:02 dev host nud permanent");
    wait_up("host");
    wait_up("net");
    // An IPv6 address serves only when the kernel has come round to it.
    sh(
        "timeout 10 sh -c 'until ip -6 route show table local | grep -q ^local.fd00:9::1; do sleep 0.01; done'",
    );
    LocalPort::packet("net").unwrap()
}

/// The ones' complement of the ones' complement sum.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |c: &[u8]| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv4 packet. `fragment`: flags and offset.
fn ipv4(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    tos: u8,
    fragment: u16,
    options: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let mut h = vec![0x45 + (options.len() / 4) as u8, tos];
    h.extend((20 + options.len() as u16 + body.len() as u16).to_be_bytes());
    h.extend([0x12, 0x34]);
    h.extend(fragment.to_be_bytes());
    h.extend([64, protocol, 0, 0]);
    h.extend(src.octets());
    h.extend(dst.octets());
    h.extend(options);
    let sum = checksum(&h);
    h[10..12].copy_from_slice(&sum.to_be_bytes());
    h.extend(body);
    h
}

fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, class: u8, body: &[u8]) -> Vec<u8> {
    let mut h = (6u32 << 28 | u32::from(class) << 20).to_be_bytes().to_vec();
    h.extend((body.len() as u16).to_be_bytes());
    h.extend([next, 64]);
    h.extend(src.octets());
    h.extend(dst.octets());
    h.extend(body);
    h
}

/// An ICMPv6 error from the peer to the host about `packet` (RFC 4443 section 2.1).
fn icmpv6(kind: u8, code: u8, word: u32, packet: &[u8]) -> Vec<u8> {
    let mut icmp = vec![kind, code, 0, 0];
    icmp.extend(word.to_be_bytes());
    icmp.extend(packet);
    let mut pseudo = [PEER6.octets(), HOST6.octets()].concat();
    pseudo.extend((icmp.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 58]);
    let sum = checksum(&[&pseudo[..], &icmp].concat());
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6(PEER6, HOST6, 58, 0, &icmp)
}

/// GRE with an Ethernet payload of `n` bytes.
fn gre(n: usize) -> Vec<u8> {
    let mut v = vec![0, 0, 0x65, 0x58];
    v.extend((0..n).map(|i| i as u8));
    v
}

fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&HOST_MAC[..], &PEER_MAC, &kind.to_be_bytes(), packet].concat()
}

/// The network delivers a packet to the host.
fn deliver(net: &LocalPort, packet: &[u8]) {
    let kind = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    assert_eq!(send(net, VnetHdr::default(), &[&ethernet(kind, packet)]).ok, 1);
}

/// What the host has sent: the IP packets, without Ethernet and without what IPv6 says about itself (ICMPv6, and MLD behind
/// hop-by-hop options).
fn sent_by_host(net: &LocalPort) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = drain(net).into_iter().map(|(_, frame)| frame).collect();
    frames.retain(|f| f[12..14] != [0x86, 0xdd] || !matches!(f[20], 0 | 58));
    assert!(frames.iter().all(|f| f[..12] == [PEER_MAC, HOST_MAC].concat()));
    frames.iter().map(|f| f[14..].to_vec()).collect()
}

fn transmit(underlay: &Underlay, packets: &[(&[u8], IpAddr)]) -> (Sent, Vec<PortId>) {
    let (mut buf, mut list, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (i, (bytes, dst)) in packets.iter().enumerate() {
        let (start, len) = (buf.len() as u32, bytes.len() as u32);
        list.push(TxPacket::raw(start, len, *dst, PortId(i as u16)));
        buf.extend_from_slice(bytes);
    }
    let sent = underlay.tx(&buf, &list, &mut |packet, why| refused.push((packet.port, why)));
    assert_eq!(refused.len(), sent.full + sent.failed, "{refused:?}");
    refused.retain(|(_, why)| *why == Refusal::TooBig);
    (sent, refused.into_iter().map(|(port, _)| port).collect())
}

fn receive_all(underlay: &Underlay) -> Vec<(RxPacket, Vec<u8>)> {
    let (mut slab, mut packets, mut all) = (Slab::new(), Vec::new(), Vec::new());
    while underlay.rx(&mut slab, SLOTS, &mut packets).unwrap() > 0 {
        all.extend(packets.iter().map(|p| (*p, slab.get(p.data).to_vec())));
    }
    all
}

fn receive(underlay: &Underlay) -> (RxPacket, Vec<u8>) {
    let mut got = Vec::new();
    wait_for("a packet", || {
        got = receive_all(underlay);
        !got.is_empty()
    });
    assert_eq!(got.len(), 1, "{got:x?}");
    got.remove(0)
}

const ALL_SENT: fn(usize) -> (Sent, Vec<PortId>) = |ok| (Sent { ok, full: 0, failed: 0 }, Vec::new());

#[test]
fn raw4_sends_our_header_as_it_is() {
    in_namespace("raw4_sends_our_header_as_it_is", || {
        let net = network();
        for (underlay, protocol) in [(Underlay::gre4().unwrap(), 47), (Underlay::esp4().unwrap(), 50)] {
            for (tos, flags) in [(0, DF), (0xb9, 0), (3, DF)] {
                let packet = ipv4(HOST4, PEER4, protocol, tos, flags, &[], &gre(1000));
                assert_eq!(transmit(&underlay, &[(&packet, PEER4.into())]), ALL_SENT(1));
                assert_eq!(sent_by_host(&net), [packet]);
            }
            // Source and checksum that we leave out are filled in.
            let whole = ipv4(HOST4, PEER4, protocol, 0, DF, &[], &gre(100));
            let mut bare = whole.clone();
            bare[10..16].fill(0);
            assert_eq!(transmit(&underlay, &[(&bare, PEER4.into())]), ALL_SENT(1));
            assert_eq!(sent_by_host(&net), [whole]);
        }
    });
}

#[test]
fn raw4_receives_its_protocol_behind_the_ip_header() {
    in_namespace("raw4_receives_its_protocol_behind_the_ip_header", || {
        let net = network();
        let underlays = [(Underlay::gre4().unwrap(), 47), (Underlay::esp4().unwrap(), 50)];
        let body = gre(333);
        for (tos, options) in [(0, &[][..]), (0xb9, &[]), (3, &[1, 1, 1, 1, 1, 1, 1, 0])] {
            for (underlay, protocol) in &underlays {
                // Behind the packet stands what pads the frame.
                let packet =
                    [&ipv4(PEER4, HOST4, *protocol, tos, DF, options, &body)[..], &[0xee; 9]].concat();
                deliver(&net, &packet);
                let (got, data) = receive(underlay);
                assert_eq!((got.src, got.dst, got.tos), (PEER4.into(), HOST4.into(), tos));
                assert_eq!((got.road, got.src_port), (underlay.road(), 0));
                assert_eq!(data, body);
            }
        }
        assert!(underlays.iter().all(|(underlay, _)| receive_all(underlay).is_empty()));
    });
}

#[test]
fn gre4_receives_fragments_whole() {
    in_namespace("gre4_receives_fragments_whole", || {
        let net = network();
        let underlay = Underlay::gre4().unwrap();
        let body = gre(8800);
        let cut = |from: usize, to: usize, more: u16| {
            deliver(&net, &ipv4(PEER4, HOST4, 47, 0, (from / 8) as u16 | more, &[], &body[from..to]));
        };
        for from in [1480, 2960, 4440, 5920, 0] {
            cut(from, from + 1480, MF);
        }
        assert!(receive_all(&underlay).is_empty());
        cut(7400, body.len(), 0);
        assert_eq!(receive(&underlay).1, body);
    });
}

#[test]
fn raw6_sends_our_header_as_it_is_and_receives() {
    in_namespace("raw6_sends_our_header_as_it_is_and_receives", || {
        let net = network();
        let underlays = [(Underlay::gre6().unwrap(), 47), (Underlay::esp6().unwrap(), 50)];
        for class in [0, 0xb9, 3] {
            for (underlay, protocol) in &underlays {
                let packet = ipv6(HOST6, PEER6, *protocol, class, &gre(1000));
                assert_eq!(transmit(underlay, &[(&packet, PEER6.into())]), ALL_SENT(1));
                assert_eq!(sent_by_host(&net), [packet]);

                deliver(&net, &ipv6(PEER6, HOST6, *protocol, class, &gre(777)));
                let (got, data) = receive(underlay);
                assert_eq!((got.src, got.dst, got.tos), (PEER6.into(), HOST6.into(), class));
                assert_eq!((got.road, got.src_port), (underlay.road(), 0));
                assert_eq!(data, gre(777));
            }
        }
        assert!(underlays.iter().all(|(underlay, _)| receive_all(underlay).is_empty()));
    });
}

#[test]
fn gre6_receives_fragments_whole() {
    in_namespace("gre6_receives_fragments_whole", || {
        let net = network();
        let underlay = Underlay::gre6().unwrap();
        let body = gre(4000);
        let cut = |from: usize, to: usize, more: u16| {
            let mut h = vec![47, 0];
            h.extend((from as u16 | more).to_be_bytes());
            h.extend([0, 0, 0, 9]);
            h.extend(&body[from..to]);
            deliver(&net, &ipv6(PEER6, HOST6, 44, 0, &h));
        };
        cut(1400, 2800, 1);
        cut(0, 1400, 1);
        cut(2800, body.len(), 0);
        assert_eq!(receive(&underlay).1, body);
    });
}

/// Longer than the device takes, then longer than the path takes: refused, and nothing behind it waits.
#[test]
fn gre4_reports_what_does_not_fit() {
    in_namespace("gre4_reports_what_does_not_fit", || {
        let net = network();
        let underlay = Underlay::gre4().unwrap();
        let packet = |n: usize, flags| ipv4(HOST4, PEER4, 47, 0, flags, &[], &gre(n - 24));
        let (fits, long) = (packet(1500, DF), packet(1501, DF));
        let peer = IpAddr::from(PEER4);
        let batch = [(&fits[..], peer), (&long, peer), (&long, peer), (&fits, peer)];
        let refused = (Sent { ok: 2, full: 0, failed: 2 }, vec![PortId(1), PortId(2)]);
        assert_eq!(transmit(&underlay, &batch), refused);
        assert_eq!(sent_by_host(&net), [fits.clone(), fits.clone()]);

        // A router tells of a narrower link (RFC 1191 section 4).
        let mut icmp = vec![3, 4, 0, 0, 0, 0];
        icmp.extend(1300u16.to_be_bytes());
        icmp.extend(&fits[..28]);
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        wait_for("the path MTU", || {
            deliver(&net, &ipv4(PEER4, HOST4, 1, 0, 0, &[], &icmp));
            transmit(&underlay, &[(&fits, peer)]).1 == [PortId(0)]
        });
        sent_by_host(&net);
        let (fits, may_fragment) = (packet(1300, DF), packet(1400, 0));
        assert_eq!(transmit(&underlay, &[(&packet(1301, DF), peer), (&fits, peer)]).1, [PortId(0)]);
        assert_eq!(sent_by_host(&net), [fits]);
        // Without DF the kernel fragments, as any router may.
        assert_eq!(transmit(&underlay, &[(&may_fragment, peer)]), ALL_SENT(1));
        assert_eq!(sent_by_host(&net).len(), 2);
    });
}

#[test]
fn gre6_reports_what_does_not_fit() {
    in_namespace("gre6_reports_what_does_not_fit", || {
        let net = network();
        let underlay = Underlay::gre6().unwrap();
        let packet = |n: usize| ipv6(HOST6, PEER6, 47, 0, &gre(n - 44));
        let (fits, long) = (packet(1500), packet(1501));
        let peer = IpAddr::from(PEER6);
        let batch = [(&fits[..], peer), (&long, peer), (&fits, peer)];
        assert_eq!(transmit(&underlay, &batch), (Sent { ok: 2, full: 0, failed: 1 }, vec![PortId(1)]));

        let icmp = icmpv6(2, 0, 1300, &fits[..1000]);
        wait_for("the path MTU", || {
            deliver(&net, &icmp);
            transmit(&underlay, &[(&fits, peer)]).1 == [PortId(0)]
        });
        sent_by_host(&net);
        let fits = packet(1300);
        assert_eq!(transmit(&underlay, &[(&packet(1301), peer), (&fits, peer)]).1, [PortId(0)]);
        // And never in fragments.
        assert_eq!(sent_by_host(&net), [fits]);
    });
}

/// ICMP errors about what was sent neither stop the socket nor cost packets in either direction.
#[test]
fn icmp_errors_do_not_stall_the_socket() {
    in_namespace("icmp_errors_do_not_stall_the_socket", || {
        let net = network();
        let underlay = Underlay::gre4().unwrap();
        let out = ipv4(HOST4, PEER4, 47, 0, DF, &[], &gre(200));
        let inward = ipv4(PEER4, HOST4, 47, 0, DF, &[], &gre(300));
        for code in [0, 1, 2, 3, 9, 10, 13] {
            let mut icmp = vec![3, code, 0, 0, 0, 0, 0, 0];
            icmp.extend(&out[..28]);
            let sum = checksum(&icmp);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            deliver(&net, &ipv4(PEER4, HOST4, 1, 0, 0, &[], &icmp));
            deliver(&net, &inward);
            assert_eq!(transmit(&underlay, &[(&out, PEER4.into())]), ALL_SENT(1), "code {code}");
            assert_eq!(receive(&underlay).1, gre(300), "code {code}");
            assert_eq!(sent_by_host(&net), std::slice::from_ref(&out));
        }
    });
}

#[test]
fn icmpv6_errors_do_not_stall_the_socket() {
    in_namespace("icmpv6_errors_do_not_stall_the_socket", || {
        let net = network();
        let underlay = Underlay::gre6().unwrap();
        let out = ipv6(HOST6, PEER6, 47, 0, &gre(200));
        let inward = ipv6(PEER6, HOST6, 47, 0, &gre(300));
        for (kind, code) in [(1, 0), (1, 1), (1, 3), (1, 4), (3, 0), (4, 1), (2, 0)] {
            let message = icmpv6(kind, code, 1400, &out);
            // More errors than packets: the error queue fills, and is emptied.
            for _ in 0..200 {
                deliver(&net, &message);
            }
            deliver(&net, &inward);
            assert_eq!(transmit(&underlay, &[(&out, PEER6.into())]), ALL_SENT(1), "type {kind} code {code}");
            assert_eq!(receive(&underlay).1, gre(300), "type {kind} code {code}");
            assert_eq!(sent_by_host(&net), std::slice::from_ref(&out));
        }
        let epoll = Epoll::new().unwrap();
        epoll.add(&underlay, 0).unwrap();
        wait_for("the error state to end", || {
            receive_all(&underlay);
            epoll.wait(&mut [Event::EMPTY], Some(Duration::ZERO)).unwrap() == 0
        });
    });
}

/// No route, a prohibiting route, a firewall, a device that is down: each refuses its own packet alone.
#[test]
fn one_unreachable_peer_does_not_hold_up_another() {
    in_namespace("one_unreachable_peer_does_not_hold_up_another", || {
        let net = network();
        let underlay = Underlay::gre4().unwrap();
        sh("ip route add prohibit 10.9.3.0/24; ip route add unreachable 10.9.4.0/24");
        sh("nft 'add table ip t; add chain ip t o { type filter hook output priority 0; }; \
            add rule ip t o ip daddr 10.9.1.5 drop'");
        let to = |last: [u8; 4]| {
            let dst = Ipv4Addr::from(last);
            (ipv4(HOST4, dst, 47, 0, DF, &[], &gre(100)), IpAddr::from(dst))
        };
        let packets = [
            to([10, 9, 2, 1]),
            to(PEER4.octets()),
            to([10, 9, 3, 1]),
            to([10, 9, 4, 1]),
            to([10, 9, 1, 5]),
            to(PEER4.octets()),
        ];
        let list: Vec<(&[u8], IpAddr)> = packets.iter().map(|(p, d)| (&p[..], *d)).collect();
        let (sent, refused) = transmit(&underlay, &list);
        assert_eq!((sent.full, refused), (0, vec![]));
        let good = packets[1].0.clone();
        assert_eq!(sent_by_host(&net), [good.clone(), good.clone()], "{sent:?}");
        // A wrong family, a packet outside the buffer, no packet at all.
        assert_eq!(transmit(&underlay, &[(&good, PEER6.into()), (&good, PEER4.into())]).0.ok, 1);
        let nowhere = TxPacket::raw(1 << 31, 1 << 31, PEER4.into(), PortId(0));
        let sent = underlay.tx(&good, &[nowhere], &mut |_, why| assert_eq!(why, Refusal::Failed));
        assert_eq!(sent, Sent { failed: 1, ..Sent::default() });
        sh("ip link set dev host down");
        assert_eq!(transmit(&underlay, &list).0.ok, 0);
    });
}

/// Packets that are not what they should be reach nobody, and the next is received.
#[test]
fn bad_packets_do_not_stop_the_socket() {
    in_namespace("bad_packets_do_not_stop_the_socket", || {
        let net = network();
        let (four, six) = (Underlay::gre4().unwrap(), Underlay::gre6().unwrap());
        deliver(&net, &ipv4(PEER4, HOST4, 47, 0, DF, &[], &[]));
        deliver(&net, &ipv6(PEER6, HOST6, 47, 0, &[]));
        deliver(&net, &ipv4(PEER4, HOST4, 47, 0, DF, &[], &gre(50)));
        deliver(&net, &ipv6(PEER6, HOST6, 47, 0, &gre(60)));
        let last = |u: &Underlay| receive_all(u).pop().map(|p| p.1);
        wait_for("IPv4", || last(&four) == Some(gre(50)));
        wait_for("IPv6", || last(&six) == Some(gre(60)));
    });
}

/// Generic receive offload knows GRE, and a raw socket hands out what it has merged as it stands: one packet longer than
/// any link takes, the inner TCP checksum no more than the sum of the pseudo header, and no word of either beside it.
#[test]
fn gre4_receives_what_gro_has_merged() {
    in_namespace("gre4_receives_what_gro_has_merged", || {
        let net = network();
        // A veth gives to GRO what its peer has not marked as a superframe; the timeout keeps GRO from passing each on alone.
        sh("ethtool -K net tso off; ethtool -K host gro on; mount -t sysfs none /sys
            echo 50000000 > /sys/class/net/host/gro_flush_timeout
            echo 2 > /sys/class/net/host/napi_defer_hard_irqs");
        let underlay = Underlay::gre4().unwrap();
        let (src, dst) = (Ipv4Addr::new(10, 0, 11, 2), Ipv4Addr::new(10, 0, 42, 2));
        let pseudo = |len: u16| [&src.octets()[..], &dst.octets(), &[0, 6], &len.to_be_bytes()].concat();
        let packet = |seq: u32, checksummed: bool| {
            let mut tcp = vec![0x30, 0x39, 0, 80];
            tcp.extend(seq.to_be_bytes());
            tcp.extend([0, 0, 0, 1, 0x50, 0x10, 4, 0, 0, 0, 0, 0]);
            tcp.extend([seq as u8; 1000]);
            let sum = checksum(&[pseudo(1020), tcp.clone()].concat());
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
            let inner = ethernet(0x0800, &ipv4(src, dst, 6, 0, DF, &[], &tcp));
            let header: &[u8] =
                if checksummed { &[0x80, 0, 0x65, 0x58, 0, 0, 0, 0] } else { &[0, 0, 0x65, 0x58] };
            let mut gre = [header, &inner].concat();
            if checksummed {
                let sum = checksum(&gre);
                gre[4..6].copy_from_slice(&sum.to_be_bytes());
            }
            ipv4(PEER4, HOST4, 47, 0, DF, &[], &gre)
        };
        for (checksummed, header) in [(false, 4), (true, 8)] {
            // One batch, before the timeout; tried again should the machine have been elsewhere.
            let (mut slab, mut queue) = (Slab::new(), TxQueue::new());
            for i in 0..8 {
                let frame = ethernet(0x0800, &packet(1 + 1000 * i, checksummed));
                let piece = slab.alloc(frame.len()).unwrap();
                slab.get_mut(piece).copy_from_slice(&frame);
                queue.push(VnetHdr::default(), &[piece]);
            }
            let mut got = Vec::new();
            wait_for("a merged packet", || {
                assert_eq!(net.tx(&slab, &queue).ok, 8);
                std::thread::sleep(Duration::from_millis(100));
                got = receive_all(&underlay);
                got.len() == 1
            });
            let data = &got[0].1;
            assert_eq!(data.len(), header + 14 + 20 + 20 + 8 * 1000);
            // The GRE checksum, where there is one, is still that of the first packet.
            assert_eq!(gre::decode(data).is_err(), checksummed);
            let inner = &data[header..];
            assert_eq!(inner[16..18], 8040u16.to_be_bytes());
            assert_eq!(inner[14 + 20 + 16..][..2], (!checksum(&pseudo(8020))).to_be_bytes());
            let vnet = recognize(inner, &parse(inner).unwrap().ip.unwrap());
            assert_eq!((vnet.gso_type, vnet.gso_size.get(), vnet.needs_csum()), (GSO_TCPV4, 1460, true));
        }
    });
}

#[test]
fn packets_that_find_the_buffer_full_are_counted() {
    in_namespace("packets_that_find_the_buffer_full_are_counted", || {
        let net = network();
        let underlay = Underlay::gre4().unwrap();
        let packet = ipv4(PEER4, HOST4, 47, 0, DF, &[], &gre(1400));
        let mut lost = 0;
        let mut sent = 0;
        while lost == 0 && sent < 50_000 {
            for _ in 0..100 {
                deliver(&net, &packet);
            }
            sent += 100;
            lost += underlay.take_lost();
        }
        assert!(lost > 0 && lost < sent, "{lost} of {sent}");
        // the last may still be on their way
        let received = receive_all(&underlay).len() as u64;
        assert!(received + lost + underlay.take_lost() <= sent);
        assert_eq!(underlay.take_lost(), 0);
    });
}

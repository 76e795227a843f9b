//! ESP and GRE in UDP between two kernels: this host and another, a veth pair between them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

#[path = "namespace/mod.rs"]
mod namespace;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use datapath::port::{
    GRE_UDP_PORT, InUdp, LocalPort, Refusal, RxPacket, RxRoad, SOURCE_PORTS, Sent, TxPacket, Underlay,
};
use datapath::slab::{SLOTS, Slab};
use datapath::snapshot::PortId;
use datapath::wire::natt::{Datagram, classify};
use namespace::{Host, drain, in_namespace, sh, wait_for, wait_up};
use socket2::{Domain, Socket, Type};

const PORT: u16 = 4500;

/// Another host, and the link to it: `here` and `there`, 10.9.1.1 and .2, fd00:9::1 and ::2.
fn network() -> Host {
    let host = Host::new();
    sh(&format!(
        "ip link add name here type veth peer name there netns {}
         ip link set dev here up
         ip address add 10.9.1.1/24 dev here; ip address add 10.9.1.11/24 dev here
         ip address add fd00:9::1/64 dev here nodad",
        host.pid()
    ));
    host.sh("ip link set dev there up
             ip address add 10.9.1.2/24 dev there; ip address add fd00:9::2/64 dev there nodad");
    wait_up("here");
    host.sh("timeout 10 sh -c 'until ip -6 route show table local | grep -q ^local.fd00:9::2; do sleep 0.01; done'");
    sh(
        "timeout 10 sh -c 'until ping -qc1 -W1 10.9.1.2 && ping -6qc1 -W1 fd00:9::2; do sleep 0.01; done' >/dev/null",
    );
    host
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    here: IpAddr,
    there: IpAddr,
}

fn pair(v6: bool) -> Pair {
    let [here, there] = if v6 { ["fd00:9::1", "fd00:9::2"] } else { ["10.9.1.1", "10.9.1.2"] };
    Pair { here: here.parse().unwrap(), there: there.parse().unwrap() }
}

fn open(v6: bool) -> Underlay {
    if v6 { Underlay::udp6(PORT) } else { Underlay::udp4(PORT) }.unwrap()
}

fn open_gre(v6: bool) -> Underlay {
    if v6 { Underlay::in_udp6(InUdp::Gre) } else { Underlay::in_udp4(InUdp::Gre) }.unwrap()
}

/// Packets as an outbox holds them, one behind the other.
#[derive(Default)]
struct Outbox {
    buf: Vec<u8>,
    packets: Vec<TxPacket>,
}

impl Outbox {
    /// `len` bytes of something that looks like ESP, number `seq`.
    fn push(&mut self, pair: Pair, seq: u32, len: usize) -> &mut TxPacket {
        let port = PortId(self.packets.len() as u16);
        let packet = TxPacket::raw(self.buf.len() as u32, len as u32, pair.there, port);
        self.buf.extend(esp(seq, len));
        self.packets.push(TxPacket { dst_port: PORT, src: Some(pair.here), ..packet });
        self.packets.last_mut().unwrap()
    }

    /// What was sent, and which packets were refused and why.
    fn send(&self, underlay: &Underlay) -> (Sent, Vec<(u16, Refusal)>) {
        let mut refused = Vec::new();
        let sent = underlay.tx(&self.buf, &self.packets, &mut |p, why| refused.push((p.port.0, why)));
        assert_eq!(refused.len(), sent.full + sent.failed);
        assert_eq!(sent.ok + sent.full + sent.failed, self.packets.len());
        (sent, refused)
    }
}

fn esp(seq: u32, len: usize) -> Vec<u8> {
    let head = [&0x1000u32.to_be_bytes()[..], &seq.to_be_bytes()].concat();
    head.into_iter().chain((0..).map(|i| (i + seq) as u8)).take(len).collect()
}

/// Everything that waits: messages, and the packets out of them.
fn receive_all(underlay: &Underlay) -> (usize, Vec<(RxPacket, Vec<u8>)>) {
    let (mut slab, mut packets, mut all, mut messages) = (Slab::new(), Vec::new(), Vec::new(), 0);
    loop {
        let n = underlay.rx(&mut slab, underlay.batch(), &mut packets).unwrap();
        if n == 0 {
            return (messages, all);
        }
        messages += n;
        all.extend(packets.iter().map(|p| (*p, slab.get(p.data).to_vec())));
    }
}

fn receive(underlay: &Underlay, count: usize) -> (usize, Vec<(RxPacket, Vec<u8>)>) {
    let (mut messages, mut all) = (0, Vec::new());
    wait_for("packets", || {
        let (more, packets) = receive_all(underlay);
        messages += more;
        all.extend(packets);
        all.len() >= count
    });
    assert_eq!(all.len(), count);
    (messages, all)
}

/// What tunnels make of superframes: runs of full packets with a shorter one at the end, small packets between them.
fn lengths() -> Vec<usize> {
    let mut all = vec![1400; 40];
    all.extend([1000, 1400, 100, 100, 60, 100]);
    all.extend([1440; 150]);
    all.extend([9, 1400, 1401, 1402, 1402, 700]);
    all.extend([64; 100]);
    all
}

/// Whatever the devices can do, packets arrive as they were sent, in order, each by itself.
fn packets_arrive_in_order(v6: bool) {
    let host = network();
    let (here, there) = (open(v6), host.enter(move || open(v6)));
    let pair = pair(v6);
    let devices = [
        ("as they are", ""),
        // a veth gives to GRO what its peer has not marked as a superframe
        ("cut by the kernel and joined again", "tso off tx-udp-segmentation off tx-gso-list off gro on"),
        ("cut and not joined", "gro off"),
        ("no checksums", "tx off sg off"),
    ];
    for (what, features) in devices {
        if !features.is_empty() {
            sh(&format!("ethtool -K here {features} >/dev/null"));
            host.sh(&format!("ethtool -K there {features} >/dev/null"));
        }
        let mut outbox = Outbox::default();
        for (seq, len) in lengths().into_iter().enumerate() {
            outbox.push(pair, seq as u32, len);
        }
        let (sent, refused) = outbox.send(&here);
        assert_eq!((sent.ok, refused), (outbox.packets.len(), vec![]), "{what}");
        let (messages, got) = receive(&there, sent.ok);
        for (seq, (len, (packet, bytes))) in lengths().into_iter().zip(&got).enumerate() {
            assert_eq!((packet.src, packet.dst, packet.src_port), (pair.here, pair.there, PORT));
            assert_eq!((packet.tos, packet.road), (0, RxRoad::Udp));
            assert_eq!(classify(bytes), Datagram::Esp);
            assert!(*bytes == esp(seq as u32, len), "{what}: packet {seq}");
        }
        println!("{what}: {} packets in {messages} messages", got.len());
        if what.contains("joined again") || features.is_empty() {
            assert!(messages < got.len() / 2, "{what}: {messages} messages");
        }
    }
}

#[test]
fn packets_arrive_in_order_v4() {
    in_namespace("packets_arrive_in_order_v4", || packets_arrive_in_order(false));
}

#[test]
fn packets_arrive_in_order_v6() {
    in_namespace("packets_arrive_in_order_v6", || packets_arrive_in_order(true));
}

/// Source, TOS, TTL and DF are those of the packet, in trains and alone.
#[test]
fn headers_are_what_the_packet_says() {
    in_namespace("headers_are_what_the_packet_says", || {
        let host = network();
        let wire = host.enter(|| LocalPort::packet("there").unwrap());
        for v6 in [false, true] {
            let pair = pair(v6);
            let (here, there) = (open(v6), host.enter(move || open(v6)));
            drain(&wire);
            let mut outbox = Outbox::default();
            let set = |p: &mut TxPacket, tos, ttl, df| (p.tos, p.ttl, p.df) = (tos, ttl, df);
            let changes = [(0, 64, true), (0xb8, 64, true), (3, 7, true), (2, 255, false), (0, 0, true)];
            for (tos, ttl, df) in changes {
                set(outbox.push(pair, 1, 900), tos, ttl, df);
                set(outbox.push(pair, 2, 900), tos, ttl, df);
            }
            if !v6 {
                outbox.push(Pair { here: "10.9.1.11".parse().unwrap(), ..pair }, 3, 33);
                outbox.push(pair, 4, 44).src = None;
            }
            assert_eq!(outbox.send(&here).1, []);
            let (_, got) = receive(&there, outbox.packets.len());
            for (sent, (packet, bytes)) in outbox.packets.iter().zip(&got) {
                assert_eq!(bytes.len() as u32, sent.len);
                assert_eq!((packet.tos, packet.src), (sent.tos, sent.src.unwrap_or(pair.here)));
            }
            // a train is one frame here
            let mut headers = Vec::new();
            for (_, frame) in drain(&wire) {
                let header = match frame[12..14] {
                    [0x08, 0] if frame[23] == 17 => (frame[15], frame[22], frame[20] & 0x40 != 0),
                    [0x86, 0xdd] if frame[20] == 17 => (frame[14] << 4 | frame[15] >> 4, frame[21], true),
                    _ => continue,
                };
                headers.push(header);
            }
            headers.dedup();
            let mut want = vec![(0, 64, true), (0xb8, 64, true), (3, 7, true), (2, 255, v6), (0, 1, true)];
            if !v6 {
                want.push((0, 64, true));
            }
            assert_eq!(headers, want, "IPv6: {v6}");
        }
    });
}

/// A path that takes less than it did: what is too long is refused, packet by packet, and what fits goes.
#[test]
fn what_does_not_fit_is_reported() {
    in_namespace("what_does_not_fit_is_reported", || {
        let host = network();
        for (v6, overhead) in [(false, 28), (true, 48)] {
            let (pair, here, there) = (pair(v6), open(v6), host.enter(move || open(v6)));
            sh("ip link set dev here mtu 1500");
            let send = |lens: &[usize]| {
                let mut outbox = Outbox::default();
                for (seq, len) in lens.iter().enumerate() {
                    outbox.push(pair, seq as u32, *len);
                }
                let (sent, refused) = outbox.send(&here);
                assert!(refused.iter().all(|(_, why)| *why == Refusal::TooBig), "{refused:?}");
                receive(&there, sent.ok);
                refused.into_iter().map(|(port, _)| port).collect::<Vec<_>>()
            };
            let most = 1500 - overhead;
            assert_eq!(send(&[most, most, most, 100]), []);
            assert_eq!(send(&[most + 1]), [0]);
            assert_eq!(send(&[most + 1, most + 1, most, 100, most]), [0, 1]);
            sh("ip link set dev here mtu 1400");
            let most = 1400 - overhead;
            assert_eq!(send(&[most + 1, most + 1, most, most]), [0, 1]);
            sh(
                "ip route replace 10.9.1.2 dev here mtu 1300; ip -6 route replace fd00:9::2 dev here mtu 1300",
            );
            let most = 1300 - overhead;
            assert_eq!(send(&[most + 1, most + 1, most + 1, 100, most]), [0, 1, 2]);
            sh("ip route del 10.9.1.2 dev here; ip -6 route del fd00:9::2 dev here");
        }
    });
}

/// A router on the way says that it takes less.
#[test]
fn path_mtus_are_learned() {
    in_namespace("path_mtus_are_learned", || {
        let host = network();
        // the far end is behind the other host now, on a device with a smaller MTU
        host.sh("ip link add name inner mtu 1300 type veth peer name far; ip link set dev far up; ip link set dev inner up
                 sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
                 ip address add 10.9.2.1/24 dev inner; ip address add fd00:99::1/64 dev inner nodad");
        sh("ip route add 10.9.2.0/24 via 10.9.1.2; ip -6 route add fd00:99::/64 via fd00:9::2");
        for (v6, far, overhead) in [(false, "10.9.2.9", 28), (true, "fd00:99::9", 48)] {
            let (here, pair) = (open(v6), Pair { there: far.parse().unwrap(), ..pair(v6) });
            let send = |len| {
                let mut outbox = Outbox::default();
                for seq in 0..3 {
                    outbox.push(pair, seq, len);
                }
                outbox.send(&here).1
            };
            wait_for("word from the router", || send(1400) == [0, 1, 2].map(|i| (i, Refusal::TooBig)));
            assert_eq!(send(1300 - overhead + 1), [0, 1, 2].map(|i| (i, Refusal::TooBig)));
            assert_eq!(send(1300 - overhead), []);
        }
    });
}

/// A message as long as certificates make it crosses where no packet that long does.
#[test]
fn ike_goes_in_fragments_where_it_must() {
    in_namespace("ike_goes_in_fragments_where_it_must", || {
        let host = network();
        for v6 in [false, true] {
            let (pair, here, there) = (pair(v6), open(v6), host.enter(move || open(v6)));
            for len in [28, 1400, 5000] {
                let message = esp(7, len);
                here.send_ike(pair.here, SocketAddr::new(pair.there, PORT), &message).unwrap();
                let (_, got) = receive(&there, 1);
                assert_eq!(classify(&got[0].1), Datagram::Ike(&message));
                assert_eq!((got[0].0.src, got[0].0.src_port), (pair.here, PORT));
            }
            here.send_keepalive(pair.here, SocketAddr::new(pair.there, PORT)).unwrap();
            let (_, got) = receive(&there, 1);
            assert_eq!(classify(&got[0].1), Datagram::Keepalive);
            // and packets are still refused
            let mut outbox = Outbox::default();
            outbox.push(pair, 0, 1500);
            assert_eq!(outbox.send(&here).1, [(0, Refusal::TooBig)]);
        }
        assert!(
            Underlay::gre4()
                .unwrap()
                .send_ike(pair(false).here, SocketAddr::from(([127, 0, 0, 1], 1)), &[0; 28])
                .is_err()
        );
    });
}

#[test]
fn another_daemon_has_the_port() {
    in_namespace("another_daemon_has_the_port", || {
        let other = (UdpSocket::bind(("0.0.0.0", PORT)).unwrap(), UdpSocket::bind(("::1", PORT)).unwrap());
        for error in [Underlay::udp4(PORT).unwrap_err(), Underlay::udp6(PORT).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(error.to_string().contains("another IKE daemon"), "{error}");
        }
        drop(other);
        // both families at once
        let _both = (Underlay::udp4(PORT).unwrap(), Underlay::udp6(PORT).unwrap());
        assert_eq!(Underlay::udp4(PORT).unwrap_err().kind(), ErrorKind::AddrInUse);
    });
}

/// The socket that only sends shares the port with the other as it is bound, and nobody else does before or after.
#[test]
fn nobody_shares_the_port() {
    in_namespace("nobody_shares_the_port", || {
        let another = |ip: &str| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            let address: SocketAddr = format!("{ip}:{PORT}").parse().unwrap();
            socket.bind(&address.into()).map_err(|e| e.kind())
        };
        for lo in ["up", "down"] {
            sh(&format!("ip link set dev lo {lo}"));
            let underlay = open(false);
            assert_eq!(another("0.0.0.0"), Err(ErrorKind::AddrInUse), "lo is {lo}");
            drop(underlay);
            assert_eq!(another("0.0.0.0"), Ok(()), "lo is {lo}");
        }
    });
}

/// Packets that cannot go hold up none of those that can.
#[test]
fn one_unreachable_peer_does_not_hold_up_another() {
    in_namespace("one_unreachable_peer_does_not_hold_up_another", || {
        let host = network();
        let (pair, here, there) = (pair(false), open(false), host.enter(|| open(false)));
        sh("ip route add prohibit 10.9.3.0/24; ip route add unreachable 10.9.4.0/24
            nft 'add table ip t; add chain ip t o { type filter hook output priority 0; }; \
            add rule ip t o ip daddr 10.9.1.5 drop'");
        let to = |there: &str| Pair { there: there.parse().unwrap(), ..pair };
        let mut outbox = Outbox::default();
        for far in ["10.9.1.2", "10.8.0.1", "10.9.3.1", "10.9.4.1", "10.9.1.5", "fd00:9::2", "10.9.1.2"] {
            outbox.push(to(far), 1, 700);
            outbox.push(to(far), 2, 700);
        }
        // from an address that is not here, and one whose bytes are nowhere
        outbox.push(Pair { here: "10.9.1.77".parse().unwrap(), ..pair }, 3, 100);
        outbox.push(pair, 4, 100).start = 1 << 31;
        outbox.push(pair, 5, 100);
        let (sent, refused) = outbox.send(&here);
        let mut failed: Vec<u16> = refused.iter().map(|(port, _)| *port).collect();
        failed.sort_unstable();
        assert_eq!(failed, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15]);
        assert!(refused.iter().all(|(_, why)| *why == Refusal::Failed), "{refused:?}");
        receive(&there, sent.ok);
        sh("ip link set dev here down");
        assert_eq!(outbox.send(&here).0.ok, 0);
    });
}

/// Word that nobody listens there stops nothing.
#[test]
fn icmp_errors_do_not_stall_the_socket() {
    in_namespace("icmp_errors_do_not_stall_the_socket", || {
        let host = network();
        for v6 in [false, true] {
            let (pair, here) = (pair(v6), open(v6));
            let mut outbox = Outbox::default();
            (0..50).for_each(|seq| _ = outbox.push(pair, seq, 1000));
            for _ in 0..20 {
                assert_eq!(outbox.send(&here).1, []);
                assert!(receive_all(&here).1.is_empty());
            }
            let there = host.enter(move || open(v6));
            outbox.send(&here);
            receive(&there, 50);
        }
    });
}

#[test]
fn packets_that_find_the_buffer_full_are_counted() {
    in_namespace("packets_that_find_the_buffer_full_are_counted", || {
        let host = network();
        let (pair, here, there) = (pair(false), open(false), host.enter(|| open(false)));
        let mut outbox = Outbox::default();
        (0..45).for_each(|seq| _ = outbox.push(pair, seq, 1400));
        let (mut sent, mut lost) = (0, 0);
        while lost == 0 && sent < 100_000 {
            for _ in 0..20 {
                sent += outbox.send(&here).0.ok as u64;
            }
            lost += there.take_lost();
        }
        assert!(lost > 0 && lost < sent, "{lost} of {sent}");
        let received = receive_all(&there).1.len() as u64;
        assert!(received + lost + there.take_lost() <= sent);
        assert_eq!(there.take_lost(), 0);
    });
}

#[test]
fn a_batch_is_bounded() {
    assert!((1..=SLOTS).contains(&Underlay::udp4(0).unwrap().batch()));
}

/// A flow leaves from a port of its own, in order; all of them arrive at 4754 (RFC 8086 section 3.2).
#[test]
fn gre_leaves_from_as_many_ports_as_there_are() {
    in_namespace("gre_leaves_from_as_many_ports_as_there_are", || {
        let host = network();
        for v6 in [false, true] {
            let pair = pair(v6);
            // another program has what would be the second
            let taken = UdpSocket::bind((pair.here, 49152 + 1021)).unwrap();
            let (here, there) = (open_gre(v6), host.enter(move || open_gre(v6)));
            assert_eq!((here.road(), here.is_ipv6()), (RxRoad::InUdp(InUdp::Gre), v6));
            let mut outbox = Outbox::default();
            let lens: Vec<usize> = lengths().into_iter().chain(vec![1400; 200]).collect();
            for (seq, len) in lens.iter().enumerate() {
                let packet = outbox.push(pair, seq as u32, *len);
                (packet.dst_port, packet.src) = (GRE_UDP_PORT, None);
                packet.entropy = (seq / 7) as u8 % SOURCE_PORTS;
                // what may be fragmented goes by itself, from the same port
                packet.df = seq % 50 != 0;
            }
            assert_eq!(outbox.send(&here).1, []);
            let (_, got) = receive(&there, lens.len());
            let mut ports = BTreeMap::new();
            let mut next: BTreeMap<u16, usize> = BTreeMap::new();
            for (packet, bytes) in &got {
                assert_eq!(
                    (packet.src, packet.dst, packet.road),
                    (pair.here, pair.there, RxRoad::InUdp(InUdp::Gre))
                );
                let seq = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
                assert!(*bytes == esp(seq as u32, lens[seq]), "packet {seq}");
                let entropy = outbox.packets[seq].entropy;
                assert_eq!(*ports.entry(entropy).or_insert(packet.src_port), packet.src_port);
                let next = next.entry(packet.src_port).or_default();
                assert!(seq >= *next, "{seq} came after {next}");
                *next = seq + 1;
            }
            assert_eq!((ports.len(), next.len()), (usize::from(SOURCE_PORTS), usize::from(SOURCE_PORTS)));
            assert!(next.keys().all(|port| *port >= 49152) && next.contains_key(&49152), "{next:?}");
            assert!(!next.contains_key(&(49152 + 1021)) && next.contains_key(&(49152 + 1022)), "{next:?}");
            // nobody fills the buffers of sockets that only send
            taken.send_to(&[0; 100], (pair.here, 49152)).unwrap();
            sh("test -z \"$(ss -Huna 'sport = :49152' | awk '$2 > 0')\"");
            assert!(receive_all(&here).1.is_empty());
        }
        let _other = UdpSocket::bind(("0.0.0.0", GRE_UDP_PORT)).unwrap();
        let error = Underlay::in_udp4(InUdp::Gre).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("ip fou"), "{error}");
    });
}

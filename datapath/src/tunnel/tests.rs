//! Protected tunnels, out and in again.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use proptest::prelude::*;

use super::decap::decap;
use super::encap::Encap;
use super::*;
use crate::counters::DropReason;
use crate::esp::{InboundSa, OutboundSa, Road, SaConfig, SaKey, Selector};
use crate::offload::testing::{Spec, assert_checksums, ip_of, spec, tcp_spec};
use crate::offload::{Fit, FrameSink, fit};
use crate::port::{InUdp, RxPacket, TxPacket};
use crate::slab::{Piece, Slab};
use crate::snapshot::{BridgeId, Policy, Port, PortId, PortKind, Snapshot};
use crate::vnet::VnetHdr;
use crate::wire::{ipv4, put16};

const OUT: u32 = 0x0000_1001;
const IN: u32 = 0x0000_2001;
const VXLAN: InUdp = InUdp::Vxlan(4789);
const GENEVE: InUdp = InUdp::Geneve(6081);

/// Two hosts that use the same keys both ways, so that what one sends can be received by itself as if from the other.
#[derive(Debug, Clone)]
struct Setup {
    road: RxRoad,
    v6: bool,
    esn: bool,
    tunnel: TunnelConfig,
    mtu: u32,
    hard_packets: u64,
    may_send_plain: bool,
    outbound: bool,
    inbound: bool,
}

impl Setup {
    fn new(road: RxRoad, v6: bool) -> Setup {
        let tunnel = TunnelConfig::to(there(v6));
        Setup {
            road,
            v6,
            esn: true,
            tunnel,
            mtu: 1500,
            hard_packets: u64::MAX,
            may_send_plain: false,
            outbound: true,
            inbound: true,
        }
    }

    fn host(&self) -> Host {
        let key = || SaKey::aes_gcm(&[0x77; 20]).unwrap();
        let port = Arc::new(AtomicU16::new(4500));
        let config = |spi| SaConfig {
            spi,
            selector: self.selector(),
            local: here(self.v6),
            remote: there(self.v6),
            esn: self.esn,
            road: match self.road {
                RxRoad::Udp => Road::Udp { remote_port: Arc::clone(&port), local_port: 4500 },
                _ => Road::Esp,
            },
            hard_packets: self.hard_packets,
            hard_bytes: u64::MAX,
        };
        let id = PolicyId(1);
        let inbound = Arc::new(InboundSa::new(config(IN), key(), id, 4096));
        let outbound = Arc::new(OutboundSa::new(config(OUT), key()));
        let policy = Policy {
            name: "gre0".into(),
            local: None,
            remote: there(self.v6),
            outbound: self.outbound.then_some(outbound),
            may_send_plain: self.may_send_plain,
        };
        let mut snapshot = Snapshot { policies: vec![None, Some(Arc::new(policy))], ..Snapshot::default() };
        if self.inbound {
            snapshot.inbound.insert(IN, Arc::clone(&inbound));
        }
        let tunnel = Tunnel::new(self.tunnel.clone(), Some(here(self.v6)), self.mtu);
        let mut host = Host { snapshot, inbound, port };
        let protected = !matches!(self.road, RxRoad::InUdp(_)) && self.tunnel.in_udp != Some(InUdp::Gre);
        host.add(Tunnel { policy: protected.then_some(id), ..tunnel });
        host
    }

    fn selector(&self) -> Selector {
        match self.tunnel.in_udp {
            None | Some(InUdp::Gre) => Selector::Gre,
            Some(kind) => Selector::InUdp { kind, from_port: false },
        }
    }
}

struct Host {
    snapshot: Snapshot,
    inbound: Arc<InboundSa>,
    port: Arc<AtomicU16>,
}

fn here(v6: bool) -> IpAddr {
    if v6 { "fd00::1".parse().unwrap() } else { [10, 9, 0, 1].into() }
}

fn there(v6: bool) -> IpAddr {
    if v6 { "fd00::2".parse().unwrap() } else { [10, 9, 0, 2].into() }
}

impl Host {
    fn add(&mut self, tunnel: Tunnel) {
        let id = PortId(self.snapshot.ports.len() as u16);
        let kind = PortKind::Tunnel(Arc::new(tunnel));
        let port = Port::new(id, BridgeId(0), 1, format!("gre{}", id.0), kind);
        self.snapshot.ports.push(Some(Arc::new(port)));
        self.snapshot.demux = Demux::build(self.snapshot.ports.iter().flatten()).unwrap();
    }

    fn tunnel(&self) -> &Tunnel {
        match &self.snapshot.port(PortId(0)).unwrap().kind {
            PortKind::Tunnel(tunnel) => tunnel,
            PortKind::Local(_) | PortKind::Patch(_) => unreachable!(),
        }
    }

    /// What the frame becomes, and why no more.
    fn send(&self, frame: &[u8], vnet: &VnetHdr) -> (Vec<(TxPacket, Vec<u8>)>, Option<DropReason>) {
        let tunnel = self.tunnel();
        let way = match self.snapshot.way(tunnel) {
            Ok(way) => way,
            Err(why) => return (Vec::new(), Some(why)),
        };
        let ip = crate::wire::parse(frame).and_then(|p| p.ip);
        let mut outbox = Outbox::new();
        let mut encap = Encap::new(tunnel, PortId(0), way, ip.as_ref(), 5, &mut outbox).unwrap();
        let fitted = fit(frame, vnet, tunnel.max_frame(way.road()), &mut encap);
        encap.finish();
        let why = match fitted {
            Fit::Sent(_) => encap.refused,
            Fit::Dropped(why) => Some(why),
            Fit::TooBig { .. } => Some(DropReason::TooBig),
        };
        let (buf, packets) = outbox.packets();
        let bytes = |p: &TxPacket| buf[p.start as usize..][..p.len as usize].to_vec();
        (packets.iter().map(|p| (*p, bytes(p))).collect(), why)
    }

    /// The frame in a packet from the other host, whose bytes are `data`.
    fn receive(&self, road: RxRoad, data: &[u8]) -> Result<(Vec<u8>, VnetHdr), DropReason> {
        let v6 = self.tunnel().config.remote.is_ipv6();
        let packet =
            RxPacket { road, data: Piece::default(), src: there(v6), src_port: 4500, dst: here(v6), tos: 0 };
        self.receive_packet(packet, data)
    }

    fn receive_packet(&self, packet: RxPacket, data: &[u8]) -> Result<(Vec<u8>, VnetHdr), DropReason> {
        let mut slab = Slab::new();
        let piece = Piece { len: data.len() as u32, ..Slab::slot(1) };
        slab.get_mut(piece).copy_from_slice(data);
        let got = decap(&self.snapshot, &mut slab, &RxPacket { data: piece, ..packet }, 9);
        got.map(|(port, frame, vnet)| {
            assert_eq!(port, PortId(0));
            (slab.get(frame).to_vec(), vnet)
        })
    }

    /// Our own packet as the other host would have sent it: behind the outer IP header, to our SPI. The key is the same, and
    /// the SPI is authenticated, so it is sealed anew.
    fn reflect(&self, sent: &[u8]) -> Vec<u8> {
        let esp = &sent[self.ip_len()..];
        let mut packet = esp.to_vec();
        let number = u64::from_be_bytes(esp[8..16].try_into().unwrap());
        let key = SaKey::aes_gcm(&[0x77; 20]).unwrap();
        let aad = |spi| crate::esp::key::Aad { spi, number, esn: self.inbound.config.esn };
        let plain = crate::esp::open::decrypt(&key, aad(OUT), &mut packet).unwrap().to_vec();
        let (payload, next_header) = crate::esp::open::unpad(&plain).unwrap();
        let iv = number.to_be_bytes();
        crate::esp::seal::seal(&key, aad(IN), iv, payload, next_header, &mut packet).unwrap();
        packet
    }

    fn ip_len(&self) -> usize {
        let udp = matches!(self.inbound.config.road, Road::Udp { .. });
        if udp { 0 } else { self.tunnel().ip_len() }
    }
}

fn setup() -> impl Strategy<Value = Setup> {
    let road = prop_oneof![Just(RxRoad::Esp), Just(RxRoad::Udp)];
    let in_udp = prop_oneof![Just(None), Just(Some(VXLAN)), Just(Some(GENEVE))];
    let options = (any::<Option<u32>>(), any::<bool>(), any::<bool>(), any::<bool>(), in_udp);
    (road, any::<bool>(), any::<bool>(), options).prop_map(|(road, v6, esn, (key, csum, seq, df, in_udp))| {
        let setup = Setup { esn, ..Setup::new(road, v6) };
        let key = if in_udp.is_some() { key.map(|vni| vni >> 8) } else { key };
        let seq = seq && in_udp.is_none();
        let tunnel =
            TunnelConfig { in_key: key, out_key: key, csum, seq, df, in_udp, ..setup.tunnel.clone() };
        Setup { tunnel, ..setup }
    })
}

proptest! {
    #[test]
    fn a_frame_comes_out_as_it_went_in(setup in setup(), spec in spec(1300)) {
        let host = setup.host();
        let frame = spec.frame();
        let (sent, refused) = host.send(&frame, &VnetHdr::default());
        prop_assert_eq!((sent.len(), refused), (1, None));
        let (packet, bytes) = &sent[0];
        prop_assert_eq!(packet.frame as usize, frame.len());
        // nothing of it can be read
        prop_assert!(!bytes.windows(16).any(|w| frame.windows(16).any(|f| w == f)));
        let (got, vnet) = host.receive(setup.road, &host.reflect(bytes)).unwrap();
        prop_assert_eq!(got, frame);
        prop_assert_eq!(vnet, VnetHdr::default());
        prop_assert_eq!(host.inbound.usage().last, Some(9));
    }

    #[test]
    fn a_superframe_becomes_packets_that_fit(setup in setup(), spec in tcp_spec(20_000)) {
        let host = setup.host();
        let (frame, vnet) = spec.offloaded(1448);
        let (sent, refused) = host.send(&frame, &vnet);
        prop_assert_eq!(refused, None);
        let mut payload = Vec::new();
        for (number, (packet, bytes)) in sent.iter().enumerate() {
            let unseen = if setup.road == RxRoad::Udp { host.tunnel().ip_len() + 8 } else { 0 };
            prop_assert!(bytes.len() + unseen <= 1500);
            let esp = &bytes[host.ip_len()..];
            prop_assert_eq!(&esp[..4], &OUT.to_be_bytes());
            prop_assert_eq!(&esp[4..8], &(number as u32 + 1).to_be_bytes());
            prop_assert_eq!(packet.dst, there(setup.v6));
            let (got, _) = host.receive(setup.road, &host.reflect(bytes)).unwrap();
            assert_checksums(&got);
            payload.extend_from_slice(crate::offload::testing::payload_of(&got));
        }
        prop_assert_eq!(payload, spec.payload());
    }
}

#[test]
fn the_longest_frame_fits_exactly() {
    let in_udp = [InUdp::Gre, InUdp::Vxlan(4789), InUdp::Geneve(6081)].map(RxRoad::InUdp);
    let roads = [RxRoad::Gre, RxRoad::Esp, RxRoad::Udp].into_iter().chain(in_udp).map(|road| (road, None));
    let protected = [RxRoad::Esp, RxRoad::Udp].map(|road| (road, Some(VXLAN)));
    for (road, inside, v6) in roads.chain(protected).flat_map(|(r, i)| [(r, i, false), (r, i, true)]) {
        for (csum, seq, out_key) in [(false, false, None), (false, true, None), (true, true, Some(1))] {
            for mtu in 1280..1510 {
                let mut setup = Setup { mtu, ..Setup::new(road, v6) };
                setup.tunnel = TunnelConfig { csum, seq, out_key, ..setup.tunnel };
                setup.outbound = road != RxRoad::Gre;
                setup.may_send_plain = road == RxRoad::Gre;
                setup.tunnel.in_udp = match road {
                    RxRoad::InUdp(kind) => Some(kind),
                    _ => inside,
                };
                let host = setup.host();
                let unseen = if matches!(road, RxRoad::Udp | RxRoad::InUdp(_)) {
                    host.tunnel().ip_len() + 8
                } else {
                    0
                };
                let longest = host.tunnel().max_frame(road);
                assert_eq!(host.snapshot.max_frame(host.tunnel()), longest);
                for (len, fits) in [(longest, true), (longest + 1, false)] {
                    let way = host.snapshot.way(host.tunnel()).unwrap();
                    assert_eq!(way.road(), road);
                    let mut outbox = Outbox::new();
                    let mut encap = Encap::new(host.tunnel(), PortId(0), way, None, 0, &mut outbox).unwrap();
                    encap.slot(len).unwrap().fill(7);
                    encap.finish();
                    let sent = outbox.packets().1[0].len as usize + unseen;
                    assert_eq!(sent <= mtu as usize, fits, "{road:?} v6 {v6} mtu {mtu}: {len} became {sent}");
                }
            }
        }
    }
}

#[test]
fn what_stands_outside() {
    let frame = Spec { tos: 0x2a, ..Spec::udp(100) }.frame();
    for v6 in [false, true] {
        let mut setup = Setup::new(RxRoad::Esp, v6);
        setup.tunnel = TunnelConfig { tos: Tos::Inherit, ttl: Ttl::Fixed(9), df: false, ..setup.tunnel };
        let (sent, _) = setup.host().send(&frame, &VnetHdr::default());
        let bytes = &sent[0].1;
        let len = bytes.len() as u16;
        if v6 {
            let [a, b] = (len - 40).to_be_bytes();
            assert_eq!(bytes[..8], [0x62, 0xa0, 0, 0, a, b, 50, 9]);
            assert_eq!((bytes[23], bytes[39]), (1, 2));
        } else {
            let [a, b] = len.to_be_bytes();
            assert_eq!(bytes[..20], [0x45, 0x2a, a, b, 0, 0, 0, 0, 9, 50, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
        }
        let setup = Setup { road: RxRoad::Udp, ..setup };
        let host = setup.host();
        host.port.store(61_000, Relaxed);
        let (packet, bytes) = host.send(&frame, &VnetHdr::default()).0.remove(0);
        assert_eq!((packet.dst, packet.dst_port, packet.src), (there(v6), 61_000, Some(here(v6))));
        assert_eq!((packet.tos, packet.ttl, packet.df), (0x2a, 9, false));
        assert_eq!(bytes[..4], OUT.to_be_bytes());
    }
}

#[test]
fn a_protected_tunnel_never_speaks_plainly() {
    let frame = Spec::udp(100).frame();
    let none = Setup { outbound: false, ..Setup::new(RxRoad::Esp, false) };
    let host = none.host();
    let (sent, refused) = host.send(&frame, &VnetHdr::default());
    assert_eq!((sent.len(), refused), (0, Some(DropReason::EspNoOutbound)));
    // nor with a policy that is not there
    let mut host = none.host();
    host.snapshot.policies.clear();
    assert_eq!(host.send(&frame, &VnetHdr::default()).1, Some(DropReason::EspNoOutbound));
    // but where it was told to
    let allowed = Setup { may_send_plain: true, ..none };
    let (sent, _) = allowed.host().send(&frame, &VnetHdr::default());
    assert!(sent[0].1.ends_with(&frame));
    // and then, too, only for want of an SA
    let (sent, _) = Setup { outbound: true, ..allowed }.host().send(&frame, &VnetHdr::default());
    assert_eq!(sent[0].1[9], 50);
}

#[test]
fn what_was_not_closed_is_not_sent() {
    let host = Setup::new(RxRoad::Esp, false).host();
    let way = host.snapshot.way(host.tunnel()).unwrap();
    let mut outbox = Outbox::new();
    let mut encap = Encap::new(host.tunnel(), PortId(0), way, None, 0, &mut outbox).unwrap();
    encap.slot(100).unwrap().fill(7);
    encap.slot(100).unwrap().fill(8);
    assert_eq!((encap.packets, encap.bytes), (1, 100));
    assert_eq!(outbox.packets().1.len(), 1);
}

#[test]
fn an_sa_that_is_used_up_sends_no_more() {
    let host = Setup { hard_packets: 5, ..Setup::new(RxRoad::Udp, false) }.host();
    let (frame, vnet) = Spec::tcp(14_000).offloaded(1000);
    let (sent, refused) = host.send(&frame, &vnet);
    assert_eq!((sent.len(), refused), (5, Some(DropReason::EspLimit)));
    let (sent, refused) = host.send(&frame, &vnet);
    assert_eq!((sent.len(), refused), (0, Some(DropReason::EspLimit)));
}

#[test]
fn plain_gre_is_not_taken_for_a_protected_tunnel() {
    let setup = Setup::new(RxRoad::Esp, false);
    let gre = [&[0, 0, 0x65, 0x58], &Spec::udp(100).frame()[..]].concat();
    assert_eq!(setup.host().receive(RxRoad::Gre, &gre), Err(DropReason::GrePlain));
    let allowed = Setup { may_send_plain: true, ..setup };
    assert!(allowed.host().receive(RxRoad::Gre, &gre).is_ok());
    let mut host = allowed.host();
    host.snapshot.policies.clear();
    assert_eq!(host.receive(RxRoad::Gre, &gre), Err(DropReason::GrePlain));
}

#[test]
fn in_udp_is_a_tunnel_of_its_own() {
    let gre = [&[0, 0, 0x65, 0x58], &Spec::udp(100).frame()[..]].concat();
    for v6 in [false, true] {
        let plain = Setup { may_send_plain: true, ..Setup::new(RxRoad::Esp, v6) };
        let mut in_udp = plain.clone();
        in_udp.tunnel.in_udp = Some(InUdp::Gre);
        for (setup, takes, refuses) in [
            (plain, RxRoad::Gre, RxRoad::InUdp(InUdp::Gre)),
            (in_udp, RxRoad::InUdp(InUdp::Gre), RxRoad::Gre),
        ] {
            assert!(setup.host().receive(takes, &gre).is_ok());
            assert_eq!(setup.host().receive(refuses, &gre), Err(DropReason::GreNoTunnel));
        }
    }
}

/// A packet from the other host with that payload, whatever it is.
fn from_there(host: &Host, number: u64, payload: &[u8], next_header: u8) -> Vec<u8> {
    let mut packet = vec![0; crate::esp::sealed_len(payload.len())];
    packet[16..][..payload.len()].copy_from_slice(payload);
    let key = SaKey::aes_gcm(&[0x77; 20]).unwrap();
    let aad = crate::esp::key::Aad { spi: IN, number, esn: host.inbound.config.esn };
    crate::esp::seal::seal(&key, aad, number.to_be_bytes(), payload.len(), next_header, &mut packet).unwrap();
    packet
}

#[test]
fn every_refusal_has_its_reason() {
    let setup = Setup::new(RxRoad::Esp, false);
    let host = setup.host();
    let gre = [&[0, 0, 0x65, 0x58], &Spec::udp(100).frame()[..]].concat();
    let packet = |number| from_there(&host, number, &gre, 47);
    let why = |data: &[u8]| host.receive(RxRoad::Esp, data).err();

    assert_eq!(why(&packet(1)), None);
    assert_eq!(why(&packet(1)), Some(DropReason::EspReplayed));
    assert_eq!(why(&from_there(&host, 2, &[], 59)), Some(DropReason::EspDummy));
    assert_eq!(why(&from_there(&host, 3, &gre, 4)), Some(DropReason::EspNextHeader));
    assert_eq!(why(&packet(4)[..33]), Some(DropReason::EspMalformed));
    assert_eq!(why(&packet(4)[..3]), Some(DropReason::EspMalformed));
    let mut forged = packet(4);
    forged[30] ^= 4;
    assert_eq!(why(&forged), Some(DropReason::EspIcv));
    let mut unknown = packet(4);
    unknown[0] ^= 4;
    assert_eq!(why(&unknown), Some(DropReason::EspNoSa));
    assert_eq!(why(&from_there(&host, 5, &[0, 0, 0x65], 47)), Some(DropReason::Malformed));
    assert_eq!(why(&from_there(&host, 6, &[0, 0, 8, 0, 1], 47)), Some(DropReason::GreProtocol));
    // a key that no tunnel has
    let keyed = [&[0x20, 0, 0x65, 0x58, 0, 0, 0, 9], &gre[4..]].concat();
    assert_eq!(why(&from_there(&host, 7, &keyed, 47)), Some(DropReason::GreNoTunnel));
    // after all of that the next good one still passes
    assert_eq!(why(&packet(8)), None);
}

#[test]
fn selectors() {
    let gre = [&[0x20, 0, 0x65, 0x58, 0, 0, 0, 9], &Spec::udp(100).frame()[..]].concat();
    // another tunnel to the same host, not protected, or by another policy
    for policy in [None, Some(PolicyId(0)), Some(PolicyId(7))] {
        let mut host = Setup::new(RxRoad::Esp, false).host();
        let config = TunnelConfig { in_key: Some(9), ..TunnelConfig::to(there(false)) };
        host.add(Tunnel { policy, ..Tunnel::new(config, None, 1500) });
        let data = from_there(&host, 1, &gre, 47);
        assert_eq!(host.receive(RxRoad::Esp, &data), Err(DropReason::EspSelector), "{policy:?}");
    }
    // from another host, or to another address of this one
    let host = Setup::new(RxRoad::Udp, false).host();
    let data = from_there(&host, 1, &gre, 47);
    let packet = RxPacket {
        road: RxRoad::Udp,
        data: Piece::default(),
        src: there(false),
        src_port: 4500,
        dst: here(false),
        tos: 0,
    };
    let other = IpAddr::from([10, 9, 0, 9]);
    for wrong in [RxPacket { src: other, ..packet }, RxPacket { dst: other, ..packet }] {
        assert_eq!(host.receive_packet(wrong, &data), Err(DropReason::EspSelector));
    }
    assert_eq!(host.inbound.usage().packets, 0);
}

#[test]
fn answers_follow_the_far_ends_nat() {
    let host = Setup::new(RxRoad::Udp, false).host();
    let gre = [&[0, 0, 0x65, 0x58], &Spec::udp(100).frame()[..]].concat();
    let receive = |number, src_port, damage: u8| {
        let mut data = from_there(&host, number, &gre, 47);
        data[30] ^= damage;
        let (src, dst) = (there(false), here(false));
        let packet = RxPacket { road: RxRoad::Udp, data: Piece::default(), src, src_port, dst, tos: 0 };
        let passed = host.receive_packet(packet, &data).is_ok();
        (passed, host.port.load(Relaxed))
    };
    assert_eq!(receive(5, 4500, 0), (true, 4500));
    assert_eq!(receive(6, 61_000, 0), (true, 61_000));
    // neither a late packet nor a forged one moves it
    assert_eq!(receive(4, 4500, 0), (true, 61_000));
    assert_eq!(receive(7, 666, 1), (false, 61_000));
    // and raw ESP, which has no port, is taken on a UDP SA, too
    let data = from_there(&host, 8, &gre, 47);
    assert!(host.receive(RxRoad::Esp, &data).is_ok());
    assert_eq!(host.port.load(Relaxed), 61_000);
}

/// A checksum that looks partial is a coincidence here: no kernel has held the packet.
#[test]
fn nothing_is_recognized_in_what_comes_out_of_esp() {
    let (frame, _) = Spec::tcp(3000).offloaded(1000);
    let mut gre = [&[0, 0, 0x65, 0x58], &frame[..]].concat();
    let mut setup = Setup::new(RxRoad::Esp, false);
    setup.may_send_plain = true;
    let host = setup.host();
    assert!(host.receive(RxRoad::Gre, &gre).unwrap().1.is_gso());
    // GRE in UDP comes from kernels on the same machine in that shape, too
    let mut in_udp = setup.clone();
    in_udp.tunnel.in_udp = Some(InUdp::Gre);
    assert!(in_udp.host().receive(RxRoad::InUdp(InUdp::Gre), &gre).unwrap().1.is_gso());
    assert_eq!(
        host.receive(RxRoad::Esp, &from_there(&host, 1, &gre, 47)).unwrap(),
        (frame, VnetHdr::default())
    );
    // so its GRE checksum must be right
    gre.splice(0..4, [0x80, 0, 0x65, 0x58, 0, 1, 0, 0]);
    assert_eq!(host.receive(RxRoad::Esp, &from_there(&host, 2, &gre, 47)), Err(DropReason::GreChecksum));
}

#[test]
fn congestion_marks_pass() {
    let host = Setup::new(RxRoad::Esp, false).host();
    let frame = |ecn: u8| {
        let mut frame = Spec { v6: false, ..Spec::udp(10) }.frame();
        frame[15] = ecn;
        ipv4::set_checksum(&mut frame[14..34]);
        put16(&mut frame, 14 + 20 + 6, 0);
        frame
    };
    let (src, dst) = (there(false), here(false));
    let marked = RxPacket { road: RxRoad::Esp, data: Piece::default(), src, src_port: 0, dst, tos: 3 };
    for (number, ecn, want) in [(1, 2, Ok(3)), (2, 1, Ok(3)), (3, 0, Err(DropReason::EcnDrop))] {
        let gre = [&[0, 0, 0x65, 0x58], &frame(ecn)[..]].concat();
        let got = host.receive_packet(marked, &from_there(&host, number, &gre, 47));
        assert_eq!(got.map(|(frame, _)| ip_of(&frame).ecn()), want);
    }
}

/// VXLAN in ESP: UDP with the flow's source port, the length, and a checksum where kernels want one.
#[test]
fn what_stands_inside_for_vxlan() {
    let frame = Spec::udp(100).frame();
    for v6 in [false, true] {
        let mut setup = Setup::new(RxRoad::Esp, v6);
        setup.tunnel =
            TunnelConfig { in_udp: Some(VXLAN), in_key: Some(7), out_key: Some(7), ..setup.tunnel };
        let host = setup.host();
        let sent = host.send(&frame, &VnetHdr::default()).0.remove(0).1;
        let mut esp = sent[host.ip_len()..].to_vec();
        assert_eq!(sent[if v6 { 6 } else { 9 }], 50);
        let key = SaKey::aes_gcm(&[0x77; 20]).unwrap();
        let aad = crate::esp::key::Aad { spi: OUT, number: 1, esn: true };
        let plain = crate::esp::open::decrypt(&key, aad, &mut esp).unwrap();
        let (len, next_header) = crate::esp::open::unpad(plain).unwrap();
        assert_eq!(next_header, 17);
        let plain = &plain[..len];
        assert_eq!(plain[..4], [0xc0, 0, 0x12, 0xb5]);
        assert_eq!(plain[4..6], (len as u16).to_be_bytes());
        assert_eq!(plain[6..8] != [0, 0], v6, "a checksum over IPv6 alone");
        assert_eq!(plain[8..16], [8, 0, 0, 0, 0, 0, 7, 0]);
        assert_eq!(plain[16..], frame);
    }
}

/// What an SA is not for does not come in by it, whoever has sealed it; nor does a tunnel of one kind take what the SAs of
/// another have vouched for.
#[test]
fn gre_and_vxlan_do_not_pass_for_each_other() {
    let vxlan = {
        let mut datagram = vec![0xc0, 0, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
        datagram.extend(Spec::udp(100).frame());
        let len = datagram.len() as u16;
        put16(&mut datagram, 4, len);
        datagram
    };
    let gre = [&[0, 0, 0x65, 0x58], &Spec::udp(100).frame()[..]].concat();
    let of_gre = Setup::new(RxRoad::Esp, false);
    let mut of_vxlan = of_gre.clone();
    of_vxlan.tunnel.in_udp = Some(VXLAN);
    let receive = |host: &Host, number, payload: &[u8], next_header| {
        host.receive(RxRoad::Esp, &from_there(host, number, payload, next_header)).map(drop)
    };

    let host = of_gre.host();
    assert_eq!(receive(&host, 1, &gre, 47), Ok(()));
    assert_eq!(receive(&host, 2, &vxlan, 17), Err(DropReason::EspNextHeader));
    assert_eq!(receive(&host, 3, &vxlan, 47), Err(DropReason::GreUnsupported), "no GRE, whatever it says");

    let mut host = of_vxlan.host();
    assert_eq!(receive(&host, 1, &vxlan, 17), Ok(()));
    assert_eq!(receive(&host, 2, &gre, 47), Err(DropReason::EspNextHeader));
    let mut geneve = vxlan.clone();
    put16(&mut geneve, 2, 6081);
    assert_eq!(receive(&host, 3, &geneve, 17), Err(DropReason::EspSelector));
    // beside a tunnel of GRE to the same host, which has a policy of its own
    host.add(Tunnel { policy: Some(PolicyId(0)), ..Tunnel::new(TunnelConfig::to(there(false)), None, 1500) });
    assert_eq!(receive(&host, 4, &vxlan, 17), Ok(()));
    assert_eq!(receive(&host, 5, &gre, 47), Err(DropReason::EspNextHeader));
    // and one of VXLAN that has another policy than the SA's
    let keyed = TunnelConfig { in_key: Some(9), in_udp: Some(VXLAN), ..TunnelConfig::to(there(false)) };
    host.add(Tunnel { policy: Some(PolicyId(0)), ..Tunnel::new(keyed, None, 1500) });
    let mut other = vxlan.clone();
    other[14] = 9;
    assert_eq!(receive(&host, 6, &other, 17), Err(DropReason::EspSelector));
}

#[test]
fn plain_vxlan_is_neither_sent_nor_taken_by_a_protected_tunnel() {
    let frame = Spec::udp(100).frame();
    let plain = [&[8, 0, 0, 0, 0, 0, 0, 0], &frame[..]].concat();
    let mut setup = Setup { outbound: false, ..Setup::new(RxRoad::Udp, false) };
    setup.tunnel.in_udp = Some(VXLAN);
    let host = setup.host();
    assert_eq!(host.receive(RxRoad::InUdp(VXLAN), &plain), Err(DropReason::GrePlain));
    let (sent, refused) = host.send(&frame, &VnetHdr::default());
    assert_eq!((sent.len(), refused), (0, Some(DropReason::EspNoOutbound)));
    let allowed = Setup { may_send_plain: true, ..setup }.host();
    assert!(allowed.receive(RxRoad::InUdp(VXLAN), &plain).is_ok());
    let (sent, _) = allowed.send(&frame, &VnetHdr::default());
    assert_eq!((sent[0].1.clone(), sent[0].0.dst_port), (plain, 4789));
}

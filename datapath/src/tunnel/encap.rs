//! Outward: the outer headers, written straight into the underlay's send buffer in front of the room where the
//! offloads then put the inner frame. ESP is sealed there, too.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use crate::counters::DropReason;
use crate::esp::{self, Road};
use crate::offload::FrameSink;
use crate::port::{DEFAULT_TTL, InUdp, RxRoad};
use crate::snapshot::PortId;
use crate::tunnel::{Outbox, Tos, Ttl, Tunnel, Way, ecn, inside};
use crate::wire::gre::{self, Gre};
use crate::wire::parse::Ip;
use crate::wire::{ethernet, geneve, ipv4, ipv6, proto, put16, udp, vxlan};

/// The longest outer headers: IPv6, ESP with its IV, and GRE with checksum, key and sequence number. UDP and VXLAN or Geneve
/// are as long as that.
pub(super) const MAX_HEAD: usize = ipv6::HEADER + esp::PAYLOAD + gre::MAX_HEADER;

/// The sink for the frames that one frame becomes on its way into one tunnel.
///
/// 1. [`Encap::new`] makes the outer headers once;
/// 2. [`FrameSink::slot`] finds room for a packet, copies them in and sets lengths and sequence numbers;
/// 3. the offload fills the slot with the inner frame;
/// 4. the next `slot`, or [`Encap::finish`], closes the packet: its GRE checksum, if any, needs the whole frame, and so does
///    ESP. Only then does it wait to be sent: what was not closed never is.
#[derive(Debug)]
pub struct Encap<'a> {
    tunnel: &'a Tunnel,
    port: PortId,
    way: Way<'a>,
    now: u32,
    outbox: &'a mut Outbox,
    layout: Layout,
    head: [u8; MAX_HEAD],
    tos: u8,
    ttl: u8,
    entropy: u8,
    open: Option<Open>,
    /// Packets made.
    pub packets: u64,
    /// Inner bytes in them.
    pub bytes: u64,
    /// Why a slot that was asked for was not given.
    pub refused: Option<DropReason>,
}

/// A packet whose frame is being written.
#[derive(Debug)]
struct Open {
    len: usize,
    frame: usize,
    /// Its ESP sequence number.
    number: u64,
}

/// Where things stand in a packet's bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    road: RxRoad,
    /// Bytes of IP header; a UDP socket makes it itself.
    ip: usize,
    /// Where the tunnel's own header starts, or in ESP the UDP header before it.
    inner: usize,
    /// Bytes of that UDP header.
    udp: usize,
    /// Where the frame starts.
    pub(super) frame: usize,
    /// Bytes of headers that the socket makes.
    unseen: usize,
}

impl Layout {
    pub(super) fn new(tunnel: &Tunnel, road: RxRoad) -> Layout {
        let (ip, inner, unseen) = match (road, tunnel.ip_len()) {
            (RxRoad::Gre, ip) => (ip, ip, 0),
            (RxRoad::InUdp(_), ip) => (0, 0, ip + udp::HEADER),
            (RxRoad::Esp, ip) => (ip, ip + esp::PAYLOAD, 0),
            (RxRoad::Udp, ip) => (0, esp::PAYLOAD, ip + udp::HEADER),
        };
        let udp = if matches!(road, RxRoad::Esp | RxRoad::Udp) { tunnel.inner_udp() } else { 0 };
        Layout { road, ip, inner, udp, frame: inner + udp + tunnel.header_len(), unseen }
    }

    /// Bytes of a frame of `frame` bytes with the tunnel's own header, and with that of UDP in ESP.
    fn payload(&self, frame: usize) -> usize {
        self.frame - self.inner + frame
    }

    /// Bytes of the whole packet. None: more than fit the fields that say how many, whatever the path would take.
    fn packet(&self, frame: usize) -> Option<usize> {
        let payload = self.payload(frame);
        let sealed = matches!(self.road, RxRoad::Esp | RxRoad::Udp);
        let len = self.ip + if sealed { esp::sealed_len(payload) } else { payload };
        (self.unseen + len <= usize::from(u16::MAX)).then_some(len)
    }
}

impl<'a> Encap<'a> {
    /// A sink for `port`'s tunnel at `now` (seconds), and a frame with the IP packet `inner` in it. None while an IPv6 tunnel has
    /// no source address.
    pub fn new(
        tunnel: &'a Tunnel,
        port: PortId,
        way: Way<'a>,
        inner: Option<&Ip>,
        now: u32,
        outbox: &'a mut Outbox,
    ) -> Option<Encap<'a>> {
        let (tos, ttl) = marks(tunnel, inner);
        let layout = Layout::new(tunnel, way.road());
        let head = headers(tunnel, way, &layout, tos, ttl)?;
        let (open, packets, bytes, refused) = (None, 0, 0, None);
        Some(Encap {
            tunnel,
            port,
            way,
            now,
            outbox,
            layout,
            head,
            tos,
            ttl,
            entropy: 0,
            open,
            packets,
            bytes,
            refused,
        })
    }

    /// The same, for packets that leave by the source port of that number where a road has several; see [`super::entropy`].
    pub fn with_entropy(self, entropy: u8) -> Encap<'a> {
        Encap { entropy, ..self }
    }

    /// Closes the last packet.
    pub fn finish(&mut self) {
        if self.open.take().is_some_and(|open| self.close(&open).is_none()) {
            self.refused = Some(DropReason::TooBig);
        }
    }

    fn close(&mut self, open: &Open) -> Option<()> {
        let config = &self.tunnel.config;
        let packet = self.outbox.room(open.len)?;
        let payload = self.layout.payload(open.frame);
        if config.csum && matches!(config.in_udp, None | Some(InUdp::Gre)) {
            gre::fill_checksum(packet.get_mut(self.layout.inner..)?.get_mut(..payload)?);
        }
        if let (Way::Protected(sa), Some(kind)) = (self.way, config.in_udp) {
            let datagram = packet.get_mut(self.layout.inner..)?.get_mut(..payload)?;
            inside::fill(datagram, kind, self.entropy, config.csum, &sa.config);
        }
        if let Way::Protected(sa) = self.way
            && !sa.seal(open.number, payload, packet.get_mut(self.layout.ip..)?)
        {
            return None;
        }
        let packet = self.outbox.push(open.len, config.remote, self.port)?;
        packet.frame = open.frame as u32;
        (packet.tos, packet.ttl, packet.df) = (self.tos, self.ttl, config.df);
        match self.way {
            Way::InUdp(kind) => {
                packet.dst_port = kind.port();
                packet.entropy = self.entropy;
                packet.src = config.local;
                // RFC 7348 section 5 and RFC 8926 section 3.3 would rather have none over IPv4
                packet.checksum = config.csum || kind == InUdp::Gre;
            }
            Way::Protected(sa) => {
                if let Road::Udp { remote_port, .. } = &sa.config.road {
                    packet.dst_port = remote_port.load(Relaxed);
                    packet.src = Some(sa.config.local);
                }
            }
            Way::Plain => {}
        }
        self.packets += 1;
        self.bytes += open.frame as u64;
        Some(())
    }

    /// Begins a packet whose frame is of `frame` bytes.
    fn begin(&mut self, frame: usize) -> Result<Open, DropReason> {
        let len = self.layout.packet(frame).ok_or(DropReason::NoRoom)?;
        let room = self.outbox.room(len).and_then(|packet| packet.get_mut(..self.layout.frame));
        let head = room.ok_or(DropReason::NoRoom)?;
        let number = match self.way {
            Way::Plain | Way::InUdp(_) => 0,
            Way::Protected(sa) => {
                let bytes = self.layout.payload(frame) as u64;
                sa.number(bytes, self.now).ok_or(DropReason::EspLimit)?
            }
        };
        if let Some(headers) = self.head.get(..self.layout.frame) {
            head.copy_from_slice(headers);
        }
        match self.layout.ip {
            0 => {}
            ipv4::HEADER => put16(head, 2, len as u16),
            ip => put16(head, 4, (len - ip) as u16),
        }
        if self.tunnel.config.seq
            && let Some(field) = head.last_chunk_mut()
        {
            *field = self.tunnel.sequence.fetch_add(1, Relaxed).to_be_bytes();
        }
        Ok(Open { len, frame, number })
    }
}

impl FrameSink for Encap<'_> {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        self.finish();
        match self.begin(len) {
            Ok(open) => {
                let total = self.open.insert(open).len;
                self.outbox.room(total)?.get_mut(self.layout.frame..)?.get_mut(..len)
            }
            Err(why) => {
                self.refused = Some(why);
                None
            }
        }
    }
}

/// The outer TOS and TTL.
pub(super) fn marks(tunnel: &Tunnel, inner: Option<&Ip>) -> (u8, u8) {
    let c = &tunnel.config;
    let inner_tos = inner.map_or(0, |ip| ip.tos);
    let dscp = match c.tos {
        Tos::Fixed(tos) => tos & !3,
        Tos::Inherit => inner_tos & !3,
    };
    let ttl = match c.ttl {
        Ttl::Fixed(ttl) => ttl,
        Ttl::Inherit => inner.map_or(DEFAULT_TTL, |ip| ip.ttl),
    };
    (dscp | ecn::encapsulate(inner_tos), ttl)
}

/// The outer headers, lengths and sequence numbers still zero, and room for those of ESP. The IPv4 header checksum is zero, too:
/// the kernel sets it on everything that a raw socket sends (raw(7)).
pub(super) fn headers(
    tunnel: &Tunnel,
    way: Way<'_>,
    layout: &Layout,
    tos: u8,
    ttl: u8,
) -> Option<[u8; MAX_HEAD]> {
    let c = &tunnel.config;
    let (source, protocol) = match way {
        Way::Plain | Way::InUdp(_) => (tunnel.source, proto::GRE),
        Way::Protected(sa) => (Some(sa.config.local), proto::ESP),
    };
    let mut head = [0; MAX_HEAD];
    match (c.remote, source) {
        _ if layout.ip == 0 => {}
        (IpAddr::V4(dst), source) => {
            head[0] = 0x45;
            head[1] = tos;
            // identification 0: it matters to fragments only (RFC 6864), and for those the kernel sets it
            head[6] = if c.df { 0x40 } else { 0 };
            head[8] = ttl;
            head[9] = protocol;
            if let Some(IpAddr::V4(src)) = source {
                head[12..16].copy_from_slice(&src.octets());
            }
            head[16..20].copy_from_slice(&dst.octets());
        }
        (IpAddr::V6(dst), Some(IpAddr::V6(src))) => {
            head[..4].copy_from_slice(&(0x6000_0000 | u32::from(tos) << 20).to_be_bytes());
            head[6] = protocol;
            head[7] = ttl;
            head[8..24].copy_from_slice(&src.octets());
            head[24..40].copy_from_slice(&dst.octets());
        }
        _ => return None,
    }
    let inner = head.get_mut(layout.inner + layout.udp..)?;
    let vni = c.out_key.unwrap_or(0);
    match c.in_udp {
        None | Some(InUdp::Gre) => {
            let gre = Gre {
                protocol: ethernet::TEB,
                checksum: c.csum,
                key: c.out_key,
                sequence: c.seq.then_some(0),
            };
            gre.encode(inner)?;
        }
        Some(InUdp::Vxlan(_)) => *inner.first_chunk_mut()? = vxlan::encode(vni),
        Some(InUdp::Geneve(_)) => *inner.first_chunk_mut()? = geneve::encode(ethernet::TEB, vni),
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::offload::{Fit, fit};
    use crate::port::TxPacket;
    use crate::tunnel::TunnelConfig;
    use crate::vnet::VnetHdr;
    use crate::wire::parse::parse;

    fn config() -> TunnelConfig {
        TunnelConfig::to([10, 9, 0, 2].into())
    }

    /// An inner frame: UDP over IPv4 with DSCP 8, ECT(0), TTL 7.
    fn inner() -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 7).udp(1, 2).write(&mut frame, b"hello").unwrap();
        frame[15] = 0x22;
        crate::wire::ipv4::set_checksum(&mut frame[14..34]);
        frame
    }

    /// Every packet that `frames` become.
    fn packets(config: TunnelConfig, source: Option<IpAddr>, frames: &[&[u8]]) -> Vec<Vec<u8>> {
        let sent = sent(config, source, frames);
        sent.into_iter().map(|(_, bytes)| bytes).collect()
    }

    fn sent(config: TunnelConfig, source: Option<IpAddr>, frames: &[&[u8]]) -> Vec<(TxPacket, Vec<u8>)> {
        let way = config.in_udp.map_or(Way::Plain, Way::InUdp);
        let tunnel = Tunnel::new(config, source, 1500);
        let mut outbox = Outbox::new();
        for frame in frames {
            let ip = parse(frame).and_then(|p| p.ip);
            let encap = Encap::new(&tunnel, PortId(3), way, ip.as_ref(), 0, &mut outbox).unwrap();
            let mut encap = encap.with_entropy(5);
            assert_eq!(
                fit(frame, &VnetHdr::default(), tunnel.max_frame(way.road()), &mut encap),
                Fit::Sent(1)
            );
            encap.finish();
            assert_eq!((encap.packets, encap.bytes, encap.refused), (1, frame.len() as u64, None));
        }
        let (buf, list) = outbox.packets();
        list.iter().map(|p| (*p, buf[p.start as usize..][..p.len as usize].to_vec())).collect()
    }

    #[test]
    fn plain_as_open_vswitch_sends_it() {
        let inner = inner();
        let sent = packets(config(), None, &[&inner]);
        // version 4, ECT(0) carried out, id 0, DF, TTL 64, protocol 47; then GRE without options
        let mut want = vec![0x45, 2, 0, 24 + inner.len() as u8, 0, 0, 0x40, 0, 64, 47, 0, 0];
        want.extend([0, 0, 0, 0, 10, 9, 0, 2, 0, 0, 0x65, 0x58]);
        want.extend(&inner);
        assert_eq!(sent, [want]);
    }

    #[test]
    fn in_udp_the_rest_is_beside_the_bytes() {
        let local = "fd00::1".parse().unwrap();
        for (remote, local) in [("10.9.0.2", None), ("fd00::2", Some(local))] {
            let c = TunnelConfig {
                in_udp: Some(InUdp::Gre),
                local,
                out_key: Some(7),
                tos: Tos::Inherit,
                ttl: Ttl::Inherit,
                df: false,
                ..TunnelConfig::to(remote.parse().unwrap())
            };
            // also while the route has said no source: the kernel knows
            let (packet, bytes) = sent(c, None, &[&inner()]).remove(0);
            assert_eq!(bytes, [&[0x20, 0, 0x65, 0x58, 0, 0, 0, 7][..], &inner()].concat());
            assert_eq!((packet.dst, packet.dst_port), (remote.parse().unwrap(), 4754));
            assert_eq!((packet.src, packet.entropy), (local, 5));
            assert_eq!((packet.tos, packet.ttl, packet.df), (0x22, 7, false));
        }
    }

    #[test]
    fn vxlan_and_geneve_carry_the_vni() {
        for (kind, head) in [
            (InUdp::Vxlan(4789), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]),
            (InUdp::Geneve(7000), [0, 0, 0x65, 0x58, 0x12, 0x34, 0x56, 0]),
        ] {
            for csum in [false, true] {
                let c = TunnelConfig { in_udp: Some(kind), csum, out_key: Some(0x123456), ..config() };
                let (packet, bytes) = sent(c, None, &[&inner()]).remove(0);
                assert_eq!(bytes, [&head[..], &inner()].concat());
                assert_eq!((packet.dst_port, packet.entropy, packet.checksum), (kind.port(), 5, csum));
            }
        }
    }

    #[test]
    fn options_change_their_bits_only() {
        type Change = fn(&mut TunnelConfig);
        let cases: [(Change, usize, &[u8]); 7] = [
            (|c| c.out_key = Some(0), 20, &[0x20, 0, 0x65, 0x58, 0, 0, 0, 0]),
            (|c| c.out_key = Some(0x01020304), 20, &[0x20, 0, 0x65, 0x58, 1, 2, 3, 4]),
            (|c| c.df = false, 6, &[0, 0]),
            (|c| c.tos = Tos::Fixed(0x48), 1, &[0x4a]),
            (|c| c.tos = Tos::Inherit, 1, &[0x22]),
            (|c| c.ttl = Ttl::Fixed(9), 8, &[9, 47]),
            (|c| c.ttl = Ttl::Inherit, 8, &[7, 47]),
        ];
        for (i, (change, at, want)) in cases.into_iter().enumerate() {
            let mut c = config();
            change(&mut c);
            let sent = packets(c, None, &[&inner()]);
            assert_eq!(&sent[0][at..at + want.len()], want, "case {i}");
            assert!(sent[0].ends_with(&inner()), "case {i}");
        }
    }

    #[test]
    fn what_is_no_ip_gets_the_defaults() {
        let mut arp = [0; 42];
        arp[12..14].copy_from_slice(&[8, 6]);
        let c = TunnelConfig { tos: Tos::Inherit, ttl: Ttl::Inherit, ..config() };
        let sent = packets(c, None, &[&arp]);
        assert_eq!((sent[0][1], sent[0][8]), (0, 64));
    }

    #[test]
    fn ipv6_needs_a_source() {
        let c = TunnelConfig { remote: "fd00::2".parse().unwrap(), ..config() };
        let tunnel = Tunnel::new(c.clone(), None, 1500);
        assert!(Encap::new(&tunnel, PortId(3), Way::Plain, None, 0, &mut Outbox::new()).is_none());
        let sent = packets(c, Some("fd00::1".parse().unwrap()), &[&inner()]);
        assert_eq!(sent[0][..8], [0x60, 0x20, 0, 0, 0, 4 + inner().len() as u8, 47, 64]);
        assert_eq!((sent[0][23], sent[0][39]), (1, 2));
    }

    #[test]
    fn a_full_outbox_says_so() {
        let tunnel = Tunnel::new(config(), None, 65535);
        let mut outbox = Outbox::new();
        let frame = vec![0xff; 60_000];
        let mut sent = 0;
        while !outbox.short_of(frame.len() + 24, 1) {
            let mut encap = Encap::new(&tunnel, PortId(3), Way::Plain, None, 0, &mut outbox).unwrap();
            assert!(encap.slot(frame.len()).is_some());
            encap.finish();
            sent += 1;
        }
        assert_eq!(sent, Outbox::BYTES / (frame.len() + 24));
        let mut encap = Encap::new(&tunnel, PortId(3), Way::Plain, None, 0, &mut outbox).unwrap();
        assert!(encap.slot(frame.len()).is_none());
        assert_eq!(encap.refused, Some(DropReason::NoRoom));
    }

    proptest! {
        #[test]
        fn decodes_again(key in any::<Option<u32>>(), csum in any::<bool>(), seq in any::<bool>(),
                         odd in any::<bool>(), in_udp in any::<bool>()) {
            let in_udp_kind = in_udp.then_some(InUdp::Gre);
            let c = TunnelConfig { out_key: key, csum, seq, in_udp: in_udp_kind, ..config() };
            let ip = if in_udp { 0 } else { 20 };
            let mut frame = inner();
            if odd {
                frame.push(0xee);
            }
            let sent = packets(c, None, &[&frame, &frame]);
            for (n, packet) in sent.iter().enumerate() {
                let (gre, at) = gre::decode(&packet[ip..]).unwrap();
                let want = Gre { protocol: ethernet::TEB, checksum: csum, key, sequence: seq.then_some(n as u32) };
                prop_assert_eq!(gre, want);
                prop_assert_eq!(&packet[ip + at..], &frame[..]);
            }
        }
    }
}

//! Outward: the outer headers, written straight into the underlay's send buffer in front of the room where the
//! offloads then put the inner frame.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use crate::offload::FrameSink;
use crate::port::TxPacket;
use crate::snapshot::PortId;
use crate::tunnel::{Tos, Ttl, Tunnel, ecn};
use crate::wire::gre::{self, Gre};
use crate::wire::parse::Ip;
use crate::wire::{ethernet, ipv4, ipv6, proto};

/// The TTL of an outer packet when nothing else says.
const DEFAULT_TTL: u8 = 64;

/// Packets of one worker that wait for the end of the batch, contiguous in one buffer.
#[derive(Debug)]
pub struct Outbox {
    buf: Box<[u8]>,
    used: usize,
    packets: Vec<TxPacket>,
}

impl Outbox {
    const BYTES: usize = 512 * 1024;
    const PACKETS: usize = 1024;

    /// An empty outbox. Its pages are touched only when used.
    pub fn new() -> Outbox {
        Outbox {
            buf: vec![0; Self::BYTES].into_boxed_slice(),
            used: 0,
            packets: Vec::with_capacity(Self::PACKETS),
        }
    }

    /// Whether a frame that may become `bytes` on the wire, or `packets` packets, might not fit any more.
    pub fn short_of(&self, bytes: usize, packets: usize) -> bool {
        self.buf.len() - self.used < bytes || Self::PACKETS - self.packets.len() < packets
    }

    /// What waits.
    pub fn packets(&self) -> (&[u8], &[TxPacket]) {
        (&self.buf, &self.packets)
    }

    /// Forget all.
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets.clear();
    }

    /// Room for one packet of `len` bytes; None when full.
    fn reserve(&mut self, len: usize, frame: usize, dst: IpAddr, port: PortId) -> Option<&mut [u8]> {
        if self.short_of(len, 1) {
            return None;
        }
        let start = self.used;
        self.used += len;
        self.packets
            .push(TxPacket { frame: frame as u32, ..TxPacket::raw(start as u32, len as u32, dst, port) });
        self.buf.get_mut(start..start + len)
    }

    /// The packet that was reserved last.
    fn last(&mut self) -> Option<&mut [u8]> {
        let p = self.packets.last()?;
        self.buf.get_mut(p.start as usize..(p.start + p.len) as usize)
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

/// The longest outer header: IPv6, and GRE with checksum, key and sequence number.
const MAX_HEAD: usize = ipv6::HEADER + gre::MAX_HEADER;

/// The sink for the frames that one frame becomes on its way into one tunnel.
///
/// 1. [`Encap::new`] makes the outer IP and GRE headers once;
/// 2. [`FrameSink::slot`] reserves a packet, copies them in and sets length and sequence number;
/// 3. the offload fills the slot with the inner frame;
/// 4. the next `slot`, or [`Encap::finish`], closes the packet: its GRE checksum, if any, needs the whole frame.
#[derive(Debug)]
pub struct Encap<'a> {
    tunnel: &'a Tunnel,
    port: PortId,
    outbox: &'a mut Outbox,
    head: [u8; MAX_HEAD],
    open: bool,
    /// Packets made.
    pub packets: u64,
    /// Inner bytes in them.
    pub bytes: u64,
    /// A slot was asked for and there was no room.
    pub full: bool,
}

impl<'a> Encap<'a> {
    /// A sink for `port`'s tunnel and a frame with the IP packet `inner` in it. None while an IPv6 tunnel has no source address.
    pub fn new(
        tunnel: &'a Tunnel,
        port: PortId,
        inner: Option<&Ip>,
        outbox: &'a mut Outbox,
    ) -> Option<Encap<'a>> {
        let head = headers(tunnel, inner)?;
        Some(Encap { tunnel, port, outbox, head, open: false, packets: 0, bytes: 0, full: false })
    }

    /// Closes the last packet.
    pub fn finish(&mut self) {
        if !std::mem::take(&mut self.open) || !self.tunnel.config.csum {
            return;
        }
        let ip_len = self.tunnel.ip_len();
        if let Some(packet) = self.outbox.last().and_then(|p| p.get_mut(ip_len..)) {
            gre::fill_checksum(packet);
        }
    }
}

impl FrameSink for Encap<'_> {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        self.finish();
        let (ip_len, gre_len) = (self.tunnel.ip_len(), self.tunnel.gre_len());
        let total = ip_len + gre_len + len;
        // the outer length must fit its field, whatever the path would take
        let packet = match u16::try_from(total) {
            Ok(_) => self.outbox.reserve(total, len, self.tunnel.config.remote, self.port),
            Err(_) => None,
        };
        let Some(packet) = packet else {
            self.full = true;
            return None;
        };
        let (head, frame) = packet.split_at_mut_checked(ip_len + gre_len)?;
        head.copy_from_slice(self.head.get(..ip_len + gre_len)?);
        let (field, value) = if ip_len == ipv4::HEADER { (2, total) } else { (4, total - ip_len) };
        head.get_mut(field..field + 2)?.copy_from_slice(&(value as u16).to_be_bytes());
        if self.tunnel.config.seq {
            let n = self.tunnel.sequence.fetch_add(1, Relaxed);
            let at = ip_len + gre_len - 4;
            head.get_mut(at..)?.copy_from_slice(&n.to_be_bytes());
        }
        self.open = true;
        self.packets += 1;
        self.bytes += len as u64;
        Some(frame)
    }
}

/// The outer headers, lengths and sequence number still zero. The IPv4 header checksum too: the kernel sets it on
/// everything that a raw socket sends (raw(7)).
fn headers(tunnel: &Tunnel, inner: Option<&Ip>) -> Option<[u8; MAX_HEAD]> {
    let c = &tunnel.config;
    let inner_tos = inner.map_or(0, |ip| ip.tos);
    let dscp = match c.tos {
        Tos::Fixed(tos) => tos & !3,
        Tos::Inherit => inner_tos & !3,
    };
    let tos = dscp | ecn::encapsulate(inner_tos);
    let ttl = match c.ttl {
        Ttl::Fixed(ttl) => ttl,
        Ttl::Inherit => inner.map_or(DEFAULT_TTL, |ip| ip.ttl),
    };
    let mut head = [0; MAX_HEAD];
    match (c.remote, tunnel.source) {
        (IpAddr::V4(dst), source) => {
            head[0] = 0x45;
            head[1] = tos;
            // identification 0: it matters to fragments only (RFC 6864), and for those the kernel sets it
            head[6] = if c.df { 0x40 } else { 0 };
            head[8] = ttl;
            head[9] = proto::GRE;
            if let Some(IpAddr::V4(src)) = source {
                head[12..16].copy_from_slice(&src.octets());
            }
            head[16..20].copy_from_slice(&dst.octets());
        }
        (IpAddr::V6(dst), Some(IpAddr::V6(src))) => {
            head[..4].copy_from_slice(&(0x6000_0000 | u32::from(tos) << 20).to_be_bytes());
            head[6] = proto::GRE;
            head[7] = ttl;
            head[8..24].copy_from_slice(&src.octets());
            head[24..40].copy_from_slice(&dst.octets());
        }
        _ => return None,
    }
    let gre = Gre { protocol: ethernet::TEB, checksum: c.csum, key: c.out_key, sequence: c.seq.then_some(0) };
    gre.encode(head.get_mut(tunnel.ip_len()..)?)?;
    Some(head)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::offload::{Fit, fit};
    use crate::port::RxRoad;
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
        let tunnel = Tunnel::new(config, source, 1500);
        let mut outbox = Outbox::new();
        for frame in frames {
            let ip = parse(frame).and_then(|p| p.ip);
            let mut encap = Encap::new(&tunnel, PortId(3), ip.as_ref(), &mut outbox).unwrap();
            assert_eq!(
                fit(frame, &VnetHdr::default(), tunnel.max_frame(RxRoad::Gre), &mut encap),
                Fit::Sent(1)
            );
            encap.finish();
            assert_eq!((encap.packets, encap.bytes, encap.full), (1, frame.len() as u64, false));
        }
        let (buf, list) = outbox.packets();
        list.iter().map(|p| buf[p.start as usize..][..p.len as usize].to_vec()).collect()
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
        assert!(Encap::new(&tunnel, PortId(3), None, &mut Outbox::new()).is_none());
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
            let mut encap = Encap::new(&tunnel, PortId(3), None, &mut outbox).unwrap();
            assert!(encap.slot(frame.len()).is_some());
            sent += 1;
        }
        assert_eq!(sent, Outbox::BYTES / (frame.len() + 24));
        let mut encap = Encap::new(&tunnel, PortId(3), None, &mut outbox).unwrap();
        assert!(encap.slot(frame.len()).is_none() && encap.full);
    }

    proptest! {
        #[test]
        fn decodes_again(key in any::<Option<u32>>(), csum in any::<bool>(), seq in any::<bool>(),
                         odd in any::<bool>()) {
            let c = TunnelConfig { out_key: key, csum, seq, ..config() };
            let mut frame = inner();
            if odd {
                frame.push(0xee);
            }
            let sent = packets(c, None, &[&frame, &frame]);
            for (n, packet) in sent.iter().enumerate() {
                let (gre, at) = gre::decode(&packet[20..]).unwrap();
                let want = Gre { protocol: ethernet::TEB, checksum: csum, key, sequence: seq.then_some(n as u32) };
                prop_assert_eq!(gre, want);
                prop_assert_eq!(&packet[20 + at..], &frame[..]);
            }
        }
    }
}

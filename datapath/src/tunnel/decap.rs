//! Inward: from a GRE or ESP packet to the frame in it and the port it came by.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use crate::counters::DropReason;
use crate::esp::{self, InboundSa, Road};
use crate::offload::{clamp_mss, recognize};
use crate::port::{InUdp, RxPacket, RxRoad};
use crate::slab::{Piece, Slab};
use crate::snapshot::{PolicyId, PortId, PortKind, Snapshot};
use crate::tunnel::{Tunnel, ecn, inside};
use crate::vnet::VnetHdr;
use crate::wire::gre::{self, Gre};
use crate::wire::parse::{Ip, Link};
use crate::wire::{ethernet, geneve, vxlan};

/// Takes frames out of the packets of a batch. Packets come in trains, so what is known of the last one's sender is mostly
/// what there is to know of the next one's.
#[derive(Debug)]
pub struct Decap<'a> {
    snapshot: &'a Snapshot,
    /// Seconds.
    now: u32,
    /// What the last packet was opened with.
    sa: Option<&'a InboundSa>,
    /// Where the last one came from.
    origin: Option<Origin<'a>>,
}

/// What tells whose a packet is, and whose it is.
#[derive(Debug)]
struct Origin<'a> {
    src: IpAddr,
    dst: IpAddr,
    key: Option<u32>,
    in_udp: Option<InUdp>,
    protector: Option<PolicyId>,
    port: PortId,
    tunnel: &'a Tunnel,
}

/// What was in a packet, and of which tunnel it is. The frame has not been looked at.
#[derive(Debug)]
pub struct Unpacked<'a> {
    /// The tunnel's port.
    pub port: PortId,
    /// The frame.
    pub data: Piece,
    /// The packet's TOS.
    pub tos: u8,
    tunnel: &'a Tunnel,
    protected: bool,
}

/// Takes the frame out of `packet`, which lies in `slab`, at `now` (seconds).
///
/// 1. ESP is opened by the SA that its SPI names, and must come from the SA's other end to this one (RFC 4303 section 3.4);
///    what it has vouched for must be what it is for: GRE, or UDP with the ports of its tunnels;
/// 2. the GRE header must be one that RFC 2784 and RFC 2890 let us process, its checksum, if present, right; or that of VXLAN
///    or Geneve one that RFC 7348 and RFC 8926 do;
/// 3. the payload must be Ethernet;
/// 4. a tunnel must want it, in what it came in (the GRE sequence number is not looked at: frames may arrive in any order);
/// 5. what the kernel has merged or left unfinished is given the offload header that it came without;
/// 6. the outer congestion mark moves inward (RFC 6040);
/// 7. a SYN's maximum segment size comes down to what the way back can carry.
///
/// The first four are [`Decap::unpack`], the others [`Decap::finish`].
///
/// # Errors
/// Why the packet goes no further.
pub fn decap(
    snapshot: &Snapshot,
    slab: &mut Slab,
    packet: &RxPacket,
    now: u32,
) -> Result<(PortId, Piece, VnetHdr), DropReason> {
    let mut decap = Decap::new(snapshot, now);
    let unpacked = decap.unpack(slab, packet)?;
    let vnet = decap.finish(slab, &unpacked)?;
    Ok((unpacked.port, unpacked.data, vnet))
}

impl<'a> Decap<'a> {
    /// For a batch that came at `now` (seconds).
    pub fn new(snapshot: &'a Snapshot, now: u32) -> Decap<'a> {
        Decap { snapshot, now, sa: None, origin: None }
    }

    /// Steps 1 to 4 of [`decap`].
    ///
    /// # Errors
    /// Why the packet goes no further.
    #[inline]
    pub fn unpack(&mut self, slab: &mut Slab, packet: &RxPacket) -> Result<Unpacked<'a>, DropReason> {
        let (data, in_udp, protector) = match packet.road {
            RxRoad::Gre => (packet.data, None, None),
            RxRoad::InUdp(kind) => (packet.data, Some(kind), None),
            RxRoad::Esp | RxRoad::Udp => {
                let (data, sa) = self.open(slab, packet)?;
                let (in_udp, start, end) = inside::open(slab.get(data), sa.config.selector)?;
                let data = Piece { off: data.off + start as u32, len: (end - start) as u32 };
                (data, in_udp, Some(sa.policy))
            }
        };
        let (key, len) = match in_udp {
            None | Some(InUdp::Gre) => gre_key(slab.get(data), packet.road)?,
            Some(InUdp::Vxlan(_)) => vxlan_vni(slab.get(data))?,
            Some(InUdp::Geneve(_)) => geneve_vni(slab.get(data))?,
        };
        let origin = self.origin(packet, key, in_udp, protector)?;
        Ok(Unpacked {
            port: origin.port,
            data: data.skip(len as u32),
            tos: packet.tos,
            tunnel: origin.tunnel,
            protected: protector.is_some(),
        })
    }

    /// Steps 5 to 7 of [`decap`], and the frame's offload header.
    ///
    /// # Errors
    /// Why the frame goes no further.
    pub fn finish(&self, slab: &mut Slab, unpacked: &Unpacked<'_>) -> Result<VnetHdr, DropReason> {
        let frame = slab.get_mut(unpacked.data);
        let mut vnet = VnetHdr::default();
        if let Some(ip) = Link::parse(frame).and_then(|link| Ip::parse(frame, &link)) {
            // no kernel has had its hands on what comes out of ESP
            if !unpacked.protected {
                vnet = recognize(frame, &ip);
            }
            let mark = ecn::decapsulate(ip.ecn(), unpacked.tos).ok_or(DropReason::EcnDrop)?;
            if mark != ip.ecn() {
                ecn::mark(frame, &ip, mark);
            }
            clamp_mss(frame, &ip, &vnet, || self.snapshot.max_frame(unpacked.tunnel));
        }
        Ok(vnet)
    }

    /// Whose packet it is.
    #[inline]
    fn origin(
        &mut self,
        packet: &RxPacket,
        key: Option<u32>,
        in_udp: Option<InUdp>,
        protector: Option<PolicyId>,
    ) -> Result<&Origin<'a>, DropReason> {
        let same = self.origin.take().filter(|last| {
            last.src == packet.src
                && last.dst == packet.dst
                && last.key == key
                && last.in_udp == in_udp
                && last.protector == protector
        });
        let origin = match same {
            Some(last) => last,
            None => find(self.snapshot, packet, key, in_udp, protector)?,
        };
        Ok(self.origin.insert(origin))
    }

    /// Opens an ESP packet in its place. Gives the packet in it and the SA that vouches for it.
    #[inline]
    fn open(&mut self, slab: &mut Slab, packet: &RxPacket) -> Result<(Piece, &'a InboundSa), DropReason> {
        let bytes = slab.get_mut(packet.data);
        let spi = esp::open::spi(bytes).ok_or(DropReason::EspMalformed)?;
        let sa = match self.sa {
            Some(last) if last.config.spi == spi => last,
            _ => self.snapshot.inbound.get(&spi).ok_or(DropReason::EspNoSa)?,
        };
        self.sa = Some(sa);
        if packet.src != sa.config.remote || packet.dst != sa.config.local {
            return Err(DropReason::EspSelector);
        }
        let opened = sa.open(bytes, self.now)?;
        if let (Road::Udp { remote_port, .. }, RxRoad::Udp) = (&sa.config.road, packet.road)
            && opened.newest
            && remote_port.load(Relaxed) != packet.src_port
        {
            remote_port.store(packet.src_port, Relaxed);
        }
        let range = opened.payload;
        Ok((Piece { off: packet.data.off + range.start as u32, len: range.len() as u32 }, sa))
    }
}

/// The tunnel that wants a packet, if it takes it from whoever vouches for it.
#[inline(never)]
fn find<'a>(
    snapshot: &'a Snapshot,
    packet: &RxPacket,
    key: Option<u32>,
    in_udp: Option<InUdp>,
    protector: Option<PolicyId>,
) -> Result<Origin<'a>, DropReason> {
    let nobody = match in_udp {
        None | Some(InUdp::Gre) => DropReason::GreNoTunnel,
        Some(InUdp::Vxlan(_) | InUdp::Geneve(_)) => DropReason::VniNoTunnel,
    };
    let (src, dst) = (packet.src, packet.dst);
    let port = snapshot.demux.find(src, dst, key, in_udp).ok_or(nobody)?;
    let Some(PortKind::Tunnel(tunnel)) = snapshot.port(port).map(|p| &p.kind) else {
        return Err(nobody);
    };
    admit(snapshot, tunnel, protector)?;
    Ok(Origin { src, dst, key, in_udp, protector, port, tunnel })
}

/// Whether `tunnel` takes a packet that the SA of policy `protector` vouches for, or nobody. What it must be protected by, it
/// must be protected by (RFC 4301 section 5.2).
fn admit(snapshot: &Snapshot, tunnel: &Tunnel, protector: Option<PolicyId>) -> Result<(), DropReason> {
    match (tunnel.policy, protector) {
        (wanted, Some(_)) if wanted == protector => Ok(()),
        (_, Some(_)) => Err(DropReason::EspSelector),
        (None, None) => Ok(()),
        (Some(wanted), None) => {
            let policy = snapshot.policy(wanted);
            if policy.is_some_and(|p| p.may_send_plain) { Ok(()) } else { Err(DropReason::GrePlain) }
        }
    }
}

/// The key of a GRE packet, and where its payload begins, which must be a frame.
fn gre_key(packet: &[u8], road: RxRoad) -> Result<(Option<u32>, usize), DropReason> {
    let (header, len) = decode(packet, road)?;
    if header.protocol == ethernet::TEB { Ok((header.key, len)) } else { Err(DropReason::GreProtocol) }
}

/// The VNI of a VXLAN packet, and where the frame begins.
fn vxlan_vni(packet: &[u8]) -> Result<(Option<u32>, usize), DropReason> {
    let vni = vxlan::decode(packet).map_err(|discard| match discard {
        vxlan::Discard::Short => DropReason::Malformed,
        vxlan::Discard::NoVni => DropReason::VxlanNoVni,
    })?;
    Ok((Some(vni), vxlan::HEADER))
}

/// The VNI of a Geneve packet, and where its payload begins, which must be a frame. Of options none is known here, so one that must
/// not be ignored ends the packet (RFC 8926 section 3.5).
fn geneve_vni(packet: &[u8]) -> Result<(Option<u32>, usize), DropReason> {
    let header = geneve::decode(packet).map_err(|discard| match discard {
        geneve::Discard::Short => DropReason::Malformed,
        geneve::Discard::Version | geneve::Discard::Control => DropReason::GeneveUnsupported,
        geneve::Discard::Critical => DropReason::GeneveCritical,
    })?;
    match header.protocol {
        ethernet::TEB => Ok((Some(header.vni), header.len)),
        _ => Err(DropReason::GeneveProtocol),
    }
}

/// The GRE header and its length. Of packets that the kernel has merged it has verified each checksum, and left that of the
/// first.
fn decode(packet: &[u8], road: RxRoad) -> Result<(Gre, usize), DropReason> {
    let why = |discard| match discard {
        gre::Discard::Short => DropReason::Malformed,
        gre::Discard::Unsupported => DropReason::GreUnsupported,
        gre::Discard::Checksum => DropReason::GreChecksum,
    };
    gre::decode(packet).or_else(|discard| {
        let (header, len) = gre::decode_unverified(packet).map_err(why)?;
        let frame = packet.get(len..).unwrap_or(&[]);
        let ip = Link::parse(frame).and_then(|link| Ip::parse(frame, &link));
        let clear = matches!(road, RxRoad::Gre | RxRoad::InUdp(_));
        let merged = clear && ip.is_some_and(|ip| recognize(frame, &ip).needs_csum());
        if merged { Ok((header, len)) } else { Err(why(discard)) }
    })
}

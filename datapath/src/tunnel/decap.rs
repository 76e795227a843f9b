//! Inward: from a GRE packet to the frame in it and the port it came by.

use crate::counters::DropReason;
use crate::offload::{clamp_mss, recognize};
use crate::port::RxPacket;
use crate::slab::{Piece, Slab};
use crate::snapshot::{PortId, PortKind, Snapshot};
use crate::tunnel::ecn;
use crate::vnet::VnetHdr;
use crate::wire::ethernet;
use crate::wire::gre::{self, Gre};
use crate::wire::parse::{Ip, Link};

/// Takes the frame out of `packet`, which lies in `slab`.
///
/// 1. The GRE header must be one that RFC 2784 and RFC 2890 let us process, its checksum, if present, right;
/// 2. the payload must be Ethernet;
/// 3. a tunnel must want it (the sequence number is not looked at: frames may arrive in any order);
/// 4. what the kernel has merged or left unfinished is given the offload header that it came without;
/// 5. the outer congestion mark moves inward (RFC 6040);
/// 6. a SYN's maximum segment size comes down to what the way back can carry.
///
/// # Errors
/// Why the packet goes no further.
pub fn decap(
    snapshot: &Snapshot,
    slab: &mut Slab,
    packet: &RxPacket,
) -> Result<(PortId, Piece, VnetHdr), DropReason> {
    let (header, len) = decode(slab.get(packet.data))?;
    if header.protocol != ethernet::TEB {
        return Err(DropReason::GreProtocol);
    }
    let id = snapshot.demux.find(packet.src, packet.dst, header.key).ok_or(DropReason::GreNoTunnel)?;
    let Some(PortKind::Tunnel(tunnel)) = snapshot.port(id).map(|p| &p.kind) else {
        return Err(DropReason::GreNoTunnel);
    };
    if tunnel.policy.is_some() {
        return Err(DropReason::GrePlain);
    }
    let data = packet.data.skip(len as u32);
    let frame = slab.get_mut(data);
    let mut vnet = VnetHdr::default();
    if let Some(ip) = Link::parse(frame).and_then(|link| Ip::parse(frame, &link)) {
        vnet = recognize(frame, &ip);
        let mark = ecn::decapsulate(ip.ecn(), packet.tos).ok_or(DropReason::EcnDrop)?;
        if mark != ip.ecn() {
            ecn::mark(frame, &ip, mark);
        }
    }
    clamp_mss(frame, &vnet, snapshot.max_frame(tunnel));
    Ok((id, data, vnet))
}

/// The GRE header and its length. Of packets that the kernel has merged it has verified each checksum, and left that of the
/// first.
fn decode(packet: &[u8]) -> Result<(Gre, usize), DropReason> {
    let why = |discard| match discard {
        gre::Discard::Short => DropReason::Malformed,
        gre::Discard::Unsupported => DropReason::GreUnsupported,
        gre::Discard::Checksum => DropReason::GreChecksum,
    };
    gre::decode(packet).or_else(|discard| {
        let (header, len) = gre::decode_unverified(packet).map_err(why)?;
        let frame = packet.get(len..).unwrap_or(&[]);
        let ip = Link::parse(frame).and_then(|link| Ip::parse(frame, &link));
        let merged = ip.is_some_and(|ip| recognize(frame, &ip).needs_csum());
        if merged { Ok((header, len)) } else { Err(why(discard)) }
    })
}

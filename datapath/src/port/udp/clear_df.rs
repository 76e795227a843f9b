//! UDP packets that routers may fragment. A UDP socket sends all of its packets with DF, or none; these are written whole
//! and go through a raw socket, one at a time.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr};

use zerocopy::IntoBytes;

use crate::port::TxPacket;
use crate::sys::raw_ip::RawIp;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::proto;
use crate::wire::udp::{self, Udp};

/// Bytes of send buffer.
const BUFFER: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct ClearDf {
    socket: RawIp,
}

impl ClearDf {
    pub(super) fn open() -> io::Result<ClearDf> {
        Ok(ClearDf { socket: RawIp::sender_v4(BUFFER)? })
    }

    /// Sends `payload` from `port`. Without UDP checksum, as RFC 3948 section 2.1 would have it and RFC 8086 section 6.1 lets
    /// one do.
    pub(super) fn send(&self, port: u16, packet: &TxPacket, payload: &[u8]) -> io::Result<()> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let IpAddr::V4(dst) = packet.dst else { return Err(invalid()) };
        let src = match packet.src {
            Some(IpAddr::V4(src)) => src,
            // the kernel fills it in
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let len = udp::HEADER + payload.len();
        let total =
            u16::try_from(ipv4::HEADER + len).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        let ip = Ipv4 {
            version_ihl: 0x45,
            tos: packet.tos,
            total_len: total.into(),
            // the kernel numbers what has no number and may be fragmented
            id: 0.into(),
            fragment: 0.into(),
            ttl: packet.ttl,
            protocol: proto::UDP,
            checksum: 0.into(),
            src: src.octets(),
            dst: dst.octets(),
        };
        let udp = Udp {
            src: port.into(),
            dst: packet.dst_port.into(),
            len: (len as u16).into(),
            checksum: 0.into(),
        };
        let parts = [ip.as_bytes(), udp.as_bytes(), payload].map(IoSlice::new);
        self.socket.send(dst, &parts)
    }
}

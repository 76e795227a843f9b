//! `virtio_net_hdr`: how the kernel says, on packet sockets and TAPs, that a frame is a superframe or lacks a checksum.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U16};

/// Bytes of the header in front of every frame of a local port (the legacy form, without `num_buffers`).
pub const VNET_LEN: usize = 10;

/// The checksum at `csum_start + csum_offset` holds only the pseudo-header sum: whoever sends the frame on must finish it.
pub const F_NEEDS_CSUM: u8 = 1;
/// The checksum has been verified.
pub const F_DATA_VALID: u8 = 2;

/// Not a superframe.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// UDP to be fragmented (UFO): one datagram, IP fragments of `gso_size`.
pub const GSO_UDP: u8 = 3;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// UDP segmentation (USO): equal datagrams of `gso_size` payload bytes.
pub const GSO_UDP_L4: u8 = 5;
/// Flag beside the type: the TCP superframe carries CWR on its first segment.
pub const GSO_ECN: u8 = 0x80;

/// `struct virtio_net_hdr`, little-endian as on every host that Linux offers it to us on.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct VnetHdr {
    /// [`F_NEEDS_CSUM`], [`F_DATA_VALID`].
    pub flags: u8,
    /// [`GSO_NONE`] and its fellows, perhaps with [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of Ethernet, IP and transport headers. A hint only: never trust it.
    pub hdr_len: U16,
    /// Payload bytes of each segment.
    pub gso_size: U16,
    /// Where the checksum starts to count, from the start of the frame.
    pub csum_start: U16,
    /// Where the checksum stands, from `csum_start`.
    pub csum_offset: U16,
}

impl VnetHdr {
    /// Whether the frame stands for several.
    #[inline]
    pub fn is_gso(&self) -> bool {
        self.gso_type & !GSO_ECN != GSO_NONE
    }

    /// Whether the frame stands for several segments of TCP.
    #[inline]
    pub fn is_tcp_gso(&self) -> bool {
        matches!(self.gso_type & !GSO_ECN, GSO_TCPV4 | GSO_TCPV6)
    }

    /// Whether the checksum must be finished.
    #[inline]
    pub fn needs_csum(&self) -> bool {
        self.flags & F_NEEDS_CSUM != 0
    }

    /// How many packets a frame of `len` bytes with this header stands for. For counters: it trusts `hdr_len`.
    #[inline]
    pub fn packets(&self, len: u32) -> u64 {
        let size = u32::from(self.gso_size.get());
        if !self.is_gso() || size == 0 {
            return 1;
        }
        u64::from(len.saturating_sub(u32::from(self.hdr_len.get())).div_ceil(size).max(1))
    }
}

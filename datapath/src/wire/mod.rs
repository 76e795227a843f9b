//! Header codecs: one protocol a file, pure functions over slices.
//!
//! # Contract
//! - Nothing here panics, whatever the bytes: every access is checked, and indexing is denied by lint.
//! - Nothing allocates, and nothing keeps what it was given. Headers are read and written in place, as
//!   [`zerocopy`] views of the frame's own bytes; multi-byte fields convert from network order on access.
//! - A function that returns an offset has checked that it lies within the slice it was given. Offsets count from the
//!   first byte of the Ethernet frame unless said otherwise.
//! - What a length field claims is checked against the bytes that are there, never the other way round.
//!
//! [`parse`] looks at a whole frame and says where things are; the other modules know one header each.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod bfd;
pub mod cfm;
pub mod checksum;
pub mod ethernet;
pub mod geneve;
pub mod gre;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod loopback;
pub mod membership;
pub mod natt;
pub mod parse;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vxlan;

pub use parse::{Ip, Link, Parsed, Version, parse};

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers") that the datapath looks into.
pub mod proto {
    #![allow(missing_docs)]
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const IPV4: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6: u8 = 41;
    pub const GRE: u8 = 47;
    pub const ESP: u8 = 50;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT_HEADER: u8 = 59;
    pub const SCTP: u8 = 132;
}

/// Writes `value` in network order at `at`. Does nothing when it would not fit.
#[inline]
pub fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut()) {
        *field = value.to_be_bytes();
    }
}

/// The 16-bit word in network order at `at`.
#[inline]
pub fn get16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

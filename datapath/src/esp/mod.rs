//! The Encapsulating Security Payload (RFC 4303) in transport mode, with AES-GCM and an ICV of 16 bytes (RFC 4106).
//!
//! ```text
//! | SPI (4) | Sequence Number (4) | IV (8) | payload | 1 2 3 .. | Pad Length | Next Header | ICV (16) |
//!  `------------- AAD ------------'         `------------- encrypted -------------------'
//! ```
//! [`sa`] is what two ends have agreed on; [`seal`] and [`open`] work on one packet, in place; [`replay`] tells the packets
//! that have come before. Nothing here allocates, locks or panics, whatever the bytes.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod key;
pub mod open;
pub mod replay;
pub mod sa;
pub mod seal;
#[cfg(test)]
pub(crate) mod testing;

pub use key::SaKey;
pub use sa::{InboundSa, OutboundSa, Road, SaConfig, Selector, Usage};

/// Bytes of SPI and sequence number.
pub const HEADER: usize = 8;
/// Bytes of the explicit IV (RFC 4106 section 3.1).
pub const IV: usize = 8;
/// Where the payload starts.
pub const PAYLOAD: usize = HEADER + IV;
/// Bytes of pad length and next header.
pub const TRAILER: usize = 2;
/// Bytes of the integrity check value.
pub const ICV: usize = 16;
/// What pad length and next header must end on (RFC 4303 section 2.4).
pub const ALIGN: usize = 4;

/// Bytes of a packet that carries `payload` bytes.
#[inline]
pub const fn sealed_len(payload: usize) -> usize {
    PAYLOAD + (payload + TRAILER).next_multiple_of(ALIGN) + ICV
}

/// The most payload that a packet of at most `len` bytes carries.
#[inline]
pub const fn room(len: usize) -> usize {
    let encrypted = len.saturating_sub(PAYLOAD + ICV);
    (encrypted - encrypted % ALIGN).saturating_sub(TRAILER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_exact() {
        for len in 0..3000 {
            let room = room(len);
            assert!(sealed_len(room) <= len || room == 0, "{len}");
            assert!(sealed_len(room + 1) > len, "{len}");
        }
    }
}

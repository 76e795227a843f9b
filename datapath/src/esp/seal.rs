//! Outward: from a payload in its place to a packet on the wire.

use super::key::{Aad, SaKey};
use super::{HEADER, ICV, IV, OutboundSa, PAYLOAD, TRAILER, sealed_len};

impl OutboundSa {
    /// Seals the packet of `payload` bytes that stands at [`PAYLOAD`] in `packet`, whose length is [`sealed_len`] of that.
    /// `number` comes from [`OutboundSa::number`] and is used once only; being unique it is the IV, too (RFC 4106 section 3.1).
    /// False: the lengths do not fit, and the packet must not be sent.
    #[inline]
    #[must_use]
    pub fn seal(&self, number: u64, payload: usize, packet: &mut [u8]) -> bool {
        let aad = Aad { spi: self.config.spi, number, esn: self.config.esn };
        seal(&self.key, aad, number.to_be_bytes(), payload, self.config.selector.protocol(), packet).is_some()
    }
}

/// Makes an ESP packet of the `payload` bytes that stand at [`PAYLOAD`] in `packet`:
/// 1. SPI, the low half of the sequence number and the IV go in front;
/// 2. padding 1, 2, 3 and so on, pad length and next header behind (RFC 4303 section 2.4);
/// 3. payload to next header are encrypted, and the ICV is put at the end.
///
/// `iv` must never come twice with the same key. None: the packet is not [`sealed_len`] of the payload long.
pub fn seal(
    key: &SaKey,
    aad: Aad,
    iv: [u8; IV],
    payload: usize,
    next_header: u8,
    packet: &mut [u8],
) -> Option<()> {
    if packet.len() != sealed_len(payload) {
        return None;
    }
    let (head, rest) = packet.split_at_mut_checked(PAYLOAD)?;
    let (header, iv_field) = head.split_at_mut_checked(HEADER)?;
    header.copy_from_slice(&aad.header());
    iv_field.copy_from_slice(&iv);

    let (plain, icv) = rest.split_last_chunk_mut::<ICV>()?;
    let (padding, trailer) = plain.get_mut(payload..)?.split_last_chunk_mut::<TRAILER>()?;
    *trailer = [padding.len() as u8, next_header];
    for (byte, value) in padding.iter_mut().zip(1..=u8::MAX) {
        *byte = value;
    }
    *icv = key.seal(iv, aad, plain)?;
    Some(())
}

//! What a datagram on UDP port 4500 holds (RFC 3948 section 2).

/// SPI and sequence number. More must follow.
const ESP_HEADER: usize = 8;
/// Bytes of the fixed IKE header (RFC 7296 section 3.1).
const IKE_HEADER: usize = 28;
/// What comes before an IKE message (RFC 3948 section 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// What keeps a NAT's mapping alive (RFC 3948 section 2.3).
pub const KEEPALIVE: u8 = 0xff;

/// A datagram's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// ESP; the whole datagram.
    Esp,
    /// An IKE message, the marker left out.
    Ike(&'a [u8]),
    /// To be dropped without a word.
    Keepalive,
    /// Too short for anything.
    Malformed,
}

/// Tells them apart.
#[inline]
pub fn classify(payload: &[u8]) -> Datagram<'_> {
    match (payload.strip_prefix(&NON_ESP_MARKER), payload) {
        (Some(message), _) if message.len() >= IKE_HEADER => Datagram::Ike(message),
        (None, [KEEPALIVE]) => Datagram::Keepalive,
        (None, _) if payload.len() > ESP_HEADER => Datagram::Esp,
        _ => Datagram::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind() {
        let ike = [&NON_ESP_MARKER[..], &[7; IKE_HEADER]].concat();
        let cases: [(&[u8], Datagram<'_>); 10] = [
            (&[], Datagram::Malformed),
            (&[0xff], Datagram::Keepalive),
            (&[0xfe], Datagram::Malformed),
            (&[0xff; 2], Datagram::Malformed),
            (&[0xff; 8], Datagram::Malformed),
            (&[0xff; 9], Datagram::Esp),
            (&[0, 0, 0, 1, 0, 0, 0, 0, 0], Datagram::Esp),
            (&[0; 31], Datagram::Malformed),
            (&ike, Datagram::Ike(&[7; IKE_HEADER])),
            (&ike[..31], Datagram::Malformed),
        ];
        for (payload, want) in cases {
            assert_eq!(classify(payload), want, "{payload:x?}");
        }
    }
}

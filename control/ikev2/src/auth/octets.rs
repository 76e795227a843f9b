//! What is signed.

use crate::proposal::Prf;
use crate::wire;

/// The octets that one side signs (RFC 7296, section 2.15), and the PRF that a pre-shared key signs them with.
#[derive(Clone, Debug)]
pub struct SignedOctets {
    pub(super) prf: Prf,
    pub(super) octets: Vec<u8>,
}

impl SignedOctets {
    /// Of the side that sent `message`, its first of the exchange as it was on the wire (the last repeated one, with
    /// the cookie), without the non-ESP marker; `nonce` is the other side's; `sk_p` and `id` are of the side that signs.
    pub fn new(
        prf: Prf,
        message: &[u8],
        nonce: &[u8],
        sk_p: &[u8],
        id: &wire::Identification,
    ) -> SignedOctets {
        // IDx' is the payload but its generic header: the kind, three reserved octets, the data
        let maced = prf.mac(sk_p, &[&[id.kind, 0, 0, 0], &id.data]);
        SignedOctets { prf, octets: [message, nonce, maced.as_bytes()].concat() }
    }
}

//! What each side lets the other know: which CAs it trusts (CERTREQ), which hashes it takes (RFC 7427, section 4).

use ring::digest;

use super::Trust;
use crate::wire;

/// X.509 certificate, signature: the only encoding that is used. Those by URL are never fetched.
pub(super) const X509_SIGNATURE: u8 = 4;
/// What we let peers sign by: SHA2-256, SHA2-384, and none (Ed25519). A peer takes the strongest for whatever key it has,
/// and ECDSA with SHA2-512 on P-256 or P-384, which libreswan then sends, is more than ring verifies.
const HASHES: [u16; 3] = [SHA2_256, SHA2_384, IDENTITY];
pub(super) const SHA2_256: u16 = 2;
pub(super) const SHA2_384: u16 = 3;
pub(super) const SHA2_512: u16 = 4;
pub(super) const IDENTITY: u16 = 5;

/// The CERTREQ payload that makes the peer send its certificate: the hashes of our CAs' keys. None where no
/// certificate or only one is trusted: a peer need not send what we have.
pub fn certificate_requests(trust: &Trust) -> Option<wire::CertRequest> {
    match trust {
        Trust::Psk(_) | Trust::Pinned(_) => None,
        Trust::Authority { authority, .. } => {
            let hash = |spki| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, spki);
            let data = authority.keys().flat_map(|spki| hash(spki).as_ref().to_vec()).collect();
            Some(wire::CertRequest { encoding: X509_SIGNATURE, data })
        }
    }
}

pub(super) fn asks_for_x509(requests: &[wire::CertRequest]) -> bool {
    requests.iter().any(|r| r.encoding == X509_SIGNATURE)
}

/// The data of our SIGNATURE_HASH_ALGORITHMS notification.
pub fn hash_algorithms() -> Vec<u8> {
    HASHES.iter().flat_map(|hash| hash.to_be_bytes()).collect()
}

/// The hashes of a peer's SIGNATURE_HASH_ALGORITHMS notification.
pub fn parse_hash_algorithms(data: &[u8]) -> Vec<u16> {
    data.as_chunks().0.iter().map(|hash| u16::from_be_bytes(*hash)).collect()
}

//! Pre-shared keys.

use super::{AuthError, SignedOctets, scheme};
use crate::crypto::Secret;
use crate::wire;

/// Method 2 of RFC 7296, section 3.8.
pub(super) const SHARED_KEY: u8 = 2;
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// A pre-shared key: octets as they stand in `options:psk`. Wiped when dropped, never printed, compared in constant
/// time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Psk(Secret);

impl Psk {
    /// A key of at least one octet.
    pub fn new(octets: impl Into<Secret>) -> Result<Psk, AuthError> {
        let octets = octets.into();
        if octets.is_empty() { Err(AuthError::EmptyPsk) } else { Ok(Psk(octets)) }
    }

    pub(super) fn prove(&self, octets: &SignedOctets) -> wire::AuthData {
        wire::AuthData { method: SHARED_KEY, data: self.mac(octets).as_bytes().to_vec() }
    }

    pub(super) fn verify(&self, auth: &wire::AuthData, octets: &SignedOctets) -> Result<(), AuthError> {
        match auth.method {
            SHARED_KEY => {}
            scheme::RSA | scheme::ECDSA_P256 | scheme::ECDSA_P384 | scheme::DIGITAL_SIGNATURE => {
                return Err(AuthError::PskWanted);
            }
            method => return Err(AuthError::UnsupportedSignature(format!("authentication method {method}"))),
        }
        if Secret::from(auth.data.as_slice()) != self.mac(octets) {
            return Err(AuthError::WrongPsk);
        }
        Ok(())
    }

    /// `prf(prf(Shared Secret, "Key Pad for IKEv2"), <SignedOctets>)`
    fn mac(&self, octets: &SignedOctets) -> Secret {
        let key = octets.prf.mac(self.0.as_bytes(), &[KEY_PAD]);
        octets.prf.mac(key.as_bytes(), &[&octets.octets])
    }
}

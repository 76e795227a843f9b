//! The key of one direction, and the cipher under it.

use std::fmt;

use ring::aead::{self, AES_128_GCM, AES_256_GCM, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{HEADER, ICV, IV};

/// Bytes of salt: the part of the nonce that is not sent (RFC 4106 section 4).
const SALT: usize = 4;

/// What the ICV covers beside what is encrypted (RFC 4106 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aad {
    /// The SA's index.
    pub spi: u32,
    /// The whole sequence number.
    pub number: u64,
    /// Whether its high half counts. It is never sent.
    pub esn: bool,
}

impl Aad {
    /// The packet's first bytes.
    #[inline]
    pub(super) fn header(self) -> [u8; HEADER] {
        (u64::from(self.spi) << 32 | self.number & u64::from(u32::MAX)).to_be_bytes()
    }

    #[inline]
    fn with<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        if !self.esn {
            return f(&self.header());
        }
        let mut bytes = [0; 12];
        let (spi, number) = bytes.split_at_mut(4);
        spi.copy_from_slice(&self.spi.to_be_bytes());
        number.copy_from_slice(&self.number.to_be_bytes());
        f(&bytes)
    }
}

/// An AES-GCM key with its salt. What is held here is wiped when it goes; the round keys that the cipher expands it to are
/// out of reach.
pub struct SaKey {
    cipher: LessSafeKey,
    salt: Zeroizing<[u8; SALT]>,
}

impl SaKey {
    /// The AES key, of 16 or 32 bytes, and behind it 4 bytes of salt, as IKE derives them (RFC 4106 section 8.1). None: another
    /// length. The caller wipes `keymat`.
    pub fn aes_gcm(keymat: &[u8]) -> Option<SaKey> {
        let (key, salt) = keymat.split_last_chunk::<SALT>()?;
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        let cipher = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(SaKey { cipher, salt: Zeroizing::new(*salt) })
    }

    /// Encrypts `plain` in place and returns its ICV. None: longer than AES-GCM takes, which no packet is.
    #[inline]
    pub(super) fn seal(&self, iv: [u8; IV], aad: Aad, plain: &mut [u8]) -> Option<[u8; ICV]> {
        let nonce = self.nonce(iv);
        let tag = aad.with(|aad| self.cipher.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), plain));
        tag.ok()?.as_ref().try_into().ok()
    }

    /// Decrypts `sealed`, ciphertext and ICV, in place. False, and nothing of what it leaves there may be used: the ICV is
    /// wrong.
    #[inline]
    pub(super) fn open(&self, iv: [u8; IV], aad: Aad, sealed: &mut [u8]) -> bool {
        let nonce = self.nonce(iv);
        aad.with(|aad| self.cipher.open_in_place(nonce, aead::Aad::from(aad), sealed).is_ok())
    }

    fn nonce(&self, iv: [u8; IV]) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let (salt, rest) = nonce.split_at_mut(SALT);
        salt.copy_from_slice(&*self.salt);
        rest.copy_from_slice(&iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

impl fmt::Debug for SaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_lengths_are_no_keys() {
        let right: Vec<usize> = (0..80).filter(|n| SaKey::aes_gcm(&vec![7; *n]).is_some()).collect();
        assert_eq!(right, [20, 36]);
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = SaKey::aes_gcm(&[0xab; 36]).unwrap();
        assert_eq!(format!("{key:?}"), "SaKey(..)");
    }
}

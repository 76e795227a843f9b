//! The algorithms that are spoken, with their numbers (RFC 8247, RFC 8221) and strongSwan's names.

use std::fmt;

use crate::wire::{Transform, transform};

/// Encryption of the SK payload and of ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encr {
    /// AES-GCM with an ICV of 16 bytes and a key of 128 bits (RFC 4106, RFC 5282).
    AesGcm16_128,
    /// The same with a key of 256 bits.
    AesGcm16_256,
    /// AES-CBC with a key of 128 bits (RFC 3602). Of IKE SAs only, with an [`Integ`].
    AesCbc128,
    /// The same with a key of 256 bits.
    AesCbc256,
}

impl Encr {
    /// The transform's number.
    pub fn id(self) -> u16 {
        match self {
            Encr::AesGcm16_128 | Encr::AesGcm16_256 => 20,
            Encr::AesCbc128 | Encr::AesCbc256 => 12,
        }
    }

    /// Bits of the AES key: the attribute that the transform carries.
    pub fn key_bits(self) -> u16 {
        match self {
            Encr::AesGcm16_128 | Encr::AesCbc128 => 128,
            Encr::AesGcm16_256 | Encr::AesCbc256 => 256,
        }
    }

    /// Bytes of keying material: the AES key, for GCM with the salt of 4 bytes behind it.
    pub fn keymat_len(self) -> usize {
        usize::from(self.key_bits() / 8) + if self.is_aead() { 4 } else { 0 }
    }

    /// Whether it protects integrity too, so that no [`Integ`] is negotiated.
    pub fn is_aead(self) -> bool {
        matches!(self, Encr::AesGcm16_128 | Encr::AesGcm16_256)
    }

    /// The algorithm of a number and a key length in bits. The length must be there (RFC 7296 3.3.5).
    pub fn from_id(id: u16, key_bits: Option<u16>) -> Option<Encr> {
        [Encr::AesGcm16_128, Encr::AesGcm16_256, Encr::AesCbc128, Encr::AesCbc256]
            .into_iter()
            .find(|e| e.id() == id && Some(e.key_bits()) == key_bits)
    }

    /// As it stands in a proposal.
    pub fn transform(self) -> Transform {
        Transform::new(transform::ENCR, self.id(), Some(self.key_bits()))
    }
}

impl fmt::Display for Encr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encr::AesGcm16_128 => "AES_GCM_16-128",
            Encr::AesGcm16_256 => "AES_GCM_16-256",
            Encr::AesCbc128 => "AES_CBC-128",
            Encr::AesCbc256 => "AES_CBC-256",
        })
    }
}

/// Integrity of the SK payload beside AES-CBC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Integ {
    /// HMAC-SHA2-256 cut to 128 bits, with a key of 256 (RFC 4868).
    HmacSha256_128,
}

impl Integ {
    /// The transform's number.
    pub fn id(self) -> u16 {
        match self {
            Integ::HmacSha256_128 => 12,
        }
    }

    /// The algorithm of a number.
    pub fn from_id(id: u16) -> Option<Integ> {
        (id == Integ::HmacSha256_128.id()).then_some(Integ::HmacSha256_128)
    }

    /// Bytes of the key.
    pub fn key_len(self) -> usize {
        match self {
            Integ::HmacSha256_128 => 32,
        }
    }

    /// As it stands in a proposal.
    pub fn transform(self) -> Transform {
        Transform::new(transform::INTEG, self.id(), None)
    }
}

impl fmt::Display for Integ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Integ::HmacSha256_128 => "HMAC_SHA2_256_128",
        })
    }
}

/// Pseudorandom function (RFC 4868).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prf {
    /// HMAC-SHA2-256
    HmacSha256,
    /// HMAC-SHA2-384
    HmacSha384,
    /// HMAC-SHA2-512
    HmacSha512,
}

impl Prf {
    /// The transform's number.
    pub fn id(self) -> u16 {
        match self {
            Prf::HmacSha256 => 5,
            Prf::HmacSha384 => 6,
            Prf::HmacSha512 => 7,
        }
    }

    /// The function of a number.
    pub fn from_id(id: u16) -> Option<Prf> {
        [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512].into_iter().find(|p| p.id() == id)
    }

    /// As it stands in a proposal.
    pub fn transform(self) -> Transform {
        Transform::new(transform::PRF, self.id(), None)
    }
}

impl fmt::Display for Prf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Prf::HmacSha256 => "PRF_HMAC_SHA2_256",
            Prf::HmacSha384 => "PRF_HMAC_SHA2_384",
            Prf::HmacSha512 => "PRF_HMAC_SHA2_512",
        })
    }
}

/// Diffie-Hellman groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// 2048 bits modulo a prime (RFC 3526).
    Modp2048,
    /// 3072 bits.
    Modp3072,
    /// 4096 bits.
    Modp4096,
    /// NIST P-256 (RFC 5903).
    Ecp256,
    /// NIST P-384.
    Ecp384,
    /// X25519 (RFC 8031).
    Curve25519,
}

impl Group {
    /// All of them.
    pub const ALL: [Group; 6] =
        [Group::Curve25519, Group::Ecp256, Group::Ecp384, Group::Modp3072, Group::Modp4096, Group::Modp2048];

    /// The transform's number, which KE payloads name too.
    pub fn id(self) -> u16 {
        match self {
            Group::Modp2048 => 14,
            Group::Modp3072 => 15,
            Group::Modp4096 => 16,
            Group::Ecp256 => 19,
            Group::Ecp384 => 20,
            Group::Curve25519 => 31,
        }
    }

    /// The group of a number.
    pub fn from_id(id: u16) -> Option<Group> {
        Group::ALL.into_iter().find(|g| g.id() == id)
    }

    /// As it stands in a proposal.
    pub fn transform(self) -> Transform {
        Transform::new(transform::GROUP, self.id(), None)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Group::Modp2048 => "MODP_2048",
            Group::Modp3072 => "MODP_3072",
            Group::Modp4096 => "MODP_4096",
            Group::Ecp256 => "ECP_256",
            Group::Ecp384 => "ECP_384",
            Group::Curve25519 => "CURVE_25519",
        })
    }
}

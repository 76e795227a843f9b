//! Proposals in print, algorithms that are not spoken included: for the operator of the other side.

use std::fmt::{self, Write};

use crate::wire::{Proposal, Transform, protocol, transform};

/// What is printed of one proposal, and of one list, at most.
const MAX_TRANSFORMS: usize = 32;
const MAX_PROPOSALS: usize = 8;

/// Proposals as strongSwan prints them, of bounded length: `IKE:AES_GCM_16-256/PRF_HMAC_SHA2_256/MODP_2048, ...`.
pub fn list(proposals: &[Proposal]) -> String {
    let mut out = String::new();
    for (i, p) in proposals.iter().take(MAX_PROPOSALS).enumerate() {
        // a String takes all that is written to it
        let _ = write!(out, "{}{p}", if i > 0 { ", " } else { "" });
    }
    match proposals.len() {
        0 => "nothing".into(),
        1..=MAX_PROPOSALS => out,
        more => format!("{out} and {} more", more - MAX_PROPOSALS),
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            protocol::IKE => f.write_str("IKE:")?,
            protocol::AH => f.write_str("AH:")?,
            protocol::ESP => f.write_str("ESP:")?,
            other => write!(f, "protocol {other}:")?,
        }
        for (i, t) in self.transforms.iter().take(MAX_TRANSFORMS).enumerate() {
            write!(f, "{}{t}", if i > 0 { "/" } else { "" })?;
        }
        if self.transforms.len() > MAX_TRANSFORMS { f.write_str("/...") } else { Ok(()) }
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (name(self.kind, self.id), self.kind) {
            (Some(name), _) => f.write_str(name)?,
            (None, transform::ENCR) => write!(f, "ENCR_{}", self.id)?,
            (None, transform::PRF) => write!(f, "PRF_{}", self.id)?,
            (None, transform::INTEG) => write!(f, "INTEG_{}", self.id)?,
            (None, transform::GROUP) => write!(f, "GROUP_{}", self.id)?,
            (None, kind) => write!(f, "TYPE_{kind}_{}", self.id)?,
        }
        if let Some(bits) = self.key_bits {
            write!(f, "-{bits}")?;
        }
        f.write_str(if self.other.is_empty() { "" } else { "(unknown attribute)" })
    }
}

/// The names of algorithms that peers still offer, spoken here or not.
fn name(kind: u8, id: u16) -> Option<&'static str> {
    Some(match (kind, id) {
        (transform::ENCR, 3) => "3DES_CBC",
        (transform::ENCR, 11) => "NULL",
        (transform::ENCR, 12) => "AES_CBC",
        (transform::ENCR, 13) => "AES_CTR",
        (transform::ENCR, 14) => "AES_CCM_8",
        (transform::ENCR, 15) => "AES_CCM_12",
        (transform::ENCR, 16) => "AES_CCM_16",
        (transform::ENCR, 18) => "AES_GCM_8",
        (transform::ENCR, 19) => "AES_GCM_12",
        (transform::ENCR, 20) => "AES_GCM_16",
        (transform::ENCR, 23) => "CAMELLIA_CBC",
        (transform::ENCR, 24) => "CAMELLIA_CTR",
        (transform::ENCR, 28) => "CHACHA20_POLY1305",
        (transform::ENCR, 30) => "AES_GCM_16_IIV",
        (transform::PRF, 1) => "PRF_HMAC_MD5",
        (transform::PRF, 2) => "PRF_HMAC_SHA1",
        (transform::PRF, 4) => "PRF_AES128_XCBC",
        (transform::PRF, 5) => "PRF_HMAC_SHA2_256",
        (transform::PRF, 6) => "PRF_HMAC_SHA2_384",
        (transform::PRF, 7) => "PRF_HMAC_SHA2_512",
        (transform::PRF, 8) => "PRF_AES128_CMAC",
        (transform::INTEG | transform::GROUP, 0) => "NONE",
        (transform::INTEG, 1) => "HMAC_MD5_96",
        (transform::INTEG, 2) => "HMAC_SHA1_96",
        (transform::INTEG, 5) => "AES_XCBC_96",
        (transform::INTEG, 8) => "AES_CMAC_96",
        (transform::INTEG, 12) => "HMAC_SHA2_256_128",
        (transform::INTEG, 13) => "HMAC_SHA2_384_192",
        (transform::INTEG, 14) => "HMAC_SHA2_512_256",
        (transform::GROUP, 1) => "MODP_768",
        (transform::GROUP, 2) => "MODP_1024",
        (transform::GROUP, 5) => "MODP_1536",
        (transform::GROUP, 14) => "MODP_2048",
        (transform::GROUP, 15) => "MODP_3072",
        (transform::GROUP, 16) => "MODP_4096",
        (transform::GROUP, 17) => "MODP_6144",
        (transform::GROUP, 18) => "MODP_8192",
        (transform::GROUP, 19) => "ECP_256",
        (transform::GROUP, 20) => "ECP_384",
        (transform::GROUP, 21) => "ECP_521",
        (transform::GROUP, 22) => "MODP_1024_160",
        (transform::GROUP, 23) => "MODP_2048_224",
        (transform::GROUP, 24) => "MODP_2048_256",
        (transform::GROUP, 25) => "ECP_192",
        (transform::GROUP, 26) => "ECP_224",
        (transform::GROUP, 27) => "ECP_224_BP",
        (transform::GROUP, 28) => "ECP_256_BP",
        (transform::GROUP, 29) => "ECP_384_BP",
        (transform::GROUP, 30) => "ECP_512_BP",
        (transform::GROUP, 31) => "CURVE_25519",
        (transform::GROUP, 32) => "CURVE_448",
        (transform::GROUP, 35) => "ML_KEM_512",
        (transform::GROUP, 36) => "ML_KEM_768",
        (transform::GROUP, 37) => "ML_KEM_1024",
        (transform::ESN, 0) => "NO_EXT_SEQ",
        (transform::ESN, 1) => "EXT_SEQ",
        _ => return None,
    })
}

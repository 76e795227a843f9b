//! The cryptography of IKEv2: random numbers, key agreement, key derivation, protection of messages and
//! verification of signatures.
//!
//! ring does what it can do. MODP groups are computed here over `crypto-bigint`'s constant-time exponentiation, AES-CBC
//! comes from `aes` and `cbc`. [`Secret`]s, private values of MODP groups and the key schedules of AES-CBC are wiped when
//! dropped. What ring keeps in its own types (ephemeral private keys, key schedules of AES-GCM and HMAC), and what an
//! exponentiation leaves on the stack, is not: neither library offers a way to do so.

mod agreement;
mod keys;
mod modp;
mod prf;
mod protector;
mod random;
mod secret;
mod signature;

use crate::proposal::Group;

pub use agreement::KeyPair;
pub use keys::{Exchanged, IkeKeys, child_keymat};
pub use protector::Protector;
pub use random::{Rng, SystemRng};
pub use secret::Secret;
pub use signature::{KeyKind, SignatureAlgorithm, key_kind, verify};

/// What went wrong, and by whose fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The peer's public value has not the length that the group asks for.
    #[error("the peer's public value is {got} octets long, {group} has {want}")]
    PublicLength {
        /// The group of the exchange.
        group: Group,
        /// Octets received.
        got: usize,
        /// Octets of a public value of that group.
        want: usize,
    },
    /// The peer's public value fails the checks of RFC 6989: not in the group, or of small order.
    #[error("the peer's public value is not a valid one of {0}")]
    PublicValue(Group),
    /// No private key came out of the random number generator.
    #[error("making a private key for {0} failed")]
    KeyGeneration(Group),
    /// A key is not of the length that its algorithm needs: ours to fix.
    #[error("a key for {0} has the wrong length")]
    KeyLength(&'static str),
    /// The suite names algorithms that do not belong together: ours to fix.
    #[error("AES-CBC needs an integrity algorithm, AES-GCM has its own")]
    Suite,
    /// A protected message is too short, or not of a whole number of blocks.
    #[error("a protected message of {0} octets cannot be one of ours")]
    SealedLength(usize),
    /// A message was not sealed with this key, or changed on its way.
    #[error("a protected message fails its integrity check")]
    Integrity,
    /// A message is authentic, but its padding is longer than itself.
    #[error("a protected message has impossible padding")]
    Padding,
    /// A public key that cannot be read, or of a kind unknown here.
    #[error("the public key is none that is supported (RSA, ECDSA P-256 or P-384, Ed25519)")]
    PublicKey,
    /// An RSA key that is too weak.
    #[error("the RSA key is too weak: {0}")]
    WeakKey(&'static str),
    /// The signature is made by a kind of key that this key is not.
    #[error("the signature algorithm {0} does not fit the public key ({1})")]
    KeyMismatch(SignatureAlgorithm, KeyKind),
    /// The signature is not one of this message by this key.
    #[error("the signature is wrong")]
    Signature,
}

/// Test data in hexadecimal.
#[cfg(test)]
fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

//! Verifying signatures. There is no `bool` to misread: what is not `Ok(())` was not signed.

use std::fmt;

use ring::signature::{self as ring_signature, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{self, Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::CryptoError;

/// How a signature is made: the kind of key, the hash, and for ECDSA the form of the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA2-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA2-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA2-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA2-256, MGF1 with the same hash, and a salt of its length.
    RsaPssSha256,
    /// RSASSA-PSS with SHA2-384, likewise.
    RsaPssSha384,
    /// RSASSA-PSS with SHA2-512, likewise.
    RsaPssSha512,
    /// ECDSA P-256 with SHA2-256; the signature in DER (RFC 7427).
    EcdsaP256Sha256,
    /// ECDSA P-256 with SHA2-384; the signature in DER.
    EcdsaP256Sha384,
    /// ECDSA P-384 with SHA2-256; the signature in DER.
    EcdsaP384Sha256,
    /// ECDSA P-384 with SHA2-384; the signature in DER.
    EcdsaP384Sha384,
    /// ECDSA P-256 with SHA2-256; the signature is `r | s` of 32 octets each (RFC 4754: method 9).
    EcdsaP256Sha256Fixed,
    /// ECDSA P-384 with SHA2-384; the signature is `r | s` of 48 octets each (RFC 4754: method 10).
    EcdsaP384Sha384Fixed,
    /// Ed25519 (RFC 8420).
    Ed25519,
}

/// The kinds of public key that signatures are verified with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA, whatever the padding.
    Rsa,
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
}

/// Verifies that the private half of `spki` (a SubjectPublicKeyInfo in DER, as certificates carry it) signed
/// `message`. RSA keys of less than 2048 or more than 8192 bits or with an exponent below 65537 are refused.
pub fn verify(
    algorithm: SignatureAlgorithm,
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), CryptoError> {
    let (kind, key) = parse(spki)?;
    if kind != algorithm.key_kind() {
        return Err(CryptoError::KeyMismatch(algorithm, kind));
    }
    if kind == KeyKind::Rsa {
        check_rsa(key)?;
    }
    UnparsedPublicKey::new(algorithm.ring(), key)
        .verify(message, signature)
        .map_err(|_| CryptoError::Signature)
}

/// What kind of key a SubjectPublicKeyInfo in DER holds.
pub fn key_kind(spki: &[u8]) -> Result<KeyKind, CryptoError> {
    parse(spki).map(|(kind, _)| kind)
}

impl SignatureAlgorithm {
    /// The kind of key it needs.
    pub fn key_kind(self) -> KeyKind {
        match self {
            Self::RsaPkcs1Sha256
            | Self::RsaPkcs1Sha384
            | Self::RsaPkcs1Sha512
            | Self::RsaPssSha256
            | Self::RsaPssSha384
            | Self::RsaPssSha512 => KeyKind::Rsa,
            Self::EcdsaP256Sha256 | Self::EcdsaP256Sha384 | Self::EcdsaP256Sha256Fixed => KeyKind::EcdsaP256,
            Self::EcdsaP384Sha256 | Self::EcdsaP384Sha384 | Self::EcdsaP384Sha384Fixed => KeyKind::EcdsaP384,
            Self::Ed25519 => KeyKind::Ed25519,
        }
    }

    fn ring(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::RsaPkcs1Sha256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RsaPkcs1Sha384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
            Self::RsaPkcs1Sha512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
            Self::RsaPssSha256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
            Self::RsaPssSha384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
            Self::RsaPssSha512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
            Self::EcdsaP256Sha256 => &ring_signature::ECDSA_P256_SHA256_ASN1,
            Self::EcdsaP256Sha384 => &ring_signature::ECDSA_P256_SHA384_ASN1,
            Self::EcdsaP384Sha256 => &ring_signature::ECDSA_P384_SHA256_ASN1,
            Self::EcdsaP384Sha384 => &ring_signature::ECDSA_P384_SHA384_ASN1,
            Self::EcdsaP256Sha256Fixed => &ring_signature::ECDSA_P256_SHA256_FIXED,
            Self::EcdsaP384Sha384Fixed => &ring_signature::ECDSA_P384_SHA384_FIXED,
            Self::Ed25519 => &ring_signature::ED25519,
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RsaPkcs1Sha256 => "RSA PKCS#1 with SHA2-256",
            Self::RsaPkcs1Sha384 => "RSA PKCS#1 with SHA2-384",
            Self::RsaPkcs1Sha512 => "RSA PKCS#1 with SHA2-512",
            Self::RsaPssSha256 => "RSA PSS with SHA2-256",
            Self::RsaPssSha384 => "RSA PSS with SHA2-384",
            Self::RsaPssSha512 => "RSA PSS with SHA2-512",
            Self::EcdsaP256Sha256 | Self::EcdsaP256Sha256Fixed => "ECDSA P-256 with SHA2-256",
            Self::EcdsaP256Sha384 => "ECDSA P-256 with SHA2-384",
            Self::EcdsaP384Sha256 => "ECDSA P-384 with SHA2-256",
            Self::EcdsaP384Sha384 | Self::EcdsaP384Sha384Fixed => "ECDSA P-384 with SHA2-384",
            Self::Ed25519 => "Ed25519",
        })
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyKind::Rsa => "RSA",
            KeyKind::EcdsaP256 => "ECDSA P-256",
            KeyKind::EcdsaP384 => "ECDSA P-384",
            KeyKind::Ed25519 => "Ed25519",
        })
    }
}

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The kind of key, and its octets in the form that ring takes.
fn parse(spki: &[u8]) -> Result<(KeyKind, &[u8]), CryptoError> {
    let spki = SubjectPublicKeyInfoRef::from_der(spki).map_err(|_| CryptoError::PublicKey)?;
    let kind = match (spki.algorithm.oid, spki.algorithm.parameters_oid().ok()) {
        (RSA_ENCRYPTION, _) => KeyKind::Rsa,
        (EC_PUBLIC_KEY, Some(SECP256R1)) => KeyKind::EcdsaP256,
        (EC_PUBLIC_KEY, Some(SECP384R1)) => KeyKind::EcdsaP384,
        (ED25519, _) => KeyKind::Ed25519,
        _ => return Err(CryptoError::PublicKey),
    };
    let key = spki.subject_public_key.as_bytes().ok_or(CryptoError::PublicKey)?;
    Ok((kind, key))
}

/// ring takes exponents from 3 on. Small ones have made forgeries possible where a verifier was careless about
/// PKCS#1 padding; ring is not, and nobody needs them.
fn check_rsa(key: &[u8]) -> Result<(), CryptoError> {
    let (modulus, exponent) = rsa_parts(key).map_err(|_| CryptoError::PublicKey)?;
    // without leading zeros
    let (modulus, exponent) = (modulus.as_bytes(), exponent.as_bytes());
    let modulus_bits = 8 * modulus.len() - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    if modulus_bits < 2048 {
        return Err(CryptoError::WeakKey("less than 2048 bits"));
    }
    if (exponent.len(), exponent) < (3, &[1, 0, 1]) {
        return Err(CryptoError::WeakKey("an exponent below 65537"));
    }
    Ok(())
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }`
fn rsa_parts(key: &[u8]) -> Result<(UintRef<'_>, UintRef<'_>), der::Error> {
    let mut reader = SliceReader::new(key)?;
    let parts =
        reader.sequence(|parts| Ok::<_, der::Error>((UintRef::decode(parts)?, UintRef::decode(parts)?)))?;
    reader.finish()?;
    Ok(parts)
}

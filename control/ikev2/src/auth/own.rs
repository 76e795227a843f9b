//! Our own certificate and private key.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair};
use rustls_pki_types::pem::SectionKind;
use x509_cert::der::asn1::{AnyRef, OctetStringRef};
use x509_cert::der::{self, Decode, Header, SliceReader};
use x509_cert::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::certificate::Certificate;
use super::request::{IDENTITY, SHA2_256, SHA2_384, SHA2_512, X509_SIGNATURE};
use super::{AuthError, Identity, SignedOctets, Source, scheme};
use crate::crypto::{KeyKind, SignatureAlgorithm};
use crate::wire;

/// A certificate, those that lead from it to a CA, and its private key.
pub struct OwnCertificate {
    certificate: Certificate,
    /// Without the first, which is the certificate.
    chain: Vec<Certificate>,
    identity: Identity,
    key: Key,
    rng: SystemRandom,
}

enum Key {
    Rsa(RsaKeyPair),
    /// Signs for method 14, and for method 9 or 10. They differ in the form of the signature alone.
    Ecdsa {
        asn1: Box<EcdsaKeyPair>,
        fixed: Box<EcdsaKeyPair>,
    },
    Ed25519(Ed25519KeyPair),
}

impl OwnCertificate {
    /// Reads a certificate, perhaps with intermediate ones behind it, and its private key: PKCS#8, PKCS#1 (RSA) or SEC1
    /// (ECDSA), not encrypted.
    pub fn load(certificate: Source<'_>, key: Source<'_>) -> Result<OwnCertificate, AuthError> {
        let all = certificate.certificates()?;
        let mut all = all.iter().map(|der| Certificate::from_der(der, certificate.name));
        let own = all.next().ok_or(AuthError::NoCertificate)??;
        // a root is of no use to a peer: it has it or does not trust it
        let chain = all.filter(|c| !c.as_ref().is_ok_and(Certificate::is_self_issued));
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let (kind, secret) = key.private_key()?;
        let key = Key::new(&own, kind, &secret).map_err(|why| match why {
            KeyTrouble::Mismatch => {
                AuthError::KeyMismatch { key: key.name.to_owned(), certificate: certificate.name.to_owned() }
            }
            KeyTrouble::Unusable => AuthError::Key {
                file: key.name.to_owned(),
                why: format!(
                    "its private key is malformed, or none of the kind that {own} has ({})",
                    own.key
                ),
            },
        })?;
        Ok(OwnCertificate {
            identity: own.identity(),
            certificate: own,
            chain,
            key,
            rng: SystemRandom::new(),
        })
    }

    /// Who we are: the common name if it is an alternative name, too; else the first alternative name; else the common
    /// name; else the whole subject.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificate itself.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) fn to_wire(&self) -> Vec<wire::Certificate> {
        let all = std::iter::once(&self.certificate).chain(&self.chain);
        all.map(|c| wire::Certificate { encoding: X509_SIGNATURE, data: c.der.to_vec() }).collect()
    }

    pub(super) fn sign(
        &self,
        octets: &SignedOctets,
        peer_hashes: &[u16],
    ) -> Result<wire::AuthData, AuthError> {
        let algorithm = self.choose(peer_hashes)?;
        let failed = || AuthError::Signing(self.certificate.to_string());
        let signature = self.key.sign(algorithm, &octets.octets, &self.rng).ok_or_else(failed)?;
        use SignatureAlgorithm::*;
        let (method, data) = match algorithm {
            EcdsaP256Sha256Fixed => (scheme::ECDSA_P256, signature),
            EcdsaP384Sha384Fixed => (scheme::ECDSA_P384, signature),
            RsaPkcs1Sha256 if peer_hashes.is_empty() => (scheme::RSA, signature),
            _ => (scheme::DIGITAL_SIGNATURE, scheme::encode(algorithm, &signature).ok_or_else(failed)?),
        };
        Ok(wire::AuthData { method, data })
    }

    /// The algorithm for a peer that takes `hashes`: RSA with SHA2-256 if it can be, ECDSA with the hash of the curve.
    /// The older methods have no say in it.
    fn choose(&self, hashes: &[u16]) -> Result<SignatureAlgorithm, AuthError> {
        use SignatureAlgorithm::*;
        let legacy = hashes.is_empty();
        let candidates: &[(u16, SignatureAlgorithm)] = match self.certificate.key {
            KeyKind::Rsa if legacy => return Ok(RsaPkcs1Sha256),
            KeyKind::EcdsaP256 if legacy => return Ok(EcdsaP256Sha256Fixed),
            KeyKind::EcdsaP384 if legacy => return Ok(EcdsaP384Sha384Fixed),
            KeyKind::Rsa => {
                &[(SHA2_256, RsaPkcs1Sha256), (SHA2_384, RsaPkcs1Sha384), (SHA2_512, RsaPkcs1Sha512)]
            }
            KeyKind::EcdsaP256 => &[(SHA2_256, EcdsaP256Sha256)],
            KeyKind::EcdsaP384 => &[(SHA2_384, EcdsaP384Sha384)],
            KeyKind::Ed25519 => &[(IDENTITY, Ed25519)],
        };
        let chosen = candidates.iter().find(|(hash, _)| hashes.contains(hash));
        chosen.map(|(_, algorithm)| *algorithm).ok_or_else(|| AuthError::NoCommonHash {
            key: self.certificate.key.to_string(),
            hashes: hashes.to_vec(),
        })
    }
}

/// Two of the same certificate sign alike: the key belongs to it.
impl PartialEq for OwnCertificate {
    fn eq(&self, other: &OwnCertificate) -> bool {
        self.certificate == other.certificate && self.chain == other.chain
    }
}

impl Eq for OwnCertificate {}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnCertificate({})", self.certificate)
    }
}

enum KeyTrouble {
    Mismatch,
    Unusable,
}

impl Key {
    /// The private key of `certificate`.
    fn new(certificate: &Certificate, kind: SectionKind, secret: &[u8]) -> Result<Key, KeyTrouble> {
        let public =
            SubjectPublicKeyInfoRef::from_der(&certificate.spki).map_err(|_| KeyTrouble::Unusable)?;
        let public = public.subject_public_key.raw_bytes();
        match certificate.key {
            KeyKind::Rsa => {
                let pair = match kind {
                    SectionKind::RsaPrivateKey => RsaKeyPair::from_der(secret),
                    _ => RsaKeyPair::from_pkcs8(secret),
                };
                let pair = pair.map_err(|_| KeyTrouble::Unusable)?;
                if pair.public_key().as_ref() != public {
                    return Err(KeyTrouble::Mismatch);
                }
                let key = Key::Rsa(pair);
                // parts of a damaged key come to light when it signs, and then ring gives no signature
                let sound = key.sign(SignatureAlgorithm::RsaPkcs1Sha256, b"", &SystemRandom::new());
                sound.map(|_| key).ok_or(KeyTrouble::Unusable)
            }
            KeyKind::EcdsaP256 => Key::ecdsa(
                kind,
                secret,
                public,
                (&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            ),
            KeyKind::EcdsaP384 => Key::ecdsa(
                kind,
                secret,
                public,
                (&signature::ECDSA_P384_SHA384_ASN1_SIGNING, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            ),
            KeyKind::Ed25519 => {
                let inner = pkcs8(secret).map_err(|_| KeyTrouble::Unusable)?;
                // RFC 8410: an octet string within the octet string
                let seed = <&OctetStringRef>::from_der(inner).map_err(|_| KeyTrouble::Unusable)?;
                let pair = Ed25519KeyPair::from_seed_and_public_key(seed.as_bytes(), public);
                pair.map(Key::Ed25519).map_err(trouble)
            }
        }
    }

    fn ecdsa(
        kind: SectionKind,
        secret: &[u8],
        public: &[u8],
        (asn1, fixed): (&'static EcdsaSigningAlgorithm, &'static EcdsaSigningAlgorithm),
    ) -> Result<Key, KeyTrouble> {
        let sec1 = if kind == SectionKind::EcPrivateKey { Ok(secret) } else { pkcs8(secret) };
        let scalar = sec1.and_then(sec1_scalar).map_err(|_| KeyTrouble::Unusable)?;
        let rng = SystemRandom::new();
        let pair = |algorithm| EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, public, &rng);
        Ok(Key::Ecdsa {
            asn1: Box::new(pair(asn1).map_err(trouble)?),
            fixed: Box::new(pair(fixed).map_err(trouble)?),
        })
    }

    fn sign(&self, algorithm: SignatureAlgorithm, octets: &[u8], rng: &SystemRandom) -> Option<Vec<u8>> {
        use SignatureAlgorithm::*;
        match (self, algorithm) {
            (Key::Rsa(pair), _) => {
                let encoding = match algorithm {
                    RsaPkcs1Sha256 => &signature::RSA_PKCS1_SHA256,
                    RsaPkcs1Sha384 => &signature::RSA_PKCS1_SHA384,
                    RsaPkcs1Sha512 => &signature::RSA_PKCS1_SHA512,
                    _ => return None,
                };
                let mut out = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, rng, octets, &mut out).ok()?;
                Some(out)
            }
            (Key::Ecdsa { fixed, .. }, EcdsaP256Sha256Fixed | EcdsaP384Sha384Fixed) => {
                Some(fixed.sign(rng, octets).ok()?.as_ref().to_vec())
            }
            (Key::Ecdsa { asn1, .. }, _) => Some(asn1.sign(rng, octets).ok()?.as_ref().to_vec()),
            (Key::Ed25519(pair), _) => Some(pair.sign(octets).as_ref().to_vec()),
        }
    }
}

/// ring was given the certificate's public key: a private key that is sound but not of this certificate it calls
/// inconsistent, one of another curve it refuses for its length.
fn trouble(rejected: ring::error::KeyRejected) -> KeyTrouble {
    match rejected.to_string().as_str() {
        "InconsistentComponents" => KeyTrouble::Mismatch,
        _ => KeyTrouble::Unusable,
    }
}

/// The key within `PrivateKeyInfo ::= SEQUENCE { version, algorithm, privateKey OCTET STRING, .. }`. The algorithm
/// need not be looked at: the key has to fit the certificate's.
fn pkcs8(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(der)?;
    Header::decode(&mut reader)?;
    u8::decode(&mut reader)?;
    AlgorithmIdentifierRef::decode(&mut reader)?;
    Ok(<&OctetStringRef>::decode(&mut reader)?.as_bytes())
}

/// The scalar of `ECPrivateKey ::= SEQUENCE { version INTEGER (1), privateKey OCTET STRING, .. }`.
fn sec1_scalar(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(der)?;
    Header::decode(&mut reader)?;
    AnyRef::decode(&mut reader)?;
    Ok(<&OctetStringRef>::decode(&mut reader)?.as_bytes())
}

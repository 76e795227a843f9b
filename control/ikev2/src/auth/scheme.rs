//! Signatures in AUTH payloads: which algorithm, and where the signature stands.

use rustls_pki_types::{AlgorithmIdentifier, alg_id};
use x509_cert::der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use x509_cert::der::{self, Decode, Encode, Header, Reader, SliceReader};
use x509_cert::spki::AlgorithmIdentifierRef;

use super::AuthError;
use crate::crypto::{KeyKind, SignatureAlgorithm};
use crate::wire;

/// Methods of RFC 7296, section 3.8, RFC 4754 and RFC 7427.
pub(super) const RSA: u8 = 1;
pub(super) const ECDSA_P256: u8 = 9;
pub(super) const ECDSA_P384: u8 = 10;
pub(super) const DIGITAL_SIGNATURE: u8 = 14;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");

/// AlgorithmIdentifiers but PSS's, whose parameters vary. ECDSA's says nothing about the curve.
const IDENTIFIERS: [(AlgorithmIdentifier, &[SignatureAlgorithm]); 6] = {
    use SignatureAlgorithm::*;
    [
        (alg_id::RSA_PKCS1_SHA256, &[RsaPkcs1Sha256]),
        (alg_id::RSA_PKCS1_SHA384, &[RsaPkcs1Sha384]),
        (alg_id::RSA_PKCS1_SHA512, &[RsaPkcs1Sha512]),
        (alg_id::ECDSA_SHA256, &[EcdsaP256Sha256, EcdsaP384Sha256]),
        (alg_id::ECDSA_SHA384, &[EcdsaP384Sha384, EcdsaP256Sha384]),
        (alg_id::ED25519, &[Ed25519]),
    ]
};

/// The data of an AUTH payload of method 14 (RFC 7427, section 3): length and DER of the algorithm, signature.
pub(super) fn encode(algorithm: SignatureAlgorithm, signature: &[u8]) -> Option<Vec<u8>> {
    let (id, _) = IDENTIFIERS.iter().find(|(_, algorithms)| algorithms.contains(&algorithm))?;
    let inner = u8::try_from(id.len()).ok()?;
    // the constants are without the sequence around them
    Some([&[inner.checked_add(2)?, 0x30, inner], id.as_ref(), signature].concat())
}

/// What `auth` says to be signed with, given the kind of key that is to verify it, and the signature. There may be
/// several candidates: method 1 does not tell the hash.
pub(super) fn decode(
    auth: &wire::AuthData,
    key: KeyKind,
) -> Result<(Vec<SignatureAlgorithm>, &[u8]), AuthError> {
    use SignatureAlgorithm::*;
    let signature = auth.data.as_slice();
    match auth.method {
        // RFC 7296 leaves the hash open; SHA-1, its default, is not taken from anybody
        RSA => Ok((vec![RsaPkcs1Sha256, RsaPkcs1Sha384, RsaPkcs1Sha512], signature)),
        ECDSA_P256 => Ok((vec![EcdsaP256Sha256Fixed], signature)),
        ECDSA_P384 => Ok((vec![EcdsaP384Sha384Fixed], signature)),
        DIGITAL_SIGNATURE => {
            let (id, signature) = split(&auth.data)
                .ok_or_else(|| AuthError::UnsupportedSignature("a malformed algorithm identifier".into()))?;
            Ok((vec![algorithm(id, key)?], signature))
        }
        method => Err(AuthError::UnsupportedSignature(format!("authentication method {method}"))),
    }
}

fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

/// The algorithm of an AlgorithmIdentifier in DER.
fn algorithm(der: &[u8], key: KeyKind) -> Result<SignatureAlgorithm, AuthError> {
    let malformed = |_| AuthError::UnsupportedSignature("a malformed algorithm identifier".into());
    let id = AlgorithmIdentifierRef::from_der(der).map_err(malformed)?;
    if id.oid == RSASSA_PSS {
        let pss = id.parameters.and_then(|p| pss(p).ok());
        return pss.ok_or_else(|| AuthError::UnsupportedSignature("RSA PSS with unusual parameters".into()));
    }
    // RFC 4055 wants an absent parameter of RSA's to be taken for the NULL that belongs there
    let contents = [id.oid.to_der().map_err(malformed)?, parameters(&id).map_err(malformed)?].concat();
    IDENTIFIERS
        .iter()
        .find(|(known, _)| known.as_ref() == contents || is_rsa_without_null(known, &contents))
        .and_then(|(_, algorithms)| algorithms.iter().find(|a| a.key_kind() == key).or(algorithms.first()))
        .copied()
        .ok_or_else(|| AuthError::UnsupportedSignature(format!("algorithm {}", id.oid)))
}

fn parameters(id: &AlgorithmIdentifierRef<'_>) -> der::Result<Vec<u8>> {
    id.parameters.map_or(Ok(Vec::new()), |p| p.to_der())
}

fn is_rsa_without_null(known: &AlgorithmIdentifier, contents: &[u8]) -> bool {
    const NULL: [u8; 2] = [5, 0];
    known.strip_suffix(&NULL).is_some_and(|known| known == contents)
}

/// PSS with the same hash in both places and a salt of its length, as RFC 7427, section 3 and appendix A.4, has it.
/// ```text
/// RSASSA-PSS-params ::= SEQUENCE {
///     hashAlgorithm [0] HashAlgorithm DEFAULT sha1, maskGenAlgorithm [1] MaskGenAlgorithm DEFAULT mgf1SHA1,
///     saltLength [2] INTEGER DEFAULT 20, trailerField [3] INTEGER DEFAULT 1 }
/// ```
fn pss(parameters: AnyRef<'_>) -> der::Result<SignatureAlgorithm> {
    let unusual = || der::Error::from(der::ErrorKind::Failed);
    let der = parameters.to_der()?;
    let mut reader = SliceReader::new(&der)?;
    Header::decode(&mut reader)?;
    let hash = ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode(&mut reader)?;
    let mask = ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode(&mut reader)?;
    let salt = ContextSpecific::<u16>::decode(&mut reader)?;
    let trailer = if reader.is_finished() { None } else { Some(ContextSpecific::<u8>::decode(&mut reader)?) };
    reader.finish()?;

    let numbers = [hash.tag_number.value(), mask.tag_number.value(), salt.tag_number.value()] == [0, 1, 2];
    let trailer = trailer.is_none_or(|t| t.tag_number.value() == 3 && t.value == 1);
    let mask_hash = mask.value.parameters.ok_or_else(unusual)?.decode_as::<AlgorithmIdentifierRef<'_>>()?;
    if !numbers || !trailer || mask.value.oid != MGF1 || mask_hash.oid != hash.value.oid {
        return Err(unusual());
    }
    const HASHES: [(ObjectIdentifier, u16, SignatureAlgorithm); 3] = [
        (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), 32, SignatureAlgorithm::RsaPssSha256),
        (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), 48, SignatureAlgorithm::RsaPssSha384),
        (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), 64, SignatureAlgorithm::RsaPssSha512),
    ];
    let known = HASHES.iter().find(|(oid, len, _)| *oid == hash.value.oid && *len == salt.value);
    known.map(|(_, _, algorithm)| *algorithm).ok_or_else(unusual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use SignatureAlgorithm::*;

    fn hex(text: &str) -> Vec<u8> {
        let text: String = text.split_whitespace().collect();
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn read(id: &str, key: KeyKind) -> Option<SignatureAlgorithm> {
        let id = hex(id);
        let auth = wire::AuthData { method: 14, data: [&[id.len() as u8], &id[..], b"signature"].concat() };
        let (algorithms, signature) = decode(&auth, key).ok()?;
        assert_eq!(signature, b"signature");
        algorithms.first().copied()
    }

    /// RFC 7427, appendix A; RFC 8420, section 3.
    #[test]
    fn identifiers_of_the_rfcs() {
        for (algorithm, id) in [
            (RsaPkcs1Sha256, "300d 0609 2a864886f70d01010b 0500"),
            (RsaPkcs1Sha384, "300d 0609 2a864886f70d01010c 0500"),
            (RsaPkcs1Sha512, "300d 0609 2a864886f70d01010d 0500"),
            (EcdsaP256Sha256, "300a 0608 2a8648ce3d040302"),
            (EcdsaP384Sha384, "300a 0608 2a8648ce3d040303"),
            (Ed25519, "3005 0603 2b6570"),
        ] {
            let id_len = hex(id).len() as u8;
            assert_eq!(encode(algorithm, b"xy"), Some([&[id_len], &hex(id)[..], b"xy"].concat()));
            assert_eq!(read(id, algorithm.key_kind()), Some(algorithm));
        }
        // ECDSA with the hash of the other curve
        assert_eq!(read("300a 0608 2a8648ce3d040303", KeyKind::EcdsaP256), Some(EcdsaP256Sha384));
        assert_eq!(read("300a 0608 2a8648ce3d040302", KeyKind::EcdsaP384), Some(EcdsaP384Sha256));
        // an absent parameter for NULL
        assert_eq!(read("300b 0609 2a864886f70d01010b", KeyKind::Rsa), Some(RsaPkcs1Sha256));
    }

    #[test]
    fn identifiers_that_are_refused() {
        for id in [
            "",
            "3000",
            "300d 0609 2a864886f70d010105 0500",    // SHA-1
            "300d 0609 2a864886f70d01010e 0500",    // SHA-224
            "300d 0609 2a864886f70d010101 0500",    // no signature
            "300c 0609 2a864886f70d01010b 05",      // cut short
            "300e 0609 2a864886f70d01010b 0500 00", // too long
            "300f 0609 2a864886f70d01010b 04020500",
            "300d 0609 2a864886f70d01010a 3000", // PSS with SHA-1
            "300b 0609 2a864886f70d01010a",      // PSS without parameters
            "300a 0608 2a8648ce3d040304",        // ECDSA with SHA2-512
            "300a 0608 2a8648ce3d040301",
            "3005 0603 2b6571", // Ed448
        ] {
            assert_eq!(read(id, KeyKind::Rsa), None, "{id}");
        }
        for data in [&b""[..], b"\x01", b"\xff0"] {
            let auth = wire::AuthData { method: 14, data: data.to_vec() };
            assert!(decode(&auth, KeyKind::Rsa).is_err());
        }
    }

    #[test]
    fn parameters_of_pss() {
        const SHA256: &str = "300d 0609 608648016503040201 0500";
        const SHA256_SHORT: &str = "300b 0609 608648016503040201";
        const SHA384: &str = "300d 0609 608648016503040202 0500";
        const SHA1: &str = "3009 0605 2b0e03021a 0500";
        const MGF1: &str = "0609 2a864886f70d010108";
        let wrap = |tag: u8, inner: &[u8]| [&[tag, inner.len() as u8], inner].concat();
        let pss = |hash: &str, mask: &str, mask_hash: &str, salt: &str, more: &str| {
            let mask = wrap(0x30, &[hex(mask), hex(mask_hash)].concat());
            let params = [wrap(0xa0, &hex(hash)), wrap(0xa1, &mask), hex(salt), hex(more)].concat();
            let id = wrap(0x30, &[hex("0609 2a864886f70d01010a"), wrap(0x30, &params)].concat());
            let text: String = id.iter().map(|b| format!("{b:02x}")).collect();
            read(&text, KeyKind::Rsa)
        };
        const SALT: &str = "a203 0201 20";
        assert_eq!(pss(SHA256, MGF1, SHA256, SALT, ""), Some(RsaPssSha256));
        assert_eq!(pss(SHA256_SHORT, MGF1, SHA256, SALT, ""), Some(RsaPssSha256));
        assert_eq!(pss(SHA256, MGF1, SHA256, SALT, "a303 0201 01"), Some(RsaPssSha256));
        assert_eq!(pss(SHA384, MGF1, SHA384, "a203 0201 30", ""), Some(RsaPssSha384));
        for (hash, mask, mask_hash, salt, more) in [
            (SHA256, MGF1, SHA384, SALT, ""),
            (SHA384, MGF1, SHA256, SALT, ""),
            (SHA1, MGF1, SHA1, "a203 0201 14", ""),
            (SHA256, MGF1, SHA256, "a203 0201 14", ""),
            (SHA256, MGF1, SHA256, "a203 0201 21", ""),
            (SHA256, "0609 2a864886f70d010109", SHA256, SALT, ""),
            (SHA256, MGF1, "", SALT, ""),
            (SHA256, MGF1, SHA256, "", ""),
            (SHA256, MGF1, SHA256, SALT, "a303 0201 02"),
            (SHA256, MGF1, SHA256, SALT, "a403 0201 01"),
            (SHA256, MGF1, SHA256, SALT, "a303 0201 01 0500"),
            (SHA256, MGF1, SHA256, "a303 0201 20", ""),
        ] {
            assert_eq!(
                pss(hash, mask, mask_hash, salt, more),
                None,
                "{hash} {mask} {mask_hash} {salt} {more}"
            );
        }
    }
}

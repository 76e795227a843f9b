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
    UnparsedPublicKey::new(algorithm.ring(), key)
        .verify(message, signature)
        .map_err(|_| CryptoError::Signature)
}

/// What kind of key a SubjectPublicKeyInfo in DER holds. Keys that [`verify`] refuses are refused here, too.
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
    if kind == KeyKind::Rsa {
        check_rsa(key)?;
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hex;
    use super::*;

    /// By OpenSSL, over `signed` with SHA2-256
    const RSA_2048: &str = "30820122300d06092a864886f70d01010105000382010f003082010a0282010100db93797cf6e48ca893dbc9c7f282ee\
            50ae44e0f86bb2755e71358a6cadb778e21fd49d93388c74df19e9eea13badc8d3cf6559a499f3623a2afcc14cbcb293\
            c12d761b6774f987b575623d1740561fb37c14028927aba2c7f539888b781ebe79139600fba889656daa96d0b963c64d\
            bb9fc50445d8109c2ed352a0b7d7939029678a3db2582b23c2a82034d4cc8c98c8bb1d32bfa3abda87232803edd8c000\
            683db97cdc5957ce691540e1bd7a40a5099ab59bebd3175d8c423533bfaf6bfc8e47b1f63d8922fb7ca86fd4df97a564\
            c7fd9a62fbf2340c880a63f66409fe3439c8f5516437e90c74fd18b3998770aadffb67e6402081c4b76dbee9492f8f18\
            eb0203010001";
    const RSA_1024: &str = "30819f300d06092a864886f70d010101050003818d0030818902818100df7fd6fd22677e458fd95a1c7f4891a97b9640\
            c9ce42ed4cd2b0c420773a71b71f74b802bb5b1121ee00d81b8492fe1e0c88eb46d80377b422a8b73385ef3c8f7a44fb\
            a23b8cdc2a3024b1f2a7960201f6ae10e4fc85a8e46fbfd07414783b9405a5fc7c1ca86841763a890199f9f32cf950e3\
            f9abb750219aebd5e34bb5c5a90203010001";
    const BY_RSA_1024: &str = "99460e7a573112d856fdd48a800ecbb7761257cce9abfb1cbe18eba93a1e473a15567088a7c5184e95b54f11ab293287\
            eb96bccb98c3192425d79d529d5757fb79f97565eadd57ff137014ab6d54ecb1621475c45aef9deabc23a1c256c1a56a\
            f99235eb2b42b6cdb1adc94e9767fc5145f60c4c3af64277241929cafaa274f4";
    const RSA_2047: &str = "30820121300d06092a864886f70d01010105000382010e0030820109028201006014ce5e9d18f6e1cae7e0ded44f9f1d\
            f23b82e8cbba883604c6dbcedda7b10f60c091721d885b83fd7ea95b0fdb4e29cddc942b60dbf1b3e468294059289657\
            a9c99fc4f22f38bd9d17af28cf13cafc3bcd6e2044ccd88d401a128e3a4409de00e80f58c662385f3c9eb9799550adcf\
            1f64ec9a4f09042b1b803f9d61dd9d152630fc6f0733a930f1235336dc47750a3e2ac5b5878959df4cf5261a025ca8b3\
            4cd9edda524e8fbd2be43b937a671d0f656b42a890a517fef709eba0e2a629c7fdf69dfd54691a7f9612d14a7708faa2\
            9da0d88b13e2a3a0b77b3599ed3e913b2ddaa95389b55c3e550bda88065ec75e663fdf29374440b1222ec1923158b887\
            0203010001";
    const BY_RSA_2047: &str = "2569d6d21926866555af88b9f7e6b2bcbac546f288fce6815aed14e166f01463e22931e3ea8fb935b147bdc69523540f\
            3360fe766761a1cccce3d18bdb1a6e018665a35baee56b62ba820b9ca252b5b9bff2152c368626def34dce1a02de9eff\
            949c27010fcacad843fe76cd9ba0efb14d9f9f6789139ddfaa895b1f9e7a96d3df0b48fd16747a35907b32f9363dde38\
            45dc439d2e6e8f6edd7e400204dac1322ffc707c6cfadf571e42a6fcefc34e59a0ab9fc668890cc61b399664382ea04e\
            77e5945379c4e6b2f1224a25db2772dca1d3e590605e3e2ab999bf92bf4998ddbf739b76649e95ea225e20649abbd101\
            f9eda69c4628a4183f51c1e4253e3dea";
    const P521: &str = "30819b301006072a8648ce3d020106052b81040023038186000401829e421acbd1ffa4470455808b9b935e0919ef8f9e\
            7afcfbdb0f4a8cfd405326ed0b9aba3e49bc14cb49636f8ea71f2d6209e05aa19f27ede29f8b3dcbf7dc8faf016eb093\
            152f0a3898eb671be92ad741905e3877a7027273f81d3540334842a4a77497cba33247c08116e470bd83fffc9e8f2f6b\
            25ef1af4d16d6511a752fd209293";

    #[test]
    fn rsa_keys_below_2048_bits_are_refused() {
        for (key, signature) in [(RSA_1024, BY_RSA_1024), (RSA_2047, BY_RSA_2047)] {
            let weak = CryptoError::WeakKey("less than 2048 bits");
            assert_eq!(key_kind(&hex(key)), Err(weak.clone()));
            assert_eq!(
                verify(SignatureAlgorithm::RsaPkcs1Sha256, &hex(key), b"signed", &hex(signature)),
                Err(weak)
            );
        }
    }

    #[test]
    fn a_signature_of_another_kind_of_key_is_refused() {
        for algorithm in [SignatureAlgorithm::EcdsaP256Sha256, SignatureAlgorithm::Ed25519] {
            assert_eq!(
                verify(algorithm, &hex(RSA_2048), b"signed", &hex(BY_RSA_1024)),
                Err(CryptoError::KeyMismatch(algorithm, KeyKind::Rsa))
            );
        }
    }

    #[test]
    fn what_is_no_supported_key_is_refused() {
        let key = hex(RSA_2048);
        let longer = [&key[..], &[0]].concat();
        // The bit string says that 1 bit of its last octet is none of its own
        let mut ragged = key.clone();
        ragged[23] = 1;
        for spki in [&[][..], &hex(P521), &key[1..], &key[..key.len() - 1], &longer, &ragged] {
            assert_eq!(key_kind(spki), Err(CryptoError::PublicKey));
        }
        assert_eq!(key_kind(&key), Ok(KeyKind::Rsa));
    }

    #[test]
    fn rsa_keys_of_other_shapes_are_refused() {
        // A SubjectPublicKeyInfo around the octets of no RSAPublicKey: empty, an empty sequence, one number, three
        for inner in ["", "3000", "3003020103", "3009020103020103020103", "30060201030201030000"] {
            let bits = format!("03{:02x}00{inner}", 1 + inner.len() / 2);
            let algorithm = "300d06092a864886f70d0101010500";
            let spki = hex(&format!("30{:02x}{algorithm}{bits}", (algorithm.len() + bits.len()) / 2));
            assert_eq!(key_kind(&spki), Err(CryptoError::PublicKey), "{inner}");
        }
    }

    proptest! {
        #[test]
        fn damaged_keys_and_signatures_do_no_harm(
            at in 0..294_usize,
            to: u8,
            message: Vec<u8>,
            signature in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut key = hex(RSA_2048);
            key[at] = to;
            let _ = key_kind(&key);
            prop_assert!(verify(SignatureAlgorithm::RsaPssSha256, &key, &message, &signature).is_err());
            prop_assert!(verify(SignatureAlgorithm::RsaPkcs1Sha256, &key, &message, &signature).is_err());
            prop_assert!(verify(SignatureAlgorithm::EcdsaP256Sha256, &signature, &message, &key).is_err());
        }
    }
}

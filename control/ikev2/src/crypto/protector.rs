//! The body of an Encrypted payload (SK) or Encrypted Fragment payload (SKF): AES-GCM (RFC 5282), or AES-CBC with
//! HMAC-SHA2-256-128 over the ciphertext (RFC 7296, section 3.14).
//!
//! ```text
//! AES-GCM   [IV 8]  [plaintext][pad length 1]            [ICV 16]
//! AES-CBC   [IV 16] [plaintext][padding][pad length 1]   [ICV 16]
//! ```

use std::fmt;

use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128, Aes256};
use ring::{aead, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{CryptoError, Rng, Secret};
use crate::proposal::{Encr, IkeSuite, Integ};

const ICV: usize = 16;
const GCM_IV: usize = 8;
const SALT: usize = 4;
const BLOCK: usize = 16;

/// One direction of an IKE SA's messages. The end that sends seals with it, the other opens.
pub struct Protector {
    encr: Encr,
    cipher: Cipher,
}

enum Cipher {
    Gcm(Gcm),
    Cbc(Cbc),
}

struct Gcm {
    key: aead::LessSafeKey,
    salt: Zeroizing<[u8; SALT]>,
    /// The IV of the next message: a counter, so that none is used twice (RFC 5282, section 3.1).
    next: u64,
}

struct Cbc {
    key: CbcKey,
    integrity: hmac::Key,
}

enum CbcKey {
    Aes128(Aes128),
    Aes256(Aes256),
}

impl Protector {
    /// From SK_ei and SK_ai, or from SK_er and SK_ar.
    pub fn new(suite: &IkeSuite, sk_e: &Secret, sk_a: &Secret) -> Result<Protector, CryptoError> {
        let cipher = match (suite.encr, suite.integ) {
            (Encr::AesGcm16_128, None) => Cipher::Gcm(Gcm::new(&aead::AES_128_GCM, sk_e)?),
            (Encr::AesGcm16_256, None) => Cipher::Gcm(Gcm::new(&aead::AES_256_GCM, sk_e)?),
            (Encr::AesCbc128 | Encr::AesCbc256, Some(Integ::HmacSha256_128)) => {
                Cipher::Cbc(Cbc::new(suite.encr, sk_e, sk_a)?)
            }
            _ => return Err(CryptoError::Suite),
        };
        Ok(Protector { encr: suite.encr, cipher })
    }

    /// Octets of the body that [`seal`](Protector::seal) makes of `plain` octets.
    pub fn body_len(&self, plain: usize) -> usize {
        self.encr.body_len(plain)
    }

    /// Seals `plain`, and vouches for `aad` too: everything from the IKE header to the generic header of the SK
    /// payload, or to the fragment header. `rng` gives the IV of AES-CBC, which must not be foreseen.
    ///
    /// After 2^64 messages under one key of AES-GCM, the body is empty: nobody takes it for a message.
    pub fn seal(&mut self, aad: &[u8], plain: &[u8], rng: &mut dyn Rng) -> Vec<u8> {
        match &mut self.cipher {
            Cipher::Gcm(gcm) => gcm.seal(aad, &padded(plain, 1)).unwrap_or_default(),
            Cipher::Cbc(cbc) => {
                let mut iv = [0; BLOCK];
                rng.fill(&mut iv);
                cbc.seal(aad, &padded(plain, BLOCK), iv)
            }
        }
    }

    /// What the other end has sealed, once its ICV is right. The padding may hold anything and is cut off.
    pub fn open(&self, aad: &[u8], body: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut plain = match &self.cipher {
            Cipher::Gcm(gcm) => gcm.open(aad, body)?,
            Cipher::Cbc(cbc) => cbc.open(aad, body)?,
        };
        let pad_length = plain.pop().ok_or(CryptoError::SealedLength(body.len()))?;
        let len = plain.len().checked_sub(usize::from(pad_length)).ok_or(CryptoError::Padding)?;
        plain.truncate(len);
        Ok(plain)
    }
}

impl fmt::Debug for Protector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protector").field("encr", &self.encr).finish_non_exhaustive()
    }
}

impl Encr {
    /// Octets of an SK payload's body, from IV to ICV, with `plain` octets inside.
    pub fn body_len(self, plain: usize) -> usize {
        match self {
            Encr::AesGcm16_128 | Encr::AesGcm16_256 => GCM_IV + plain + 1 + ICV,
            Encr::AesCbc128 | Encr::AesCbc256 => BLOCK + (plain + 1).next_multiple_of(BLOCK) + ICV,
        }
    }
}

/// `plain`, zeros, and the pad length octet: the whole a multiple of `block` octets.
fn padded(plain: &[u8], block: usize) -> Vec<u8> {
    let padding = (plain.len() + 1).next_multiple_of(block) - plain.len() - 1;
    let mut out = Vec::with_capacity(plain.len() + padding + 1);
    out.extend_from_slice(plain);
    out.resize(plain.len() + padding, 0);
    // less than a block
    out.push(padding as u8);
    out
}

impl Gcm {
    fn new(algorithm: &'static aead::Algorithm, keymat: &Secret) -> Result<Gcm, CryptoError> {
        let wrong = CryptoError::KeyLength("AES-GCM");
        let (key, salt) = keymat.as_bytes().split_last_chunk::<SALT>().ok_or(wrong.clone())?;
        let key = aead::UnboundKey::new(algorithm, key).map_err(|_| wrong)?;
        Ok(Gcm { key: aead::LessSafeKey::new(key), salt: Zeroizing::new(*salt), next: 0 })
    }

    fn nonce(&self, iv: &[u8; GCM_IV]) -> aead::Nonce {
        let mut nonce = [0; SALT + GCM_IV];
        let (salt, rest) = nonce.split_at_mut(SALT);
        salt.copy_from_slice(&*self.salt);
        rest.copy_from_slice(iv);
        aead::Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, aad: &[u8], padded: &[u8]) -> Option<Vec<u8>> {
        let iv = self.next.to_be_bytes();
        self.next = self.next.checked_add(1)?;
        let mut body = Vec::with_capacity(GCM_IV + padded.len() + ICV);
        body.extend_from_slice(&iv);
        body.extend_from_slice(padded);
        let text = body.get_mut(GCM_IV..)?;
        let icv = self.key.seal_in_place_separate_tag(self.nonce(&iv), aead::Aad::from(aad), text).ok()?;
        body.extend_from_slice(icv.as_ref());
        Some(body)
    }

    fn open(&self, aad: &[u8], body: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (iv, sealed) = body.split_first_chunk::<GCM_IV>().ok_or(CryptoError::SealedLength(body.len()))?;
        let mut text = sealed.to_vec();
        let len = self
            .key
            .open_in_place(self.nonce(iv), aead::Aad::from(aad), &mut text)
            .map_err(|_| CryptoError::Integrity)?
            .len();
        text.truncate(len);
        Ok(text)
    }
}

impl Cbc {
    fn new(encr: Encr, key: &Secret, integrity: &Secret) -> Result<Cbc, CryptoError> {
        let wrong = |_| CryptoError::KeyLength("AES-CBC");
        let key = match encr {
            Encr::AesCbc128 => CbcKey::Aes128(Aes128::new_from_slice(key.as_bytes()).map_err(wrong)?),
            _ => CbcKey::Aes256(Aes256::new_from_slice(key.as_bytes()).map_err(wrong)?),
        };
        if integrity.len() != Integ::HmacSha256_128.key_len() {
            return Err(CryptoError::KeyLength("HMAC-SHA2-256-128"));
        }
        Ok(Cbc { key, integrity: hmac::Key::new(hmac::HMAC_SHA256, integrity.as_bytes()) })
    }

    /// Encrypts, then authenticates `aad | IV | ciphertext`, which is the whole message up to here (RFC 7296, section
    /// 3.14). `padded` is of whole blocks.
    fn seal(&self, aad: &[u8], padded: &[u8], iv: [u8; BLOCK]) -> Vec<u8> {
        let mut body = Vec::with_capacity(BLOCK + padded.len() + ICV);
        body.extend_from_slice(&iv);
        body.extend_from_slice(padded);
        if let Some((_, text)) = body.split_first_chunk_mut::<BLOCK>() {
            self.key.encrypt(iv, text);
        }
        let icv = self.icv(aad, &body);
        body.extend_from_slice(&icv);
        body
    }

    fn open(&self, aad: &[u8], body: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let wrong = CryptoError::SealedLength(body.len());
        let (sealed, icv) = body.split_last_chunk::<ICV>().ok_or(wrong.clone())?;
        let (iv, text) = sealed.split_first_chunk::<BLOCK>().ok_or(wrong.clone())?;
        if text.is_empty() || !text.len().is_multiple_of(BLOCK) {
            return Err(wrong);
        }
        if !bool::from(self.icv(aad, sealed).ct_eq(icv)) {
            return Err(CryptoError::Integrity);
        }
        let mut text = text.to_vec();
        self.key.decrypt(*iv, &mut text);
        Ok(text)
    }

    fn icv(&self, aad: &[u8], sealed: &[u8]) -> [u8; ICV] {
        let mut context = hmac::Context::with_key(&self.integrity);
        context.update(aad);
        context.update(sealed);
        let mut icv = [0; ICV];
        icv.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        icv
    }
}

impl CbcKey {
    /// In place; `text` is of whole blocks.
    fn encrypt(&self, iv: [u8; BLOCK], text: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(text);
        match self {
            CbcKey::Aes128(key) => cbc::Encryptor::inner_iv_init(key, &iv.into()).encrypt_blocks(blocks),
            CbcKey::Aes256(key) => cbc::Encryptor::inner_iv_init(key, &iv.into()).encrypt_blocks(blocks),
        }
    }

    /// In place; `text` is of whole blocks.
    fn decrypt(&self, iv: [u8; BLOCK], text: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(text);
        match self {
            CbcKey::Aes128(key) => cbc::Decryptor::inner_iv_init(key, &iv.into()).decrypt_blocks(blocks),
            CbcKey::Aes256(key) => cbc::Decryptor::inner_iv_init(key, &iv.into()).decrypt_blocks(blocks),
        }
    }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::SystemRng;
    use super::*;
    use crate::proposal::{Group, Prf};

    const SUITES: [(Encr, Option<Integ>); 4] = [
        (Encr::AesGcm16_128, None),
        (Encr::AesGcm16_256, None),
        (Encr::AesCbc128, Some(Integ::HmacSha256_128)),
        (Encr::AesCbc256, Some(Integ::HmacSha256_128)),
    ];

    fn suite(encr: Encr, integ: Option<Integ>) -> IkeSuite {
        IkeSuite { encr, integ, prf: Prf::HmacSha256, group: Group::Curve25519 }
    }

    fn protector(encr: Encr, integ: Option<Integ>) -> Protector {
        let sk_e = Secret::new((1..).take(encr.keymat_len()).collect());
        let sk_a = Secret::new((101..).take(integ.map_or(0, Integ::key_len)).collect());
        Protector::new(&suite(encr, integ), &sk_e, &sk_a).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_at_every_length() {
        for (encr, integ) in SUITES {
            let (mut sender, receiver) = (protector(encr, integ), protector(encr, integ));
            for len in 0..100 {
                let plain: Vec<u8> = (0..len).collect();
                let body = sender.seal(b"header", &plain, &mut SystemRng::new());
                assert_eq!(body.len(), sender.body_len(plain.len()), "{encr} {len}");
                assert_eq!(receiver.open(b"header", &body).unwrap(), plain, "{encr} {len}");
            }
        }
    }

    #[test]
    fn any_bit_changed_is_noticed() {
        for (encr, integ) in SUITES {
            let mut protector = protector(encr, integ);
            let (aad, plain) = (b"header", b"plain text of two blocks");
            let body = protector.seal(aad, plain, &mut SystemRng::new());
            for bit in 0..8 * body.len() {
                let mut forged = body.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(protector.open(aad, &forged), Err(CryptoError::Integrity), "{encr} {bit}");
            }
            for bit in 0..8 * aad.len() {
                let mut forged = *aad;
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(protector.open(&forged, &body), Err(CryptoError::Integrity), "{encr} {bit}");
            }
        }
    }

    #[test]
    fn any_octet_missing_is_noticed() {
        for (encr, integ) in SUITES {
            let mut protector = protector(encr, integ);
            let body = protector.seal(b"", b"plain", &mut SystemRng::new());
            for len in 0..body.len() {
                assert!(protector.open(b"", &body[..len]).is_err(), "{encr} {len}");
                assert!(protector.open(b"", &body[body.len() - len..]).is_err(), "{encr} {len}");
            }
        }
    }

    #[test]
    fn no_iv_comes_twice() {
        let mut gcm = protector(Encr::AesGcm16_128, None);
        let ivs: Vec<u64> = (0..300)
            .map(|_| gcm.seal(b"", b"", &mut SystemRng::new()))
            .map(|body| u64::from_be_bytes(*body.first_chunk().unwrap()))
            .collect();
        assert_eq!(ivs, (0..300).collect::<Vec<u64>>());

        let Cipher::Gcm(inner) = &mut gcm.cipher else { panic!("AES-GCM") };
        inner.next = u64::MAX - 1;
        assert!(!gcm.seal(b"", b"", &mut SystemRng::new()).is_empty());
        for _ in 0..2 {
            assert!(gcm.seal(b"", b"", &mut SystemRng::new()).is_empty());
        }

        let (encr, integ) = SUITES[2];
        let mut cbc = protector(encr, integ);
        let (one, two) =
            (cbc.seal(b"", b"", &mut SystemRng::new()), cbc.seal(b"", b"", &mut SystemRng::new()));
        assert_ne!(one[..BLOCK], two[..BLOCK]);
    }

    #[test]
    fn padding_of_any_length_is_cut_off_and_no_more() {
        for (encr, integ) in SUITES {
            let protector = protector(encr, integ);
            for pad_length in 0..=255_usize {
                // As a peer may do it: more padding than it needs, of any octets
                let mut padded = vec![b'p'; (pad_length + 3).next_multiple_of(BLOCK)];
                *padded.last_mut().unwrap() = pad_length as u8;
                let want = &padded[..padded.len() - pad_length - 1];
                assert_eq!(protector.open(b"", &seal_raw(&protector, &padded)).unwrap(), want, "{encr}");
            }
            let mut padded = [0; 2 * BLOCK];
            for (pad_length, len) in
                [(30, Ok(1)), (31, Ok(0)), (32, Err(CryptoError::Padding)), (255, Err(CryptoError::Padding))]
            {
                padded[2 * BLOCK - 1] = pad_length;
                let plain = protector.open(b"", &seal_raw(&protector, &padded));
                assert_eq!(plain.map(|plain| plain.len()), len, "{encr} {pad_length}");
            }
        }
    }

    #[test]
    fn without_a_pad_length_octet_it_is_no_message() {
        let gcm = protector(Encr::AesGcm16_256, None);
        let body = seal_raw(&gcm, &[]);
        assert_eq!(gcm.open(b"", &body), Err(CryptoError::SealedLength(GCM_IV + ICV)));
        let (encr, integ) = SUITES[3];
        let cbc = protector(encr, integ);
        let body = seal_raw(&cbc, &[]);
        assert_eq!(cbc.open(b"", &body), Err(CryptoError::SealedLength(BLOCK + ICV)));
    }

    #[test]
    fn keys_and_suites_must_fit() {
        let key = |len: usize| Secret::new(vec![0; len]);
        for (encr, integ) in SUITES {
            let (e, a) = (encr.keymat_len(), integ.map_or(0, Integ::key_len));
            let suite = suite(encr, integ);
            for (e, a) in [(e - 1, a), (e + 1, a), (0, a), (3, a)] {
                assert!(
                    matches!(Protector::new(&suite, &key(e), &key(a)), Err(CryptoError::KeyLength(_))),
                    "{encr} {e}"
                );
            }
            if integ.is_some() {
                for a in [0, 31, 33] {
                    assert!(
                        matches!(Protector::new(&suite, &key(e), &key(a)), Err(CryptoError::KeyLength(_))),
                        "{encr} {a}"
                    );
                }
            }
        }
        for (encr, integ) in [(Encr::AesCbc128, None), (Encr::AesGcm16_128, Some(Integ::HmacSha256_128))] {
            let made = Protector::new(&suite(encr, integ), &key(encr.keymat_len()), &key(32));
            assert!(matches!(made, Err(CryptoError::Suite)));
        }
    }

    #[test]
    fn debug_tells_no_key() {
        assert_eq!(
            format!("{:?}", protector(Encr::AesGcm16_128, None)),
            "Protector { encr: AesGcm16_128, .. }"
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused(aad: Vec<u8>, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (encr, integ) in SUITES {
                prop_assert!(protector(encr, integ).open(&aad, &body).is_err());
            }
        }

        #[test]
        fn whatever_is_sealed_opens(aad: Vec<u8>, plain: Vec<u8>) {
            for (encr, integ) in SUITES {
                let mut protector = protector(encr, integ);
                let body = protector.seal(&aad, &plain, &mut SystemRng::new());
                prop_assert_eq!(body.len(), encr.body_len(plain.len()));
                prop_assert_eq!(protector.open(&aad, &body).unwrap(), &plain[..]);
            }
        }
    }

    /// Seals what is already padded, wrongly perhaps.
    fn seal_raw(protector: &Protector, padded: &[u8]) -> Vec<u8> {
        match &protector.cipher {
            Cipher::Gcm(gcm) => {
                let mut copy = Gcm { key: gcm.key.clone(), salt: gcm.salt.clone(), next: 7 };
                copy.seal(b"", padded).unwrap()
            }
            Cipher::Cbc(cbc) => cbc.seal(b"", padded, [9; BLOCK]),
        }
    }
}

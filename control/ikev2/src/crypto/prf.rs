//! The pseudorandom function: HMAC, and prf+ over it (RFC 7296, section 2.13).

use ring::hmac;

use super::Secret;
use crate::proposal::Prf;

impl Prf {
    /// Octets of its output, which is the length its keys should have as well.
    #[expect(clippy::len_without_is_empty, reason = "the length of an output, not of a collection")]
    pub fn len(self) -> usize {
        self.algorithm().digest_algorithm().output_len()
    }

    /// `prf(key, parts[0] | parts[1] | ...)`
    pub fn mac(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        Secret::from(mac(&hmac::Key::new(self.algorithm(), key), parts).as_ref())
    }

    /// `prf+(key, seed[0] | seed[1] | ...)`, the first `len` octets of it. There are 255 times [`Prf::len`] at most;
    /// whoever asks for more gets no more than these.
    pub fn plus(self, key: &[u8], seed: &[&[u8]], len: usize) -> Secret {
        let key = hmac::Key::new(self.algorithm(), key);
        let mut out = Vec::with_capacity(len);
        let mut block: Option<hmac::Tag> = None;
        for number in 1..=u8::MAX {
            // T1 = prf(K, S | 0x01), Tn = prf(K, Tn-1 | S | n)
            let mut parts = Vec::with_capacity(seed.len() + 2);
            parts.extend(block.as_ref().map(hmac::Tag::as_ref));
            parts.extend_from_slice(seed);
            let number = [number];
            parts.push(&number);
            let next = mac(&key, &parts);
            let missing = len - out.len();
            out.extend(next.as_ref().iter().take(missing));
            if out.len() == len {
                break;
            }
            block = Some(next);
        }
        Secret::new(out)
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
            Prf::HmacSha512 => hmac::HMAC_SHA512,
        }
    }
}

fn mac(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

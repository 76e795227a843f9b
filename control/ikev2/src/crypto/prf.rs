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

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;

    #[test]
    fn parts_are_joined() {
        for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
            assert_eq!(prf.mac(b"key", &[b"ab", b"", b"c"]), prf.mac(b"key", &[b"abc"]));
            assert_eq!(prf.plus(b"key", &[b"ab", b"", b"c"], 100), prf.plus(b"key", &[b"abc"], 100));
            assert_eq!(prf.mac(b"key", &[]).len(), prf.len());
        }
    }

    /// RFC 7296, section 2.13, written out.
    #[test]
    fn prf_plus_chains_its_blocks() {
        for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
            let t1 = prf.mac(b"key", &[b"seed", &[1]]);
            let t2 = prf.mac(b"key", &[t1.as_bytes(), b"seed", &[2]]);
            let t3 = prf.mac(b"key", &[t2.as_bytes(), b"seed", &[3]]);
            let all = [t1, t2, t3].map(|t| t.as_bytes().to_vec()).concat();
            for len in [0, 1, prf.len() - 1, prf.len(), prf.len() + 1, 2 * prf.len(), 3 * prf.len()] {
                assert_eq!(prf.plus(b"key", &[b"seed"], len).as_bytes(), &all[..len], "{prf} {len}");
            }
        }
    }

    #[test]
    fn prf_plus_ends_where_its_counter_does() {
        let all = Prf::HmacSha256.plus(b"key", &[b"seed"], 255 * 32);
        let last = hex("fc5e18781187386bf6817f6748a4af2f03f27540915e7785c01a9a705ca2d9409f29f603fb4e7385");
        assert!(all.as_bytes().ends_with(&last)); // Python's hmac
        assert_eq!(Prf::HmacSha256.plus(b"key", &[b"seed"], 255 * 32 + 1), all);
    }
}

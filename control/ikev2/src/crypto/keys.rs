//! From a shared secret to the keys of an IKE SA and of its children (RFC 7296, sections 2.14, 2.17 and 2.18).

use super::{CryptoError, Protector, Secret};
use crate::proposal::{IkeSuite, Integ, Prf};
use crate::wire::Spi;

/// The keys of one IKE SA. `i` in a name stands for what the original initiator of that SA sends, `r` for what the
/// responder sends.
#[derive(Clone, Debug)]
pub struct IkeKeys {
    /// For deriving the keys of children and of the next IKE SA.
    pub sk_d: Secret,
    /// Integrity of messages; empty with AES-GCM.
    pub sk_ai: Secret,
    /// See `sk_ai`.
    pub sk_ar: Secret,
    /// Encryption of messages; with AES-GCM its last 4 octets are the salt.
    pub sk_ei: Secret,
    /// See `sk_ei`.
    pub sk_er: Secret,
    /// For AUTH payloads.
    pub sk_pi: Secret,
    /// See `sk_pi`.
    pub sk_pr: Secret,
}

/// What both ends have seen in the exchange that makes an IKE SA.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged<'a> {
    /// The initiator's nonce.
    pub nonce_i: &'a [u8],
    /// The responder's nonce.
    pub nonce_r: &'a [u8],
    /// The initiator's SPI of the new SA.
    pub spi_i: Spi,
    /// The responder's SPI of the new SA.
    pub spi_r: Spi,
}

impl IkeKeys {
    /// The keys that IKE_SA_INIT makes: `SKEYSEED = prf(Ni | Nr, g^ir)`.
    pub fn derive(suite: &IkeSuite, exchanged: Exchanged<'_>, shared: &Secret) -> IkeKeys {
        let Exchanged { nonce_i, nonce_r, .. } = exchanged;
        // An HMAC takes keys of any length, so the nonces are not cut (RFC 7296, section 2.14)
        let nonces = Secret::new([nonce_i, nonce_r].concat());
        expand(suite, exchanged, &suite.prf.mac(nonces.as_bytes(), &[shared.as_bytes()]))
    }

    /// The keys of an IKE SA that takes another's place: `SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)` by the old
    /// SA's prf, the rest by the new one's.
    pub fn derive_rekey(
        suite: &IkeSuite,
        exchanged: Exchanged<'_>,
        shared: &Secret,
        old_prf: Prf,
        old_sk_d: &Secret,
    ) -> IkeKeys {
        let Exchanged { nonce_i, nonce_r, .. } = exchanged;
        let seed = old_prf.mac(old_sk_d.as_bytes(), &[shared.as_bytes(), nonce_i, nonce_r]);
        expand(suite, exchanged, &seed)
    }

    /// What protects the messages of the original initiator, and those of the responder.
    pub fn protectors(&self, suite: &IkeSuite) -> Result<(Protector, Protector), CryptoError> {
        Ok((
            Protector::new(suite, &self.sk_ei, &self.sk_ai)?,
            Protector::new(suite, &self.sk_er, &self.sk_ar)?,
        ))
    }
}

/// The keys of a child SA: `KEYMAT = prf+(SK_d, [g^ir (new)] | Ni | Nr)`, `len` octets for both directions. The first
/// half belongs to what the initiator of this exchange sends.
pub fn child_keymat(
    prf: Prf,
    sk_d: &Secret,
    shared: Option<&Secret>,
    nonce_i: &[u8],
    nonce_r: &[u8],
    len: usize,
) -> Secret {
    let shared = shared.map(Secret::as_bytes).unwrap_or_default();
    prf.plus(sk_d.as_bytes(), &[shared, nonce_i, nonce_r], len)
}

/// `{SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)`
fn expand(suite: &IkeSuite, exchanged: Exchanged<'_>, seed: &Secret) -> IkeKeys {
    let Exchanged { nonce_i, nonce_r, spi_i, spi_r } = exchanged;
    let d = suite.prf.len();
    let a = suite.integ.map_or(0, Integ::key_len);
    let e = suite.encr.keymat_len();
    let all = suite.prf.plus(seed.as_bytes(), &[nonce_i, nonce_r, &spi_i, &spi_r], 3 * d + 2 * a + 2 * e);
    let mut rest = all.as_bytes();
    let mut take = |len: usize| {
        let (key, others) = rest.split_at(len);
        rest = others;
        Secret::from(key)
    };
    IkeKeys {
        sk_d: take(d),
        sk_ai: take(a),
        sk_ar: take(a),
        sk_ei: take(e),
        sk_er: take(e),
        sk_pi: take(d),
        sk_pr: take(d),
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;
    use crate::proposal::{Encr, Group};

    const CBC: IkeSuite = IkeSuite {
        encr: Encr::AesCbc128,
        integ: Some(Integ::HmacSha256_128),
        prf: Prf::HmacSha256,
        group: Group::Curve25519,
    };
    const EXCHANGED: Exchanged<'_> =
        Exchanged { nonce_i: &[0x11; 20], nonce_r: &[0x22; 36], spi_i: [0x44; 8], spi_r: [0x55; 8] };

    /// Where the prf changes, the old one makes SKEYSEED and the new one the rest. Expected: Python's hmac.
    #[test]
    fn rekeying_uses_the_prf_of_the_old_sa_for_the_seed_alone() {
        let keys = IkeKeys::derive_rekey(
            &CBC,
            EXCHANGED,
            &Secret::new(vec![0x33; 32]),
            Prf::HmacSha512,
            &Secret::new(vec![0x66; 64]),
        );
        let IkeKeys { sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr } = &keys;
        let all = [sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr].map(Secret::as_bytes);
        assert_eq!(all.map(<[u8]>::len), [32, 32, 32, 16, 16, 32, 32]);
        assert_eq!(
            all.concat(),
            hex("d712008124d458a21f01ac2300bdf5c1d53d6074dceac278b31bf3575de7353d\
                 19c22b49c29e3f97c363d4e62add9ff7d5786d3872362fe2453270605f473416\
                 b619ace84b9b28b1965105b253cbbf54d80ef83aea4473c324f5bd2e79b46787\
                 d957cd3c37555e67d982fc5c720eb549b40ff585421b03aa6f2b2e39a701ea55\
                 763cf2551d61a7615ab938442c5ee44fbb0227feb9f362d6dcf116ae386fdb04\
                 ccf046b5a10928f02c189d09a50966da1aa45b0533df001b4cac26a3e4cf43f4")
        );
    }

    #[test]
    fn a_child_with_and_without_a_key_exchange_of_its_own() {
        let sk_d = Secret::new(vec![0x66; 48]);
        let Exchanged { nonce_i, nonce_r, .. } = EXCHANGED;
        let derive = |shared| child_keymat(Prf::HmacSha384, &sk_d, shared, nonce_i, nonce_r, 72);
        assert_eq!(
            derive(None).as_bytes(),
            hex("cf114e09c8f53c05c8f45dde29d043396f86312ae39d81b42b74477c9c55580a63cb524a\
                 b964b4fee455522631796d3ad74d39e2d189b21ddabb6c70f24c0c2fdaf457f6e8deae5a")
        );
        assert_eq!(
            derive(Some(&Secret::new(vec![0x33; 32]))).as_bytes(),
            hex("30cc843849e913f547946fb370d148bf9f77615723cdc19a7a044460ec7719cae4c55f44\
                 85d2cd0193fc54c6d8f0b20797c57a53bcf50939e23835ec2112afb28cc65869b56efc2f")
        );
    }

    #[test]
    fn each_direction_has_keys_of_its_own() {
        for suite in [CBC, IkeSuite { encr: Encr::AesGcm16_256, integ: None, ..CBC }] {
            let keys = IkeKeys::derive(&suite, EXCHANGED, &Secret::new(vec![0x33; 32]));
            let (mut initiator, responder) = keys.protectors(&suite).unwrap();
            let body = initiator.seal(b"", b"hello", &mut super::super::SystemRng::new());
            assert_eq!(responder.open(b"", &body), Err(CryptoError::Integrity));
            assert_eq!(initiator.open(b"", &body).unwrap(), b"hello");
        }
    }

    #[test]
    fn debug_tells_no_key() {
        let keys = IkeKeys::derive(&CBC, EXCHANGED, &Secret::new(vec![0x33; 32]));
        let text = format!("{keys:?}");
        assert!(text.contains("sk_d: Secret(..)"), "{text}");
        assert!(!text.contains(|c: char| c.is_ascii_digit()), "{text}");
    }
}

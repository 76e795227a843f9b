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

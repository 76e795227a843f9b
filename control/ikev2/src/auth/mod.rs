//! Proving who one is and checking who the other is (RFC 7296, section 2.15; RFC 7427).
//!
//! What each side proves its identity with is a [`Credential`]; what it takes as proof from the other is a [`Trust`].
//! Both are made from bytes that somebody else read from files: here nothing is fetched, neither from disk nor, ever,
//! from a URL that a certificate names.
//!
//! The journey of a proof: [`SignedOctets`] are what is signed, [`prove`] signs, [`verify`] checks and returns
//! [`Authenticated`], which nothing else can make: whoever needs a peer to be who it says it is asks for one.
//!
//! Certificates: chains are built and signatures checked by rustls-webpki, with these rules on top. An anchor must be a
//! CA in force. Key usage and extended key usage, where present, must allow what is done (RFC 4945, section 5.1.3).
//! Critical extensions that are not understood, name constraints and revocation by local lists are honoured. Of
//! several lists of a CA the latest counts. One whose `nextUpdate` is past still revokes what stands in it and vouches
//! for the rest as before, with a warning; without a list nothing is revoked. The identity must be in the certificate: as subject alternative name, as the whole subject, or, if there
//! is no alternative DNS name and no CA of the chain constrains names, as its common name, where ovs-pki puts it.

mod authority;
mod certificate;
mod dn;
mod error;
mod identity;
mod octets;
mod own;
mod pem;
mod pinned;
mod psk;
mod request;
mod scheme;
mod verify;

use std::sync::Arc;

use crate::wire;

pub use authority::Authority;
pub use certificate::Certificate;
pub use error::AuthError;
pub use identity::Identity;
pub use octets::SignedOctets;
pub use own::OwnCertificate;
pub use pem::Source;
pub use pinned::PeerCertificate;
pub use psk::Psk;
pub use request::{certificate_requests, hash_algorithms, parse_hash_algorithms};
pub use verify::{Authenticated, verify};

/// What this end proves its identity with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A key that both ends know.
    Psk(Psk),
    /// A certificate and its private key.
    Certificate(Arc<OwnCertificate>),
}

impl Credential {
    /// Who this end is by its credential alone: a pre-shared key names nobody.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Credential::Psk(_) => None,
            Credential::Certificate(own) => Some(own.identity()),
        }
    }

    /// The CERT payloads to send: those of our chain if the peer asked for X.509 certificates. Its hints which CAs it
    /// trusts are not heeded, as there is only one chain to send. One that has pinned our certificate does not ask.
    pub fn certificates(&self, requests: &[wire::CertRequest]) -> Vec<wire::Certificate> {
        match self {
            Credential::Certificate(own) if request::asks_for_x509(requests) => own.to_wire(),
            _ => Vec::new(),
        }
    }
}

/// What this end takes as proof of the peer's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A key that both ends know.
    Psk(Psk),
    /// One certificate: `options:remote_cert`.
    Pinned(Arc<PeerCertificate>),
    /// Certificates that one of these CAs has signed: `other_config:ca_cert`.
    Authority {
        /// The CAs.
        authority: Arc<Authority>,
        /// Whom the peer has to be: `options:remote_name`. Without it, anybody whom the CAs vouch for.
        name: Option<Identity>,
    },
}

/// The AUTH payload that proves our identity. `peer_hashes` is what the peer sent as SIGNATURE_HASH_ALGORITHMS; empty
/// if it sent none and so knows only the signatures of RFC 7296 and RFC 4754.
pub fn prove(
    credential: &Credential,
    octets: &SignedOctets,
    peer_hashes: &[u16],
) -> Result<wire::AuthData, AuthError> {
    match credential {
        Credential::Psk(psk) => Ok(psk.prove(octets)),
        Credential::Certificate(own) => own.sign(octets, peer_hashes),
    }
}

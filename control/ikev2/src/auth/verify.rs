//! Checking the peer's proof.

use std::fmt;

use rustls_pki_types::CertificateDer;

use super::authority::Authority;
use super::certificate::{Certificate, CommonName};
use super::psk::SHARED_KEY;
use super::request::X509_SIGNATURE;
use super::{AuthError, Identity, SignedOctets, Trust, scheme};
use crate::crypto::{self, SignatureAlgorithm};
use crate::wire;

/// More certificates than this no chain has; and many that fit each other in every order make many chains to try.
const MAX_CERTIFICATES: usize = 6;

/// A peer that has proven who it is. Nothing but [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct Authenticated {
    identity: Identity,
    proof: Proof,
}

#[derive(Clone, Debug)]
enum Proof {
    Psk,
    Signature { algorithm: SignatureAlgorithm, certificate: Box<Certificate> },
}

impl Authenticated {
    /// Who it is. With a pre-shared key: who it says it is, being one of those that know the key.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificate that it proved its identity with, if it did so with one.
    pub fn certificate(&self) -> Option<&Certificate> {
        match &self.proof {
            Proof::Psk => None,
            Proof::Signature { certificate, .. } => Some(certificate),
        }
    }
}

/// Such as `pre-shared key`, or `ECDSA P-256 with SHA2-256 by C=CH, CN=a`.
impl fmt::Display for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proof {
            Proof::Psk => f.write_str("pre-shared key"),
            Proof::Signature { algorithm, certificate } => write!(f, "{algorithm} by {certificate}"),
        }
    }
}

/// Checks that `auth` proves the peer to be `id`, as far as `trust` goes: the AUTH, CERT and ID payloads of the peer,
/// and the octets that it has to have signed. `unix_now` is in seconds since 1970, for the dates of certificates.
///
/// 1. a pre-shared key: that the peer knows it. The identity is what the peer says;
/// 2. a certificate: that it is the one trusted, or that a CA vouches for it; that its key signed the octets; that it
///    names `id`; and that this is the one wanted.
pub fn verify(
    trust: &Trust,
    octets: &SignedOctets,
    auth: &wire::AuthData,
    certs: &[wire::Certificate],
    id: &Identity,
    unix_now: u64,
) -> Result<Authenticated, AuthError> {
    let x509: Vec<wire::Certificate> =
        certs.iter().filter(|c| c.encoding == X509_SIGNATURE).cloned().collect();
    match trust {
        Trust::Psk(psk) => {
            psk.verify(auth, octets)?;
            Ok(Authenticated { identity: id.clone(), proof: Proof::Psk })
        }
        _ if auth.method == SHARED_KEY => Err(AuthError::CertificateWanted),
        Trust::Pinned(pinned) => {
            pinned.accept(&x509, unix_now)?;
            let certificate = pinned.certificate();
            let algorithm = check_signature(certificate, octets, auth)?;
            check_named(certificate, id, CommonName::Always)?;
            Ok(authenticated(id, algorithm, certificate.clone()))
        }
        Trust::Authority { authority, name } => {
            let (certificate, common_name) = vouched_for(authority, &x509, unix_now)?;
            let algorithm = check_signature(&certificate, octets, auth)?;
            check_named(&certificate, id, common_name)?;
            if let Some(wanted) = name {
                check_wanted(&certificate, id, wanted, common_name)?;
            }
            Ok(authenticated(id, algorithm, certificate))
        }
    }
}

fn authenticated(id: &Identity, algorithm: SignatureAlgorithm, certificate: Certificate) -> Authenticated {
    let proof = Proof::Signature { algorithm, certificate: Box::new(certificate) };
    Authenticated { identity: id.clone(), proof }
}

/// The peer's certificate, which stands first (RFC 7296, section 3.6), if a CA vouches for it.
fn vouched_for(
    authority: &Authority,
    certs: &[wire::Certificate],
    unix_now: u64,
) -> Result<(Certificate, CommonName), AuthError> {
    let (first, rest) = certs.split_first().ok_or(AuthError::NoCertificate)?;
    if certs.len() > MAX_CERTIFICATES {
        return Err(AuthError::TooManyCertificates(certs.len()));
    }
    let certificate = Certificate::from_der(&first.data, "the peer's certificate")?;
    let rest: Vec<CertificateDer<'_>> = rest.iter().map(|c| c.data.as_slice().into()).collect();
    let common_name = authority.accept(&certificate, &rest, unix_now)?;
    Ok((certificate, common_name))
}

fn check_signature(
    certificate: &Certificate,
    octets: &SignedOctets,
    auth: &wire::AuthData,
) -> Result<SignatureAlgorithm, AuthError> {
    let (candidates, signature) = scheme::decode(auth, certificate.key())?;
    let right = |algorithm: &SignatureAlgorithm| {
        crypto::verify(*algorithm, &certificate.spki, &octets.octets, signature).is_ok()
    };
    candidates.into_iter().find(right).ok_or_else(|| match auth.method {
        scheme::RSA => AuthError::OldSignature { subject: certificate.to_string() },
        _ => AuthError::WrongSignature { subject: certificate.to_string() },
    })
}

fn check_named(certificate: &Certificate, id: &Identity, common_name: CommonName) -> Result<(), AuthError> {
    if certificate.names(id, common_name) {
        return Ok(());
    }
    Err(AuthError::NotNamed { claimed: id.to_string(), named: certificate.all_names() })
}

/// That the peer is `wanted`: it says so, or it calls itself by its certificate's whole subject, as is strongSwan's way
/// if not told otherwise, and the certificate names `wanted` besides.
fn check_wanted(
    certificate: &Certificate,
    id: &Identity,
    wanted: &Identity,
    common_name: CommonName,
) -> Result<(), AuthError> {
    let by_subject = matches!(id, Identity::Dn(_)) && certificate.names(wanted, common_name);
    if id.matches(wanted) || by_subject {
        return Ok(());
    }
    Err(AuthError::WrongName { named: id.to_string(), wanted: wanted.to_string() })
}

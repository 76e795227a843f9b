//! Certificates that CAs vouch for.

use std::fmt;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeId,
    KeyPurposeIdIter, OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath, ring as algorithms,
};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use super::certificate::{Certificate, CommonName, date};
use super::{AuthError, Source};

/// What may sign certificates and revocation lists: SHA-2 with RSA of 2048 bits and more or with ECDSA, and Ed25519.
const SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// CAs, and lists of what they have revoked.
pub struct Authority {
    /// Their certificates, and in the same order what webpki wants of them.
    cas: Vec<Certificate>,
    anchors: Vec<TrustAnchor<'static>>,
    lists: Vec<RevocationList>,
    /// Where the CAs stand, for messages.
    files: String,
}

struct RevocationList {
    file: String,
    der: Vec<u8>,
    list: CertRevocationList<'static>,
    this_update: u64,
    next_update: Option<u64>,
}

impl Authority {
    /// Reads CA certificates, of which there must be one at least, and revocation lists, if any.
    pub fn load(cas: &[Source<'_>], lists: &[Source<'_>]) -> Result<Authority, AuthError> {
        let mut certificates = Vec::new();
        for source in cas {
            for der in source.certificates()? {
                certificates.push(ca(&der, source.name)?);
            }
        }
        let anchors = certificates.iter().map(anchor).collect::<Result<_, _>>()?;
        let mut read = Vec::new();
        for source in lists {
            for der in source.revocation_lists()? {
                read.push(RevocationList::new(der, source.name)?);
            }
        }
        // of several that fit webpki heeds the first
        read.sort_by_key(|list| std::cmp::Reverse(list.this_update));
        let files: Vec<&str> = cas.iter().map(|source| source.name).collect();
        Ok(Authority { cas: certificates, anchors, lists: read, files: files.join(", ") })
    }

    /// What an operator should know of before peers feel it: CAs that have expired, and lists whose successor is due.
    pub fn warnings(&self, unix_now: u64) -> Vec<String> {
        let expired = self.cas.iter().filter_map(|ca| ca.check_dates(unix_now).err());
        let stale = self.lists.iter().filter_map(|list| list.stale(unix_now));
        expired.map(|e| e.to_string()).chain(stale).collect()
    }

    /// The CAs' public keys, in DER.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.cas.iter().map(|ca| ca.spki.as_slice())
    }

    /// That `end` is signed, by way of some of `intermediates`, by a CA, and that all of them are in force and allowed
    /// to do what they do. Returns whether its common name may count.
    pub(super) fn accept(
        &self,
        end: &Certificate,
        intermediates: &[CertificateDer<'_>],
        unix_now: u64,
    ) -> Result<CommonName, AuthError> {
        end.check_dates(unix_now)?;
        if !end.may_authenticate() {
            return Err(self.refused(end, "its keyUsage allows no digitalSignature"));
        }
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().map(|l| &l.list).collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let certificate = EndEntityCert::try_from(&end.der).map_err(|e| self.explain(end, &e))?;
        let path = certificate
            .verify_for_usage(
                SIGNATURES,
                &self.anchors,
                intermediates,
                UnixTime::since_unix_epoch(Duration::from_secs(unix_now)),
                Usage,
                revocation,
                Some(&|path| self.check_path(path, unix_now)),
            )
            .map_err(|e| self.explain(end, &e))?;
        // webpki holds alternative names to what a CA limits, common names it does not
        Ok(if self.limits_names(&path) { CommonName::Never } else { CommonName::Alone })
    }

    /// What webpki leaves open about a path: the dates and the path length of its anchor, key usage and the strength of
    /// keys of CAs.
    fn check_path(&self, path: &VerifiedPath<'_>, unix_now: u64) -> Result<(), Error> {
        for der in path.intermediate_certificates().map(|c| c.der()) {
            let parsed = Certificate::from_der(&der, "").map_err(|_| Error::BadDer)?;
            if !parsed.is_ca() {
                return Err(Error::EndEntityUsedAsCa);
            }
        }
        let anchor = self.anchor_of(path).ok_or(Error::UnknownIssuer)?;
        let cas_below = path.intermediate_certificates().count();
        if anchor.path_len().is_some_and(|most| cas_below > usize::from(most)) {
            return Err(Error::PathLenConstraintViolated);
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(unix_now));
        let unix = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        match anchor.check_dates(unix_now) {
            Ok(()) => Ok(()),
            Err(AuthError::NotYetValid { .. }) => {
                Err(Error::CertNotValidYet { time, not_before: unix(anchor.not_before()) })
            }
            Err(_) => Err(Error::CertExpired { time, not_after: unix(anchor.not_after()) }),
        }
    }

    fn limits_names(&self, path: &VerifiedPath<'_>) -> bool {
        let limits =
            |der: CertificateDer<'_>| Certificate::from_der(&der, "").map_or(true, |c| c.constrains_names());
        self.anchor_of(path).is_none_or(Certificate::constrains_names)
            || path.intermediate_certificates().any(|c| limits(c.der()))
    }

    fn anchor_of(&self, path: &VerifiedPath<'_>) -> Option<&Certificate> {
        let at = self.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()))?;
        self.cas.get(at)
    }

    fn refused(&self, end: &Certificate, why: &str) -> AuthError {
        AuthError::Refused { subject: end.to_string(), why: why.to_owned() }
    }

    fn explain(&self, end: &Certificate, error: &Error) -> AuthError {
        let (subject, files) = (end.to_string(), self.files.clone());
        let why = match error {
            Error::UnknownIssuer if end.is_self_issued() => return AuthError::SelfSigned { subject, files },
            Error::UnknownIssuer => {
                return AuthError::UnknownCa { subject, issuer: end.issuer().to_string(), files };
            }
            Error::InvalidSignatureForPublicKey
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                return AuthError::ForgedCa { subject, issuer: end.issuer().to_string(), files };
            }
            Error::CertRevoked => return AuthError::Revoked { subject },
            Error::CertExpired { not_after, .. } => {
                &format!("a CA certificate above it expired on {}", date(not_after.as_secs()))
            }
            Error::CertNotValidYet { not_before, .. } => {
                &format!("a CA certificate above it is not valid before {}", date(not_before.as_secs()))
            }
            Error::CaUsedAsEndEntity => "it is a CA certificate; make one for the host and sign it",
            Error::EndEntityUsedAsCa => "a certificate above it is not one of a CA",
            Error::PathLenConstraintViolated => "a CA above it may not have so many CAs below it",
            Error::NameConstraintViolation => "a CA above it may not sign for the names in it",
            Error::UnsupportedCriticalExtension => {
                "it or a certificate above it has a critical extension that is not understood here"
            }
            Error::BadDer => "a CA certificate above it is malformed or has a key that is not accepted",
            Error::UnsupportedCertVersion => "it is not an X.509 v3 certificate",
            Error::UnsupportedSignatureAlgorithmContext(_) => {
                "it is signed with an algorithm that is not accepted (such as SHA-1 or a short key)"
            }
            Error::InvalidCrlSignatureForPublicKey => {
                "the revocation list of its CA is not signed by that CA; get a right one"
            }
            Error::IssuerNotCrlSigner => "the revocation list of its CA is signed by one that may not do so",
            _ if is_usage(error) => {
                "its extendedKeyUsage has none of serverAuth, clientAuth, ipsecIKE and anyExtendedKeyUsage"
            }
            other => &other.to_string(),
        };
        self.refused(end, why)
    }
}

fn is_usage(error: &Error) -> bool {
    matches!(error, Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension)
}

impl PartialEq for Authority {
    fn eq(&self, other: &Authority) -> bool {
        let lists = self.lists.iter().map(|l| &l.der);
        self.cas == other.cas && lists.eq(other.lists.iter().map(|l| &l.der))
    }
}

impl Eq for Authority {}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cas: Vec<_> = self.cas.iter().map(Certificate::to_string).collect();
        write!(f, "Authority({} of {}, {} revocation lists)", cas.join("; "), self.files, self.lists.len())
    }
}

fn ca(der: &[u8], file: &str) -> Result<Certificate, AuthError> {
    let certificate = Certificate::from_der(der, file)?;
    if !certificate.is_ca() {
        return Err(AuthError::NotCa { subject: certificate.to_string(), file: file.to_owned() });
    }
    Ok(certificate)
}

fn anchor(ca: &Certificate) -> Result<TrustAnchor<'static>, AuthError> {
    let anchor = webpki::anchor_from_trusted_cert(&ca.der);
    let anchor = anchor.map_err(|e| AuthError::Malformed { file: ca.to_string(), why: e.to_string() })?;
    Ok(anchor.to_owned())
}

impl RevocationList {
    fn new(der: Vec<u8>, file: &str) -> Result<RevocationList, AuthError> {
        let malformed = |why: String| AuthError::Malformed { file: file.to_owned(), why };
        let list = OwnedCertRevocationList::from_der(&der).map_err(|e| malformed(e.to_string()))?;
        let parsed: CertificateList =
            CertificateList::from_der(&der).map_err(|e| malformed(e.to_string()))?;
        let this_update = parsed.tbs_cert_list.this_update.to_unix_duration().as_secs();
        let next_update = parsed.tbs_cert_list.next_update.map(|time| time.to_unix_duration().as_secs());
        Ok(RevocationList { file: file.to_owned(), der, list: list.into(), this_update, next_update })
    }

    fn stale(&self, unix_now: u64) -> Option<String> {
        let due = self.next_update.filter(|due| *due <= unix_now)?;
        let due = date(due);
        Some(format!("the revocation list {} should have been replaced by {due}: get a new one", self.file))
    }
}

/// RFC 4945, section 5.1.3.12, and what CAs for TLS put there.
struct Usage;

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        const ALLOWED: [KeyPurposeId<'static>; 5] = [
            KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]),  // serverAuth
            KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]),  // clientAuth
            KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 17]), // ipsecIKE
            KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 8, 2, 2]),  // iKEIntermediate, ipsecIKE's forerunner
            KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0]),        // anyExtendedKeyUsage
        ];
        let mut none = true;
        for usage in usages {
            none = false;
            if ALLOWED.contains(&usage?) {
                return Ok(());
            }
        }
        // an extension without a usage webpki refuses itself
        if none { Ok(()) } else { Err(Error::EmptyEkuExtension) }
    }
}

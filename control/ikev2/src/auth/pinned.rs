//! One certificate that is trusted by itself.

use super::certificate::Certificate;
use super::{AuthError, Identity, Source};
use crate::wire;

/// The peer's certificate as it stands in `options:remote_cert`, self-signed or not. Trusted because somebody put it
/// there: nobody's signature on it counts, only its key, its dates and its names do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate(Certificate);

impl PeerCertificate {
    /// The first certificate of `source`.
    pub fn load(source: Source<'_>) -> Result<PeerCertificate, AuthError> {
        let certificates = source.certificates()?;
        let first = certificates.first().ok_or(AuthError::NoCertificate)?;
        Certificate::from_der(first, source.name).map(PeerCertificate)
    }

    /// Who the peer is.
    pub fn identity(&self) -> Identity {
        self.0.identity()
    }

    /// The certificate itself.
    pub fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// That the certificate is in force, and the one that the peer presents, if it presents any: the same, or a newer
    /// or older one of the same key.
    pub(super) fn accept(&self, certs: &[wire::Certificate], unix_now: u64) -> Result<(), AuthError> {
        if let Some(first) = certs.first()
            && first.data != self.0.der.as_ref()
        {
            let presented = Certificate::from_der(&first.data, "the peer's certificate")?;
            if presented.spki != self.0.spki {
                let (presented, pinned) = (presented.to_string(), self.0.to_string());
                return Err(AuthError::NotPinned { presented, pinned });
            }
        }
        self.0.check_dates(unix_now)
    }
}

//! Files of certificates, keys and lists.

use rustls_pki_types::pem::{self, SectionKind};
use zeroize::Zeroizing;

use super::AuthError;

/// The contents of a file, and what to call it in a message: its path, or the option that it stands in.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Such as `/etc/keys/host.pem`.
    pub name: &'a str,
    /// PEM; certificates and revocation lists also DER.
    pub bytes: &'a [u8],
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({}, {} octets)", self.name, self.bytes.len())
    }
}

impl Source<'_> {
    /// All certificates in it: at least one.
    pub(super) fn certificates(&self) -> Result<Vec<Vec<u8>>, AuthError> {
        self.all(SectionKind::Certificate, "certificate")
    }

    /// All revocation lists in it: at least one.
    pub(super) fn revocation_lists(&self) -> Result<Vec<Vec<u8>>, AuthError> {
        self.all(SectionKind::Crl, "certificate revocation list")
    }

    /// The first private key in it. What stands around it (such as EC PARAMETERS) is passed over.
    pub(super) fn private_key(&self) -> Result<(SectionKind, Zeroizing<Vec<u8>>), AuthError> {
        // what the parser does not know it passes over, so it is looked for here
        const ENCRYPTED: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
        if ENCRYPTED.iter().any(|mark| contains(self.bytes, mark)) {
            return Err(AuthError::EncryptedKey { file: self.name.to_owned() });
        }
        let mut key = None;
        for (kind, der) in self.sections()? {
            let secret = matches!(
                kind,
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
            );
            let der = Zeroizing::new(der);
            if secret && key.is_none() {
                key = Some((kind, der));
            }
        }
        key.ok_or_else(|| self.holds_no("private key"))
    }

    fn all(&self, wanted: SectionKind, what: &'static str) -> Result<Vec<Vec<u8>>, AuthError> {
        const DER_SEQUENCE: u8 = 0x30;
        if self.bytes.first() == Some(&DER_SEQUENCE) {
            return Ok(vec![self.bytes.to_vec()]);
        }
        let all: Vec<_> =
            self.sections()?.into_iter().filter_map(|(kind, der)| (kind == wanted).then_some(der)).collect();
        if all.is_empty() { Err(self.holds_no(what)) } else { Ok(all) }
    }

    fn sections(&self) -> Result<Vec<(SectionKind, Vec<u8>)>, AuthError> {
        let mut rest = self.bytes;
        let mut sections = Vec::new();
        loop {
            match pem::from_buf(&mut rest) {
                Ok(Some(section)) => sections.push(section),
                Ok(None) => return Ok(sections),
                Err(_) => return Err(AuthError::BadPem { file: self.name.to_owned() }),
            }
        }
    }

    fn holds_no(&self, what: &'static str) -> AuthError {
        AuthError::Missing { file: self.name.to_owned(), what }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

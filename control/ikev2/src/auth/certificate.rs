//! What authentication needs to know of an X.509 certificate.

use std::fmt;
use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, NameConstraints, SubjectAltName};
use x509_cert::name::RdnSequence;

use super::{AuthError, Identity, dn, identity};
use crate::crypto::{KeyKind, key_kind};

/// A certificate, taken apart once. Nothing about it is proven.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pub(super) der: CertificateDer<'static>,
    /// In DER.
    pub(super) spki: Vec<u8>,
    pub(super) key: KeyKind,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    common_name: Option<String>,
    alternative: Vec<Identity>,
    not_before: u64,
    not_after: u64,
    is_ca: bool,
    path_len: Option<u8>,
    constrains_names: bool,
    usage: Option<KeyUsage>,
}

impl Certificate {
    /// Reads a certificate in DER; `name` is what to call it in errors.
    pub fn from_der(der: &[u8], name: &str) -> Result<Certificate, AuthError> {
        let malformed =
            |e: x509_cert::der::Error| AuthError::Malformed { file: name.to_owned(), why: e.to_string() };
        let parsed = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let tbs = parsed.tbs_certificate();
        let alternative = tbs.get_extension::<SubjectAltName>().map_err(malformed)?;
        let basic = tbs.get_extension::<BasicConstraints>().map_err(malformed)?;
        let usage = tbs.get_extension::<KeyUsage>().map_err(malformed)?;
        let constraints = tbs.get_extension::<NameConstraints>().map_err(malformed)?;
        let spki = tbs.subject_public_key_info().to_der().map_err(malformed)?;
        let key =
            key_kind(&spki).map_err(|e| AuthError::Key { file: name.to_owned(), why: e.to_string() })?;
        Ok(Certificate {
            der: CertificateDer::from(der.to_vec()),
            spki,
            key,
            subject: tbs.subject().to_der().map_err(malformed)?,
            issuer: tbs.issuer().to_der().map_err(malformed)?,
            common_name: dn::common_name(&RdnSequence::from(tbs.subject().clone())),
            alternative: alternative
                .map_or_else(Vec::new, |(_, names)| names.0.iter().filter_map(identity_of).collect()),
            not_before: tbs.validity().not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
            is_ca: basic.as_ref().is_some_and(|(_, basic)| basic.ca),
            path_len: basic.and_then(|(_, basic)| basic.path_len_constraint),
            constrains_names: constraints.is_some(),
            usage: usage.map(|(_, usage)| usage),
        })
    }

    /// Its subject.
    pub fn subject(&self) -> Identity {
        Identity::Dn(self.subject.clone())
    }

    /// Who signed it, as it says itself.
    pub fn issuer(&self) -> Identity {
        Identity::Dn(self.issuer.clone())
    }

    /// The last common name of its subject.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Alternative names of its subject that can be identities.
    pub fn alternative_names(&self) -> &[Identity] {
        &self.alternative
    }

    /// Seconds since 1970 up to which it is valid, that second included.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Seconds since 1970 from which on it is valid.
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// The day on which it begins to be valid, such as `2026-01-02` (UTC).
    pub fn first_day(&self) -> String {
        date(self.not_before)
    }

    /// The day on which it expires (UTC).
    pub fn last_day(&self) -> String {
        date(self.not_after)
    }

    /// The kind of its key.
    pub fn key(&self) -> KeyKind {
        self.key
    }

    /// Whether its subject says to have signed it.
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether it may sign other certificates.
    pub fn is_ca(&self) -> bool {
        self.is_ca && self.usage.is_none_or(|u| u.key_cert_sign())
    }

    /// How many CAs there may be below it on the way to a host, if that is limited.
    pub(super) fn path_len(&self) -> Option<u8> {
        self.path_len
    }

    /// Whether a CA limits the names below it.
    pub(super) fn constrains_names(&self) -> bool {
        self.constrains_names
    }

    /// Whether it may sign in IKE (RFC 4945, section 5.1.3.2).
    pub(super) fn may_authenticate(&self) -> bool {
        self.usage.is_none_or(|u| u.digital_signature() || u.non_repudiation())
    }

    /// That it is in force `unix_now` seconds after 1970.
    pub fn check_dates(&self, unix_now: u64) -> Result<(), AuthError> {
        let subject = || self.to_string();
        if unix_now < self.not_before {
            Err(AuthError::NotYetValid { subject: subject(), date: date(self.not_before) })
        } else if unix_now > self.not_after {
            Err(AuthError::Expired { subject: subject(), date: date(self.not_after) })
        } else {
            Ok(())
        }
    }

    /// Who its holder is in IKE. OVS and its peers go by the common name, as long as it is an alternative name, too.
    pub(super) fn identity(&self) -> Identity {
        let common_name = self.host_common_name();
        let is_common = |id: &&Identity| common_name.as_ref().is_some_and(|cn| id.matches(cn));
        self.alternative
            .iter()
            .find(is_common)
            .or(self.alternative.first())
            .cloned()
            .or(common_name)
            .unwrap_or_else(|| self.subject())
    }

    /// Whether it names `id`: as an alternative name, as its whole subject or, by that rule, as its common name.
    pub(super) fn names(&self, id: &Identity, common_name: CommonName) -> bool {
        let has_dns_name = self.alternative.iter().any(|name| matches!(name, Identity::Fqdn(_)));
        let counts = match common_name {
            CommonName::Never => false,
            CommonName::Alone => !has_dns_name,
            CommonName::Always => true,
        };
        self.subject().matches(id)
            || self.alternative.iter().any(|name| name.matches(id))
            || counts && self.host_common_name().is_some_and(|cn| cn.matches(id))
    }

    /// All that it names, for a person to read.
    pub(super) fn all_names(&self) -> String {
        let mut names: Vec<String> = self.alternative.iter().map(Identity::to_string).collect();
        names.push(self.to_string());
        names.join(", ")
    }

    /// The common name, if it can be a host's.
    fn host_common_name(&self) -> Option<Identity> {
        let name = self.common_name.as_deref()?;
        identity::name(name.as_bytes()).filter(|name| !name.contains(['=', '@'])).map(Identity::Fqdn)
    }
}

/// When a common name is an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommonName {
    /// Never: a CA above limits names, and nobody has held the common name to that.
    Never,
    /// Where there is no alternative DNS name (RFC 6125, section 6.4.4).
    Alone,
    /// Always: the certificate itself is trusted, so whatever stands in it is.
    Always,
}

/// The subject, or an alternative name where that is empty.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EMPTY: [u8; 2] = [0x30, 0];
        match self.alternative.first() {
            Some(name) if self.subject == EMPTY => name.fmt(f),
            _ => self.subject().fmt(f),
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({self})")
    }
}

fn identity_of(name: &GeneralName) -> Option<Identity> {
    match name {
        // as strict as with what comes in an identity payload; wildcards name nobody
        GeneralName::DnsName(name) => {
            identity::name(name.as_bytes()).filter(|name| !name.contains('*')).map(Identity::Fqdn)
        }
        GeneralName::Rfc822Name(name) => identity::name(name.as_bytes()).map(Identity::Email),
        GeneralName::IpAddress(ip) => {
            let octets = ip.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
            ip.ok().map(Identity::Address)
        }
        GeneralName::DirectoryName(name) => name.to_der().ok().map(Identity::Dn),
        _ => None,
    }
}

/// `2026-01-02` of seconds since 1970.
pub(super) fn date(unix: u64) -> String {
    let date = x509_cert::der::DateTime::from_unix_duration(std::time::Duration::from_secs(unix));
    date.map_or_else(
        |_| format!("{unix} s after 1970"),
        |d| format!("{:04}-{:02}-{:02}", d.year(), d.month(), d.day()),
    )
}

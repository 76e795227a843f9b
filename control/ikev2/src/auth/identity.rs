//! Who an end says it is: the contents of IDi and IDr (RFC 7296, section 3.5).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{AuthError, dn};
use crate::wire::{Identification, id};

/// An identity. `==` compares octets; whether two of them mean the same end tells [`Identity::matches`].
///
/// Displayed as strongSwan prints it, so that logs of both ends can be laid side by side. What a peer sends cannot
/// break a line of a log: only printable names are taken in, and octets of a key ID that are not are shown as hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// An address.
    Address(IpAddr),
    /// A host name, which need not resolve.
    Fqdn(String),
    /// A mail address.
    Email(String),
    /// A distinguished name in DER.
    Dn(Vec<u8>),
    /// Octets of any kind.
    KeyId(Vec<u8>),
}

impl Identity {
    /// Whether both mean the same end: names regardless of case, distinguished names regardless of how their strings
    /// are encoded. There are no wildcards.
    pub fn matches(&self, other: &Identity) -> bool {
        match (self, other) {
            (Identity::Fqdn(a), Identity::Fqdn(b)) | (Identity::Email(a), Identity::Email(b)) => {
                a.eq_ignore_ascii_case(b)
            }
            (Identity::Dn(a), Identity::Dn(b)) => dn::same(a, b),
            _ => self == other,
        }
    }

    /// The payload's contents.
    pub fn to_wire(&self) -> Identification {
        let (kind, data) = match self {
            Identity::Address(IpAddr::V4(ip)) => (id::IPV4_ADDR, ip.octets().to_vec()),
            Identity::Address(IpAddr::V6(ip)) => (id::IPV6_ADDR, ip.octets().to_vec()),
            Identity::Fqdn(name) => (id::FQDN, name.as_bytes().to_vec()),
            Identity::Email(name) => (id::RFC822_ADDR, name.as_bytes().to_vec()),
            Identity::Dn(der) => (id::DER_ASN1_DN, der.clone()),
            Identity::KeyId(octets) => (id::KEY_ID, octets.clone()),
        };
        Identification { kind, data }
    }
}

impl TryFrom<&Identification> for Identity {
    type Error = AuthError;

    fn try_from(from: &Identification) -> Result<Identity, AuthError> {
        let data = from.data.as_slice();
        let read = match from.kind {
            id::IPV4_ADDR => <[u8; 4]>::try_from(data).ok().map(|ip| Identity::Address(ip.into())),
            id::IPV6_ADDR => <[u8; 16]>::try_from(data).ok().map(|ip| Identity::Address(ip.into())),
            id::FQDN => name(data).map(Identity::Fqdn),
            id::RFC822_ADDR => name(data).map(Identity::Email),
            id::DER_ASN1_DN => dn::is_valid(data).then(|| Identity::Dn(data.to_vec())),
            id::KEY_ID => (!data.is_empty()).then(|| Identity::KeyId(data.to_vec())),
            _ => None,
        };
        read.ok_or(AuthError::PeerIdentity { kind: from.kind })
    }
}

/// A name out of printable ASCII. ovs-pki puts spaces into names if not told otherwise.
pub(super) fn name(octets: &[u8]) -> Option<String> {
    let printable = !octets.is_empty() && octets.iter().all(|b| is_printable(*b));
    printable.then(|| octets.iter().copied().map(char::from).collect())
}

fn is_printable(octet: u8) -> bool {
    matches!(octet, b' '..=b'~')
}

/// As an operator writes it: an address, `@name` or `name`, `user@host`, or a distinguished name such as
/// `C=CH, O=strongSwan, CN=moon.strongswan.org`.
impl FromStr for Identity {
    type Err = AuthError;

    fn from_str(text: &str) -> Result<Identity, AuthError> {
        let unusable = || AuthError::IdentityText(text.to_owned());
        if let Ok(ip) = text.parse() {
            return Ok(Identity::Address(ip));
        }
        if let Some(fqdn) = text.strip_prefix('@') {
            return name(fqdn.as_bytes()).map(Identity::Fqdn).ok_or_else(unusable);
        }
        if text.contains('=') {
            return dn::parse(text).map(Identity::Dn).ok_or_else(unusable);
        }
        let kind = if text.contains('@') { Identity::Email } else { Identity::Fqdn };
        name(text.as_bytes()).map(kind).ok_or_else(unusable)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Address(ip) => ip.fmt(f),
            Identity::Fqdn(name) | Identity::Email(name) => f.write_str(name),
            Identity::Dn(der) => dn::write(der, f),
            Identity::KeyId(octets) if octets.iter().all(|b| is_printable(*b)) => {
                octets.iter().try_for_each(|b| write!(f, "{}", char::from(*b)))
            }
            Identity::KeyId(octets) => {
                let mut colon = "";
                octets.iter().try_for_each(|b| write!(f, "{}{b:02x}", std::mem::replace(&mut colon, ":")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire_id(kind: u8, data: &[u8]) -> Identification {
        Identification { kind, data: data.to_vec() }
    }

    #[test]
    fn every_kind_to_the_wire_and_back() {
        for text in ["10.9.0.1", "fd00::1", "a.test", "root@a.test", "C=CH, O=test, CN=a.test"] {
            let id: Identity = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(Identity::try_from(&id.to_wire()).unwrap(), id, "{text}");
        }
        assert_eq!("@a.test".parse::<Identity>().unwrap(), Identity::Fqdn("a.test".into()));
        let id = Identity::KeyId(vec![0xde, 0xad, 1]);
        assert_eq!(id.to_string(), "de:ad:01");
        assert_eq!(Identity::try_from(&id.to_wire()).unwrap(), id);
        assert_eq!(Identity::KeyId(b"some key".into()).to_string(), "some key");
    }

    #[test]
    fn what_no_peer_may_call_itself() {
        let of_wire = |kind, data| Identity::try_from(&wire_id(kind, data));
        for (kind, data) in [
            (id::IPV4_ADDR, &b"\x0a\0\0"[..]),
            (id::IPV6_ADDR, b"\x0a\0\0\x01"),
            (id::FQDN, b""),
            (id::FQDN, b"a\nb"),
            (id::FQDN, b"a\0b"),
            (id::FQDN, "ä".as_bytes()),
            (id::RFC822_ADDR, b"a@b\x1b[2J"),
            (id::DER_ASN1_DN, b"\x30\x05"),
            (id::DER_ASN1_DN, b""),
            (id::KEY_ID, b""),
            (10, b"\x30\0"), // ID_DER_ASN1_GN
            (201, b"x"),
        ] {
            assert_eq!(of_wire(kind, data), Err(AuthError::PeerIdentity { kind }), "{kind} {data:?}");
        }
        for text in ["", "@", "X=", "Ä", "a\nb", "=", "CN=a,="] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn same_end_or_another() {
        let same = |a: &str, b: &str| a.parse::<Identity>().unwrap().matches(&b.parse().unwrap());
        assert!(same("a.test", "A.TEST"));
        assert!(same("root@a.test", "Root@A.test"));
        assert!(same("C=CH, O=test, CN=a", "C=CH,O=test,CN=A"));
        assert!(same("::1", "0:0::1"));
        for (a, b) in [
            ("a.test", "b.test"),
            ("a.test", "a.test."),
            ("*.test", "a.test"),
            ("a.test", "root@a.test"),
            ("10.0.0.1", "10.0.0.2"),
            ("10.0.0.1", "::ffff:10.0.0.1"),
            ("C=CH, CN=a", "CN=a, C=CH"),
            ("C=CH, CN=a", "C=CH"),
            ("CN=a", "O=a"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
        let key = |id: &[u8]| Identity::KeyId(id.to_vec());
        assert!(key(b"a").matches(&key(b"a")) && !key(b"a").matches(&key(b"A")));
        assert!(!key(b"a.test").matches(&Identity::Fqdn("a.test".into())));
    }

    proptest::proptest! {
        /// What is taken in goes out as it came, is itself, and prints without anything that moves a terminal's cursor.
        #[test]
        fn whatever_comes(kind in 0u8..13, data in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            if let Ok(id) = Identity::try_from(&wire_id(kind, &data)) {
                assert_eq!(id.to_wire(), wire_id(kind, &data));
                assert!(id.matches(&id));
                assert!(!id.to_string().chars().any(char::is_control));
            }
        }

        #[test]
        fn whatever_is_typed(text in "[a-zA-Z0-9=,+@.: \\\\#;äß-]{0,30}") {
            if let Ok(id) = text.parse::<Identity>() {
                assert_eq!(Identity::try_from(&id.to_wire()), Ok(id));
            }
        }
    }
}

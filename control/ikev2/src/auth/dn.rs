//! Distinguished names in DER: read, written as strongSwan writes them, compared.

use std::fmt;
use std::str::FromStr;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// Attributes by the names that strongSwan prints.
const NAMES: [(&str, &str); 17] = [
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "S"),
    ("2.5.4.5", "SN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "T"),
    ("2.5.4.13", "D"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.42", "G"),
    ("2.5.4.43", "I"),
    ("1.2.840.113549.1.9.1", "E"),
];
const COMMON_NAME: &str = "2.5.4.3";

/// Whether `der` is a distinguished name.
pub(super) fn is_valid(der: &[u8]) -> bool {
    RdnSequence::from_der(der).is_ok()
}

/// Reads `C=CH, O=strongSwan, CN=moon`: in the order in which it is encoded, unlike RFC 4514's. A comma in a value is
/// written `\,`.
pub(super) fn parse(text: &str) -> Option<Vec<u8>> {
    let mut name = RdnSequence::default();
    for part in split_unescaped(text) {
        name.push(RelativeDistinguishedName::from_str(part.trim()).ok()?);
    }
    name.to_der().ok()
}

fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let separates = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
}

/// Whether both mean the same: attribute by attribute, in order. Strings are the same if their characters are,
/// whatever type of string holds them and regardless of ASCII case (RFC 5280, section 7.1, which asks for more).
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (RdnSequence::from_der(a), RdnSequence::from_der(b)) else { return false };
    a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same_rdn(a, b))
}

fn same_rdn(a: &RelativeDistinguishedName, b: &RelativeDistinguishedName) -> bool {
    a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same_attribute(a, b))
}

fn same_attribute(a: &AttributeTypeAndValue, b: &AttributeTypeAndValue) -> bool {
    let values = match (text(a), text(b)) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        _ => a.value == b.value,
    };
    a.oid == b.oid && values
}

/// The value, if it is of a type of string that is UTF-8 or a part of it.
fn text(attribute: &AttributeTypeAndValue) -> Option<&str> {
    let value = &attribute.value;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString => {
            std::str::from_utf8(value.value()).ok()
        }
        _ => None,
    }
}

/// Writes `C=CH, O=strongSwan, CN=moon`. Characters that do not print become `?`.
pub(super) fn write(der: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Ok(name) = RdnSequence::from_der(der) else { return f.write_str("(invalid DN)") };
    let attributes = name.iter().flat_map(RelativeDistinguishedName::iter);
    for (i, attribute) in attributes.enumerate() {
        f.write_str(if i == 0 { "" } else { ", " })?;
        let oid = attribute.oid.to_string();
        f.write_str(NAMES.iter().find(|(known, _)| *known == oid).map_or(&oid, |(_, name)| name))?;
        f.write_str("=")?;
        match text(attribute) {
            Some(text) => {
                text.chars().try_for_each(|c| write!(f, "{}", if c.is_control() { '?' } else { c }))?
            }
            None => attribute.value.value().iter().try_for_each(|b| write!(f, "{b:02x}"))?,
        }
    }
    Ok(())
}

/// The last common name, which is the most specific one.
pub(super) fn common_name(name: &RdnSequence) -> Option<String> {
    let is_cn = |a: &&AttributeTypeAndValue| ObjectIdentifier::new(COMMON_NAME).is_ok_and(|cn| a.oid == cn);
    let all = name.iter().flat_map(RelativeDistinguishedName::iter).filter(is_cn);
    all.last().and_then(text).map(str::to_owned)
}

//! Proposals of an SA payload (RFC 7296 3.3).
//!
//! ```text
//! proposal:  more(0|2) 0 length  number protocol SPI-size transforms  SPI  transform...
//! transform: more(0|3) 0 length  kind 0 id  attribute...
//! attribute: 1|type value    or    0|type length value
//! ```

use super::encode::{put, sized};
use super::reader::Reader;
use super::{Attribute, ParseError, Proposal, Transform};

/// Proposals in one SA payload. Peers with long lists have about twenty.
pub const MAX_PROPOSALS: usize = 64;

const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;
/// The bit of an attribute's type that says that the value stands in place of a length.
const SHORT: u16 = 0x8000;
const KEY_LENGTH: u16 = 14;

pub(super) fn parse(body: &[u8]) -> Result<Vec<Proposal>, ParseError> {
    let mut reader = Reader::new(body, "SA payload");
    let mut proposals = Vec::new();
    while !reader.is_empty() {
        if proposals.len() == MAX_PROPOSALS {
            return Err(ParseError::TooMany("proposals"));
        }
        let [more, _, len @ ..] = reader.array::<4>()?;
        let sub = reader.sub(u16::from_be_bytes(len), 4, "proposal")?;
        check_more(more, MORE_PROPOSALS, &reader)?;
        proposals.push(proposal(sub)?);
    }
    Ok(proposals)
}

fn proposal(mut reader: Reader<'_>) -> Result<Proposal, ParseError> {
    let [number, protocol, spi_len, count] = reader.array()?;
    let spi = reader.take(spi_len.into())?.to_vec();
    let mut transforms = Vec::new();
    while !reader.is_empty() {
        if transforms.len() == usize::from(count) {
            return Err(ParseError::Length("proposal"));
        }
        let [more, _, len @ ..] = reader.array::<4>()?;
        let sub = reader.sub(u16::from_be_bytes(len), 4, "transform")?;
        check_more(more, MORE_TRANSFORMS, &reader)?;
        transforms.push(self::transform(sub)?);
    }
    if transforms.len() != usize::from(count) {
        return Err(ParseError::Length("proposal"));
    }
    Ok(Proposal { number, protocol, spi, transforms })
}

fn transform(mut reader: Reader<'_>) -> Result<Transform, ParseError> {
    let [kind, _] = reader.array()?;
    let mut transform = Transform::new(kind, reader.u16()?, None);
    while !reader.is_empty() {
        let kind = reader.u16()?;
        let attribute = if kind & SHORT != 0 {
            Attribute::Short { kind: kind & !SHORT, value: reader.u16()? }
        } else {
            let len = reader.u16()?;
            Attribute::Long { kind, data: reader.take(len.into())?.to_vec() }
        };
        match attribute {
            Attribute::Short { kind: KEY_LENGTH, value } if transform.key_bits.is_none() => {
                transform.key_bits = Some(value);
            }
            // a second key length, too, is nothing to be understood
            other => transform.other.push(other),
        }
    }
    Ok(transform)
}

/// The field says whether another substructure follows, and nothing else.
fn check_more(field: u8, more: u8, rest: &Reader<'_>) -> Result<(), ParseError> {
    match field == if rest.is_empty() { 0 } else { more } {
        true => Ok(()),
        false => Err(ParseError::Value("the last proposal or transform is not marked so, or another is")),
    }
}

pub(super) fn encode(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (i, p) in proposals.iter().enumerate() {
        let more = if i + 1 < proposals.len() { MORE_PROPOSALS } else { 0 };
        let spi = p.spi.get(..255).unwrap_or(&p.spi);
        let transforms = p.transforms.get(..255).unwrap_or(&p.transforms);
        sized(out, &[more, 0], |out| {
            out.extend_from_slice(&[p.number, p.protocol, spi.len() as u8, transforms.len() as u8]);
            out.extend_from_slice(spi);
            for (i, t) in transforms.iter().enumerate() {
                let more = if i + 1 < transforms.len() { MORE_TRANSFORMS } else { 0 };
                sized(out, &[more, 0], |out| encode_transform(t, out));
            }
        });
    }
}

fn encode_transform(transform: &Transform, out: &mut Vec<u8>) {
    out.extend_from_slice(&[transform.kind, 0]);
    put(out, transform.id);
    if let Some(bits) = transform.key_bits {
        put(out, SHORT | KEY_LENGTH);
        put(out, bits);
    }
    for attribute in &transform.other {
        match attribute {
            Attribute::Short { kind, value } => {
                put(out, SHORT | kind);
                put(out, *value);
            }
            Attribute::Long { kind, data } => {
                let data = data.get(..usize::from(u16::MAX)).unwrap_or(data);
                put(out, kind & !SHORT);
                put(out, data.len() as u16);
                out.extend_from_slice(data);
            }
        }
    }
}

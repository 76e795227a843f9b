//! The format of the database file: records of `OVSDB JSON <length> <SHA-1>\n<json>\n`, the schema first.

use serde_json::Value;
use sha1::{Digest, Sha1};

const MAGIC: &[u8] = b"OVSDB JSON ";
/// Longer than any true header line.
const MAX_HEADER: usize = 128;

/// One record and where it begins, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub offset: usize,
    pub json: Value,
}

/// What stands in a file up to its end or to a damaged tail.
#[derive(Debug, PartialEq)]
pub struct Contents {
    pub records: Vec<Record>,
    /// The length in bytes of the intact records.
    pub intact: usize,
    /// What is wrong after that, if anything stands there.
    pub damage: Option<&'static str>,
}

/// A record is damaged although intact ones follow: no power failure does that.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record at byte {offset} is damaged ({what}), yet an intact record follows at byte {next}")]
pub struct Damaged {
    pub offset: usize,
    pub what: &'static str,
    pub next: usize,
}

/// The bytes of one record.
pub fn encode(json: &Value) -> Vec<u8> {
    let text = format!("{json}\n");
    let mut bytes = format!("OVSDB JSON {} {:x}\n", text.len(), Sha1::digest(&text)).into_bytes();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Reads records until the end. A damaged tail, as a crash leaves it, is reported and not an error.
pub fn decode(bytes: &[u8]) -> Result<Contents, Damaged> {
    let mut records = Vec::new();
    let mut offset = 0;
    loop {
        let rest = bytes.get(offset..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(Contents { records, intact: offset, damage: None });
        }
        match decode_record(rest) {
            Ok((json, length)) => {
                records.push(Record { offset, json });
                offset += length;
            }
            Err(what) => {
                return match find_intact(rest) {
                    Some(distance) => Err(Damaged { offset, what, next: offset + distance }),
                    None => Ok(Contents { records, intact: offset, damage: Some(what) }),
                };
            }
        }
    }
}

/// Reads the record at the beginning of `bytes`; gives its length too.
fn decode_record(bytes: &[u8]) -> Result<(Value, usize), &'static str> {
    let (length, digest, start) = parse_header(bytes).ok_or("no record begins here")?;
    let end = start.checked_add(length).ok_or("its length is absurd")?;
    let text = bytes.get(start..end).ok_or("it is cut short")?;
    if format!("{:x}", Sha1::digest(text)) != digest {
        return Err("its checksum is wrong");
    }
    match serde_json::from_slice(text) {
        Ok(json @ Value::Object(_)) => Ok((json, end)),
        Ok(_) => Err("it is not a JSON object"),
        Err(_) => Err("it is not valid JSON"),
    }
}

/// The length and digest that a header line states, and where the record's text begins.
fn parse_header(bytes: &[u8]) -> Option<(usize, &str, usize)> {
    let head = bytes.get(..bytes.len().min(MAX_HEADER))?;
    let line = head.split(|b| *b == b'\n').next()?;
    let fields = std::str::from_utf8(line.strip_prefix(MAGIC)?).ok()?;
    let (length, digest) = fields.split_once(' ')?;
    // A line without its end is the beginning of a torn record.
    (line.len() < head.len()).then_some((length.parse().ok()?, digest, line.len() + 1))
}

/// Where an intact record begins after the damaged one at the beginning of `bytes`.
fn find_intact(bytes: &[u8]) -> Option<usize> {
    let mut lines = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1);
    lines.find(|at| {
        // Only a record that ends where another begins, or with the file, is worth a checksum.
        let rest = bytes.get(*at..).unwrap_or_default();
        let end = parse_header(rest).and_then(|(length, _, start)| start.checked_add(length));
        let after = end.and_then(|end| rest.get(end..));
        after.is_some_and(|after| after.is_empty() || after.starts_with(MAGIC)) && decode_record(rest).is_ok()
    })
}

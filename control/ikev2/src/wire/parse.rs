//! From bytes to payloads.

use super::reader::Reader;
use super::{
    AuthData, CertRequest, Certificate, Datagram, Delete, Fragment, HEADER_LEN, Header, Identification,
    KeyExchange, Notify, ParseError, Payload, Sealed, kind, sa, selector,
};

/// Payloads in one message. Hosts with many addresses notify a MOBIKE peer of each.
pub const MAX_PAYLOADS: usize = 256;

const CRITICAL: u8 = 0x80;

/// SPIs in one Delete payload. A pair of hosts has a handful.
pub const MAX_SPIS: u16 = 1024;

/// A whole datagram (without non-ESP marker): the clear payloads, and the encrypted one if there is one.
///
/// # Errors
/// What is wrong with the message. [`Header::peek`] still gives a header to answer with.
pub fn parse(datagram: &[u8]) -> Result<Datagram<'_>, ParseError> {
    let (header, first) = Header::parse(datagram)?;
    let mut chain =
        Chain { kind: first, reader: Reader::new(rest(datagram, HEADER_LEN), "message"), count: 0 };
    let mut payloads = Vec::new();
    let mut sealed = None;
    while let Some(raw) = chain.next()? {
        if raw.kind == kind::SK || raw.kind == kind::SKF {
            // RFC 7296 3.14: always the last; its next-payload field names the first one inside
            if !chain.reader.is_empty() {
                return Err(ParseError::Length("encrypted payload"));
            }
            sealed = Some(self::sealed(datagram, raw)?);
            break;
        }
        payloads.push(raw.parse()?);
    }
    Ok(Datagram { header, payloads, sealed, bytes: datagram })
}

/// The payloads inside an SK payload, or inside all fragments put together; `plain` has no padding any more.
///
/// # Errors
/// What is wrong with them.
pub fn parse_inner(first: u8, plain: &[u8]) -> Result<Vec<Payload>, ParseError> {
    let mut chain = Chain { kind: first, reader: Reader::new(plain, "content of the message"), count: 0 };
    let mut payloads = Vec::new();
    while let Some(raw) = chain.next()? {
        if raw.kind == kind::SK || raw.kind == kind::SKF {
            return Err(ParseError::Value("an encrypted payload is inside another"));
        }
        payloads.push(raw.parse()?);
    }
    Ok(payloads)
}

/// A payload behind its generic header (RFC 7296 3.2).
struct Raw<'a> {
    kind: u8,
    next: u8,
    critical: bool,
    body: &'a [u8],
}

/// Payloads, each naming the type of the next.
struct Chain<'a> {
    kind: u8,
    reader: Reader<'a>,
    count: usize,
}

impl<'a> Chain<'a> {
    fn next(&mut self) -> Result<Option<Raw<'a>>, ParseError> {
        if self.kind == kind::NONE {
            return self.reader.end().map(|()| None);
        }
        self.count += 1;
        if self.count > MAX_PAYLOADS {
            return Err(ParseError::TooMany("payloads"));
        }
        let [next, flags, len @ ..] = self.reader.array::<4>()?;
        let body = self.reader.sub(u16::from_be_bytes(len), 4, "payload")?.rest();
        let raw = Raw { kind: self.kind, next, critical: flags & CRITICAL != 0, body };
        self.kind = next;
        Ok(Some(raw))
    }
}

impl Raw<'_> {
    fn parse(self) -> Result<Payload, ParseError> {
        let body = self.body;
        Ok(match self.kind {
            kind::SA => Payload::Sa(sa::parse(body)?),
            kind::KE => Payload::Ke(key_exchange(body)?),
            kind::ID_I => Payload::IdI(identification(body)?),
            kind::ID_R => Payload::IdR(identification(body)?),
            kind::CERT => {
                let (encoding, data) = tagged(body, "certificate payload")?;
                Payload::Cert(Certificate { encoding, data })
            }
            kind::CERTREQ => {
                let (encoding, data) = tagged(body, "certificate request payload")?;
                Payload::CertReq(CertRequest { encoding, data })
            }
            kind::AUTH => Payload::Auth(auth(body)?),
            kind::NONCE => Payload::Nonce(nonce(body)?),
            kind::NOTIFY => Payload::Notify(notify(body)?),
            kind::DELETE => Payload::Delete(delete(body)?),
            kind::VENDOR_ID => Payload::VendorId(body.to_vec()),
            kind::TS_I => Payload::TsI(selector::parse(body)?),
            kind::TS_R => Payload::TsR(selector::parse(body)?),
            kind::CP => Payload::Configuration(body.to_vec()),
            kind::EAP => Payload::Eap(body.to_vec()),
            // RFC 7296 2.5: the bit means something on payloads that are not known, and on no others
            kind if self.critical => return Err(ParseError::UnsupportedCritical(kind)),
            kind => Payload::Unknown { kind, critical: false, data: body.to_vec() },
        })
    }
}

fn sealed<'a>(datagram: &'a [u8], raw: Raw<'a>) -> Result<Sealed<'a>, ParseError> {
    let mut reader = Reader::new(raw.body, "encrypted payload");
    let fragment = match raw.kind {
        kind::SKF => Some(fragment(&mut reader)?),
        _ => None,
    };
    let body = reader.rest();
    // it ends where the message ends
    let aad = datagram.get(..datagram.len() - body.len()).unwrap_or_default();
    Ok(Sealed { first: raw.next, fragment, aad, body })
}

fn fragment(reader: &mut Reader<'_>) -> Result<Fragment, ParseError> {
    let (number, total) = (reader.u16()?, reader.u16()?);
    match 1 <= number && number <= total {
        true => Ok(Fragment { number, total }),
        false => Err(ParseError::Value("a fragment's number is not within the total")),
    }
}

fn key_exchange(body: &[u8]) -> Result<KeyExchange, ParseError> {
    let mut reader = Reader::new(body, "key exchange payload");
    let group = reader.u16()?;
    reader.array::<2>()?;
    Ok(KeyExchange { group, data: reader.rest().to_vec() })
}

fn identification(body: &[u8]) -> Result<Identification, ParseError> {
    let mut reader = Reader::new(body, "identification payload");
    let [kind, _, _, _] = reader.array()?;
    Ok(Identification { kind, data: reader.rest().to_vec() })
}

fn auth(body: &[u8]) -> Result<AuthData, ParseError> {
    let mut reader = Reader::new(body, "authentication payload");
    let [method, _, _, _] = reader.array()?;
    Ok(AuthData { method, data: reader.rest().to_vec() })
}

/// A byte that says what the rest is.
fn tagged(body: &[u8], what: &'static str) -> Result<(u8, Vec<u8>), ParseError> {
    let (tag, data) = body.split_first().ok_or(ParseError::Truncated(what))?;
    Ok((*tag, data.to_vec()))
}

fn nonce(body: &[u8]) -> Result<Vec<u8>, ParseError> {
    // RFC 7296 3.9
    if (16..=256).contains(&body.len()) { Ok(body.to_vec()) } else { Err(ParseError::Length("nonce")) }
}

fn notify(body: &[u8]) -> Result<Notify, ParseError> {
    let mut reader = Reader::new(body, "notify payload");
    let [protocol, spi_len] = reader.array()?;
    let kind = reader.u16()?;
    let spi = reader.take(spi_len.into())?.to_vec();
    Ok(Notify { protocol, spi, kind, data: reader.rest().to_vec() })
}

fn delete(body: &[u8]) -> Result<Delete, ParseError> {
    let mut reader = Reader::new(body, "delete payload");
    let [protocol, spi_len] = reader.array()?;
    let count = reader.u16()?;
    if count > MAX_SPIS {
        return Err(ParseError::TooMany("SPIs"));
    }
    let spis = reader.rest();
    if spis.len() != usize::from(spi_len) * usize::from(count) {
        return Err(ParseError::Length("delete payload"));
    }
    // SPIs of no length (of the IKE SA) are none, whatever their count
    let spis = match spis.is_empty() {
        true => Vec::new(),
        false => spis.chunks_exact(spi_len.into()).map(<[u8]>::to_vec).collect(),
    };
    Ok(Delete { protocol, spis })
}

fn rest(bytes: &[u8], from: usize) -> &[u8] {
    bytes.get(from..).unwrap_or_default()
}

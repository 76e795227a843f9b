//! The header of every message (RFC 7296 3.1).

use super::ParseError;

/// Bytes of the header.
pub const HEADER_LEN: usize = 28;
/// The version spoken: 2.0.
pub(super) const VERSION: u8 = 0x20;

const INITIATOR: u8 = 0x08;
const RESPONSE: u8 = 0x20;

/// SPI of an IKE SA, as one side chose it.
pub type Spi = [u8; 8];

/// What a header says, but for version, length and the type of the first payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The SPI chosen by the original initiator of the IKE SA.
    pub initiator_spi: Spi,
    /// The SPI chosen by the original responder; zero in the first request.
    pub responder_spi: Spi,
    /// What the message is a part of.
    pub exchange: Exchange,
    /// Sent by the original initiator of the IKE SA (the I flag).
    pub initiator: bool,
    /// A response (the R flag).
    pub response: bool,
    /// Number of the exchange, counted by who requests.
    pub message_id: u32,
}

/// Exchange types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// IKE_SA_INIT
    SaInit,
    /// IKE_AUTH
    Auth,
    /// CREATE_CHILD_SA
    CreateChildSa,
    /// INFORMATIONAL
    Informational,
    /// Any other.
    Other(u8),
}

impl Exchange {
    /// The number on the wire.
    pub fn id(self) -> u8 {
        match self {
            Exchange::SaInit => 34,
            Exchange::Auth => 35,
            Exchange::CreateChildSa => 36,
            Exchange::Informational => 37,
            Exchange::Other(id) => id,
        }
    }

    /// The exchange of a number on the wire.
    pub fn from_id(id: u8) -> Exchange {
        match id {
            34 => Exchange::SaInit,
            35 => Exchange::Auth,
            36 => Exchange::CreateChildSa,
            37 => Exchange::Informational,
            other => Exchange::Other(other),
        }
    }
}

/// Fields that only reading and writing need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest {
    pub first: u8,
    pub version: u8,
    pub length: u32,
}

impl Header {
    /// The header of a datagram of any version and length, to answer one that [`super::parse`] refused.
    pub fn peek(datagram: &[u8]) -> Option<Header> {
        split(datagram).map(|(header, _)| header)
    }

    /// Read and checked: version 2, and the length that of the datagram.
    pub(super) fn parse(datagram: &[u8]) -> Result<(Header, u8), ParseError> {
        let (header, rest) = split(datagram).ok_or(ParseError::Truncated("header"))?;
        if rest.version >> 4 != VERSION >> 4 {
            return Err(ParseError::MajorVersion(rest.version >> 4));
        }
        if u64::from(rest.length) != datagram.len() as u64 {
            return Err(ParseError::Length("message"));
        }
        Ok((header, rest.first))
    }

    /// Appended to `out` with a length of zero, to be set when the message is whole.
    pub(super) fn encode(&self, first: u8, out: &mut Vec<u8>) {
        let flags = if self.initiator { INITIATOR } else { 0 } | if self.response { RESPONSE } else { 0 };
        out.extend_from_slice(&self.initiator_spi);
        out.extend_from_slice(&self.responder_spi);
        out.extend_from_slice(&[first, VERSION, self.exchange.id(), flags]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }
}

fn split(datagram: &[u8]) -> Option<(Header, Rest)> {
    let (initiator_spi, rest) = datagram.split_first_chunk()?;
    let (responder_spi, rest) = rest.split_first_chunk()?;
    let (&[first, version, exchange, flags], rest) = rest.split_first_chunk()?;
    let (message_id, rest) = rest.split_first_chunk()?;
    let (length, _) = rest.split_first_chunk()?;
    let header = Header {
        initiator_spi: *initiator_spi,
        responder_spi: *responder_spi,
        exchange: Exchange::from_id(exchange),
        initiator: flags & INITIATOR != 0,
        response: flags & RESPONSE != 0,
        message_id: u32::from_be_bytes(*message_id),
    };
    Some((header, Rest { first, version, length: u32::from_be_bytes(*length) }))
}

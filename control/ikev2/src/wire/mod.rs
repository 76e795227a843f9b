//! Messages on the wire (RFC 7296 section 3, RFC 7383): codecs and nothing else.
//!
//! Contract: any bytes may be given to [`parse`], [`parse_inner`] and [`Reassembly`]. They never panic, their cost is
//! linear in the bytes, and every length is checked against what encloses it. Reserved bits are ignored, as the RFC
//! demands; payloads of unknown type are kept unless marked critical. What was parsed can be encoded again.

mod encode;
mod header;
pub mod notify;
mod parse;
mod payload;
mod reader;
mod reassembly;
mod sa;
mod selector;
#[cfg(test)]
mod tests;

pub use encode::{encode_clear, encode_sealed};
pub use header::{Exchange, HEADER_LEN, Header, Spi};
pub use parse::{MAX_PAYLOADS, MAX_SPIS, parse, parse_inner};
pub use payload::{
    Attribute, AuthData, CertRequest, Certificate, Delete, Identification, KeyExchange, Notify, Payload,
    Proposal, TrafficSelector, Transform, id, kind, protocol, transform,
};
pub use reassembly::{MAX_FRAGMENTS, MAX_REASSEMBLED, Reassembly};
pub use sa::MAX_PROPOSALS;

/// Why a message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// To be answered with INVALID_MAJOR_VERSION.
    #[error("IKE version {0}, where 2 is spoken")]
    MajorVersion(u8),
    /// It ends too soon.
    #[error("{0} is cut short")]
    Truncated(&'static str),
    /// A length or a count contradicts what is there.
    #[error("the length of the {0} is wrong")]
    Length(&'static str),
    /// A field has a value that it cannot have.
    #[error("{0}")]
    Value(&'static str),
    /// More than anybody has use for.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// To be answered with UNSUPPORTED_CRITICAL_PAYLOAD and this type (RFC 7296 2.5).
    #[error("critical payload of the unknown type {0}")]
    UnsupportedCritical(u8),
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// What the header says.
    pub header: Header,
    /// Payloads in the clear.
    pub payloads: Vec<Payload>,
    /// What is encrypted, always the last payload.
    pub sealed: Option<Sealed<'a>>,
    /// The whole message.
    pub bytes: &'a [u8],
}

/// An encrypted payload (SK), or a fragment of one (SKF).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// Type of the first payload inside; 0 in a fragment but the first.
    pub first: u8,
    /// Which fragment.
    pub fragment: Option<Fragment>,
    /// Authenticated, not encrypted: from the message's header to the header of this payload, that of a fragment included.
    pub aad: &'a [u8],
    /// IV, ciphertext and ICV.
    pub body: &'a [u8],
}

/// The place of a fragment (RFC 7383 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Counted from 1.
    pub number: u16,
    /// How many there are; at least `number`.
    pub total: u16,
}

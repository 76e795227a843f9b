//! The header of every message (RFC 7296 3.1).

/// Bytes of the header.
pub const HEADER_LEN: usize = 28;

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

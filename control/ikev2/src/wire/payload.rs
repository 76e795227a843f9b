//! The payloads (RFC 7296 3.3 to 3.16).

use std::net::IpAddr;

/// Payload types as they stand in next-payload fields.
pub mod kind {
    /// There is no further payload.
    pub const NONE: u8 = 0;
    /// Security association.
    pub const SA: u8 = 33;
    /// Key exchange.
    pub const KE: u8 = 34;
    /// The initiator's identity.
    pub const ID_I: u8 = 35;
    /// The responder's identity.
    pub const ID_R: u8 = 36;
    /// Certificate.
    pub const CERT: u8 = 37;
    /// Certificate request.
    pub const CERTREQ: u8 = 38;
    /// Authentication.
    pub const AUTH: u8 = 39;
    /// Nonce.
    pub const NONCE: u8 = 40;
    /// Notify.
    pub const NOTIFY: u8 = 41;
    /// Delete.
    pub const DELETE: u8 = 42;
    /// Vendor ID.
    pub const VENDOR_ID: u8 = 43;
    /// The initiator's traffic selectors.
    pub const TS_I: u8 = 44;
    /// The responder's traffic selectors.
    pub const TS_R: u8 = 45;
    /// Encrypted and authenticated.
    pub const SK: u8 = 46;
    /// Configuration.
    pub const CP: u8 = 47;
    /// EAP.
    pub const EAP: u8 = 48;
    /// A fragment, encrypted and authenticated (RFC 7383).
    pub const SKF: u8 = 53;
}

/// Protocols of proposals, notifications and deletions.
pub mod protocol {
    /// None: a notification without an SPI.
    pub const NONE: u8 = 0;
    /// An IKE SA.
    pub const IKE: u8 = 1;
    /// Authentication header.
    pub const AH: u8 = 2;
    /// Encapsulating security payload.
    pub const ESP: u8 = 3;
}

/// One payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Proposals, or the one chosen.
    Sa(Vec<Proposal>),
    /// A public value.
    Ke(KeyExchange),
    /// Who the initiator says it is.
    IdI(Identification),
    /// Who the responder says it is, or who is asked for.
    IdR(Identification),
    /// A certificate or something like it.
    Cert(Certificate),
    /// Certificates that are wanted.
    CertReq(CertRequest),
    /// The proof of identity.
    Auth(AuthData),
    /// 16 to 256 random bytes.
    Nonce(Vec<u8>),
    /// An error or a status.
    Notify(Notify),
    /// SAs that are gone.
    Delete(Delete),
    /// Names an implementation.
    VendorId(Vec<u8>),
    /// Traffic of the initiator's side.
    TsI(Vec<TrafficSelector>),
    /// Traffic of the responder's side.
    TsR(Vec<TrafficSelector>),
    /// Not taken apart.
    Configuration(Vec<u8>),
    /// Not taken apart.
    Eap(Vec<u8>),
    /// Of a type that is not known here.
    Unknown {
        /// The type.
        kind: u8,
        /// The critical bit. Never set in what was parsed: that is an error.
        critical: bool,
        /// All behind the generic header.
        data: Vec<u8>,
    },
}

impl Payload {
    /// The payload's type.
    pub fn kind(&self) -> u8 {
        match self {
            Payload::Sa(_) => kind::SA,
            Payload::Ke(_) => kind::KE,
            Payload::IdI(_) => kind::ID_I,
            Payload::IdR(_) => kind::ID_R,
            Payload::Cert(_) => kind::CERT,
            Payload::CertReq(_) => kind::CERTREQ,
            Payload::Auth(_) => kind::AUTH,
            Payload::Nonce(_) => kind::NONCE,
            Payload::Notify(_) => kind::NOTIFY,
            Payload::Delete(_) => kind::DELETE,
            Payload::VendorId(_) => kind::VENDOR_ID,
            Payload::TsI(_) => kind::TS_I,
            Payload::TsR(_) => kind::TS_R,
            Payload::Configuration(_) => kind::CP,
            Payload::Eap(_) => kind::EAP,
            Payload::Unknown { kind, .. } => *kind,
        }
    }
}

/// One proposal of an SA payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Counted from 1.
    pub number: u8,
    /// See [`protocol`].
    pub protocol: u8,
    /// Of the SA that the sender will receive on; none in IKE_SA_INIT.
    pub spi: Vec<u8>,
    /// Of several of one kind one is chosen.
    pub transforms: Vec<Transform>,
}

/// An algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transform {
    /// Encryption, PRF, ...: see [`transform`].
    pub kind: u8,
    /// The algorithm, numbered within its kind.
    pub id: u16,
    /// Length of the key in bits, for algorithms that know several.
    pub key_bits: Option<u16>,
    /// Attributes that are not understood: they make the transform unacceptable (RFC 7296 3.3.6).
    pub other: Vec<Attribute>,
}

impl Transform {
    /// One without attributes but, perhaps, a key length in bits.
    pub fn new(kind: u8, id: u16, key_bits: Option<u16>) -> Transform {
        Transform { kind, id, key_bits, other: Vec::new() }
    }
}

/// Kinds of transforms.
pub mod transform {
    /// Encryption, with or without integrity.
    pub const ENCR: u8 = 1;
    /// Pseudorandom function.
    pub const PRF: u8 = 2;
    /// Integrity.
    pub const INTEG: u8 = 3;
    /// Diffie-Hellman group.
    pub const GROUP: u8 = 4;
    /// Extended sequence numbers.
    pub const ESN: u8 = 5;
}

/// An attribute of a transform, other than a key length. Its type has 15 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// With a value of two bytes.
    Short {
        /// Its type.
        kind: u16,
        /// Its value.
        value: u16,
    },
    /// With a value of any length.
    Long {
        /// Its type.
        kind: u16,
        /// Its value.
        data: Vec<u8>,
    },
}

/// A public value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyExchange {
    /// Number of the group.
    pub group: u16,
    /// Padded as the group demands.
    pub data: Vec<u8>,
}

/// An identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// See [`id`].
    pub kind: u8,
    /// Address, name or DER by kind; not checked here.
    pub data: Vec<u8>,
}

/// Kinds of identities.
pub mod id {
    /// Four bytes.
    pub const IPV4_ADDR: u8 = 1;
    /// A domain name.
    pub const FQDN: u8 = 2;
    /// A mail address.
    pub const RFC822_ADDR: u8 = 3;
    /// Sixteen bytes.
    pub const IPV6_ADDR: u8 = 5;
    /// A distinguished name in DER.
    pub const DER_ASN1_DN: u8 = 9;
    /// Bytes that only the peers know the meaning of.
    pub const KEY_ID: u8 = 11;
}

/// A certificate or something like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// 4: X.509 certificate for signatures.
    pub encoding: u8,
    /// DER.
    pub data: Vec<u8>,
}

/// Certificates that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertRequest {
    /// As in [`Certificate`].
    pub encoding: u8,
    /// For X.509 the SHA-1 hashes of the authorities' public keys, one behind the other.
    pub data: Vec<u8>,
}

/// A proof of identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthData {
    /// 1 RSA, 2 shared key, 9 and 10 ECDSA, 14 any signature (RFC 7427).
    pub method: u8,
    /// By method.
    pub data: Vec<u8>,
}

/// An error or a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Of the SA meant, else 0: see [`protocol`].
    pub protocol: u8,
    /// Of the SA meant, else empty.
    pub spi: Vec<u8>,
    /// See [`super::notify`].
    pub kind: u16,
    /// By kind.
    pub data: Vec<u8>,
}

impl Notify {
    /// One about the IKE SA or the exchange itself.
    pub fn new(kind: u16, data: impl Into<Vec<u8>>) -> Notify {
        Notify { protocol: protocol::NONE, spi: Vec::new(), kind, data: data.into() }
    }

    /// Whether it tells of an error; all in a request and most in a response are of no harm otherwise.
    pub fn is_error(&self) -> bool {
        self.kind < super::notify::FIRST_STATUS
    }
}

/// SAs that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// See [`protocol`].
    pub protocol: u8,
    /// The SPIs that the sender would have received on, all of one length; none for the IKE SA itself.
    pub spis: Vec<Vec<u8>>,
}

/// Traffic between addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficSelector {
    /// IP protocol; 0 is any.
    pub protocol: u8,
    /// The lowest port.
    pub start_port: u16,
    /// The highest port. Lower than `start_port` (65535 and 0) means that ports are not to be seen.
    pub end_port: u16,
    /// The lowest address.
    pub start: IpAddr,
    /// The highest address, of the same family.
    pub end: IpAddr,
}

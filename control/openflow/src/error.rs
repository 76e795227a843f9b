//! Error messages: a type and a code, and the beginning of the request that they are about.

use crate::wire::{HEADER_LEN, Header, Version, Writer};

/// How much of a request an error quotes.
const QUOTED: usize = 64;
/// `OFPT_ERROR`.
const ERROR: u8 = 1;
/// Open vSwitch's number among experimenters.
pub(crate) const NICIRA: u32 = 0x0000_2320;
/// The Open Networking Foundation's: bundles, and errors of later versions, in OpenFlow 1.3.
pub(crate) const ONF: u32 = 0x4f4e_4600;
/// `OFPET_EXPERIMENTER`, and Open vSwitch's way to say the same in OpenFlow 1.0.
const EXPERIMENTER: u16 = 0xffff;
const VENDOR_V10: u16 = 0xb0c2;

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No version in common.
    Incompatible,
    /// Its version is not the one that was agreed on.
    BadVersion,
    /// There is no such message.
    BadType,
    /// There is no such kind of statistics.
    BadStat,
    /// Not an experimenter that we know.
    BadVendor,
    /// Not a message of that experimenter.
    BadSubtype,
    /// It would change what this switch does by itself.
    Permission,
    /// Its length and its content contradict each other.
    BadLength,
    /// No such port to modify.
    PortMod,
    /// The port to modify has another address.
    PortModAddress,
    /// No such port to ask the queues of.
    QueuePort,
    /// Roles are for controllers.
    Role,
    /// IPFIX is not configured.
    NotConfigured,
    /// No such property of what is told unasked.
    AsyncConfig,
}

impl Refusal {
    /// Type and code.
    fn numbers(self, version: Version) -> (u16, u16) {
        let v13 = version == Version::V13;
        match self {
            Refusal::Incompatible => (0, 0),
            Refusal::BadVersion => (1, 0),
            Refusal::BadType => (1, 1),
            Refusal::BadStat => (1, 2),
            Refusal::BadVendor => (1, 3),
            Refusal::BadSubtype => (1, 4),
            Refusal::Permission => (1, 5),
            Refusal::BadLength => (1, 6),
            Refusal::PortMod => (if v13 { 7 } else { 4 }, 0),
            Refusal::PortModAddress => (if v13 { 7 } else { 4 }, 1),
            Refusal::QueuePort => (if v13 { 9 } else { 5 }, 0),
            Refusal::Role => (11, 1),
            Refusal::NotConfigured | Refusal::AsyncConfig => (EXPERIMENTER, 0),
        }
    }

    /// The message that says so of `request`.
    pub(crate) fn about(self, version: Version, request: &[u8]) -> Vec<u8> {
        let xid = Header::parse(request).map_or(0, |h| h.xid);
        let quote = request.get(..QUOTED).unwrap_or(request);
        let body = match (self, version) {
            // type 1, code 0x217; and 36 of the errors that are for 1.3 alone
            (Refusal::NotConfigured, Version::V10) => {
                Writer::new().u16(VENDOR_V10).u16(0).u32(NICIRA).u16(1).u16(0x217)
            }
            (Refusal::NotConfigured, Version::V13) => Writer::new().u16(EXPERIMENTER).u16(0x24).u32(NICIRA),
            (Refusal::AsyncConfig, Version::V10) => {
                Writer::new().u16(VENDOR_V10).u16(0).u32(NICIRA).u16(1).u16(0x209)
            }
            (Refusal::AsyncConfig, Version::V13) => Writer::new().u16(EXPERIMENTER).u16(0x943).u32(ONF),
            _ => {
                let (kind, code) = self.numbers(version);
                Writer::new().u16(kind).u16(code)
            }
        };
        body.bytes(quote).message(version.number(), ERROR, xid)
    }

    /// The message that says that there is no version in common; it quotes no request but says a text.
    pub(crate) fn incompatible(ours: Version, text: &str, xid: u32) -> Vec<u8> {
        let (kind, code) = Refusal::Incompatible.numbers(ours);
        debug_assert!(text.len() < usize::from(u16::MAX) - HEADER_LEN);
        Writer::new().u16(kind).u16(code).bytes(text.as_bytes()).message(ours.number(), ERROR, xid)
    }
}

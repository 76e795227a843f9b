//! What a message asks.

use crate::error::{NICIRA, ONF, Refusal};
use crate::flows::{Filter, FlowQuestion};
use crate::news::Wishes;
use crate::view::{Bridge, PortConfig, PortNo};
use crate::wire::{HEADER_LEN, Header, Reader, Version, Writer};
use crate::{ports, stats};

/// What the session keeps of how a client wants to be spoken to. Fragments are always forwarded as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Config {
    miss_send_len: u16,
    pub(crate) wishes: Wishes,
}

impl Config {
    /// As in Open vSwitch who has not asked for it is told nothing: neither how much of a packet to send, nor what to tell.
    pub(crate) fn listens(&self) -> bool {
        self.miss_send_len != 0
    }

    fn wish(&mut self, wishes: Wishes) {
        /// `OFP_DEFAULT_MISS_SEND_LEN`.
        const MISS_SEND_LEN: u16 = 128;
        self.wishes = wishes;
        if self.miss_send_len == 0 {
            self.miss_send_len = MISS_SEND_LEN;
        }
    }
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Understood {
    Nothing,
    Send(Vec<u8>),
    Ask(Question),
    Modify(PortMod),
}

/// A question about the switch.
#[derive(Debug)]
pub struct Question {
    pub(crate) version: Version,
    pub(crate) xid: u32,
    pub(crate) about: About,
    /// The request, for errors.
    message: Vec<u8>,
}

impl Question {
    /// The reply, which may be several messages.
    pub fn answer(&self, bridge: &Bridge) -> Vec<u8> {
        stats::answer(self, bridge).unwrap_or_else(|refusal| refusal.about(self.version, &self.message))
    }
}

/// What it is about.
#[derive(Debug)]
pub(crate) enum About {
    Features,
    Description,
    Flow(FlowQuestion),
    Aggregate(FlowQuestion),
    Table,
    TableFeatures,
    /// None: all of them.
    PortStats(Option<PortNo>),
    PortDescription,
    Queue(Option<PortNo>),
    QueueConfig(Option<PortNo>),
}

/// Other settings for a port.
#[derive(Debug)]
pub struct PortMod {
    /// Which.
    pub port: PortNo,
    mac: [u8; 6],
    config: u32,
    mask: u32,
    version: Version,
    message: Vec<u8>,
}

impl PortMod {
    /// What to send if the settings cannot be had.
    pub fn refusal(&self) -> Vec<u8> {
        Refusal::Permission.about(self.version, &self.message)
    }

    /// The settings that the port shall have.
    ///
    /// # Errors
    /// What to send instead: there is no such port, or it has another address than the client thinks.
    pub fn check(&self, bridge: &Bridge) -> Result<PortConfig, Vec<u8>> {
        let refuse = |why: Refusal| Err(why.about(self.version, &self.message));
        match bridge.port(self.port) {
            None => refuse(Refusal::PortMod),
            Some(port) if port.mac != self.mac => refuse(Refusal::PortModAddress),
            Some(port) => Ok(PortConfig(port.config.0 & !self.mask | self.config & self.mask)),
        }
    }
}

/// Numbers of messages: those below 13 are the same in both versions, those behind `FLOW_MOD` differ.
mod kind {
    pub(super) const HELLO: u8 = 0;
    pub(super) const ERROR: u8 = 1;
    pub(super) const ECHO_REQUEST: u8 = 2;
    pub(super) const ECHO_REPLY: u8 = 3;
    pub(super) const EXPERIMENTER: u8 = 4;
    pub(super) const FEATURES_REQUEST: u8 = 5;
    pub(super) const GET_CONFIG_REQUEST: u8 = 7;
    pub(super) const GET_CONFIG_REPLY: u8 = 8;
    pub(super) const SET_CONFIG: u8 = 9;
    pub(super) const PACKET_OUT: u8 = 13;
    pub(super) const FLOW_MOD: u8 = 14;
    pub(super) const GROUP_MOD: u8 = 15;
    pub(super) const TABLE_MOD: u8 = 17;
    pub(super) const ROLE_REQUEST: u8 = 24;
    pub(super) const ROLE_REPLY: u8 = 25;
    pub(super) const GET_ASYNC_REQUEST: u8 = 26;
    pub(super) const GET_ASYNC_REPLY: u8 = 27;
    pub(super) const SET_ASYNC: u8 = 28;
    pub(super) const METER_MOD: u8 = 29;
}

/// A message, by what it is in both versions.
enum Kind {
    PortMod,
    Statistics,
    Barrier,
    QueueConfig,
    Other(u8),
}

impl Kind {
    fn of(version: Version, number: u8) -> Kind {
        match (version, number) {
            (Version::V10, 15) | (Version::V13, 16) => Kind::PortMod,
            (Version::V10, 16) | (Version::V13, 18) => Kind::Statistics,
            (Version::V10, 18) | (Version::V13, 20) => Kind::Barrier,
            (Version::V10, 20) | (Version::V13, 22) => Kind::QueueConfig,
            (Version::V10, 15..) => Kind::Other(u8::MAX),
            (_, other) => Kind::Other(other),
        }
    }
}

/// Says what a message of the version agreed on asks.
pub(crate) fn understand(
    version: Version,
    header: &Header,
    message: &[u8],
    config: &mut Config,
) -> Result<Understood, Refusal> {
    let body = message.get(HEADER_LEN..).unwrap_or_default();
    let mut rest = Reader::new(body);
    let ask =
        |about| Understood::Ask(Question { version, xid: header.xid, about, message: message.to_vec() });
    let reply = |kind, body: Writer| Understood::Send(body.message(version.number(), kind, header.xid));
    Ok(match Kind::of(version, header.kind) {
        Kind::Statistics => statistics(version, &mut rest).map(|understood| match understood {
            Statistics::Ask(about) => ask(about),
            Statistics::Send(stat, body) => Understood::Send(stats::reply(version, header.xid, stat, body)),
        })?,
        Kind::Barrier => reply(header.kind + 1, Writer::new()),
        Kind::QueueConfig => ask(About::QueueConfig(port(version, &mut rest).ok_or(Refusal::BadLength)?)),
        Kind::PortMod => {
            let change = port_mod(version, &mut rest, message).ok_or(Refusal::BadLength)?;
            Understood::Modify(change.ok_or(Refusal::PortMod)?)
        }
        Kind::Other(number) => match number {
            kind::HELLO | kind::ERROR | kind::ECHO_REPLY => Understood::Nothing,
            kind::ECHO_REQUEST => reply(kind::ECHO_REPLY, Writer::new().bytes(body)),
            kind::EXPERIMENTER => return experimenter(version, header.xid, &mut rest, config),
            kind::FEATURES_REQUEST => ask(About::Features),
            kind::GET_CONFIG_REQUEST => {
                reply(kind::GET_CONFIG_REPLY, Writer::new().u16(0).u16(config.miss_send_len))
            }
            kind::SET_CONFIG => {
                rest.skip(2).ok_or(Refusal::BadLength)?;
                config.miss_send_len = rest.u16().ok_or(Refusal::BadLength)?;
                Understood::Nothing
            }
            kind::PACKET_OUT | kind::FLOW_MOD | kind::GROUP_MOD | kind::TABLE_MOD | kind::METER_MOD => {
                return Err(Refusal::Permission);
            }
            kind::ROLE_REQUEST => reply(kind::ROLE_REPLY, role(&mut rest)?),
            kind::GET_ASYNC_REQUEST => reply(kind::GET_ASYNC_REPLY, config.wishes.body()),
            // which makes nobody listen, where Open vSwitch's own message does
            kind::SET_ASYNC => {
                config.wishes = Wishes::read(&mut rest)?;
                Understood::Nothing
            }
            _ => return Err(Refusal::BadType),
        },
    })
}

/// All are equal here, and none is the master.
fn role(rest: &mut Reader<'_>) -> Result<Writer, Refusal> {
    const NOCHANGE: u32 = 0;
    const EQUAL: u32 = 1;
    match rest.u32().ok_or(Refusal::BadLength)? {
        NOCHANGE | EQUAL => Ok(Writer::new().u32(EQUAL).zeros(4).u64(u64::MAX)),
        _ => Err(Refusal::Role),
    }
}

/// Open vSwitch's own messages. Those that only say how a client wants to be spoken to are taken in silence.
fn experimenter(
    version: Version,
    xid: u32,
    rest: &mut Reader<'_>,
    config: &mut Config,
) -> Result<Understood, Refusal> {
    let vendor = rest.u32().ok_or(Refusal::BadLength)?;
    if vendor == ONF {
        return Err(Refusal::Permission); // bundles of changes
    } else if vendor != NICIRA {
        return Err(Refusal::BadVendor);
    }
    let number = rest.u32().ok_or(Refusal::BadLength)?;
    match number {
        // NXT_ROLE_REQUEST: as ROLE_REQUEST, counted from another beginning (0 is "other")
        10 => match rest.u32().ok_or(Refusal::BadLength)? {
            0 => {
                let body = Writer::new().u32(NICIRA).u32(11).u32(0);
                Ok(Understood::Send(body.message(version.number(), kind::EXPERIMENTER, xid)))
            }
            _ => Err(Refusal::Permission),
        },
        // NXT_SET_FLOW_FORMAT: of OpenFlow 1.0, or of NXM
        12 => match rest.u32().ok_or(Refusal::BadLength)? {
            0 | 2 => Ok(Understood::Nothing),
            _ => Err(Refusal::Permission),
        },
        // FLOW_MOD, GROUP_MOD, TLV_TABLE_MOD, RESUME, CT_FLUSH_ZONE, PACKET_OUT2, CT_FLUSH
        13 | 24 | 28 | 29 | 31 | 32 | 39 => Err(Refusal::Permission),
        // NXT_SET_ASYNC_CONFIG, NXT_SET_ASYNC_CONFIG2
        19 => {
            config.wish(Wishes::read(rest)?);
            Ok(Understood::Nothing)
        }
        27 => {
            config.wish(config.wishes.with(rest)?);
            Ok(Understood::Nothing)
        }
        // FLOW_MOD_TABLE_ID, SET_PACKET_IN_FORMAT, FLOW_AGE, SET_CONTROLLER_ID
        15 | 16 | 18 | 20 => Ok(Understood::Nothing),
        // NXT_TLV_TABLE_REQUEST: 256 bytes and 64 fields to map options of Geneve to, none of them in use
        25 => {
            let body = Writer::new().u32(NICIRA).u32(26).u32(256).u16(64).zeros(10);
            Ok(Understood::Send(body.message(version.number(), kind::EXPERIMENTER, xid)))
        }
        _ => Err(Refusal::BadSubtype),
    }
}

/// A request for statistics.
enum Statistics {
    Ask(About),
    /// Type, and what follows type and flags.
    Send(u16, Writer),
}

fn statistics(version: Version, rest: &mut Reader<'_>) -> Result<Statistics, Refusal> {
    let short = Refusal::BadLength;
    let stat = rest.u16().ok_or(short)?;
    rest.skip(if version == Version::V13 { 6 } else { 2 }).ok_or(short)?;
    let ask = |about| Ok(Statistics::Ask(about));
    let padding = if version == Version::V13 { 4 } else { 0 };
    let send =
        |body: Writer| Ok(Statistics::Send(stat, Writer::new().zeros(padding).bytes(&body.into_bytes())));
    match (version, stat) {
        (_, 0) => ask(About::Description),
        (_, 1) => ask(About::Flow(FlowQuestion::read(version, rest).ok_or(short)?)),
        (_, 2) => ask(About::Aggregate(FlowQuestion::read(version, rest).ok_or(short)?)),
        (_, 3) => ask(About::Table),
        (_, 4) => ask(About::PortStats(port(version, rest).ok_or(short)?)),
        (_, 5) => ask(About::Queue(port(version, rest).ok_or(short)?)),
        (_, 13) => ask(About::PortDescription),
        // Groups and meters: there are none, nor could there be
        (Version::V13, 6 | 7 | 9 | 10) => send(Writer::new()),
        (Version::V13, 8) => send(Writer::new().zeros(40)),
        (Version::V13, 11) => send(Writer::new().zeros(16)),
        (Version::V13, 12) if rest.rest().is_empty() => ask(About::TableFeatures),
        (Version::V13, 12) => Err(Refusal::Permission),
        (_, 0xffff) => vendor_statistics(version, rest, send),
        _ => Err(Refusal::BadStat),
    }
}

fn vendor_statistics(
    version: Version,
    rest: &mut Reader<'_>,
    send: impl Fn(Writer) -> Result<Statistics, Refusal>,
) -> Result<Statistics, Refusal> {
    let short = Refusal::BadLength;
    if rest.u32().ok_or(short)? != NICIRA {
        return Err(Refusal::BadVendor);
    }
    let number = rest.u32().ok_or(short)?;
    let head =
        |number| Writer::new().u32(NICIRA).u32(number).zeros(if version == Version::V10 { 4 } else { 0 });
    match (version, number) {
        (Version::V10, 0 | 1) => {
            rest.skip(4).ok_or(short)?;
            let question = FlowQuestion::read_nxm(rest).ok_or(short)?;
            Ok(Statistics::Ask(if number == 0 { About::Flow(question) } else { About::Aggregate(question) }))
        }
        (_, 3 | 4) => Err(Refusal::NotConfigured),
        (Version::V10, 7 | 8) => send(head(number)),
        (Version::V10, 9) => send(head(number).zeros(40)),
        _ => Err(Refusal::BadSubtype),
    }
}

/// A port's number. Some(None): all of them, or any.
fn port(version: Version, rest: &mut Reader<'_>) -> Option<Option<PortNo>> {
    match version {
        Version::V10 => rest.u16().map(|n| Some(n).filter(|n| *n != ports::ALL && *n != ports::NONE)),
        Version::V13 => {
            let n = rest.u32()?;
            let all = n == ports::wide(ports::ALL) || n == ports::wide(ports::NONE);
            // A number that has no place in 16 bits is nobody's, as is OFPP_CONTROLLER
            Some(if all { None } else { Some(ports::narrow(n).unwrap_or(ports::CONTROLLER)) })
        }
    }
}

/// Some(None): its number is no port's.
fn port_mod(version: Version, rest: &mut Reader<'_>, message: &[u8]) -> Option<Option<PortMod>> {
    let (port, mac) = match version {
        Version::V10 => (rest.u16(), rest.array()?),
        Version::V13 => {
            let n = rest.u32()?;
            rest.skip(4)?;
            let mac = rest.array()?;
            rest.skip(2)?;
            (ports::narrow(n), mac)
        }
    };
    let (config, mask) = (rest.u32()?, rest.u32()?);
    rest.skip(8)?; // what to advertise, which OVS heeds no more than we do
    let all = if version == Version::V10 { PortConfig::ALL_V10 } else { PortConfig::ALL_V13 };
    let change = |port| PortMod { port, mac, config, mask: mask & all, version, message: message.to_vec() };
    Some(port.map(change))
}

impl FlowQuestion {
    /// Whether the one flow is meant.
    pub(crate) fn matches(&self) -> bool {
        self.any_match && matches!(self.table, 0 | 0xff) && self.out.allows_normal() && self.cookie_is_zero
    }

    /// Body of a request of either version.
    fn read(version: Version, rest: &mut Reader<'_>) -> Option<FlowQuestion> {
        match version {
            Version::V10 => {
                let any_match = Filter::of_v10(rest)?;
                let table = rest.u8()?;
                rest.skip(1)?;
                let out = Filter::out_port(rest.u16()?);
                Some(FlowQuestion { any_match, table, out, cookie_is_zero: true, nxm: false })
            }
            Version::V13 => {
                let table = rest.u8()?;
                rest.skip(3)?;
                let (port, group) = (rest.u32()?, rest.u32()?);
                rest.skip(4)?;
                let (cookie, mask) = (rest.u64()?, rest.u64()?);
                let any_match = Filter::of_oxm(rest)?;
                let out = if group == u32::MAX {
                    ports::narrow(port).map_or(Filter::Nothing, Filter::out_port)
                } else {
                    Filter::Nothing
                };
                Some(FlowQuestion { any_match, table, out, cookie_is_zero: cookie & mask == 0, nxm: false })
            }
        }
    }

    /// Body of `NXST_FLOW` and `NXST_AGGREGATE`.
    fn read_nxm(rest: &mut Reader<'_>) -> Option<FlowQuestion> {
        let out = Filter::out_port(rest.u16()?);
        let length = usize::from(rest.u16()?);
        let table = rest.u8()?;
        rest.skip(3)?;
        let (any_match, cookie_is_zero) = Filter::of_nxm(rest.bytes(length)?)?;
        Some(FlowQuestion { any_match, table, out, cookie_is_zero, nxm: true })
    }
}

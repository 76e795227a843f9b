//! What a client is told unasked: a port has come, gone or changed. There is no queue: what is told is what differs from what
//! was told last, so that a client which does not read makes nothing grow.

use std::collections::BTreeMap;

use crate::error::Refusal;
use crate::ports;
use crate::view::{Bridge, Port, PortConfig, PortNo};
use crate::wire::{Reader, Version, Writer};

const PORT_STATUS: u8 = 12;

/// Why a port's status is told.
#[derive(Debug, Clone, Copy)]
enum Reason {
    Add = 0,
    Delete = 1,
    Modify = 2,
}

/// What a client wants to be told unasked: a bit for each reason, of packets that come in, of ports, and of flows that go; each
/// for a client that is equal to others or their master, and for a slave, which nobody is here (OpenFlow 1.3.5 section 6.3.6).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes([u32; 6]);

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes([0b11, 0, 0b111, 0b111, 0b1111, 0])
    }
}

impl Wishes {
    /// The reasons that there are.
    const KNOWN: [u32; 6] = [0b111, 0b111, 0b111, 0b111, 0b1111, 0b1111];
    /// Ports, for a client that is no slave.
    const PORTS: usize = 2;

    /// Body of `SET_ASYNC`, which is that of `NXT_SET_ASYNC_CONFIG`.
    pub(crate) fn read(rest: &mut Reader<'_>) -> Result<Wishes, Refusal> {
        let mut wishes = Wishes([0; 6]);
        for (wish, known) in wishes.0.iter_mut().zip(Wishes::KNOWN) {
            *wish = rest.u32().ok_or(Refusal::BadLength)? & known;
        }
        if rest.rest().is_empty() { Ok(wishes) } else { Err(Refusal::BadLength) }
    }

    /// With what properties say, of `NXT_SET_ASYNC_CONFIG2`: type, length, mask. The others stay as they are.
    pub(crate) fn with(mut self, rest: &mut Reader<'_>) -> Result<Wishes, Refusal> {
        while !rest.rest().is_empty() {
            let mut number = || rest.u16().ok_or(Refusal::BadLength);
            let (kind, length) = (number()?, number()?);
            if length != 8 {
                return Err(Refusal::BadLength);
            }
            let mask = rest.u32().ok_or(Refusal::BadLength)?;
            // here the slave comes first
            let which = usize::from(kind ^ 1);
            let known = Wishes::KNOWN.get(which).filter(|known| mask & !**known == 0);
            *self.0.get_mut(which).filter(|_| known.is_some()).ok_or(Refusal::AsyncConfig)? = mask;
        }
        Ok(self)
    }

    /// Body of the reply to `GET_ASYNC_REQUEST`.
    pub(crate) fn body(self) -> Writer {
        self.0.iter().fold(Writer::new(), |w, wish| w.u32(*wish))
    }

    fn ports(self, reason: Reason) -> bool {
        self.0.get(Wishes::PORTS).is_some_and(|wish| wish & 1 << reason as u32 != 0)
    }
}

/// The ports as a client knows them.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) datapath_id: u64,
    ports: BTreeMap<PortNo, Port>,
}

impl Told {
    /// A client that begins to listen knows how it is now.
    pub(crate) fn now(bridge: &Bridge) -> Told {
        let ports = bridge.ports.iter().map(|port| (port.number, port.clone())).collect();
        Told { datapath_id: bridge.datapath_id, ports }
    }

    /// What is other than it was told; whoever is told only of some of it knows the rest, too.
    pub(crate) fn catch_up(&mut self, version: Version, wishes: Wishes, bridge: &Bridge) -> Vec<u8> {
        let before = std::mem::replace(self, Told::now(bridge)).ports;
        let mut messages = Vec::new();
        let mut tell = |reason, port| {
            if wishes.ports(reason) {
                messages.extend(message(version, reason, port));
            }
        };
        let same = |a: &&Port, b: &&Port| a.name == b.name;
        for old in before.values() {
            if self.ports.get(&old.number).filter(|new| same(new, &old)).is_none() {
                tell(Reason::Delete, old);
            }
        }
        for new in self.ports.values() {
            match before.get(&new.number).filter(|old| same(old, &new)) {
                None => tell(Reason::Add, new),
                // what the version has no bit for is no news
                Some(old) if description(version, old) != description(version, new) => {
                    tell(Reason::Modify, new);
                }
                Some(_) => {}
            }
        }
        messages
    }

    /// Who changes a port is not told of that (OpenFlow 1.3.5 section 6.4.3), but of what comes of it.
    pub(crate) fn knows(&mut self, port: PortNo, config: PortConfig) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.config = config;
        }
    }
}

fn description(version: Version, port: &Port) -> Vec<u8> {
    ports::description(version, port).into_bytes()
}

fn message(version: Version, reason: Reason, port: &Port) -> Vec<u8> {
    let body = Writer::new().u8(reason as u8).zeros(7).bytes(&description(version, port));
    body.message(version.number(), PORT_STATUS, 0)
}

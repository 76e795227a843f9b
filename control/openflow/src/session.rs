//! One client's connection: bytes in, events out.

use crate::error::Refusal;
use crate::news::Told;
use crate::request::{self, PortMod, Question, Understood};
use crate::view::{Bridge, PortConfig};
use crate::wire::{HEADER_LEN, Header, Reader, Version, Writer};

const HELLO: u8 = 0;
/// `OFPHET_VERSIONBITMAP`.
const VERSION_BITMAP: u16 = 1;

/// What is to be done next.
#[derive(Debug)]
pub enum Event {
    /// Send this.
    Send(Vec<u8>),
    /// Send what [`Question::answer`] makes of the switch as it is now.
    Ask(Question),
    /// Change a port if [`PortMod::check`] allows it, else send what that says. Success is silent.
    Modify(PortMod),
}

/// The connection is of no more use: send what is in here, and close it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{why}")]
pub struct Broken {
    /// For the log.
    pub why: String,
    /// The last words; may be empty.
    pub farewell: Vec<u8>,
}

/// See the module. Whoever holds it calls [`Session::receive`] only after [`Session::poll`] has nothing more, so that a
/// client which sends without reading makes nothing grow.
#[derive(Debug)]
pub struct Session {
    /// That may be agreed on.
    versions: Vec<Version>,
    /// Agreed on.
    version: Option<Version>,
    /// Not yet a whole message. At most one message, and what came along with its end.
    waiting: Vec<u8>,
    /// How much of it is done with.
    done: usize,
    config: request::Config,
    /// While it listens.
    told: Option<Told>,
    /// Of the messages that are ours.
    next_xid: u32,
}

impl Session {
    /// A client has connected, and may speak these of the versions that there are. The first event is our HELLO.
    pub fn new(versions: impl IntoIterator<Item = Version>) -> Session {
        let mut versions: Vec<Version> = versions.into_iter().collect();
        versions.sort_unstable();
        Session {
            versions,
            version: None,
            waiting: Vec::new(),
            done: 0,
            config: request::Config::default(),
            told: None,
            next_xid: 0,
        }
    }

    /// The version agreed on.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Bytes have come.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.waiting.drain(..std::mem::take(&mut self.done));
        self.waiting.extend_from_slice(bytes);
    }

    /// What is to be done next. None: wait for more bytes.
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn poll(&mut self) -> Result<Option<Event>, Broken> {
        if self.next_xid == 0 {
            self.next_xid = 1;
            return Ok(Some(Event::Send(hello(&self.versions, self.next_xid))));
        }
        while let Some(message) = self.next_message()? {
            let event = match self.version {
                Some(version) => self.understand(version, &message),
                None => self.greeted(&message).map(|()| None)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Whether the client wants to be told of ports that come, go and change: [`Session::news`].
    pub fn listens(&self) -> bool {
        self.config.listens()
    }

    /// Messages about what has changed since this was called last; to a client that has not listened until now there is
    /// nothing to say. To be called when it begins to listen, and when ports may have changed.
    ///
    /// # Errors
    /// The connection must be closed: this is another datapath now, and the client asks again who it is.
    pub fn news(&mut self, bridge: &Bridge) -> Result<Vec<u8>, Broken> {
        let Some(version) = self.version.filter(|_| self.listens()) else {
            self.told = None;
            return Ok(Vec::new());
        };
        match &mut self.told {
            None => {
                self.told = Some(Told::now(bridge));
                Ok(Vec::new())
            }
            Some(told) if told.datapath_id != bridge.datapath_id => {
                Err(Broken { why: "the bridge has another datapath_id".into(), farewell: Vec::new() })
            }
            Some(told) => Ok(told.catch_up(version, self.config.wishes, bridge)),
        }
    }

    /// The client's own change was made, of which it is not told.
    pub fn modified(&mut self, change: &PortMod, config: PortConfig) {
        self.told.iter_mut().for_each(|told| told.knows(change.port, config));
    }

    fn next_message(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        let waiting = self.waiting.get(self.done..).unwrap_or_default();
        let Some(header) = Header::parse(waiting) else { return Ok(None) };
        let length = usize::from(header.length);
        if length < HEADER_LEN {
            let farewell = self.version.map(|v| Refusal::BadLength.about(v, waiting)).unwrap_or_default();
            return Err(Broken { why: format!("a message says that it has {length} bytes"), farewell });
        }
        let message = waiting.get(..length).map(<[u8]>::to_vec);
        if message.is_some() {
            self.done += length;
        }
        Ok(message)
    }

    /// The first message must be HELLO, and tells which versions the client speaks: by a bitmap, or all up to its own
    /// (OpenFlow 1.3.5 section 6.3.1).
    fn greeted(&mut self, message: &[u8]) -> Result<(), Broken> {
        let broken = |why: String, farewell| Err(Broken { why, farewell });
        let Some(header) = Header::parse(message).filter(|h| h.kind == HELLO) else {
            return broken("the first message is not HELLO".into(), Vec::new());
        };
        let theirs = versions(&header, message.get(HEADER_LEN..).unwrap_or_default());
        match self.versions.iter().rev().find(|v| theirs & (1 << v.number()) != 0) {
            Some(version) => {
                self.version = Some(*version);
                Ok(())
            }
            None => {
                let text = "this switch speaks OpenFlow 1.0 and 1.3, as far as column protocols of the bridge allows";
                let farewell = Refusal::incompatible(Version::V10, text, header.xid);
                broken(format!("no OpenFlow version in common (a client's are {theirs:#x})"), farewell)
            }
        }
    }

    fn understand(&mut self, version: Version, message: &[u8]) -> Option<Event> {
        let understood = match Header::parse(message) {
            Some(header) if header.version != version.number() => Err(Refusal::BadVersion),
            Some(header) => request::understand(version, &header, message, &mut self.config),
            None => Err(Refusal::BadLength),
        };
        match understood {
            Ok(Understood::Nothing) => None,
            Ok(Understood::Send(reply)) => Some(Event::Send(reply)),
            Ok(Understood::Ask(question)) => Some(Event::Ask(question)),
            Ok(Understood::Modify(change)) => Some(Event::Modify(change)),
            Err(refusal) => Some(Event::Send(refusal.about(version, message))),
        }
    }
}

/// Ours: the best version, and a bitmap of all.
fn hello(versions: &[Version], xid: u32) -> Vec<u8> {
    let bitmap = versions.iter().fold(0, |bits, v| bits | 1 << v.number());
    let element = Writer::new().u16(VERSION_BITMAP).u16(8).u32(bitmap);
    element.message(versions.last().unwrap_or(&Version::V10).number(), HELLO, xid)
}

/// A bit for each version that a HELLO stands for.
fn versions(header: &Header, elements: &[u8]) -> u32 {
    bitmap(elements).unwrap_or_else(|| {
        let up_to = header.version.min(31);
        (2_u32 << up_to).wrapping_sub(1) & !1
    })
}

/// The first 32 bits of the bitmap, if there is one. Other elements and what is cut off are skipped.
fn bitmap(elements: &[u8]) -> Option<u32> {
    let mut rest = Reader::new(elements);
    loop {
        let (kind, length) = (rest.u16()?, usize::from(rest.u16()?));
        let content = length.checked_sub(4)?;
        if kind == VERSION_BITMAP {
            return rest.u32().filter(|_| content >= 4);
        }
        rest.skip(content.next_multiple_of(8).checked_sub(4).unwrap_or(content))?;
    }
}

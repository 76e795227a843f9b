//! Frames that a switch sends to see whether they come back: "reply" messages of Ethernet's Configuration Test Protocol (Digital,
//! Intel, Xerox: The Ethernet, version 2.0, section 8), which stations ignore and switches flood.
//!
//! ```text
//! |CF-00-00-00-00-00| source |9000|skip count 0|function 1|receipt| then ours: magic (4) | switch (8) | port | VLAN | sent (8) | finding | seal (8) |
//! |                          little endian                 |                                     big endian                                       |
//! ```

use super::ethernet::{self, Mac};
use super::parse::Link;

/// EtherType of the Configuration Test Protocol.
pub const ETHERTYPE: u16 = 0x9000;
/// Its "loopback assistance" group address.
pub const GROUP: Mac = [0xcf, 0, 0, 0, 0, 0];
/// The shortest frame of Ethernet, its checksum not counted; a probe is no longer.
pub const LEN: usize = 60;
/// Skip count 0, function "reply", a receipt number, and what tells ours from others'.
const START: [u8; 10] = [0, 0, 1, 0, 0, 0, b'u', b'p', b'l', b'd'];

/// A probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Who sent it: a number that nobody else has.
    pub switch: u64,
    /// The port that it was sent by, as its sender counts them.
    pub port: u16,
    /// The VLAN that it was sent in.
    pub vlan: u16,
    /// When, by its sender's clock.
    pub sent: u64,
    /// What its sender knows.
    pub finding: Finding,
    /// By which its sender, and nobody else, can tell that all of this is its own word.
    pub seal: Seal,
}

/// Of [`Probe::statement`], with a key of the sender's.
pub type Seal = [u8; 8];

/// What precedes the seal, in bytes.
const STATEMENT: usize = 21;

/// What the sender of a probe knows of loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Finding {
    /// Addresses move strangely; that is all.
    Suspects = 0,
    /// Probes have come back, and it is about to open the loop.
    Found = 1,
    /// It has opened a loop, and looks whether it is still there.
    Holds = 2,
}

impl Probe {
    /// What it says: all that a seal is to cover.
    pub fn statement(&self) -> [u8; STATEMENT] {
        let mut statement = [0; STATEMENT];
        let parts: [&[u8]; 5] = [
            &self.switch.to_be_bytes(),
            &self.port.to_be_bytes(),
            &self.vlan.to_be_bytes(),
            &self.sent.to_be_bytes(),
            &[self.finding as u8],
        ];
        fill(&mut statement, &parts);
        statement
    }

    /// As a frame without a tag.
    pub fn frame(&self, source: Mac) -> [u8; LEN] {
        let mut frame = [0; LEN];
        fill(&mut frame, &[&GROUP, &source, &ETHERTYPE.to_be_bytes(), &START, &self.statement(), &self.seal]);
        frame
    }

    /// Reads a frame. None: it is no probe.
    pub fn read(frame: &[u8], link: &Link) -> Option<Probe> {
        let rest = body(frame, link)?;
        let (switch, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (vlan, rest) = rest.split_first_chunk()?;
        let (sent, rest) = rest.split_first_chunk()?;
        let (finding, rest) = rest.split_first()?;
        Some(Probe {
            switch: u64::from_be_bytes(*switch),
            port: u16::from_be_bytes(*port),
            vlan: u16::from_be_bytes(*vlan),
            sent: u64::from_be_bytes(*sent),
            finding: match finding {
                0 => Finding::Suspects,
                1 => Finding::Found,
                2 => Finding::Holds,
                _ => return None,
            },
            seal: *rest.first_chunk()?,
        })
    }
}

/// Puts the parts one behind the other.
fn fill(to: &mut [u8], parts: &[&[u8]]) {
    for (to, from) in to.iter_mut().zip(parts.iter().copied().flatten()) {
        *to = *from;
    }
}

/// Who sent the probe that the frame is. None: it is none.
pub fn sender(frame: &[u8], link: &Link) -> Option<u64> {
    body(frame, link)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// What is ours of a probe.
fn body<'a>(frame: &'a [u8], link: &Link) -> Option<&'a [u8]> {
    let probe = link.ethertype == ETHERTYPE && link.dst == GROUP && ethernet::is_source(link.src);
    frame.get(link.len..).filter(|_| probe)?.strip_prefix(&START)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_sent_is_read(switch in any::<u64>(), port in any::<u16>(), vlan in any::<u16>(), sent in any::<u64>(), seal in any::<Seal>(), tagged in any::<bool>(),
                                 finding in prop_oneof![Just(Finding::Suspects), Just(Finding::Found), Just(Finding::Holds)]) {
            let probe = Probe { switch, port, vlan, sent, finding, seal };
            let mut frame = probe.frame([2, 0, 0, 0, 0, 1]).to_vec();
            if tagged {
                frame.splice(12..12, [0x81, 0, 0, 7]);
            }
            let link = Link::parse(&frame).unwrap();
            prop_assert_eq!(Probe::read(&frame, &link), Some(probe));
            prop_assert_eq!(sender(&frame, &link), Some(switch));
            for len in link.len..link.len + START.len() + STATEMENT + 8 {
                prop_assert_eq!(Probe::read(&frame[..len], &link), None);
            }
        }

        #[test]
        fn any_bytes(mut frame in proptest::collection::vec(any::<u8>(), 14..80), ours in any::<bool>()) {
            frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
            if ours {
                frame[..6].copy_from_slice(&GROUP);
                frame.splice(14..14, START);
            }
            let link = Link::parse(&frame).unwrap();
            let _ = (Probe::read(&frame, &link), sender(&frame, &link));
        }
    }
}

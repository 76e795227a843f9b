//! What can be wrong.

use std::fmt::{self, Display, Formatter};

/// Reasons for which a link counts as faulty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults(u8);

impl Faults {
    /// None.
    pub const NONE: Faults = Faults(0);
    /// Nobody was heard.
    pub const RECV: Faults = Faults(1);
    /// Somebody who hears nobody was heard.
    pub const RDI: Faults = Faults(2);
    /// Somebody of another maintenance association was heard.
    pub const MAID: Faults = Faults(4);
    /// Somebody with our own MPID was heard.
    pub const LOOPBACK: Faults = Faults(8);
    /// `cfm/set-fault`.
    pub const OVERRIDE: Faults = Faults(16);

    const NAMES: [(Faults, &'static str); 5] = [
        (Faults::RECV, "recv"),
        (Faults::RDI, "rdi"),
        (Faults::MAID, "maid"),
        (Faults::LOOPBACK, "loopback"),
        (Faults::OVERRIDE, "override"),
    ];

    /// As in column `cfm_fault_status`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(fault, _)| self.0 & fault.0 != 0).map(|(_, name)| name)
    }

    /// Whether there is any.
    pub fn any(self) -> bool {
        self != Faults::NONE
    }

    pub(crate) fn add(&mut self, fault: Faults) {
        self.0 |= fault.0;
    }
}

impl Display for Faults {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(" "))
    }
}

/// What is odd about a message. Not all of it is a fault: whoever can send one could have a bond fail over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// It is too short.
    Unreadable,
    /// Another message of 802.1ag than a continuity check.
    Opcode(u8),
    /// A fault. Source address.
    Maid([u8; 6]),
    /// A fault.
    OwnMpid(u64),
    /// There is no room for another remote point: this one.
    Overflow(u64),
    /// The remote point, and the number of its interval.
    Interval(u64, u8),
    /// The remote point, and its interval in milliseconds.
    ExtendedInterval(u64, u16),
    /// The remote point, and the numbers of its last two messages.
    Sequence(u64, [u32; 2]),
}

impl Display for Odd {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Odd::Unreadable => f.write_str("Received an unparseable 802.1ag CCM heartbeat."),
            Odd::Opcode(opcode) => write!(f, "Received an unsupported 802.1ag message. (opcode {opcode})"),
            Odd::Maid([a, b, c, d, e, g]) => {
                write!(
                    f,
                    "Received unexpected remote MAID from MAC {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"
                )
            }
            Odd::OwnMpid(mpid) => write!(f, "received CCM with local MPID {mpid}"),
            Odd::Overflow(mpid) => write!(f, "dropped CCM with MPID {mpid}: there are too many others"),
            Odd::Interval(mpid, number) => {
                write!(f, "received a CCM with an unexpected interval ({number}) from RMP {mpid}")
            }
            Odd::ExtendedInterval(mpid, millis) => {
                write!(f, "received a CCM with an unexpected extended interval ({millis}ms) from RMP {mpid}")
            }
            Odd::Sequence(mpid, [before, now]) => write!(
                f,
                "(mpid {mpid}) detected sequence numbers which indicate possible connectivity problems (previous {before}) \
                 (current {now})"
            ),
        }
    }
}

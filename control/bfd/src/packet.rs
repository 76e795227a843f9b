//! Control packets (RFC 5880 section 4.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//! |                       My Discriminator                        |
//! |                      Your Discriminator                       |
//! |                    Desired Min TX Interval                    |
//! |                   Required Min RX Interval                    |
//! |                 Required Min Echo RX Interval                 |
//! ```

/// Bytes of a packet without authentication.
pub const LEN: usize = 24;

const VERSION: u8 = 1;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Kept down.
    AdminDown,
    /// Nothing is heard.
    Down,
    /// The other end is heard, and does not yet say that it hears us.
    Init,
    /// Both ends hear each other.
    Up,
}

impl State {
    fn from_bits(bits: u8) -> State {
        match bits & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }

    /// As Open vSwitch names it.
    pub fn name(self) -> &'static str {
        match self {
            State::AdminDown => "admin_down",
            State::Down => "down",
            State::Init => "init",
            State::Up => "up",
        }
    }
}

/// Why a session last went down, or what its end says of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// Nothing.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// No packet came in time.
    pub const EXPIRED: Diagnostic = Diagnostic(1);
    /// The other end said so.
    pub const REMOTE_DOWN: Diagnostic = Diagnostic(3);
    /// The path goes no further behind this end.
    pub const CPATH_DOWN: Diagnostic = Diagnostic(6);
    /// The same, for the way back.
    pub const REVERSE_CPATH_DOWN: Diagnostic = Diagnostic(8);

    /// In words.
    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            _ => "Unknown Diagnostic",
        }
    }
}

/// The flags of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) const POLL: u8 = 0x20;
    pub(crate) const FINAL: u8 = 0x10;
    const AUTHENTICATED: u8 = 0x04;
    const MULTIPOINT: u8 = 0x01;

    pub(crate) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// In Open vSwitch's words.
    pub(crate) fn names(self) -> String {
        let names = [(1, "multipoint"), (2, "demand"), (4, "auth"), (8, "ctl"), (16, "final"), (32, "poll")];
        let set: Vec<&str> = names.into_iter().filter(|(bit, _)| self.has(*bit)).map(|(_, n)| n).collect();
        if set.is_empty() { "none".to_owned() } else { set.join(" ") }
    }
}

/// A control packet. Intervals are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the fields of RFC 5880 section 4.1 by name
pub struct Packet {
    pub diagnostic: Diagnostic,
    pub state: State,
    pub flags: Flags,
    pub mult: u8,
    pub my_discriminator: u32,
    pub your_discriminator: u32,
    pub min_tx: u32,
    pub min_rx: u32,
}

impl Packet {
    /// The packet's bytes. No echo packets are taken.
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        let first = [
            VERSION << 5 | self.diagnostic.0 & 0x1f,
            (self.state as u8) << 6 | self.flags.0 & 0x3f,
            self.mult,
            LEN as u8,
        ];
        let numbers = [self.my_discriminator, self.your_discriminator, self.min_tx, self.min_rx, 0];
        let words = [first].into_iter().chain(numbers.map(u32::to_be_bytes));
        for (place, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word;
        }
        out
    }

    /// Reads a packet and checks it as far as that needs no session (RFC 5880 section 6.8.6). None: it is to be discarded.
    pub fn decode(bytes: &[u8]) -> Option<Packet> {
        let [v, flags, mult, len, rest @ ..] = bytes.get(..LEN)? else { return None };
        let [a, b, c, d, ..] = *rest.as_chunks::<4>().0 else { return None };
        let packet = Packet {
            diagnostic: Diagnostic(v & 0x1f),
            state: State::from_bits(flags >> 6),
            flags: Flags(flags & 0x3f),
            mult: *mult,
            my_discriminator: u32::from_be_bytes(a),
            your_discriminator: u32::from_be_bytes(b),
            min_tx: u32::from_be_bytes(c),
            min_rx: u32::from_be_bytes(d),
        };
        let sound = v >> 5 == VERSION
            && usize::from(*len) >= LEN
            && usize::from(*len) <= bytes.len()
            && packet.mult != 0
            && packet.my_discriminator != 0
            && !packet.flags.has(Flags::MULTIPOINT)
            // no session here has authentication in use
            && !packet.flags.has(Flags::AUTHENTICATED)
            && (packet.your_discriminator != 0 || packet.state <= State::Down);
        sound.then_some(packet)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet() -> Packet {
        Packet {
            diagnostic: Diagnostic::EXPIRED,
            state: State::Up,
            flags: Flags(Flags::POLL),
            mult: 3,
            my_discriminator: 0x0102_0304,
            your_discriminator: 0x0506_0708,
            min_tx: 1_000_000,
            min_rx: 100_000,
        }
    }

    #[test]
    fn bytes_on_the_wire() {
        let bytes = packet().encode();
        assert_eq!(bytes[..12], [0x21, 0xe0, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[12..], [0, 15, 66, 64, 0, 1, 134, 160, 0, 0, 0, 0]);
        assert_eq!(Packet::decode(&bytes), Some(packet()));
    }

    #[test]
    fn what_is_to_be_discarded() {
        let change = |at: usize, value: u8| {
            let mut bytes = packet().encode();
            bytes[at] = value;
            Packet::decode(&bytes)
        };
        // version, length, multiplier, multipoint, authentication
        for (at, value) in [(0, 0x41), (3, 23), (3, 25), (2, 0), (1, 0xc1), (1, 0xc4)] {
            assert_eq!(change(at, value), None, "byte {at} {value:#x}");
        }
        assert_eq!(Packet::decode(&packet().encode()[..23]), None);
        for (mine, yours, state, good) in [
            (0, 1, State::Up, false),
            (1, 0, State::Up, false),
            (1, 0, State::Init, false),
            (1, 0, State::Down, true),
            (1, 0, State::AdminDown, true),
        ] {
            let p = Packet { my_discriminator: mine, your_discriminator: yours, state, ..packet() };
            assert_eq!(Packet::decode(&p.encode()).is_some(), good, "{p:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(Packet::decode(&packet.encode()), Some(packet));
            }
        }
    }
}

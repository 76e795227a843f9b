//! BPDUs (clause 9): bytes to messages and back.
//!
//! ```text
//!  0        3          5       6      7       8            16
//! +--------+----------+-------+------+-------+------------+--------+-----------+
//! |42 42 03|protocol 0|version| type | flags |  root id   |  cost  | bridge id |
//! +--------+----------+-------+------+-------+------------+--------+-----------+
//!           port id | message age | max age | hello time | forward delay | version 1 length 0 (RST)
//! ```
//! The three bytes in front are LLC's: what follows the length in the frame.

use crate::port::Role;
use crate::vector::{BridgeId, PortId, Priority, Times};

/// LLC of a BPDU: both service access points and that of an unnumbered frame.
const LLC: [u8; 3] = [0x42, 0x42, 0x03];
/// Bytes of a Configuration BPDU, LLC not counted.
const CONFIG_LEN: usize = 35;

const TYPE_CONFIG: u8 = 0x00;
const TYPE_RST: u8 = 0x02;
const TYPE_TCN: u8 = 0x80;

/// A BPDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bpdu {
    /// Of 802.1D-1998.
    Config(Message),
    /// Of 802.1D-1998: the topology has changed.
    TopologyChange,
    /// Of 802.1D-2004, or of a later version that says the same and more.
    Rapid(Message),
}

/// What a Configuration or RST BPDU says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// What is known at its sender.
    pub priority: Priority,
    /// As the root has them.
    pub times: Times,
    /// The rest.
    pub flags: Flags,
}

/// Flags (9.2.9). Of a Configuration BPDU: both about topology changes, and the role of a designated port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// The topology has changed.
    pub topology_change: bool,
    /// Word of it has come.
    pub topology_change_ack: bool,
    /// The sender would forward at once if the receiver agrees.
    pub proposal: bool,
    /// The receiver may forward at once.
    pub agreement: bool,
    /// The sender learns.
    pub learning: bool,
    /// The sender forwards.
    pub forwarding: bool,
    /// The sender's role. Backup ports are called alternate, too.
    pub role: Role,
}

/// Why bytes are no BPDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Bpdu {
    /// Reads what follows the length field of a frame; padding behind is not looked at (9.3.4).
    ///
    /// # Errors
    /// It is shorter than its type says, of another protocol or type, or older than it may become.
    pub fn decode(payload: &[u8]) -> Result<Bpdu, Malformed> {
        let body = payload.strip_prefix(&LLC).ok_or(Malformed)?;
        let [0, 0, version, kind, rest @ ..] = body else { return Err(Malformed) };
        match (*version, *kind) {
            (_, TYPE_TCN) => Ok(Bpdu::TopologyChange),
            (_, TYPE_CONFIG) => configuration(message(rest).ok_or(Malformed)?),
            (2.., TYPE_RST) if body.len() > CONFIG_LEN => {
                let message = message(rest).ok_or(Malformed)?;
                // 9.2.9: without a role it is treated as a Configuration BPDU
                match message.flags.role {
                    Role::Disabled => configuration(message),
                    _ => Ok(Bpdu::Rapid(message)),
                }
            }
            _ => Err(Malformed),
        }
    }

    /// The bytes that follow the length field of a frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = LLC.to_vec();
        match self {
            Bpdu::TopologyChange => bytes.extend([0, 0, 0, TYPE_TCN]),
            Bpdu::Config(message) => {
                bytes.extend([0, 0, 0, TYPE_CONFIG]);
                let Flags { topology_change, topology_change_ack, .. } = message.flags;
                bytes.push(u8::from(topology_change) | u8::from(topology_change_ack) << 7);
                message.put(&mut bytes);
            }
            Bpdu::Rapid(message) => {
                bytes.extend([0, 0, 2, TYPE_RST, message.flags.byte()]);
                message.put(&mut bytes);
                bytes.push(0);
            }
        }
        bytes
    }
}

impl Message {
    fn put(&self, bytes: &mut Vec<u8>) {
        let Message { priority, times, .. } = self;
        bytes.extend(priority.root.0.to_be_bytes());
        bytes.extend(priority.cost.to_be_bytes());
        bytes.extend(priority.bridge.0.to_be_bytes());
        bytes.extend(priority.port.0.to_be_bytes());
        for time in [times.message_age, times.max_age, times.hello, times.forward_delay] {
            bytes.extend(time.to_be_bytes());
        }
    }
}

impl Flags {
    /// Of a designated port that has nothing to say.
    pub const NONE: Flags = Flags {
        topology_change: false,
        topology_change_ack: false,
        proposal: false,
        agreement: false,
        learning: false,
        forwarding: false,
        role: Role::Designated,
    };

    fn byte(&self) -> u8 {
        let role = match self.role {
            Role::Disabled => 0,
            Role::Alternate | Role::Backup => 1,
            Role::Root => 2,
            Role::Designated => 3,
        };
        u8::from(self.topology_change)
            | u8::from(self.proposal) << 1
            | role << 2
            | u8::from(self.learning) << 4
            | u8::from(self.forwarding) << 5
            | u8::from(self.agreement) << 6
            | u8::from(self.topology_change_ack) << 7
    }

    fn of(byte: u8) -> Flags {
        let bit = |n: u8| byte >> n & 1 == 1;
        Flags {
            topology_change: bit(0),
            proposal: bit(1),
            role: match byte >> 2 & 3 {
                0 => Role::Disabled,
                1 => Role::Alternate,
                2 => Role::Root,
                _ => Role::Designated,
            },
            learning: bit(4),
            forwarding: bit(5),
            agreement: bit(6),
            topology_change_ack: bit(7),
        }
    }
}

/// A Configuration BPDU, of which only two flags have a meaning. One older than it may become is none (9.3.4).
fn configuration(message: Message) -> Result<Bpdu, Malformed> {
    let Flags { topology_change, topology_change_ack, .. } = message.flags;
    let flags = Flags { topology_change, topology_change_ack, ..Flags::NONE };
    let fresh = message.times.message_age < message.times.max_age;
    if fresh { Ok(Bpdu::Config(Message { flags, ..message })) } else { Err(Malformed) }
}

/// Everything from the flags on.
fn message(rest: &[u8]) -> Option<Message> {
    let (flags, rest) = rest.split_first()?;
    let (root, rest) = rest.split_first_chunk()?;
    let (cost, rest) = rest.split_first_chunk()?;
    let (bridge, rest) = rest.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let times = rest.first_chunk::<8>()?;
    let [a, b, c, d, e, f, g, h] = *times;
    Some(Message {
        priority: Priority {
            root: BridgeId(u64::from_be_bytes(*root)),
            cost: u32::from_be_bytes(*cost),
            bridge: BridgeId(u64::from_be_bytes(*bridge)),
            port: PortId(u16::from_be_bytes(*port)),
        },
        times: Times {
            message_age: u16::from_be_bytes([a, b]),
            max_age: u16::from_be_bytes([c, d]),
            hello: u16::from_be_bytes([e, f]),
            forward_delay: u16::from_be_bytes([g, h]),
        },
        flags: Flags::of(*flags),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Message {
        let id = |n| BridgeId::new(0x8000, [0x02, 0, 0, 0, 0, n]);
        Message {
            priority: Priority { root: id(1), cost: 20_000, bridge: id(2), port: PortId(0x8003) },
            times: Times { message_age: 256, ..Times::default() },
            flags: Flags { proposal: true, learning: true, ..Flags::NONE },
        }
    }

    #[test]
    fn as_the_standard_lays_it_out() {
        let rest = "8000020000000001 00004e20 8000020000000002 8003 0100 1400 0200 0f00";
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
            digits
                .chunks(2)
                .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
                .collect()
        };
        let rapid = hex(&format!("424203 0000 02 02 1e {rest} 00"));
        assert_eq!(Bpdu::Rapid(example()).encode(), rapid);
        assert_eq!(Bpdu::decode(&[&rapid[..], &[0; 8]].concat()), Ok(Bpdu::Rapid(example())));
        let config = Message { flags: Flags { topology_change_ack: true, ..Flags::NONE }, ..example() };
        let bytes = hex(&format!("424203 0000 00 00 80 {rest}"));
        assert_eq!(Bpdu::Config(config).encode(), bytes);
        assert_eq!(Bpdu::decode(&bytes), Ok(Bpdu::Config(config)));
        assert_eq!(Bpdu::TopologyChange.encode(), hex("424203 0000 00 80"));
        assert_eq!(Bpdu::decode(&hex("424203 0000 00 80")), Ok(Bpdu::TopologyChange));
    }

    #[test]
    fn what_is_none() {
        let rapid = Bpdu::Rapid(example()).encode();
        for len in 0..rapid.len() {
            assert_eq!(Bpdu::decode(&rapid[..len]), Err(Malformed), "{len} bytes");
        }
        for (at, byte) in [(0, 0x41), (2, 0), (3, 1), (5, 1), (6, 1), (6, 0x81)] {
            let mut bytes = rapid.clone();
            bytes[at] = byte;
            assert_eq!(Bpdu::decode(&bytes), Err(Malformed), "byte {at}");
        }
        let times = Times { message_age: 20 * 256, ..Times::default() };
        let old = Bpdu::Config(Message { times, flags: Flags::NONE, ..example() });
        assert_eq!(Bpdu::decode(&old.encode()), Err(Malformed));
    }

    #[test]
    fn without_a_role_it_is_a_configuration_bpdu() {
        let flags = Flags { role: Role::Disabled, ..example().flags };
        let read = Bpdu::decode(&Bpdu::Rapid(Message { flags, ..example() }).encode());
        assert!(matches!(
            read,
            Ok(Bpdu::Config(Message { flags: Flags { role: Role::Designated, proposal: false, .. }, .. }))
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_and_what_is_read_is_written_alike(bytes in prop::collection::vec(any::<u8>(), 0..64),
                                                                kind in 0..4usize) {
            let head = [&[][..], &[0x42, 0x42, 3, 0, 0, 2, 2], &[0x42, 0x42, 3, 0, 0, 0, 0], &[0x42, 0x42, 3, 0, 0, 3, 2]];
            let bytes = [head[kind], &bytes].concat();
            if let Ok(bpdu) = Bpdu::decode(&bytes) {
                prop_assert_eq!(Bpdu::decode(&bpdu.encode()), Ok(bpdu));
            }
        }
    }
}

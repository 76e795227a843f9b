//! Identifiers, priority vectors and times: what BPDUs carry and machines compare (17.5, 17.6).

/// Who a bridge is: four bits of priority, twelve of system ID extension, its address (9.2.5). The lower, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BridgeId(pub u64);

impl BridgeId {
    /// Of 16 bits of priority and extension, and an address.
    pub fn new(priority: u16, address: [u8; 6]) -> BridgeId {
        let [a, b, c, d, e, f] = address;
        BridgeId(u64::from(priority) << 48 | u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// Its first 16 bits.
    pub fn priority(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Its address.
    pub fn address(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }
}

/// Which port of a bridge: four bits of priority and twelve of number (9.2.7); with STP eight and eight. The lower, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PortId(pub u16);

impl PortId {
    /// Its number.
    pub fn number(self) -> u16 {
        self.0 & 0x0fff
    }
}

/// A priority vector (17.5). The receiving port's part is left to those who compare ports. The lower, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Priority {
    /// Root of the tree.
    pub root: BridgeId,
    /// What the way there costs.
    pub cost: u32,
    /// Who sends it.
    pub bridge: BridgeId,
    /// Out of which port.
    pub port: PortId,
}

impl Priority {
    /// Whether it takes the place of `known` on a port (17.6): it is better, or another one from the same port of the same bridge.
    pub(crate) fn is_superior(&self, known: &Priority) -> bool {
        let same_sender =
            self.bridge.address() == known.bridge.address() && self.port.number() == known.port.number();
        self < known || (same_sender && self != known)
    }
}

/// Units of times in a second (9.2.8).
const SECOND: u16 = 256;

/// Times that the root tells all others, in 1/256 s as BPDUs have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Since the root sent it; about a second for each bridge on the way.
    pub message_age: u16,
    /// When what was heard is too old.
    pub max_age: u16,
    /// Between two BPDUs.
    pub hello: u16,
    /// From discarding to learning, and from there to forwarding.
    pub forward_delay: u16,
}

impl Times {
    /// Of whole seconds, each in the range that table 17-1 allows.
    pub fn new(max_age: u8, hello: u8, forward_delay: u8) -> Times {
        Times {
            message_age: 0,
            max_age: u16::from(max_age) * SECOND,
            hello: u16::from(hello) * SECOND,
            forward_delay: u16::from(forward_delay) * SECOND,
        }
        .bounded()
    }

    /// In the ranges of table 17-1, and for the hello time of 802.1D-1998: whoever sends others has us neither wait for ever nor not at all.
    pub(crate) fn bounded(self) -> Times {
        let within = |value: u16, least: u16, most: u16| value.clamp(least * SECOND, most * SECOND);
        Times {
            message_age: self.message_age,
            max_age: within(self.max_age, 6, 40),
            hello: within(self.hello, 1, 10),
            forward_delay: within(self.forward_delay, 4, 30),
        }
    }

    /// One bridge further on: a second older, in whole seconds (17.21.25).
    pub(crate) fn older(self) -> Times {
        Times { message_age: rounded(self.message_age.saturating_add(SECOND)) * SECOND, ..self }
    }

    /// Seconds of [`Times::max_age`].
    pub fn max_age_secs(&self) -> u16 {
        rounded(self.max_age)
    }

    /// Seconds of [`Times::hello`].
    pub fn hello_secs(&self) -> u16 {
        rounded(self.hello)
    }

    /// Seconds of [`Times::forward_delay`].
    pub fn forward_delay_secs(&self) -> u16 {
        rounded(self.forward_delay)
    }
}

impl Default for Times {
    /// Those that table 17-1 recommends.
    fn default() -> Times {
        Times::new(20, 2, 15)
    }
}

/// Whole seconds.
fn rounded(time: u16) -> u16 {
    (time.saturating_add(SECOND / 2) / SECOND).min(u16::MAX / SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_keep_their_parts() {
        let id = BridgeId::new(0x8001, [2, 3, 4, 5, 6, 7]);
        assert_eq!((id.priority(), id.address()), (0x8001, [2, 3, 4, 5, 6, 7]));
        assert!(BridgeId::new(0x7000, [0xff; 6]) < id && id < BridgeId::new(0x8001, [2, 3, 4, 5, 6, 8]));
        assert_eq!(PortId(0x8fff).number(), 0xfff);
    }

    #[test]
    fn superior_is_better_or_news_of_the_same_sender() {
        let sender = |priority| BridgeId::new(priority, [2; 6]);
        let known = Priority { root: BridgeId(5), cost: 10, bridge: sender(1), port: PortId(0x8001) };
        for (other, superior) in [
            (known, false),
            (Priority { root: BridgeId(4), ..known }, true),
            (Priority { cost: 11, ..known }, true),
            (Priority { cost: 11, port: PortId(0x8002), ..known }, false),
            (Priority { bridge: sender(0), cost: 10, ..known }, true),
            (Priority { bridge: sender(2), port: PortId(0x9001), ..known }, true),
            (Priority { bridge: BridgeId::new(2, [3; 6]), ..known }, false),
        ] {
            assert_eq!(other.is_superior(&known), superior, "{other:?}");
        }
    }

    #[test]
    fn times_are_held_to_their_ranges_and_age_by_whole_seconds() {
        let times = Times { message_age: 300, max_age: 0, hello: 0, forward_delay: u16::MAX }.bounded();
        assert_eq!((times.max_age_secs(), times.hello_secs(), times.forward_delay_secs()), (6, 1, 30));
        assert_eq!(times.older().message_age, 2 * SECOND);
        let last = Times { message_age: u16::MAX, ..times }.older();
        assert!(last.message_age >= 255 * SECOND);
    }
}

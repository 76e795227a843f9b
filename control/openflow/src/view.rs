//! The picture of a switch that questions are answered from.

use std::time::Duration;

/// Number of a port, as 16 bits have it (OpenFlow 1.0, and the column `ofport`).
pub type PortNo = u16;

/// A bridge at a moment.
#[derive(Debug, Clone, Default)]
pub struct Bridge {
    /// Its identity.
    pub datapath_id: u64,
    /// Version of the software.
    pub software: String,
    /// `other_config:dp-sn`, or `None`.
    pub serial: String,
    /// `other_config:dp-desc`, or `None`.
    pub description: String,
    /// By number.
    pub ports: Vec<Port>,
    /// The one flow, `actions=NORMAL`.
    pub flow: Flow,
}

impl Bridge {
    /// The port with that number.
    pub fn port(&self, number: PortNo) -> Option<&Port> {
        self.ports.iter().find(|p| p.number == number)
    }
}

/// What passed through the bridge.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    /// Since the bridge was made.
    pub age: Duration,
    /// Since the last packet; None: not known.
    pub idle: Option<Duration>,
    /// Packets that came in.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A port at a moment.
#[derive(Debug, Clone, Default)]
pub struct Port {
    /// Its number.
    pub number: PortNo,
    /// Its name; 15 bytes of it are shown.
    pub name: String,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// What was set, and whether it is down.
    pub config: PortConfig,
    /// It has no carrier.
    pub link_down: bool,
    /// Frames do not get through by it, whatever the carrier says.
    pub faulty: bool,
    /// What the link is running with.
    pub current: Features,
    /// What it tells the other end that it can.
    pub advertised: Features,
    /// What it could run with.
    pub supported: Features,
    /// What the other end tells.
    pub peer: Features,
    /// What passed through it.
    pub stats: PortStats,
    /// Since it was made.
    pub age: Duration,
}

/// Bits of a port's configuration: those of OpenFlow 1.0, of which 1.3 has some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortConfig(pub u32);

impl PortConfig {
    /// Switched off.
    pub const DOWN: PortConfig = PortConfig(1);
    /// Takes no part in the spanning tree.
    pub const NO_STP: PortConfig = PortConfig(1 << 1);
    /// What comes in is dropped.
    pub const NO_RECV: PortConfig = PortConfig(1 << 2);
    /// BPDUs that come in are dropped.
    pub const NO_RECV_STP: PortConfig = PortConfig(1 << 3);
    /// Not flooded to.
    pub const NO_FLOOD: PortConfig = PortConfig(1 << 4);
    /// Nothing is sent to it.
    pub const NO_FWD: PortConfig = PortConfig(1 << 5);
    /// No packet-in messages for it.
    pub const NO_PACKET_IN: PortConfig = PortConfig(1 << 6);
    /// Every bit of OpenFlow 1.0.
    pub(crate) const ALL_V10: u32 = 0x7f;
    /// Every bit of OpenFlow 1.3.
    pub(crate) const ALL_V13: u32 = 0x65;

    /// Whether all bits of `other` are set.
    pub fn has(self, other: PortConfig) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` set or cleared.
    pub fn with(self, other: PortConfig, set: bool) -> PortConfig {
        PortConfig(if set { self.0 | other.0 } else { self.0 & !other.0 })
    }
}

/// Speeds and kinds of a link, with the bits of OpenFlow 1.3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features(pub u32);

impl Features {
    /// Copper.
    pub const COPPER: u32 = 1 << 11;
    /// Fibre.
    pub const FIBER: u32 = 1 << 12;
    /// Negotiates its speed.
    pub const AUTONEG: u32 = 1 << 13;
    /// Pauses.
    pub const PAUSE: u32 = 1 << 14;
    /// Pauses in one direction.
    pub const PAUSE_ASYM: u32 = 1 << 15;
    /// Bits of speeds, and what they are in kb/s.
    const SPEEDS: [(u32, u32); 6] = [
        (0b11, 10_000),
        (0b11 << 2, 100_000),
        (0b11 << 4, 1_000_000),
        (1 << 6, 10_000_000),
        (1 << 7, 40_000_000),
        (1 << 8, 100_000_000),
    ];
    /// Speeds that OpenFlow 1.0 has bits for.
    const V10_SPEEDS: u32 = 0x7f;

    /// The bit of a speed in Mb/s; 0: there is none.
    pub fn speed(mbps: u32, full_duplex: bool) -> u32 {
        let known = Features::SPEEDS.iter().find(|(_, kbps)| *kbps == mbps.saturating_mul(1000));
        known.map_or(0, |(bits, _)| {
            let (half, full) = (bits & bits.wrapping_neg(), 1 << (31 - bits.leading_zeros()));
            if full_duplex { full } else { half & 0b1_0101 }
        })
    }

    /// The highest speed among them, in kb/s.
    pub(crate) fn kbps(self) -> u32 {
        Features::SPEEDS.iter().rev().find(|(bits, _)| self.0 & bits != 0).map_or(0, |(_, kbps)| *kbps)
    }

    /// As OpenFlow 1.0 has it: the kinds follow four bits earlier, and there is no speed above 10 Gb/s.
    pub(crate) fn v10(self) -> u32 {
        let kinds =
            Features::COPPER | Features::FIBER | Features::AUTONEG | Features::PAUSE | Features::PAUSE_ASYM;
        self.0 & Features::V10_SPEEDS | (self.0 & kinds) >> 4
    }
}

/// Counters of a port; None: nobody counts that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names of the column `statistics`
pub struct PortStats {
    pub rx_packets: Option<u64>,
    pub tx_packets: Option<u64>,
    pub rx_bytes: Option<u64>,
    pub tx_bytes: Option<u64>,
    pub rx_dropped: Option<u64>,
    pub tx_dropped: Option<u64>,
    pub rx_errors: Option<u64>,
    pub tx_errors: Option<u64>,
    pub rx_frame_err: Option<u64>,
    pub rx_over_err: Option<u64>,
    pub rx_crc_err: Option<u64>,
    pub collisions: Option<u64>,
}

impl PortStats {
    /// In the order of the message, which is the same in both versions.
    pub(crate) fn in_order(&self) -> [Option<u64>; 12] {
        [
            self.rx_packets,
            self.tx_packets,
            self.rx_bytes,
            self.tx_bytes,
            self.rx_dropped,
            self.tx_dropped,
            self.rx_errors,
            self.tx_errors,
            self.rx_frame_err,
            self.rx_over_err,
            self.rx_crc_err,
            self.collisions,
        ]
    }
}

//! Ports: their numbers, descriptions and counters.

use crate::flows::duration;
use crate::view::{Port, PortConfig, PortNo};
use crate::wire::{Version, Writer};

/// `OFPP_NORMAL`: as a learning switch does.
pub(crate) const NORMAL: PortNo = 0xfffa;
/// `OFPP_ALL`.
pub(crate) const ALL: PortNo = 0xfffc;
/// `OFPP_CONTROLLER`.
pub(crate) const CONTROLLER: PortNo = 0xfffd;
/// `OFPP_NONE`, or `OFPP_ANY`.
pub(crate) const NONE: PortNo = 0xffff;
/// Numbers from here on mean something; in OpenFlow 1.3 they are the last that 32 bits have.
const RESERVED: PortNo = 0xff00;

/// Longest name and its NUL.
const NAME: usize = 16;
/// Bits of a port's state, the same in both versions.
const LINK_DOWN: u32 = 1;
const LIVE: u32 = 4;

/// A number as OpenFlow 1.3 has it.
pub(crate) fn wide(port: PortNo) -> u32 {
    if port < RESERVED { port.into() } else { u32::from(port) | 0xffff_0000 }
}

/// None: it has no place in 16 bits.
pub(crate) fn narrow(port: u32) -> Option<PortNo> {
    let low = PortNo::try_from(port & 0xffff).ok()?;
    (wide(low) == port).then_some(low)
}

/// `ofp_phy_port` of OpenFlow 1.0, or `ofp_port` of 1.3.
pub(crate) fn description(version: Version, port: &Port) -> Writer {
    let down = if port.link_down { LINK_DOWN } else { 0 };
    let features = [port.current, port.advertised, port.supported, port.peer];
    match version {
        Version::V10 => {
            let w = Writer::new().u16(port.number).bytes(&port.mac).text(&port.name, NAME);
            let w = w.u32(port.config.0 & PortConfig::ALL_V10).u32(down);
            features.iter().fold(w, |w, f| w.u32(f.v10()))
        }
        Version::V13 => {
            let live = down == 0 && !port.faulty && !port.config.has(PortConfig::DOWN);
            let live = if live { LIVE } else { 0 };
            let w = Writer::new().u32(wide(port.number)).zeros(4).bytes(&port.mac).zeros(2);
            let w = w.text(&port.name, NAME).u32(port.config.0 & PortConfig::ALL_V13).u32(down | live);
            let w = features.iter().fold(w, |w, f| w.u32(f.0));
            w.u32(port.current.kbps()).u32(port.supported.kbps())
        }
    }
}

/// `ofp_port_stats`: all ones where nobody counts.
pub(crate) fn counters(version: Version, port: &Port) -> Writer {
    let w = match version {
        Version::V10 => Writer::new().u16(port.number).zeros(6),
        Version::V13 => Writer::new().u32(wide(port.number)).zeros(4),
    };
    let w = port.stats.in_order().iter().fold(w, |w, n| w.u64(n.unwrap_or(u64::MAX)));
    if version == Version::V13 { duration(w, port.age) } else { w }
}

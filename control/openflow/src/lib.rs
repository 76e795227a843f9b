//! What a learning switch can say in OpenFlow 1.0 and 1.3, without sockets and clocks: bytes in, messages out.
//!
//! A request takes this way: `session` cuts messages out of bytes and agrees on a version → `request` says what one asks
//! → `stats` and `ports` answer from a [`Bridge`], the picture that the caller has made of the switch → `wire` makes it bytes.
//! There is one flow, `priority=0 actions=NORMAL`. What would change flows, groups, meters or tables is refused with
//! `OFPBRC_EPERM`; all that can be changed is the configuration of a port. Who wants to know is told of ports that come, go
//! and change (`news`).
//!
//! Numbers of messages and layouts: OpenFlow Switch Specification 1.0.0 and 1.3.5, and Open vSwitch's extensions
//! (`ovs-fields(7)`, experimenter 0x2320) where `ovs-ofctl` sends them.
#![forbid(unsafe_code)]

mod error;
mod flows;
mod news;
mod ports;
mod request;
mod session;
mod stats;
#[cfg(test)]
mod tests;
mod view;
mod wire;

pub use request::{PortMod, Question};
pub use session::{Broken, Event, Session};
pub use view::{Bridge, Features, Flow, Port, PortConfig, PortNo, PortStats};
pub use wire::{HEADER_LEN, Version};

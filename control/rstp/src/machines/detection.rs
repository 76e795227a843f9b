//! Bridge Detection (17.25): whether any bridge is behind the port.

use super::Others;
use crate::bridge::Core;
use crate::port::Port;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Edge,
    NotEdge,
}

pub(crate) fn step(port: &mut Port, _: &mut Others<'_>, _: &mut Core) -> bool {
    let config = &port.config;
    match port.detection {
        State::NotEdge
            if (!port.port_enabled && config.admin_edge)
                || (port.timers.edge_delay_while == 0
                    && config.auto_edge
                    && port.send_rstp
                    && port.proposing) =>
        {
            port.detection = State::Edge;
            port.oper_edge = true;
        }
        State::Edge if (!port.port_enabled && !config.admin_edge) || !port.oper_edge => {
            port.detection = State::NotEdge;
            port.oper_edge = false;
        }
        _ => return false,
    }
    true
}

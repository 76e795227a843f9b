//! Port Transmit (17.26): what has changed is told at once, the rest each hello time; neither too often.

use super::Others;
use crate::Action;
use crate::bpdu::{Bpdu, Flags, Message};
use crate::bridge::Core;
use crate::port::{Port, Role};

pub(crate) fn step(port: &mut Port, _: &mut Others<'_>, core: &mut Core) -> bool {
    if !port.settled() || !port.port_enabled {
        return false;
    }
    let (designated, root) = (port.role == Role::Designated, port.role == Role::Root);
    if port.timers.hello_when == 0 {
        // TRANSMIT_PERIODIC
        port.new_info |= designated || (root && port.timers.tc_while != 0);
        port.timers.hello_when = port.hello_time();
        return true;
    }
    if !port.new_info || port.tx_count >= core.config.transmit_hold_count {
        return false;
    }
    let bpdu = match (port.send_rstp, port.role) {
        (_, Role::Disabled) => return false,
        (true, _) => Bpdu::Rapid(message(port)),
        (false, Role::Designated) => Bpdu::Config(message(port)),
        // newInfo of a root port may also mean that it agrees, which STP has no words for
        (false, Role::Root) if port.timers.tc_while != 0 => Bpdu::TopologyChange,
        (false, _) => {
            port.new_info = false;
            return true;
        }
    };
    port.new_info = false;
    port.tx_count += 1;
    port.sent += 1;
    port.tc_ack &= bpdu == Bpdu::TopologyChange;
    core.actions.push_back(Action::Transmit(port.key, bpdu));
    true
}

/// txRstp and txConfig (17.21.20, 17.21.19). An RST BPDU acknowledges nothing; a Configuration BPDU speaks of the topology alone.
fn message(port: &Port) -> Message {
    let told = Flags { topology_change: port.timers.tc_while != 0, role: port.role, ..Flags::NONE };
    let flags = if port.send_rstp {
        Flags {
            proposal: port.proposing,
            agreement: port.agree,
            learning: port.learning,
            forwarding: port.forwarding,
            ..told
        }
    } else {
        Flags { topology_change_ack: port.tc_ack, ..told }
    };
    Message { priority: port.designated_priority, times: port.designated_times, flags }
}

//! Topology Change (17.31): who learned something of the old topology is to forget it.

use super::Others;
use crate::Action;
use crate::bridge::Core;
use crate::port::{Port, Role};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Inactive,
    Learning,
    Active,
}

pub(crate) fn step(port: &mut Port, others: &mut Others<'_>, core: &mut Core) -> bool {
    let in_tree = matches!(port.role, Role::Root | Role::Designated);
    let told = port.rcvd_tc || port.rcvd_tcn || port.rcvd_tc_ack || port.tc_prop;
    match port.change {
        State::Inactive if port.learn => learning(port),
        State::Learning if in_tree && port.forward && !port.oper_edge => detected(port, others, core),
        State::Learning if told => learning(port),
        State::Learning if !in_tree && !port.learn && !port.learning => inactive(port, core),
        State::Active if !in_tree || port.oper_edge => learning(port),
        State::Active if port.rcvd_tcn || port.rcvd_tc => {
            // NOTIFIED_TCN, NOTIFIED_TC
            if port.rcvd_tcn {
                new_tc_while(port, core);
            }
            (port.rcvd_tcn, port.rcvd_tc) = (false, false);
            port.tc_ack |= port.role == Role::Designated;
            others.set_tc_prop_tree();
        }
        State::Active if port.tc_prop => {
            // PROPAGATING
            new_tc_while(port, core);
            core.actions.push_back(Action::Flush(port.key));
            port.tc_prop = false;
        }
        State::Active if port.rcvd_tc_ack => {
            // ACKNOWLEDGED
            port.timers.tc_while = 0;
            port.rcvd_tc_ack = false;
        }
        // on an inactive port nobody else clears what others set
        State::Inactive if told => {
            (port.rcvd_tc, port.rcvd_tcn, port.rcvd_tc_ack, port.tc_prop) = (false, false, false, false);
        }
        _ => return false,
    }
    true
}

fn inactive(port: &mut Port, core: &mut Core) {
    port.change = State::Inactive;
    core.actions.push_back(Action::Flush(port.key));
    port.timers.tc_while = 0;
    port.tc_ack = false;
}

fn learning(port: &mut Port) {
    port.change = State::Learning;
    (port.rcvd_tc, port.rcvd_tcn, port.rcvd_tc_ack, port.tc_prop) = (false, false, false, false);
}

fn detected(port: &mut Port, others: &mut Others<'_>, core: &Core) {
    new_tc_while(port, core);
    others.set_tc_prop_tree();
    port.new_info = true;
    port.change = State::Active;
}

/// newTcWhile (17.21.7).
pub(crate) fn new_tc_while(port: &mut Port, core: &Core) {
    if port.timers.tc_while != 0 {
        return;
    }
    if port.send_rstp {
        port.timers.tc_while = port.hello_time() + 1;
        port.new_info = true;
    } else {
        port.timers.tc_while = core.root.times.max_age_secs() + core.root.times.forward_delay_secs();
    }
}

//! Port Information (17.27): what is known of the segment, and who said it.

use super::Others;
use crate::bpdu::{Bpdu, Message};
use crate::bridge::Core;
use crate::port::{InfoIs, Port, Role};
use crate::{Version, vector::Times};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Disabled,
    Aged,
    Current,
}

/// What a BPDU amounts to (17.21.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Info {
    SuperiorDesignated,
    RepeatedDesignated,
    InferiorDesignated,
    InferiorRootAlternate,
    Other,
}

pub(crate) fn step(port: &mut Port, _: &mut Others<'_>, core: &mut Core) -> bool {
    if !port.port_enabled && port.info_is != InfoIs::Disabled {
        disabled(port);
        return true;
    }
    match port.information {
        State::Disabled if port.rcvd_msg.is_some() => disabled(port),
        State::Disabled if port.port_enabled => aged(port),
        State::Aged | State::Current if port.selected && port.updt_info => update(port),
        State::Current
            if port.info_is == InfoIs::Received
                && port.timers.rcvd_info_while == 0
                && !port.updt_info
                && port.rcvd_msg.is_none() =>
        {
            aged(port);
        }
        State::Current if !port.updt_info => match port.rcvd_msg.take() {
            Some(bpdu) => receive(port, core, bpdu),
            None => return false,
        },
        _ => return false,
    }
    true
}

fn disabled(port: &mut Port) {
    port.information = State::Disabled;
    port.rcvd_msg = None;
    (port.proposing, port.proposed, port.agree, port.agreed) = (false, false, false, false);
    port.timers.rcvd_info_while = 0;
    port.info_is = InfoIs::Disabled;
    (port.reselect, port.selected) = (true, false);
}

fn aged(port: &mut Port) {
    port.information = State::Aged;
    port.info_is = InfoIs::Aged;
    (port.reselect, port.selected) = (true, false);
}

fn update(port: &mut Port) {
    // betterorsameInfo(Mine) (17.21.1)
    let holds = port.info_is == InfoIs::Mine && port.designated_priority <= port.port_priority;
    (port.proposing, port.proposed) = (false, false);
    port.agreed = port.agreed && holds;
    port.synced = port.synced && port.agreed;
    port.port_priority = port.designated_priority;
    port.port_times = port.designated_times;
    port.updt_info = false;
    port.info_is = InfoIs::Mine;
    port.new_info = true;
    port.information = State::Current;
}

/// RECEIVE and what comes of it.
fn receive(port: &mut Port, core: &Core, bpdu: Bpdu) {
    let message = match bpdu {
        Bpdu::TopologyChange => {
            port.rcvd_tcn = true;
            return;
        }
        Bpdu::Config(message) | Bpdu::Rapid(message) => message,
    };
    let rapid = matches!(bpdu, Bpdu::Rapid(_));
    port.msg_priority = message.priority;
    port.msg_times = message.times.bounded();
    match rcv_info(port, &message) {
        Info::SuperiorDesignated => {
            (port.agreed, port.proposing) = (false, false);
            record_proposal(port, &message, rapid);
            set_tc_flags(port, &message);
            // betterorsameInfo(Received)
            let holds = port.info_is == InfoIs::Received && port.msg_priority <= port.port_priority;
            port.agree = port.agree && holds;
            port.port_priority = port.msg_priority;
            port.port_times = port.msg_times;
            updt_rcvd_info_while(port);
            port.info_is = InfoIs::Received;
            (port.reselect, port.selected) = (true, false);
        }
        Info::RepeatedDesignated => {
            record_proposal(port, &message, rapid);
            set_tc_flags(port, &message);
            updt_rcvd_info_while(port);
        }
        // recordDispute (17.21.10): a designated port that learns does not hear us
        Info::InferiorDesignated => {
            if rapid && message.flags.learning {
                (port.disputed, port.agreed) = (true, false);
            }
        }
        Info::InferiorRootAlternate => {
            record_agreement(port, core, &message, rapid);
            set_tc_flags(port, &message);
        }
        Info::Other => {}
    }
}

/// rcvInfo (17.21.8), but for the decoding. What repeats our own information is nobody's (mended in 802.1Q).
fn rcv_info(port: &Port, message: &Message) -> Info {
    let (heard, known) = (&port.msg_priority, &port.port_priority);
    match message.flags.role {
        Role::Designated if heard.is_superior(known) => Info::SuperiorDesignated,
        Role::Designated if heard == known && port.msg_times != port.port_times => Info::SuperiorDesignated,
        Role::Designated if heard == known && port.info_is == InfoIs::Received => Info::RepeatedDesignated,
        Role::Designated if heard > known => Info::InferiorDesignated,
        Role::Root | Role::Alternate | Role::Backup if heard >= known => Info::InferiorRootAlternate,
        _ => Info::Other,
    }
}

/// recordProposal (17.21.11).
fn record_proposal(port: &mut Port, message: &Message, rapid: bool) {
    port.proposed |= rapid && message.flags.proposal;
}

/// recordAgreement (17.21.9).
fn record_agreement(port: &mut Port, core: &Core, message: &Message, rapid: bool) {
    let rapid = rapid && core.config.version == Version::Rstp;
    port.agreed = rapid && port.config.point_to_point && message.flags.agreement;
    port.proposing &= !port.agreed;
}

/// setTcFlags (17.21.17).
fn set_tc_flags(port: &mut Port, message: &Message) {
    port.rcvd_tc |= message.flags.topology_change;
    port.rcvd_tc_ack |= message.flags.topology_change_ack;
}

/// updtRcvdInfoWhile (17.21.23).
fn updt_rcvd_info_while(port: &mut Port) {
    let Times { message_age, max_age, .. } = port.port_times.older();
    let fresh = message_age <= max_age;
    port.timers.rcvd_info_while = if fresh { 3 * port.port_times.hello_secs() } else { 0 };
}

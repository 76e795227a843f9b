//! Port Receive (17.23): takes a BPDU in when the last one has been dealt with.

use super::Others;
use crate::bpdu::Bpdu;
use crate::bridge::Core;
use crate::port::{MIGRATE_TIME, Port};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Discard,
    Receive,
}

pub(crate) fn step(port: &mut Port, _: &mut Others<'_>, _: &mut Core) -> bool {
    if !port.port_enabled
        && (port.rcvd_bpdu.is_some()
            || port.timers.edge_delay_while != MIGRATE_TIME
            || port.receive == State::Receive)
    {
        discard(port);
        return true;
    }
    if port.port_enabled
        && port.rcvd_msg.is_none()
        && let Some(bpdu) = port.rcvd_bpdu.take()
    {
        receive(port, bpdu);
        return true;
    }
    false
}

fn discard(port: &mut Port) {
    port.receive = State::Discard;
    port.rcvd_bpdu = None;
    (port.rcvd_rstp, port.rcvd_stp) = (false, false);
    port.rcvd_msg = None;
    port.timers.edge_delay_while = MIGRATE_TIME;
}

fn receive(port: &mut Port, bpdu: Bpdu) {
    port.receive = State::Receive;
    // updtBPDUVersion (17.21.22)
    match bpdu {
        Bpdu::Rapid(_) => port.rcvd_rstp = true,
        Bpdu::Config(_) | Bpdu::TopologyChange => port.rcvd_stp = true,
    }
    port.oper_edge = false;
    port.rcvd_msg = Some(bpdu);
    port.timers.edge_delay_while = MIGRATE_TIME;
}

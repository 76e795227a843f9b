//! Port Protocol Migration (17.24): which dialect the segment speaks.

use super::Others;
use crate::Version;
use crate::bridge::Core;
use crate::port::{MIGRATE_TIME, Port};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    CheckingRstp,
    SelectingStp,
    Sensing,
}

pub(crate) fn step(port: &mut Port, _: &mut Others<'_>, core: &mut Core) -> bool {
    let rstp = core.config.version == Version::Rstp;
    match port.migration {
        State::CheckingRstp if port.timers.mdelay_while != MIGRATE_TIME && !port.port_enabled => {
            checking_rstp(port, rstp);
        }
        State::CheckingRstp if port.timers.mdelay_while == 0 => sensing(port),
        State::SelectingStp if port.timers.mdelay_while == 0 || !port.port_enabled || port.mcheck => {
            sensing(port);
        }
        State::Sensing
            if !port.port_enabled || port.mcheck || (rstp && !port.send_rstp && port.rcvd_rstp) =>
        {
            checking_rstp(port, rstp);
        }
        State::Sensing if port.send_rstp && port.rcvd_stp => selecting_stp(port),
        _ => return false,
    }
    true
}

fn checking_rstp(port: &mut Port, rstp: bool) {
    port.migration = State::CheckingRstp;
    port.mcheck = false;
    port.send_rstp = rstp;
    port.timers.mdelay_while = MIGRATE_TIME;
}

fn selecting_stp(port: &mut Port) {
    port.migration = State::SelectingStp;
    port.send_rstp = false;
    port.timers.mdelay_while = MIGRATE_TIME;
}

fn sensing(port: &mut Port) {
    port.migration = State::Sensing;
    (port.rcvd_rstp, port.rcvd_stp) = (false, false);
}

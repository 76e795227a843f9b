//! Port Timers (17.22): a second has passed.

use crate::port::Port;

/// TICK: every timer that runs comes nearer its end.
pub(crate) fn tick(port: &mut Port) {
    let timers = &mut port.timers;
    for timer in [
        &mut timers.hello_when,
        &mut timers.tc_while,
        &mut timers.fd_while,
        &mut timers.rcvd_info_while,
        &mut timers.rr_while,
        &mut timers.rb_while,
        &mut timers.mdelay_while,
        &mut timers.edge_delay_while,
    ] {
        *timer = timer.saturating_sub(1);
    }
    port.tx_count = port.tx_count.saturating_sub(1);
    port.seconds_in_state += 1;
    if port.port_enabled {
        port.uptime += 1;
    }
}

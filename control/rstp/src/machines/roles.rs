//! Port Role Transitions (17.29): what each role makes a port learn and forward, and when.

use super::Others;
use crate::Version;
use crate::bridge::Core;
use crate::port::{Port, Role};

/// Where the machine rests. The states between are passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the standard's names")]
pub(crate) enum State {
    DisablePort,
    DisabledPort,
    RootPort,
    DesignatedPort,
    BlockPort,
    AlternatePort,
}

pub(crate) fn step(port: &mut Port, others: &mut Others<'_>, core: &mut Core) -> bool {
    if port.settled() && port.role != port.selected_role {
        enter(port);
        return true;
    }
    match port.roles {
        State::DisablePort => return held(port) && disabled_port(port),
        State::BlockPort => return held(port) && port.settled() && alternate_port(port),
        _ if !port.settled() => return false,
        _ => {}
    }
    match port.roles {
        State::DisabledPort => {
            let out_of_place =
                port.timers.fd_while != port.first_delay() || port.sync || port.re_root || !port.synced;
            out_of_place && disabled_port(port)
        }
        State::RootPort => root(port, others, core),
        State::DesignatedPort => designated(port),
        _ => alternate(port, others),
    }
}

/// The role that was selected is taken up.
fn enter(port: &mut Port) {
    port.role = port.selected_role;
    match port.role {
        Role::Disabled => {
            (port.learn, port.forward) = (false, false);
            port.roles = State::DisablePort;
        }
        Role::Root => {
            port.timers.rr_while = port.fwd_delay();
            port.roles = State::RootPort;
        }
        Role::Designated => port.roles = State::DesignatedPort,
        Role::Alternate | Role::Backup => {
            (port.learn, port.forward) = (false, false);
            port.roles = State::BlockPort;
        }
    }
}

/// Nothing passes any more.
fn held(port: &Port) -> bool {
    !port.learning && !port.forwarding
}

fn disabled_port(port: &mut Port) -> bool {
    port.timers.fd_while = port.first_delay();
    port.timers.rr_while = 0;
    port.synced = true;
    (port.sync, port.re_root) = (false, false);
    port.roles = State::DisabledPort;
    true
}

/// Figure 17-21.
fn root(port: &mut Port, others: &mut Others<'_>, core: &Core) -> bool {
    // ROOT_PROPOSED
    if port.proposed && !port.agree {
        others.set_sync_tree(port);
        port.proposed = false;
        return true;
    }
    // ROOT_AGREED
    if (!port.agree && others.all_synced(port)) || (port.proposed && port.agree) {
        (port.proposed, port.sync) = (false, false);
        (port.agree, port.new_info) = (true, true);
        return true;
    }
    // REROOT
    if !port.forward && !port.re_root {
        others.set_re_root_tree(port);
        return true;
    }
    // ROOT_LEARN, ROOT_FORWARD
    let may_pass = |port: &Port, others: &Others<'_>| {
        port.timers.fd_while == 0
            || (port.timers.rb_while == 0 && core.config.version == Version::Rstp && others.re_rooted())
    };
    if (!port.learn || !port.forward) && may_pass(port, others) {
        pass_more(port);
        return true;
    }
    // REROOTED
    if port.re_root && port.forward {
        port.re_root = false;
        return true;
    }
    // ROOT_PORT
    if port.timers.rr_while != port.fwd_delay() {
        port.timers.rr_while = port.fwd_delay();
        return true;
    }
    false
}

/// One step on: from discarding to learning, from learning to forwarding.
fn pass_more(port: &mut Port) {
    if port.learn {
        port.forward = true;
        port.timers.fd_while = 0;
    } else {
        port.learn = true;
        port.timers.fd_while = port.forward_delay();
    }
}

/// Figure 17-22.
fn designated(port: &mut Port) -> bool {
    let timers = port.timers;
    // DESIGNATED_PROPOSE
    if !port.forward && !port.agreed && !port.proposing && !port.oper_edge {
        port.proposing = true;
        port.timers.edge_delay_while = port.edge_delay();
        port.new_info = true;
        return true;
    }
    // DESIGNATED_SYNCED
    if (!port.synced && (held(port) || port.agreed || port.oper_edge)) || (port.sync && port.synced) {
        port.timers.rr_while = 0;
        (port.synced, port.sync) = (true, false);
        return true;
    }
    // DESIGNATED_RETIRED
    if timers.rr_while == 0 && port.re_root {
        port.re_root = false;
        return true;
    }
    // DESIGNATED_LEARN, DESIGNATED_FORWARD
    let free = timers.fd_while == 0 || port.agreed || port.oper_edge;
    let alone = timers.rr_while == 0 || !port.re_root;
    if free && alone && !port.sync && !port.disputed && (!port.learn || !port.forward) {
        pass_more(port);
        if port.forward {
            port.agreed = port.send_rstp;
        }
        return true;
    }
    // DESIGNATED_DISCARD
    let give_way = (port.sync && !port.synced) || (port.re_root && timers.rr_while != 0) || port.disputed;
    if give_way && !port.oper_edge && (port.learn || port.forward) {
        (port.learn, port.forward, port.disputed) = (false, false, false);
        port.timers.fd_while = port.forward_delay();
        return true;
    }
    // where there is nothing to take back, a dispute puts forwarding off
    if std::mem::take(&mut port.disputed) {
        port.timers.fd_while = port.forward_delay();
        return true;
    }
    false
}

fn alternate_port(port: &mut Port) -> bool {
    port.timers.fd_while = port.forward_delay();
    port.timers.rr_while = 0;
    port.synced = true;
    (port.sync, port.re_root) = (false, false);
    port.roles = State::AlternatePort;
    true
}

/// Figure 17-23.
fn alternate(port: &mut Port, others: &mut Others<'_>) -> bool {
    // ALTERNATE_PROPOSED
    if port.proposed && !port.agree {
        others.set_sync_tree(port);
        port.proposed = false;
        return true;
    }
    // ALTERNATE_AGREED
    if (!port.agree && others.all_synced(port)) || (port.proposed && port.agree) {
        port.proposed = false;
        (port.agree, port.new_info) = (true, true);
        return true;
    }
    // BACKUP_PORT
    if port.role == Role::Backup && port.timers.rb_while != 2 * port.hello_time() {
        port.timers.rb_while = 2 * port.hello_time();
        return true;
    }
    // ALTERNATE_PORT
    if port.timers.fd_while != port.forward_delay() || port.sync || port.re_root || !port.synced {
        return alternate_port(port);
    }
    false
}

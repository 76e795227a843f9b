//! Port Role Selection (17.28): which way the root is, and what that makes of each port.

use crate::bridge::Core;
use crate::port::{InfoIs, Port, Role};
use crate::vector::Priority;

/// One for the whole bridge: ROLE_SELECTION, if any port asks for it.
pub(crate) fn step(ports: &mut [Port], core: &mut Core) -> bool {
    if !ports.iter().any(|port| port.reselect) {
        return false;
    }
    ports.iter_mut().for_each(|port| port.reselect = false);
    updt_roles_tree(ports, core);
    // setSelectedTree (17.21.16)
    ports.iter_mut().for_each(|port| port.selected = true);
    true
}

/// updtRolesTree (17.21.25).
fn updt_roles_tree(ports: &mut [Port], core: &mut Core) {
    choose_root(ports, core);
    let (root, id) = (core.root, core.config.id);
    for port in ports {
        port.designated_priority = Priority { bridge: id, port: port.config.id, ..root.priority };
        port.designated_times = root.times;
        port.designated_times.hello = core.config.times.hello;
        let better = port.designated_priority < port.port_priority;
        (port.selected_role, port.updt_info) = match port.info_is {
            InfoIs::Disabled => (Role::Disabled, false),
            InfoIs::Aged => (Role::Designated, true),
            InfoIs::Mine => {
                let news = port.port_priority != port.designated_priority
                    || port.port_times != port.designated_times;
                (Role::Designated, news)
            }
            InfoIs::Received if root.port == Some(port.key) => (Role::Root, false),
            InfoIs::Received if better => (Role::Designated, true),
            InfoIs::Received if port.port_priority.bridge.address() == id.address() => (Role::Backup, false),
            InfoIs::Received => (Role::Alternate, false),
        };
    }
}

/// rootPriority, rootTimes and rootPortId: the best of what ports have heard and of ourselves.
fn choose_root(ports: &[Port], core: &mut Core) {
    core.root = core.itself();
    let mut best = (core.root.priority, Default::default());
    for port in ports.iter().filter(|port| port.info_is == InfoIs::Received) {
        let heard = port.port_priority;
        if heard.bridge.address() == core.config.id.address() {
            continue;
        }
        let cost = heard.cost.saturating_add(port.config.path_cost);
        let vector = (Priority { cost, ..heard }, port.config.id);
        if vector < best {
            best = vector;
            core.root.priority = vector.0;
            core.root.times = port.port_times.older();
            core.root.port = Some(port.key);
        }
    }
}

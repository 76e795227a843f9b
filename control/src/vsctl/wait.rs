//! What follows a commit: waiting until the switch has done it, and seeing whether it could.

use super::connection::{Connection, Error};
use super::log;
use super::view::View;
use super::{record, view};
use ovsdb::{Atom, Uuid};
use serde_json::{Value, json};
use std::path::Path;

/// Waits until the switch has applied configuration number `next_cfg`.
pub fn wait_for_switch(connection: &mut Connection, view: &mut View, next_cfg: i64) -> Result<(), Error> {
    connection.take_updates(view)?;
    let applied = |view: &View| {
        let mut rows = view.rows("Open_vSwitch");
        rows.any(|(_, row)| row.get("cur_cfg").and_then(|datum| datum.one()?.as_int()) >= Some(next_cfg))
    };
    while !applied(view) {
        connection.wait_for_update(view)?;
    }
    Ok(())
}

/// Has the switch go through its configuration once more, and says what it then cannot do for an interface. None: all is
/// well. A commit that changes nothing would not make it try again what failed before.
pub fn error_of(interface: &str, rundir: &Path) -> Result<Option<String>, Error> {
    let mut needs = view::Needs::new();
    record::need(&mut needs, "Open_vSwitch", "cur_cfg");
    let mut connection = Connection::open("unix:db.sock", rundir)?;
    let mut view = connection.subscribe(&needs)?;
    let results = connection.transact(vec![
        json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}),
        json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}),
    ])?;
    let next_cfg = results.iter().find_map(|r| r.pointer("/rows/0/next_cfg")?.as_i64());
    let next_cfg = next_cfg.ok_or_else(|| Error::Malformed(Value::from(results).to_string()))?;
    wait_for_switch(&mut connection, &mut view, next_cfg)?;
    let results = connection.transact(vec![json!({
        "op": "select", "table": "Interface", "where": [["name", "==", interface]], "columns": ["error"]
    })])?;
    // An optional column is a string, or the empty set
    Ok(results.iter().find_map(|r| r.pointer("/rows/0/error")?.as_str()).map(str::to_owned))
}

/// Complains about each of these new interfaces that got no OpenFlow port.
pub fn check_interfaces(view: &View, interfaces: &[Uuid]) {
    let mut complained = false;
    for row in interfaces.iter().filter_map(|uuid| view.row("Interface", *uuid)) {
        let text = |column: &str| row.get(column).and_then(|datum| datum.one()?.as_str()).unwrap_or_default();
        let ofport = row.get("ofport").and_then(|datum| datum.one()).and_then(Atom::as_int);
        if ofport.is_some_and(|ofport| ofport != -1) {
            continue;
        }
        let (name, error) = (text("name"), text("error"));
        let why = if error.is_empty() { String::new() } else { format!(": {error}") };
        log::complain(
            super::NAME,
            &format!("Error detected while setting up '{name}'{why}.  See ovs-vswitchd log for details."),
        );
        complained = true;
    }
    if complained {
        let directory = std::env::var("OVS_LOGDIR").unwrap_or_else(|_| "/var/log/openvswitch".to_owned());
        log::complain(super::NAME, &format!("The default log directory is \"{directory}\"."));
    }
}

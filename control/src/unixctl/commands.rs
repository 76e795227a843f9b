//! The commands of our targets.

use super::{Command, Commands};
use crate::cli::OVS_VERSION;
use crate::daemon::Daemon;
use crate::logging::Spec;

/// Of `ovs-appctl`'s default target.
pub fn vswitchd() -> Commands<Daemon> {
    Commands::new(common("ovs-vswitchd").into_iter().chain([Command::new(
        "coverage/show",
        "",
        0..=0,
        |d: &Daemon, _| Ok(d.coverage.borrow().show(d.drops())),
    )]))
}

/// Of `ovs-appctl -t ovsdb-server`.
pub fn ovsdb_server() -> Commands<Daemon> {
    Commands::new(common("ovsdb-server").into_iter().chain([Command::new(
        "ovsdb-server/list-dbs",
        "",
        0..=0,
        |_: &Daemon, _| Ok("Open_vSwitch".into()),
    )]))
}

/// What every target has.
fn common(target: &'static str) -> Vec<Command<Daemon>> {
    let version: fn(&Daemon, &[String]) -> Result<String, String> = match target {
        "ovsdb-server" => |_, _| Ok(format!("ovsdb-server (Open vSwitch) {OVS_VERSION}")),
        _ => |_, _| Ok(format!("ovs-vswitchd (Open vSwitch) {OVS_VERSION}")),
    };
    vec![
        Command::new("version", "", 0..=0, version),
        Command::new("exit", "[--cleanup]", 0..=1, |d: &Daemon, _| {
            d.shutdown.ask();
            Ok(String::new())
        })
        .at_exit(),
        Command::new("vlog/list", "", 0..=0, |d: &Daemon, _| Ok(d.vlog.list())),
        Command::new("vlog/list-pattern", "", 0..=0, |d: &Daemon, _| Ok(d.vlog.list_patterns())),
        Command::new("vlog/set", "{spec | PATTERN:destination:pattern}", 1..=usize::MAX, vlog_set),
        Command::new("vlog/reopen", "", 0..=0, |d: &Daemon, _| {
            d.vlog.reopen().map(|()| String::new()).map_err(|e| e.to_string())
        }),
        Command::new("vlog/close", "", 0..=0, |d: &Daemon, _| {
            d.vlog.close();
            Ok(String::new())
        }),
    ]
}

fn vlog_set(d: &Daemon, specs: &[String]) -> Result<String, String> {
    for spec in specs {
        d.vlog.set(&Spec::parse(spec).map_err(|e| e.to_string())?);
    }
    Ok(String::new())
}

//! `mdb/…`.

use super::{Args, Reply, bridge, fdb};
use crate::daemon::Daemon;
use crate::unixctl::Command;

const DISABLED: &str = "multicast snooping is disabled";

/// All of them.
pub fn commands() -> [Command<Daemon>; 2] {
    [Command::new("mdb/flush", "[bridge]", 0..=1, flush), Command::new("mdb/show", "bridge", 1..=1, show)]
}

fn show(d: &Daemon, args: Args<'_>) -> Reply {
    let snapshot = d.datapath.snapshot();
    let (_, bridge) = bridge(&snapshot, args)?;
    let number = |id| snapshot.port(id).map_or_else(String::new, |port| fdb::port_number(port.ofport));
    d.snooping().show(&bridge.name, number).ok_or_else(|| DISABLED.into())
}

fn flush(d: &Daemon, args: Args<'_>) -> Reply {
    let name = args.first().map(String::as_str);
    if name.is_some() {
        bridge(&d.datapath.snapshot(), args)?;
    }
    match d.snooping().flush(name) {
        true => Ok("table successfully flushed".into()),
        false => Err(DISABLED.into()),
    }
}

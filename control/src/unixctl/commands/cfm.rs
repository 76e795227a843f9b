//! `cfm/…`.

use super::bfd::decision;
use super::{Args, Reply};
use crate::daemon::Daemon;
use crate::unixctl::Command;

/// All of them.
pub fn commands() -> [Command<Daemon>; 2] {
    [
        Command::new("cfm/set-fault", "[interface] normal|false|true", 1..=2, set_fault),
        Command::new("cfm/show", "[interface]", 0..=1, show),
    ]
}

fn show(d: &Daemon, args: Args<'_>) -> Reply {
    d.cfm().show(args.first().map(String::as_str)).ok_or_else(unknown)
}

fn set_fault(d: &Daemon, args: Args<'_>) -> Reply {
    let (name, fault) = decision(args)?;
    if d.cfm().force(name, fault) { Ok("OK\n".into()) } else { Err(unknown()) }
}

fn unknown() -> String {
    "no such CFM object".into()
}

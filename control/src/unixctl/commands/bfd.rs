//! `bfd/…`.

use super::{Args, Reply};
use crate::daemon::Daemon;
use crate::unixctl::Command;

/// All of them.
pub fn commands() -> [Command<Daemon>; 2] {
    [
        Command::new("bfd/set-forwarding", "[interface] normal|false|true", 1..=2, set_forwarding),
        Command::new("bfd/show", "[interface]", 0..=1, show),
    ]
}

fn show(d: &Daemon, args: Args<'_>) -> Reply {
    let shown = d.bfd().show(args.first().map(String::as_str));
    shown.ok_or_else(|| "no such bfd object".into())
}

fn set_forwarding(d: &Daemon, args: Args<'_>) -> Reply {
    let (name, word) = match args {
        [name, word] => (Some(name.as_str()), word.as_str()),
        [word] => (None, word.as_str()),
        _ => (None, ""),
    };
    let forwarding = match word {
        "true" => Some(true),
        "false" => Some(false),
        "normal" => None,
        _ => return Err("unknown fault string".into()),
    };
    if d.bfd().force(name, forwarding) { Ok("OK\n".into()) } else { Err("no such BFD object".into()) }
}

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

/// What the operator decides: of which interface, if one is named, and how; None: as it is found.
pub(super) fn decision(args: Args<'_>) -> Result<(Option<&str>, Option<bool>), String> {
    let (name, word) = match args {
        [name, word] => (Some(name.as_str()), word.as_str()),
        [word] => (None, word.as_str()),
        _ => (None, ""),
    };
    match word.to_ascii_lowercase().as_str() {
        "true" => Ok((name, Some(true))),
        "false" => Ok((name, Some(false))),
        "normal" => Ok((name, None)),
        _ => Err("unknown fault string".into()),
    }
}

fn set_forwarding(d: &Daemon, args: Args<'_>) -> Reply {
    let (name, forwarding) = decision(args)?;
    if d.bfd().force(name, forwarding) { Ok("OK\n".into()) } else { Err("no such BFD object".into()) }
}

//! `stp/…`, `rstp/…`.

use super::{Args, Reply};
use crate::daemon::Daemon;
use crate::spanning::wishes::Mode;
use crate::unixctl::Command;

/// Of `ovs-appctl`'s default target.
pub fn commands() -> impl Iterator<Item = Command<Daemon>> {
    [("stp/show", "stp/tcn", Mode::Stp), ("rstp/show", "rstp/tcn", Mode::Rstp)].into_iter().flat_map(
        |(name, change, mode)| {
            [
                Command::new(name, "[bridge]", 0..=1, move |d: &Daemon, args| show(d, args, mode)),
                Command::new(change, "[bridge]", 0..=1, move |d: &Daemon, args| tcn(d, args, mode)),
            ]
        },
    )
}

fn show(d: &Daemon, args: Args<'_>, mode: Mode) -> Reply {
    d.spanning.show(mode, args.first().map(String::as_str)).map_err(|e| e.to_string())
}

fn tcn(d: &Daemon, args: Args<'_>, mode: Mode) -> Reply {
    let changed = d.spanning.change_topology(mode, args.first().map(String::as_str));
    changed.map(|()| "OK".into()).map_err(|e| e.to_string())
}

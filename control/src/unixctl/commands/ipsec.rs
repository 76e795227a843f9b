//! What IPsec does: `ipsec/…`, and all of target `ovs-monitor-ipsec`.

use super::{Args, Reply};
use crate::daemon::Daemon;
use crate::ipsec::Renewal;
use crate::unixctl::Command;

/// The command that hands out keys; `underpass keys` gives it.
pub const EXPORT_KEYS: &str = "ipsec/export-keys";

/// Of `ovs-appctl`'s default target.
pub fn commands() -> [Command<Daemon>; 4] {
    [
        Command::new("ipsec/status", "[tunnel]", 0..=1, status),
        Command::new("ipsec/rekey", "tunnel [child|ike]", 1..=2, rekey),
        Command::new("ipsec/reauth", "tunnel", 1..=1, |d: &Daemon, args| renew(d, args, Renewal::Proof)),
        Command::new(EXPORT_KEYS, "", 0..=0, export_keys),
    ]
}

/// Of `ovs-appctl -t ovs-monitor-ipsec`.
pub fn monitor_commands() -> [Command<Daemon>; 6] {
    [
        Command::new("tunnels/show", "", 0..=0, |d: &Daemon, _| Ok(d.ipsec.tunnels_show(d.db.borrow().db()))),
        Command::new("refresh", "", 0..=0, |d: &Daemon, _| {
            // Files are looked at again, and peers that are waited for
            d.changed.notify_one();
            d.ipsec.retry();
            Ok(String::new())
        }),
        Command::new("ipsec/status", "", 0..=0, status),
        // Open vSwitch's start scripts stop its IPsec daemon so, and mean to leave the switch running
        Command::new("exit", "[--no-cleanup]", 0..=1, |_, _| {
            Err("IPsec is part of the switch here; `ovs-appctl exit` ends both".into())
        }),
        // There is nothing of ours in the kernel
        Command::new("xfrm/policies", "", 0..=0, |_, _| Ok("{}".into())),
        Command::new("xfrm/state", "", 0..=0, |_, _| Ok("{}".into())),
    ]
}

fn status(d: &Daemon, args: Args<'_>) -> Reply {
    d.ipsec.status(args.first().map(String::as_str))
}

fn rekey(d: &Daemon, args: Args<'_>) -> Reply {
    let what = match args.get(1).map(String::as_str) {
        None | Some("child") => Renewal::Child,
        Some("ike") => Renewal::Ike,
        Some(other) => return Err(format!("{other}: neither 'child' nor 'ike'")),
    };
    renew(d, args, what)
}

fn renew(d: &Daemon, args: Args<'_>, what: Renewal) -> Reply {
    let tunnel = args.first().map(String::as_str).unwrap_or_default();
    d.ipsec.renew(tunnel, what).map(|()| String::new())
}

fn export_keys(d: &Daemon, _: Args<'_>) -> Reply {
    tracing::warn!(
        "the keys of all IPsec SAs were exported: whoever has them can read the traffic of these SAs"
    );
    serde_json::to_string(&d.ipsec.keys()).map_err(|e| e.to_string())
}

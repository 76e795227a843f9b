//! Commands about what this switch does not have. They answer as Open vSwitch does where nothing of the kind is
//! configured, so that tools that collect everything go on.

use crate::unixctl::Command;

/// Name, usage, what is said without an argument, what is said of any name.
const ABSENT: [(&str, &str, &str, &str); 11] = [
    ("autoattach/status", "[bridge]", "", "no such bridge"),
    ("bfd/show", "[interface]", "", "no such bfd object"),
    ("bond/list", "", "bond\ttype\trecircID\tmembers\n", ""),
    ("bond/show", "[port]", "", "no such bond"),
    ("cfm/show", "[interface]", "", "no such CFM object"),
    ("lacp/show", "[port]", "", "no such lacp object"),
    ("lacp/show-stats", "[port]", "", "no such lacp object"),
    ("mdb/flush", "[bridge]", "table successfully flushed\n", "multicast snooping is disabled"),
    ("tnl/arp/show", "", NEIGHBOURS, ""),
    ("tnl/neigh/show", "", NEIGHBOURS, ""),
    ("upcall/show", "", "", ""),
];

/// The kernel resolves the addresses of tunnel packets; its own table says more (`ip neigh`).
const NEIGHBOURS: &str = "IP                                            MAC                 Bridge\n\
    ==========================================================================\n";

/// All of them, whatever the target's commands look at.
pub fn commands<C>() -> impl Iterator<Item = Command<C>> {
    ABSENT.into_iter().map(|(name, usage, of_all, of_any)| {
        let most = if of_any.is_empty() { 0 } else { 1 };
        let reply =
            move |args: &[String]| if args.is_empty() { Ok(of_all.into()) } else { Err(of_any.into()) };
        Command::new(name, usage, 0..=most, move |_, args| reply(args))
    })
}

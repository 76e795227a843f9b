//! Commands about what this switch does not have. They answer as Open vSwitch does where nothing of the kind is
//! configured, so that tools that collect everything go on.

use super::ports::DATAPATH;
use crate::unixctl::Command;

/// Name, usage, what is said without a name, what is said of any name if that is something else.
const ABSENT: [(&str, &str, &str, &str); 11] = [
    ("autoattach/show-isid", "[bridge]", "", ""),
    ("autoattach/statistics", "[bridge]", "", ""),
    ("autoattach/status", "[bridge]", "", ""),
    ("cfm/show", "[interface]", "", "no such CFM object"),
    ("dpctl/ct-stats-show", "[dp]", "Connections Stats:\n    Total: 0\n", UNKNOWN_DATAPATH),
    ("dpctl/dump-conntrack", "[-m] [-s] [dp]", "", UNKNOWN_DATAPATH),
    ("dpctl/dump-flows", "[-m] [--names] [dp]", "", UNKNOWN_DATAPATH),
    ("lacp/show", "[port]", "", "no such lacp object"),
    ("lacp/show-stats", "[port]", "", "no such lacp object"),
    ("revalidator/purge", "", "", ""),
    ("revalidator/wait", "", "", ""),
];

/// Name, usage, with how many arguments nothing is named (0: never), what is said of any name.
const CHANGES: [(&str, &str, usize, &str); 1] =
    [("cfm/set-fault", "[interface] normal|false|true", 1, "no such CFM object")];

const UNKNOWN_DATAPATH: &str = "ovs-vswitchd: datapath not found (Invalid argument)";

/// All of them, whatever the target's commands look at.
pub fn commands<C>() -> impl Iterator<Item = Command<C>> {
    let shown = ABSENT.into_iter().map(|(name, usage, of_all, of_any)| {
        let reply = move |args: &[String]| {
            let named = args.iter().any(|arg| !arg.starts_with('-') && arg != DATAPATH);
            if named && !of_any.is_empty() { Err(of_any.into()) } else { Ok(of_all.into()) }
        };
        Command::new(name, usage, 0..=words(usage), move |_, args| reply(args))
    });
    let changed = CHANGES.into_iter().map(|(name, usage, of_all, of_any)| {
        let least = if of_all == 0 { words(usage) } else { of_all };
        let reply = move |args: &[String]| {
            if args.len() == of_all { Ok("OK\n".into()) } else { Err(of_any.into()) }
        };
        Command::new(name, usage, least..=words(usage), move |_, args| reply(args))
    });
    shown.chain(changed)
}

fn words(usage: &str) -> usize {
    usage.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unixctl::Commands;

    #[test]
    fn as_where_nothing_is_configured() {
        let commands = Commands::new(commands::<()>());
        for (line, reply) in [
            ("cfm/show", Ok("")),
            ("cfm/show p0", Err("no such CFM object")),
            ("cfm/set-fault normal", Ok("OK\n")),
            ("cfm/set-fault p0 true", Err("no such CFM object")),
            ("cfm/set-fault", Err("\"cfm/set-fault\" command requires at least 1 arguments")),
            ("dpctl/dump-flows", Ok("")),
            ("dpctl/dump-flows -m netdev@ovs-netdev", Ok("")),
            ("dpctl/dump-flows nosuch", Err(UNKNOWN_DATAPATH)),
            ("revalidator/wait x", Err("\"revalidator/wait\" command takes at most 0 arguments")),
        ] {
            let mut words = line.split(' ').map(str::to_owned);
            let name = words.next().unwrap();
            let (got, _) = commands.run(&(), &name, &words.collect::<Vec<_>>());
            assert_eq!(got.as_deref().map_err(String::as_str), reply, "{line}");
        }
    }
}

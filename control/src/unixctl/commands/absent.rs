//! Commands about what this switch does not have. They answer as Open vSwitch does where nothing of the kind is
//! configured, so that tools that collect everything go on.

use super::ports::DATAPATH;
use crate::unixctl::Command;

/// Name, usage, what is said without a name, what is said of any name if that is something else.
const ABSENT: [(&str, &str, &str, &str); 10] = [
    ("autoattach/show-isid", "[bridge]", "", ""),
    ("autoattach/statistics", "[bridge]", "", ""),
    ("autoattach/status", "[bridge]", "", ""),
    ("dpctl/ct-stats-show", "[dp]", "Connections Stats:\n    Total: 0\n", UNKNOWN_DATAPATH),
    ("dpctl/dump-conntrack", "[-m] [-s] [dp]", "", UNKNOWN_DATAPATH),
    ("dpctl/dump-flows", "[-m] [--names] [dp]", "", UNKNOWN_DATAPATH),
    ("lacp/show", "[port]", "", "no such lacp object"),
    ("lacp/show-stats", "[port]", "", "no such lacp object"),
    ("revalidator/purge", "", "", ""),
    ("revalidator/wait", "", "", ""),
];

const UNKNOWN_DATAPATH: &str = "ovs-vswitchd: datapath not found (Invalid argument)";

/// All of them, whatever the target's commands look at.
pub fn commands<C>() -> impl Iterator<Item = Command<C>> {
    ABSENT.into_iter().map(|(name, usage, of_all, of_any)| {
        let reply = move |args: &[String]| {
            let named = args.iter().any(|arg| !arg.starts_with('-') && arg != DATAPATH);
            if named && !of_any.is_empty() { Err(of_any.into()) } else { Ok(of_all.into()) }
        };
        Command::new(name, usage, 0..=words(usage), move |_, args| reply(args))
    })
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
            ("lacp/show", Ok("")),
            ("lacp/show p0", Err("no such lacp object")),
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

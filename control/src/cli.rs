//! The command line, under all the names that the binary answers to.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::logging::Spec;

/// What we tell tools that ask which Open vSwitch this is: the release whose database, commands and output ours are.
pub const OVS_VERSION: &str = "3.1.0";
/// Our own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A learning Ethernet switch that joins the docker0 bridges of many hosts through GRE, plain or in IPsec.
///
/// Configure it with the stock ovs-vsctl, or with `underpass vsctl` where that is not installed. Linked or copied to
/// the names ovs-vswitchd, ovs-vsctl and ovs-appctl, this program takes their place.
#[derive(Debug, Parser)]
#[command(name = "underpass", version, propagate_version = false, max_term_width = 100)]
pub struct Cli {
    /// Where sockets and pid files are [default: $OVS_RUNDIR or /var/run/openvswitch]
    #[arg(long, global = true, value_name = "DIR")]
    pub rundir: Option<PathBuf>,
    /// Set by ourselves: this is the process that `--detach` has put into the background
    #[arg(long = crate::detach::READY_ON_STDIN, global = true, hide = true)]
    pub ready_on_stdin: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the switch and its database; also what the name ovs-vswitchd means
    Vswitchd(Vswitchd),
    /// Join DEVICE (such as docker0) to other hosts until Ctrl-C, then undo everything
    Up(Up),
    /// Hand DEVICE over to a bridge: make the bridge, move DEVICE's addresses to it, add DEVICE as a port
    Attach(Attach),
    /// Undo `attach`: give DEVICE its addresses back and take it out of the bridge
    Detach(Detach),
    /// Say what would become of Open vSwitch's configuration, take over from it, or go back to it
    ///
    /// Without an option it reads the database of the Open vSwitch that runs in the run directory, and prints for each bridge
    /// and port whether it will work, by the same rules by which the switch itself refuses rows. Nothing is changed. The exit
    /// status is 0 if all will work, and 2 if something will not.
    ///
    /// With --take-over it then ends ovsdb-server, copies conf.db to conf.db.openvswitch-DATE, ends ovs-vswitchd and
    /// ovs-monitor-ipsec, by systemd where that runs them, and starts Underpass with the same database and run directory: as
    /// underpass.service where Open vSwitch was a service in the usual places, else in the background. Addresses, routes and
    /// kernel settings of the bridges and internal ports, which are in no database, are put back on the new devices, and their
    /// Ethernet addresses are made to last (other_config:hwaddr of a bridge, mac of an interface). It waits until all that
    /// worked before works again, and prints how long tunnels were down. If anything fails, Open vSwitch is started again,
    /// with its database as it was.
    ///
    /// With --back it ends Underpass, keeps a copy of its database as conf.db.underpass-DATE, and starts Open vSwitch as it
    /// was started before, with what has been configured meanwhile or, with --saved, with what it had.
    Migrate(Migrate),
    /// Make keys and certificates for protected tunnels
    #[command(subcommand)]
    Pki(crate::pki::Command),
    /// Write the keys of live IPsec SAs to files, to read captures with
    Keys(Keys),
    /// Print what makes a shell complete this program's commands and options
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command
    #[command(hide = true)]
    Manual {
        /// Where to
        directory: PathBuf,
    },
    /// Configure a running switch; also what the name ovs-vsctl means
    #[command(disable_help_flag = true)]
    Vsctl(Rest),
    /// Ask or tell a running switch something; also what the name ovs-appctl means
    #[command(disable_help_flag = true)]
    Appctl(Rest),
}

/// Options of `vswitchd`.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub struct Vswitchd {
    /// The database [default: $OVS_DBDIR/conf.db or /etc/openvswitch/conf.db]
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
    /// Also write the pid to FILE (RUNDIR/ovs-vswitchd.pid is written in any case)
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub pidfile: Option<Option<PathBuf>>,
    /// Return when the switch is ready, and leave it running in the background
    #[arg(long)]
    pub detach: bool,
    /// Log to FILE, too [default FILE: $OVS_LOGDIR/ovs-vswitchd.log or /var/log/openvswitch/ovs-vswitchd.log]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub log_file: Option<Option<PathBuf>>,
    /// Leave internal ports (br0, for one) on the host when it ends or is killed, with their addresses and routes, as Open
    /// vSwitch's ports in the kernel stay: the next one takes them over. `ovs-appctl exit --cleanup` removes them
    #[arg(long)]
    pub keep_ports: bool,
    /// Keep all memory in RAM: nothing waits for a swap device
    #[arg(long)]
    pub mlockall: bool,
    /// How it runs
    #[command(flatten)]
    pub tuning: Tuning,
    /// Print the version and leave
    #[arg(short = 'V', long)]
    pub version: bool,
    /// What start scripts written for Open vSwitch pass
    #[command(flatten)]
    pub ignored: Ignored,
}

/// Options of everything that runs the switch.
#[derive(Debug, Args)]
pub struct Tuning {
    /// What to log where: [module:][console|syslog|file:][off|emer|err|warn|info|dbg]; also -vSPEC
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "ANY:dbg",
          value_parser = Spec::parse)]
    pub verbose: Vec<Spec>,
    /// Threads that forward frames [default: one a processor, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=MAX_WORKERS))]
    pub workers: Option<u8>,
}

const MAX_WORKERS: i64 = datapath::counters::MAX_WORKERS as i64;

/// Options of ovs-vswitchd that make no difference here. They are noted in the log.
#[derive(Debug, Args)]
pub struct Ignored {
    #[arg(long, hide = true)]
    no_chdir: bool,
    #[arg(long, hide = true)]
    monitor: bool,
    #[arg(long, hide = true)]
    no_self_confinement: bool,
    #[arg(long, hide = true)]
    overwrite_pidfile: bool,
    #[arg(long, hide = true)]
    disable_system: bool,
    #[arg(long, hide = true)]
    disable_system_route: bool,
    #[arg(hide = true)]
    database: Option<String>,
}

impl Ignored {
    /// What was given and why it has no effect.
    pub fn notes(&self) -> Vec<String> {
        let flags = [
            (self.monitor, "--monitor: leave restarts to the service manager"),
            (self.disable_system, "--disable-system: there is no kernel datapath"),
            (self.disable_system_route, "--disable-system-route: the kernel routes tunnel packets"),
        ];
        let mut notes: Vec<String> =
            flags.into_iter().filter(|(given, _)| *given).map(|(_, why)| format!("ignoring {why}")).collect();
        notes.extend(
            self.database
                .as_ref()
                .map(|d| format!("ignoring {d}: this process is the database server itself")),
        );
        notes
    }
}

/// Options of `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// The device to join: a Linux bridge such as docker0, or an interface
    pub device: String,
    /// The other hosts
    #[arg(long, value_name = "IP[,IP…]", required = true, value_delimiter = ',')]
    pub remote: Vec<IpAddr>,
    /// Encrypt with the secret in FILE, the same on all hosts [default: plain GRE]
    #[arg(long, value_name = "FILE")]
    pub psk_file: Option<PathBuf>,
    /// GRE key, the same on all hosts [default: none]
    #[arg(long, value_name = "N")]
    pub key: Option<u32>,
    /// Name of the bridge
    #[arg(long, value_name = "NAME", default_value = "br0")]
    pub bridge: String,
    /// How it runs
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Options of `detach`.
#[derive(Debug, Args)]
pub struct Detach {
    /// What to undo
    #[command(flatten)]
    pub attached: Attach,
    /// The database, where no switch is running [default: $OVS_DBDIR/conf.db or /etc/openvswitch/conf.db]
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
}

/// Options of `attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// Such as docker0
    pub device: String,
    /// Name of the bridge
    #[arg(long, value_name = "NAME", default_value = "br0")]
    pub bridge: String,
}

/// Options of `migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// Take over: end Open vSwitch, start Underpass, put addresses and routes back
    #[arg(long)]
    pub take_over: bool,
    /// Take over although not all will work, and stay although a port does not come up
    #[arg(long, requires = "take_over")]
    pub force: bool,
    /// Go back to Open vSwitch, with the configuration as it is by now
    #[arg(long, conflicts_with = "take_over")]
    pub back: bool,
    /// Go back with the configuration of before instead
    #[arg(long, requires = "back", conflicts_with = "take_over")]
    pub saved: bool,
    /// How long tunnels may take to come up before it goes back by itself
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub wait: u64,
    /// The database [default: the one that ovsdb-server has; to go back, $OVS_DBDIR/conf.db or /etc/openvswitch/conf.db]
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
}

impl Migrate {
    /// How long tunnels may take.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.wait.min(24 * 3600))
    }
}

/// Options of `keys`.
#[derive(Debug, Args)]
pub struct Keys {
    /// As tables that Wireshark and tshark read: esp_sa and ikev2_decryption_table of a profile directory
    #[arg(long, required = true)]
    pub wireshark: bool,
    /// Where to; made for its owner alone if it is not there
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

/// Arguments that are another parser's.
#[derive(Debug, Args)]
pub struct Rest {
    /// As of ovs-vsctl and ovs-appctl
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

/// The names that stand for a subcommand.
const NAMES: [(&str, &str); 3] =
    [("ovs-vswitchd", "vswitchd"), ("ovs-vsctl", "vsctl"), ("ovs-appctl", "appctl")];

/// What was meant: the subcommand put in when the program's name implies it, and vlog's `-vSPEC` spelt in a way that
/// the parser takes.
pub fn normalise(argv: Vec<OsString>) -> Vec<OsString> {
    let mut argv = argv.into_iter();
    let name = argv.next().unwrap_or_else(|| "underpass".into());
    let implied = Path::new(&name)
        .file_name()
        .and_then(OsStr::to_str)
        .and_then(|n| NAMES.iter().find(|(name, _)| *name == n).map(|(_, command)| OsString::from(command)));
    let mut out = vec![name];
    // Before the subcommand, so that the process that --detach makes is told by the same parser.
    let mut argv = argv.peekable();
    if implied.is_some() {
        out.extend(argv.next_if(|a| *a == format!("--{}", crate::detach::READY_ON_STDIN).as_str()));
    }
    out.extend(implied);
    let mut rest: Vec<OsString> = argv.collect();
    let tool = tool_position(&out, &rest);
    if tool.is_none() {
        rest.iter_mut().for_each(spell_out_verbose);
    }
    out.extend(rest);
    if let Some(at) = tool {
        // The parser swallows the first `--`, and theirs separate commands: here is one to swallow.
        out.insert(at + 1, "--".into());
    }
    out
}

/// Where vsctl or appctl is named as the subcommand.
fn tool_position(out: &[OsString], rest: &[OsString]) -> Option<usize> {
    let mut words = out.iter().chain(rest).enumerate().skip(1);
    let (at, subcommand) = loop {
        let (at, word) = words.next()?;
        if word == "--rundir" {
            words.next();
        } else if !word.as_encoded_bytes().starts_with(b"-") {
            break (at, word);
        }
    };
    (subcommand == "vsctl" || subcommand == "appctl").then_some(at)
}

fn spell_out_verbose(arg: &mut OsString) {
    if let Some(spec) = arg.to_str().and_then(|a| a.strip_prefix("-v")) {
        *arg = if spec.is_empty() { "--verbose".into() } else { format!("--verbose={spec}").into() };
    }
}

/// Takes `--rundir` out of arguments that another parser gets.
pub fn take_rundir(args: &mut Vec<OsString>) -> Option<PathBuf> {
    let end = args.iter().position(|a| a == "--").unwrap_or(args.len());
    let at = args
        .iter()
        .take(end)
        .position(|a| a == "--rundir" || a.as_encoded_bytes().starts_with(b"--rundir="))?;
    let arg = args.remove(at);
    match arg.to_str().and_then(|a| a.strip_prefix("--rundir=")) {
        Some(dir) => Some(dir.into()),
        None if at < args.len() => Some(args.remove(at).into()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::help;
    use crate::logging::{Destination, Level};
    use clap_complete::Shell;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(normalise(line.split(' ').map(OsString::from).collect()))
    }

    #[test]
    fn consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// A command or an option that the manual page or the completions do not know was forgotten there.
    #[test]
    fn manual_and_completions_are_whole() {
        use clap::CommandFactory;
        let manual = include_str!("../../dist/man/underpass.8").replace("\\-", "-");
        let completions = include_str!("../../dist/completions/underpass");
        fn each(command: &clap::Command, check: &dyn Fn(&str)) {
            for option in command.get_opts().chain(command.get_arguments()).filter(|o| !o.is_hide_set()) {
                option.get_long().into_iter().for_each(|long| check(&format!("--{long}")));
            }
            for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                check(sub.get_name());
                each(sub, check);
            }
        }
        let check = |word: &str| {
            assert!(manual.contains(word), "dist/man/underpass.8 does not know {word}");
            assert!(completions.contains(word), "dist/completions/underpass does not know {word}");
        };
        each(&Cli::command(), &check);

        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let reference = format!("underpass-{}", command.get_name());
            assert!(manual.contains(&reference), "dist/man/underpass.8 does not refer to {reference}");
        }
    }

    /// What bash offers for a command is what the command takes.
    #[test]
    fn bash_completes_each_command_as_it_is() {
        use clap::CommandFactory;
        let script = include_str!("../../dist/completions/underpass");
        let words_of = |command: &str| {
            let line = script.lines().find(|line| {
                let names = line.trim_start().split(')').next().unwrap_or_default();
                line.contains(") words='")
                    && names.split('|').any(|name| name.trim().trim_matches('\'') == command)
            });
            let words =
                line.unwrap_or_else(|| panic!("dist/completions/underpass has no line for {command}"));
            let words =
                words.split("words='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
            words.split_whitespace().map(str::to_owned).collect::<BTreeSet<String>>()
        };
        fn each(command: &clap::Command, name: &str, check: &dyn Fn(&str, BTreeSet<String>)) {
            let subs: Vec<&clap::Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).collect();
            let options = command.get_arguments().filter(|o| !o.is_hide_set()).filter_map(|o| o.get_long());
            let words = options.map(|o| format!("--{o}")).chain(subs.iter().map(|s| s.get_name().to_owned()));
            check(name, words.collect());
            for sub in subs.iter().filter(|s| !matches!(s.get_name(), "help" | "vsctl" | "appctl")) {
                each(sub, format!("{name} {}", sub.get_name()).trim_start(), check);
            }
        }
        let mut program = Cli::command();
        program.build();
        each(&program, "", &|name, taken| {
            let offered = words_of(name);
            let missing: Vec<&String> = taken.difference(&offered).collect();
            assert!(missing.is_empty(), "dist/completions/underpass lacks {missing:?} for '{name}'");
            let unknown: Vec<&String> = offered
                .difference(&taken)
                .filter(|word| word.starts_with("--") && !matches!(word.as_str(), "--help" | "--version"))
                .collect();
            assert!(unknown.is_empty(), "'{name}' does not take {unknown:?}");
        });
    }

    /// The same of what is made by program.
    #[test]
    fn pages_and_other_completions_are_whole() {
        use clap::CommandFactory;
        let pages: BTreeMap<String, Vec<u8>> = help::pages().unwrap().into_iter().collect();
        let scripts = [Shell::Zsh, Shell::Fish].map(|s| String::from_utf8(help::completions(s)).unwrap());
        fn each(command: &clap::Command, name: &str, check: &dyn Fn(&str, &str)) {
            for long in command.get_arguments().filter(|o| !o.is_hide_set()).filter_map(|o| o.get_long()) {
                check(name, long);
            }
            for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                check(name, sub.get_name());
                each(sub, &format!("{name}-{}", sub.get_name()), check);
            }
        }
        each(&Cli::command(), "underpass", &|name, word| {
            for script in &scripts {
                assert!(script.contains(word), "completions do not know {word}");
            }
            if let Some(command) = name.strip_prefix("underpass-") {
                let page = pages.get(&format!("{name}.8"));
                let page = page.unwrap_or_else(|| panic!("there is no page of {command}"));
                let page = String::from_utf8_lossy(page).replace("\\-", "-");
                assert!(page.contains(word), "{name}.8 does not know {word}");
            }
        });
    }

    /// What ovs-ctl(8) runs.
    #[test]
    fn start_scripts_of_open_vswitch() {
        let cli = parse(
            "/usr/sbin/ovs-vswitchd unix:/var/run/openvswitch/db.sock -vconsole:emer -vsyslog:err -vfile:info --mlockall \
             --no-chdir --log-file=/var/log/openvswitch/ovs-vswitchd.log --pidfile=/var/run/openvswitch/ovs-vswitchd.pid \
             --detach --monitor",
        )
        .unwrap();
        let Command::Vswitchd(v) = cli.command else { panic!("not vswitchd") };
        assert!(v.detach);
        assert_eq!(v.pidfile, Some(Some("/var/run/openvswitch/ovs-vswitchd.pid".into())));
        assert_eq!(v.tuning.verbose.len(), 3);
        let first = Spec::Level { module: None, destination: Some(Destination::Console), level: Level::Emer };
        assert_eq!(v.tuning.verbose.first(), Some(&first));
        assert!(v.mlockall);
        assert_eq!(v.ignored.notes().len(), 2);
    }

    #[test]
    fn vswitchd() {
        let get = |line: &str| match parse(line).unwrap() {
            Cli { rundir, ready_on_stdin, command: Command::Vswitchd(v) } => (rundir, ready_on_stdin, v),
            other => panic!("{other:?}"),
        };
        let (rundir, background, v) =
            get("underpass vswitchd --rundir /r --db=/d --pidfile --log-file --workers 3 -v");
        assert_eq!((rundir, background), (Some("/r".into()), false));
        assert_eq!((v.db, v.pidfile, v.log_file), (Some("/d".into()), Some(None), Some(None)));
        assert_eq!((v.tuning.workers, v.tuning.verbose.len()), (Some(3), 1));
        assert!(get("underpass --ready-on-stdin vswitchd").1);
        assert!(get("ovs-vswitchd --ready-on-stdin --detach").1);
        assert!(get("ovs-vswitchd --version").2.version);
        for bad in
            ["underpass vswitchd --workers 0", "underpass vswitchd --workers 17", "ovs-vswitchd -vnosuch"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn up() {
        let get = |line: &str| match parse(line).map(|c| c.command) {
            Ok(Command::Up(u)) => Ok((u.device, u.remote.len(), u.key, u.bridge)),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e.to_string()),
        };
        assert_eq!(
            get("underpass up docker0 --remote 10.0.0.2,fd00::2 --key 7"),
            Ok(("docker0".into(), 2, Some(7), "br0".into()))
        );
        assert!(get("underpass up docker0 --remote 10.0.0.x").unwrap_err().contains("10.0.0.x"));
        assert!(get("underpass up docker0").is_err());
    }

    #[test]
    fn migrate() {
        let get = |line: &str| match parse(line).map(|c| c.command) {
            Ok(Command::Migrate(m)) => Ok((m.take_over, m.back, m.patience().as_secs())),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e.to_string()),
        };
        assert_eq!(get("underpass migrate"), Ok((false, false, 10)));
        assert_eq!(get("underpass migrate --take-over --force --wait 3"), Ok((true, false, 3)));
        assert_eq!(get("underpass migrate --back --saved"), Ok((false, true, 10)));
        for bad in ["--take-over --back", "--force", "--saved", "--take-over --saved", "--wait soon"] {
            assert!(get(&format!("underpass migrate {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys() {
        let Command::Keys(keys) = parse("underpass keys --wireshark --output /x").unwrap().command else {
            panic!("not keys")
        };
        assert_eq!((keys.output, keys.force), ("/x".into(), false));
        for incomplete in ["underpass keys", "underpass keys --wireshark", "underpass keys --output /x"] {
            assert!(parse(incomplete).is_err(), "{incomplete}");
        }
    }

    #[test]
    fn arguments_of_others() {
        let get = |line: &str| match parse(line).unwrap().command {
            Command::Vsctl(r) | Command::Appctl(r) => r.args,
            other => panic!("{other:?}"),
        };
        assert_eq!(get("ovs-vsctl --no-wait -v -- add-br br0"), ["--no-wait", "-v", "--", "add-br", "br0"]);
        assert_eq!(get("underpass appctl -t x --help"), ["-t", "x", "--help"]);
        assert_eq!(get("ovs-vsctl -- --may-exist add-br a"), ["--", "--may-exist", "add-br", "a"]);
        assert_eq!(get("underpass --rundir /x vsctl -- -x list-br"), ["--", "-x", "list-br"]);
        assert!(matches!(parse("underpass up vsctl --remote 10.0.0.1").unwrap().command, Command::Up(_)));

        let mut args: Vec<OsString> = ["--no-wait", "--rundir", "/x", "show"].map(Into::into).into();
        assert_eq!(take_rundir(&mut args), Some("/x".into()));
        assert_eq!(args, ["--no-wait", "show"]);
        let mut args: Vec<OsString> = ["--rundir=/x", "show"].map(Into::into).into();
        assert_eq!(take_rundir(&mut args), Some("/x".into()));
        let mut args: Vec<OsString> = ["show", "--", "--rundir=/x"].map(Into::into).into();
        assert_eq!(take_rundir(&mut args), None);
        assert_eq!(args.len(), 3);
    }
}

//! The options in front of the first command, read the way `getopt_long` reads them.

use super::alarm::parse_seconds;
use super::commands;
use super::error::{Error, Result, fatal};
use super::getopt::Argument::{No, Optional, Required};
use super::getopt::{GetOpt, Known};
use super::output::{CellFormat, Style, TableFormat};
use std::path::Path;
use std::time::Duration;

/// What the global options say.
#[derive(Debug)]
pub struct Options {
    /// Where the database listens, as `--db` takes it.
    pub db: String,
    pub wait: bool,
    pub dry_run: bool,
    pub oneline: bool,
    pub retry: bool,
    pub timeout: Option<Duration>,
    pub style: Style,
    /// Options of the first command: they may stand before its `--`.
    pub local: Vec<(String, Option<String>)>,
    /// Where the first command starts in the argument list.
    pub commands_at: usize,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    Run(Options),
    Help,
    Version,
    /// `--commands`: for shell completion.
    ListCommands,
    /// `--options`: for shell completion.
    ListOptions,
}

/// Every global option; the order shows in messages about ambiguous abbreviations.
const OPTIONS: &[Known] = &[
    ("db", None, Required),
    ("no-syslog", None, No),
    ("no-wait", None, No),
    ("dry-run", None, No),
    ("oneline", None, No),
    ("timeout", Some('t'), Required),
    ("retry", None, No),
    ("help", Some('h'), No),
    ("commands", None, No),
    ("options", None, No),
    ("leader-only", None, No),
    ("no-leader-only", None, No),
    ("shuffle-remotes", None, No),
    ("no-shuffle-remotes", None, No),
    ("version", Some('V'), No),
    ("verbose", Some('v'), Optional),
    ("log-file", None, Optional),
    ("syslog-method", None, Required),
    ("syslog-target", None, Required),
    ("format", Some('f'), Required),
    ("data", Some('d'), Required),
    ("no-headings", None, No),
    ("pretty", None, No),
    ("bare", None, No),
    ("max-column-width", None, Required),
    ("private-key", Some('p'), Required),
    ("certificate", Some('c'), Required),
    ("ca-cert", Some('C'), Required),
    ("ssl-protocols", None, Required),
    ("ssl-ciphers", None, Required),
    ("bootstrap-ca-cert", None, Required),
    ("peer-ca-cert", None, Required),
];

/// One `--options` line for each option and each of its short forms.
pub fn listing() -> String {
    let mut lines = String::new();
    for (name, short, argument) in OPTIONS {
        let long_argument = if *argument == No { "" } else { "=ARG" };
        lines += &format!("--{name}{long_argument}\n");
        if let Some(short) = short {
            let short_argument = if *argument == No { "" } else { " ARG" };
            lines += &format!("-{short}{short_argument}\n");
        }
    }
    lines
}

/// Reads the global options, which end at `--` or at the first argument that is none.
pub fn parse(args: &[String], rundir: &Path) -> Result<Request> {
    let mut options = Options {
        db: format!("unix:{}/db.sock", rundir.display()),
        wait: true,
        dry_run: false,
        oneline: false,
        retry: false,
        timeout: timeout_from_environment()?,
        style: Style::default(),
        local: Vec::new(),
        commands_at: 0,
    };
    let local = commands::local_options();
    let known = OPTIONS.iter().copied().chain(
        local.iter().map(|(name, takes_argument)| (*name, None, if *takes_argument { Required } else { No })),
    );
    let mut words = GetOpt::new(args, known.collect());
    while let Some((name, value)) = words.next().map_err(Error::Fatal)? {
        if local.iter().any(|(own, _)| *own == name) {
            let name = format!("--{name}");
            if !options.local.iter().any(|(other, _)| *other == name) {
                options.local.push((name, value));
            }
        } else if let Some(request) = apply(name, value, &mut options)? {
            return Ok(request);
        }
    }
    options.commands_at = words.position();
    Ok(Request::Run(options))
}

fn timeout_from_environment() -> Result<Option<Duration>> {
    match std::env::var("OVS_CTL_TIMEOUT") {
        Ok(text) if !text.is_empty() => match parse_seconds(&text) {
            None => fatal(format!("value {text} on OVS_CTL_TIMEOUT environment variable is invalid")),
            some => Ok(some),
        },
        _ => Ok(None),
    }
}

fn apply(name: &str, value: Option<String>, options: &mut Options) -> Result<Option<Request>> {
    let text = value.as_deref().unwrap_or_default();
    match name {
        "db" => options.db = text.to_owned(),
        "no-wait" => options.wait = false,
        "dry-run" => options.dry_run = true,
        "oneline" => options.oneline = true,
        "retry" => options.retry = true,
        "timeout" => match parse_seconds(text) {
            None => return fatal(format!("value {text} on -t or --timeout is invalid")),
            some => options.timeout = some,
        },
        "help" => return Ok(Some(Request::Help)),
        "version" => return Ok(Some(Request::Version)),
        "commands" => return Ok(Some(Request::ListCommands)),
        "options" => return Ok(Some(Request::ListOptions)),
        "format" => match TableFormat::from_name(text) {
            Some(format) => options.style.format = format,
            None => return fatal(format!("unknown output format \"{text}\"")),
        },
        "data" => match CellFormat::from_name(text) {
            Some(format) => options.style.cells = format,
            None => return fatal(format!("unknown data format \"{text}\"")),
        },
        "no-headings" => options.style.headings = false,
        "pretty" => options.style.pretty = true,
        "bare" => {
            options.style.format = TableFormat::List;
            options.style.cells = CellFormat::Bare;
            options.style.headings = false;
        }
        "max-column-width" => options.style.max_column_width = text.parse().unwrap_or(0),
        "verbose" => check_verbosity(text)?,
        // Logging and TLS are not used here; the options are taken so that scripts keep working.
        _ => {}
    }
    Ok(None)
}

/// Messages below a warning are never printed, but a word that OVS would refuse is refused.
pub fn check_verbosity(spec: &str) -> Result<()> {
    let upper = spec.to_ascii_uppercase();
    if upper.starts_with("PATTERN:") || upper.starts_with("FACILITY:") {
        return Ok(());
    }
    const WORDS: &[&str] = &[
        "syslog",
        "console",
        "file",
        "any",
        "off",
        "emer",
        "err",
        "warn",
        "info",
        "dbg",
        "vsctl",
        "db_ctl_base",
        "ovsdb_idl",
        "ovsdb_cs",
        "jsonrpc",
        "reconnect",
        "fatal_signal",
        "stream_unix",
        "stream_tcp",
        "stream",
        "poll_loop",
        "timeval",
        "util",
        "vlog",
        "socket_util",
        "stream_fd",
        "stream_ssl",
    ];
    let words = spec.split([' ', ',', ':']).filter(|word| !word.is_empty());
    for word in words {
        if !WORDS.contains(&word.to_ascii_lowercase().as_str()) {
            let message = format!("processing \"{spec}\": no destination, level, or module \"{word}\"");
            return Err(Error::Fatal(message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Options {
        match parse_args(args) {
            Ok(Request::Run(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    fn parse_args(args: &[&str]) -> Result<Request> {
        let args: Vec<String> = args.iter().map(|s| (*s).to_owned()).collect();
        parse(&args, Path::new("/run/x"))
    }

    #[test]
    fn options_end_at_the_first_word_or_at_two_dashes() {
        let options = run(&["--no-wait", "-t5", "list-br", "--oneline"]);
        assert_eq!((options.wait, options.oneline, options.commands_at), (false, false, 2));
        assert_eq!(options.timeout, Some(Duration::from_secs(5)));
        assert_eq!(run(&["--", "list-br"]).commands_at, 1);
    }

    #[test]
    fn a_command_s_own_options_are_set_aside() {
        let options = run(&["--may-exist", "--columns", "name", "x"]);
        let expected = [("--may-exist".to_owned(), None), ("--columns".to_owned(), Some("name".to_owned()))];
        assert_eq!(options.local, expected);
        assert_eq!(options.commands_at, 3);
    }

    #[test]
    fn abbreviations_must_be_unique() {
        assert!(!run(&["--no-w", "x"]).wait);
        let error = parse_args(&["--no", "x"]).unwrap_err().to_string();
        assert!(
            error.starts_with("option '--no' is ambiguous; possibilities: '--no-syslog' '--no-wait'"),
            "{error}"
        );
    }

    #[test]
    fn each_mistake_has_its_own_words() {
        for (args, expected) in [
            (&["--timeout"][..], "option '--timeout' requires an argument"),
            (&["-t", "x"], "value x on -t or --timeout is invalid"),
            (&["-t0"], "value 0 on -t or --timeout is invalid"),
            (&["-z"], "invalid option -- 'z'"),
            (&["--zz"], "unrecognized option '--zz'"),
            (&["--no-wait=1"], "option '--no-wait' doesn't allow an argument"),
            (&["-f", "x"], "unknown output format \"x\""),
            (&["-d", "x"], "unknown data format \"x\""),
            (&["-vx"], "processing \"x\": no destination, level, or module \"x\""),
        ] {
            assert_eq!(parse_args(args).unwrap_err().to_string(), expected, "{args:?}");
        }
    }
}

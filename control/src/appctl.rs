//! `ovs-appctl` for hosts that do not have it: asks a running daemon something over its control socket.

use crate::pidfile;
use crate::vsctl::alarm::{die_after, parse_seconds};
use crate::vsctl::connection::{Connection, Error as ConnectionError};
use crate::vsctl::getopt::Argument::{No, Optional, Required};
use crate::vsctl::getopt::{GetOpt, Known};
use crate::vsctl::log;
use crate::vsctl::options::check_verbosity;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What messages begin with, whatever name we were called by.
const NAME: &str = "ovs-appctl";

const OPTIONS: [Known; 5] = [
    ("target", Some('t'), Required),
    ("timeout", Some('T'), Required),
    ("help", Some('h'), No),
    ("version", Some('V'), No),
    ("verbose", Some('v'), Optional),
];

const HELP: &str = "\
ovs-appctl: ask or tell a running daemon something
usage: ovs-appctl [OPTIONS] COMMAND [ARG...]

Commands are the daemon's own: `ovs-appctl list-commands` lists them.

Options:
  -t, --target=TARGET   a daemon with a pid file in the run directory, or the path of a socket
                        (default: ovs-vswitchd)
  -T, --timeout=SECS    wait at most SECS seconds for the answer
  -h, --help            print this
  -V, --version         print the version
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Help,
    Version,
    Ask { target: String, timeout: Option<Duration>, command: String, args: Vec<String> },
}

/// Runs `ovs-appctl` with these arguments (without the program's name). `rundir` is where pid files and sockets are.
/// Exit status: 0 for an answer, 1 if the daemon cannot be asked, 2 if it answers with an error.
pub fn main(args: Vec<OsString>, rundir: &Path) -> ExitCode {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let outcome = parse(&args).and_then(|request| match request {
        Request::Help => print(HELP),
        Request::Version => print(&format!("{NAME} (Open vSwitch) {}\n", crate::cli::OVS_VERSION)),
        Request::Ask { target, timeout, command, args } => {
            timeout.into_iter().for_each(die_after);
            ask(&target, &command, &args, rundir)
        }
    });
    outcome.unwrap_or_else(|message| {
        log::complain(NAME, &message);
        ExitCode::FAILURE
    })
}

fn parse(args: &[String]) -> Result<Request, String> {
    let mut target = "ovs-vswitchd".to_owned();
    let mut timeout = None;
    let mut words = GetOpt::new(args, OPTIONS.to_vec());
    while let Some((name, value)) = words.next()? {
        let value = value.unwrap_or_default();
        match name {
            "help" => return Ok(Request::Help),
            "version" => return Ok(Request::Version),
            "target" => target = value,
            "timeout" => match parse_seconds(&value) {
                None => return Err(format!("value {value} on -T or --timeout is invalid")),
                some => timeout = some,
            },
            _ => check_verbosity(&value).map_err(|error| error.to_string())?,
        }
    }
    match args.get(words.position()..).unwrap_or_default() {
        [command, args @ ..] => {
            Ok(Request::Ask { target, timeout, command: command.clone(), args: args.to_vec() })
        }
        [] => Err("at least one non-option argument is required (use --help for help)".to_owned()),
    }
}

fn ask(target: &str, command: &str, args: &[String], rundir: &Path) -> Result<ExitCode, String> {
    match request(target, command, args, rundir)? {
        Ok(answer) => print(&answer),
        Err(refusal) => {
            let _ = io::stderr().write_all(refusal.as_bytes());
            log::complain(NAME, &format!("{target}: server returned an error"));
            Ok(ExitCode::from(2))
        }
    }
}

/// What a running daemon answers to a command. An error's text is for the operator.
pub fn call(target: &str, command: &str, args: &[String], rundir: &Path) -> Result<String, String> {
    request(target, command, args, rundir)?.map_err(|refusal| refusal.trim_end().to_owned())
}

/// The answer, or the daemon's word why there is none. The outer error: it cannot be asked.
fn request(
    target: &str,
    command: &str,
    args: &[String],
    rundir: &Path,
) -> Result<Result<String, String>, String> {
    let socket = find_socket(target, rundir)?;
    let mut connection =
        Connection::open(&format!("unix:{}", socket.display()), rundir).map_err(|error| {
            log::warn("unixctl", &format!("failed to connect to {}", socket.display()));
            format!("cannot connect to \"{}\" ({error})", socket.display())
        })?;
    match connection.call(command, &json!(args)) {
        Ok(Value::String(answer)) => Ok(Ok(answer)),
        Ok(answer) => Err(format!("{target}: unexpected result type in JSON rpc reply: {answer}")),
        Err(ConnectionError::Refused { error: Value::String(error), .. }) => Ok(Err(error)),
        Err(error) => Err(format!("{target}: transaction error ({error})")),
    }
}

/// The control socket of the daemon that `target` names.
fn find_socket(target: &str, rundir: &Path) -> Result<PathBuf, String> {
    if target.starts_with('/') {
        return Ok(target.into());
    }
    let path = rundir.join(format!("{target}.pid"));
    let unreadable = |why: &str| format!("cannot read pidfile \"{}\" ({why})", path.display());
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let why = words_of(&error);
        log::warn("daemon_unix", &format!("{}: open: {why}", path.display()));
        unreadable(&why)
    })?;
    // A pid file is true only as long as the process that it names holds a lock on it.
    let pid = text.trim();
    match pidfile::holder(&path) {
        Some(owner) if owner.to_string() == pid => Ok(rundir.join(format!("{target}.{pid}.ctl"))),
        _ => Err(unreadable("No such process")),
    }
}

/// An error's text without the number that Rust adds.
fn words_of(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn print(text: &str) -> Result<ExitCode, String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("write to stdout failed ({error})"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Request, String> {
        parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_and_its_arguments_follow_the_options() {
        let expected = Request::Ask {
            target: "x".to_owned(),
            timeout: Some(Duration::from_secs(3)),
            command: "fdb/show".to_owned(),
            args: vec!["--all".to_owned()],
        };
        assert_eq!(parsed(&["-tx", "--timeout=3", "fdb/show", "--all"]), Ok(expected));
        assert_eq!(parsed(&["-V", "x"]), Ok(Request::Version));
        assert_eq!(parsed(&["--he"]), Ok(Request::Help));
    }

    #[test]
    fn each_mistake_has_its_own_words() {
        for (args, expected) in [
            (&[][..], "at least one non-option argument is required (use --help for help)"),
            (&["-t"], "option requires an argument -- 't'"),
            (&["-T", "0", "x"], "value 0 on -T or --timeout is invalid"),
            (&["--foo"], "unrecognized option '--foo'"),
            (&["-vfoo", "x"], "processing \"foo\": no destination, level, or module \"foo\""),
        ] {
            assert_eq!(parsed(args), Err(expected.to_owned()), "{args:?}");
        }
    }

    #[test]
    fn a_pid_file_that_nobody_locks_is_a_dead_daemon_s() {
        let directory = tempfile::tempdir().unwrap();
        let socket = |target| find_socket(target, directory.path());
        assert_eq!(socket("/run/x.ctl"), Ok("/run/x.ctl".into()));
        assert!(socket("gone").unwrap_err().ends_with("gone.pid\" (No such file or directory)"));
        std::fs::write(directory.path().join("stale.pid"), "1\n").unwrap();
        assert!(socket("stale").unwrap_err().ends_with("stale.pid\" (No such process)"));
    }
}

//! `underpass`: one binary, many names.

use std::ffi::{CString, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Parser;

use control::cli::{self, Attach, Cli, Command, Detach, Rest, Tuning, Vswitchd};
use control::daemon::{self, Config, Daemon, Stages};
use control::detach::{self, Background};
use control::help;
use control::keys;
use control::logging::{Destination, Level, Spec, Vlog};
use control::pidfile;
use control::pki;
use control::privileges;
use control::rundir::{self, RunDir};
use control::shutdown::Shutdown;
use control::up::{self, Up};
use control::vsctl;
use control::{appctl, attach, migrate};

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let cli = Cli::parse_from(cli::normalise(argv.clone()));
    run(cli, &argv).unwrap_or_else(|error| {
        eprintln!("underpass: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(cli: Cli, argv: &[OsString]) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Vswitchd(options) => vswitchd(options, cli.rundir, cli.ready_on_stdin, argv),
        Command::Up(options) => up(options, cli.rundir),
        Command::Vsctl(rest) => Ok(tool(vsctl::main, rest, cli.rundir)),
        Command::Appctl(rest) => Ok(tool(appctl::main, rest, cli.rundir)),
        Command::Attach(options) => attach(&options, cli.rundir),
        Command::Detach(options) => detach(options, cli.rundir),
        Command::Migrate(options) => {
            migrate::run(&options, RunDir::new(cli.rundir.unwrap_or_else(rundir::default_rundir))?)
        }
        Command::Completions { shell } => {
            std::io::stdout().write_all(&help::completions(shell))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Manual { directory } => {
            help::write_pages(&directory)
                .with_context(|| format!("cannot write to {}", directory.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Pki(command) => {
            std::io::stdout().write_all(pki::run(&command)?.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Keys(options) => {
            let rundir = cli.rundir.unwrap_or_else(rundir::default_rundir);
            keys::export(&rundir, &options.output, options.force)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Hands over to a tool that reads its own arguments.
fn tool(main: fn(Vec<OsString>, &Path) -> ExitCode, rest: Rest, rundir: Option<PathBuf>) -> ExitCode {
    let mut args = rest.args;
    let rundir = cli::take_rundir(&mut args).or(rundir).unwrap_or_else(rundir::default_rundir);
    main(args, &rundir)
}

fn attach(options: &Attach, rundir: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    attach::check_device(&options.device).map_err(anyhow::Error::msg)?;
    let rundir = RunDir::new(rundir.unwrap_or_else(rundir::default_rundir))?;
    let place = rundir.path().display();
    ensure!(
        runs(&rundir),
        "no switch runs in {place}: start one with `underpass vswitchd`, or name another --rundir"
    );
    let words = attach::attach_command(&options.device, &options.bridge);
    let status = vsctl::main(words.into_iter().map(OsString::from).collect(), rundir.path());
    if status != ExitCode::SUCCESS {
        return Ok(status);
    }
    match vsctl::error_of(&options.device, rundir.path()).context("cannot learn what became of it")? {
        Some(error) => bail!("{error}"),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn detach(options: Detach, rundir: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let device = &options.attached.device;
    let rundir = RunDir::new(rundir.unwrap_or_else(rundir::default_rundir))?;
    if runs(&rundir) {
        let words = attach::detach_command(device);
        return Ok(vsctl::main(words.into_iter().map(OsString::from).collect(), rundir.path()));
    }
    let undone = daemon::detach_offline(&options.db.unwrap_or_else(rundir::default_db), device)?;
    if !undone {
        println!("{device} is not attached to anything");
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a switch has this run directory.
fn runs(rundir: &RunDir) -> bool {
    pidfile::holder(&rundir.pidfile(rundir::VSWITCHD)).is_some()
}

fn vswitchd(
    options: Vswitchd,
    rundir: Option<PathBuf>,
    in_background: bool,
    argv: &[OsString],
) -> anyhow::Result<ExitCode> {
    if options.version {
        println!("ovs-vswitchd (Open vSwitch) {}\nUnderpass {}", cli::OVS_VERSION, cli::VERSION);
        return Ok(ExitCode::SUCCESS);
    }
    if options.detach && !in_background {
        return Ok(detach::spawn(argv)?);
    }
    take_name(argv);
    let background = if in_background { Some(Background::enter()?) } else { None };
    let shutdown = Shutdown::on_signals()?;
    let vlog = Vlog::install(&options.tuning.verbose);
    if let Some(file) = options.log_file {
        open_log(&vlog, file.unwrap_or_else(|| rundir::default_logdir().join("ovs-vswitchd.log")));
    }
    options.ignored.notes().iter().for_each(|note| tracing::info!("{note}"));
    if options.mlockall
        && let Err(why) = privileges::lock_memory()
    {
        tracing::warn!("mlockall failed: {why}");
    }
    let config = Config {
        rundir: RunDir::new(rundir.unwrap_or_else(rundir::default_rundir))?,
        db: std::path::absolute(options.db.unwrap_or_else(rundir::default_db))?,
        pidfile: options.pidfile.flatten().map(std::path::absolute).transpose()?,
        workers: workers(&options.tuning),
        temporary: false,
        keep_ports: options.keep_ports,
    };
    daemon::run(&config, vlog, shutdown, &mut InBackground(background))?;
    Ok(ExitCode::SUCCESS)
}

fn up(options: cli::Up, rundir: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signals()?;
    let quiet = Spec::Level { module: None, destination: Some(Destination::Console), level: Level::Warn };
    let specs: Vec<Spec> = std::iter::once(quiet).chain(options.tuning.verbose.iter().cloned()).collect();
    let vlog = Vlog::install(&specs);
    let rundir = RunDir::new(rundir.unwrap_or_else(|| up::RUNDIR.into()))?;
    let config = Config {
        db: up::database(rundir.path()),
        rundir,
        pidfile: None,
        workers: workers(&options.tuning),
        temporary: true,
        keep_ports: false,
    };
    daemon::run(&config, vlog, shutdown, &mut Up::new(options)?)?;
    Ok(ExitCode::SUCCESS)
}

/// `ovs-ctl` knows a daemon by its command name, which would be this file's after `--detach`.
fn take_name(argv: &[OsString]) {
    let name = argv.first().map(Path::new).and_then(Path::file_name);
    if let Some(name) = name.and_then(|n| CString::new(n.as_bytes()).ok()) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// A switch without a log file is better than no switch.
fn open_log(vlog: &Arc<Vlog>, path: PathBuf) {
    if let Err(e) = vlog.open_file(&path) {
        tracing::warn!("cannot log to {}: {e}", path.display());
    }
}

fn workers(tuning: &Tuning) -> usize {
    const DEFAULT_MOST: usize = 4;
    let processors = || std::thread::available_parallelism().map_or(1, |n| n.get().min(DEFAULT_MOST));
    tuning.workers.map_or_else(processors, usize::from)
}

/// Tells the process that waits in the foreground, if there is one.
struct InBackground(Option<Background>);

impl Stages for InBackground {
    fn loaded(&mut self, _: &Daemon) -> anyhow::Result<()> {
        Ok(())
    }

    fn ready(&mut self, _: &Daemon) -> anyhow::Result<()> {
        self.0.take().map_or(Ok(()), |b| Ok(b.ready()?))
    }
}

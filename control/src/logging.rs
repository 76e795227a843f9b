//! The log, with the files, layouts and commands of Open vSwitch's vlog: each module has a level for the console
//! (stderr), for syslog and for the log file, changeable while we run.
//!
//! Code logs through `tracing`; [`Vlog`] is the layer that takes it from there.

mod level;
mod limit;
pub(crate) mod pattern;

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use level::{BadSpec, Destination, Level, MODULES, Spec};
use limit::{Limiter, Verdict};
use pattern::Message;

/// One level for each module and destination, where the messages go, and how they look.
#[derive(Debug)]
pub struct Vlog {
    levels: [[AtomicU8; 3]; MODULES.len()],
    written: AtomicU64,
    sinks: Mutex<Sinks>,
}

#[derive(Debug)]
struct Sinks {
    patterns: [String; 3],
    /// Of syslog (RFC 5424 table 1).
    facility: u8,
    file: Option<(PathBuf, Option<File>)>,
    syslog: Option<UnixDatagram>,
    limiter: Limiter,
    /// Modules whose messages are never held back.
    unlimited: [bool; MODULES.len()],
}

/// As Open vSwitch has them; in the order of [`Destination::ALL`].
const PATTERNS: [&str; 3] = [
    "%D{%Y-%m-%dT%H:%M:%SZ}|%05N|%c%T|%p|%m",
    "ovs|%05N|%c%T|%p|%m",
    "%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m",
];

/// What Open vSwitch says to have before each message to syslog.
const SYSLOG_PREFIX: &str = "<%B> %D{%h %e %T} %E %A:";
/// What there is: who reads /dev/log knows the time and the host, and takes a date after a space for the program's name.
const SYSLOG_HEADER: &str = "<%B>%A: ";
/// `daemon`.
const FACILITY: u8 = 3;

impl Vlog {
    /// Everything from `info` up, libraries from `warn` up, no file.
    fn new() -> Vlog {
        let level = |module: &str| if module == "library" { Level::Warn } else { Level::Info };
        Vlog {
            levels: MODULES.map(|m| [(); 3].map(|()| AtomicU8::new(level(m) as u8))),
            written: AtomicU64::new(0),
            sinks: Mutex::new(Sinks {
                patterns: PATTERNS.map(str::to_owned),
                facility: FACILITY,
                file: None,
                syslog: connect_syslog().ok(),
                limiter: Limiter::default(),
                unlimited: [false; MODULES.len()],
            }),
        }
    }

    /// Makes the log this process's own. Called once.
    pub fn install(specs: &[Spec]) -> Arc<Vlog> {
        let vlog = Arc::new(Vlog::new());
        specs.iter().for_each(|s| vlog.set(s));
        let subscriber = tracing_subscriber::registry().with(ToVlog(vlog.clone()));
        // Refused only if there is one already, and then that one goes on.
        let _ = tracing::subscriber::set_global_default(subscriber);
        vlog
    }

    /// Does what a specification asks for.
    pub fn set(&self, spec: &Spec) {
        match spec {
            Spec::Level { module, destination, level } => {
                let chosen = self.levels.iter().enumerate().filter(|(m, _)| module.is_none_or(|x| x == *m));
                for (_, levels) in chosen {
                    for (d, cell) in Destination::ALL.into_iter().zip(levels) {
                        if destination.is_none_or(|x| x == d) {
                            cell.store(*level as u8, Relaxed);
                        }
                    }
                }
            }
            Spec::Facility(facility) => self.sinks().facility = *facility,
            Spec::Pattern { destination, pattern } => {
                for (d, p) in Destination::ALL.into_iter().zip(&mut self.sinks().patterns) {
                    if destination.is_none_or(|x| x == d) {
                        p.clone_from(pattern);
                    }
                }
            }
        }
    }

    /// Logs to this file from now on, too.
    pub fn open_file(&self, path: &Path) -> io::Result<()> {
        if let Some(dir) = path.parent() {
            crate::rundir::create_dir(dir)?;
        }
        let file = open_append(path)?;
        self.sinks().file = Some((path.to_owned(), Some(file)));
        tracing::info!("opened log file {}", path.display());
        Ok(())
    }

    /// Closes the log file and opens what is there under its name now (`vlog/reopen`, after a rotation).
    pub fn reopen(&self) -> io::Result<()> {
        let Some(path) = self.sinks().file.as_ref().map(|(path, _)| path.clone()) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "Logging to file not configured"));
        };
        tracing::info!("closing log file");
        self.open_file(&path)
    }

    /// Closes the log file until [`Vlog::reopen`] (`vlog/close`).
    pub fn close(&self) {
        if let Some((_, file)) = &mut self.sinks().file {
            *file = None;
        }
    }

    /// `vlog/list`.
    pub fn list(&self) -> String {
        let mut out = String::from(
            "                 console    syslog    file\n                 -------    ------    ------\n",
        );
        for (module, levels) in MODULES.iter().zip(&self.levels) {
            let [console, syslog, file] = levels.each_ref().map(|l| Level::from_u8(l.load(Relaxed)).name());
            let _ = writeln!(out, "{module:<16}  {console:>4}       {syslog:>4}       {file:>4}");
        }
        out
    }

    /// `vlog/list-pattern`.
    pub fn list_patterns(&self) -> String {
        let mut out = String::from(
            "         prefix                            format\n         ------                            ------\n",
        );
        let sinks = self.sinks();
        let [console, syslog, file] = &sinks.patterns;
        let _ = writeln!(out, "{:<7}  {SYSLOG_PREFIX:<32}  {syslog}", "SYSLOG");
        let _ = writeln!(out, "{:<7}  {:<32}  {console}", "CONSOLE", "none");
        let _ = writeln!(out, "{:<7}  {:<32}  {file}", "FILE", "none");
        out
    }

    /// `vlog/enable-rate-limit` and `vlog/disable-rate-limit`, of the modules named or of all.
    ///
    /// # Errors
    /// There is no such module, and nothing is changed.
    pub fn limit_rate(&self, names: &[String], on: bool) -> Result<(), String> {
        let chosen = names.iter().map(|name| level::module_index(name)).collect::<Option<Vec<usize>>>();
        let chosen = chosen.ok_or("unknown module")?;
        for (module, unlimited) in self.sinks().unlimited.iter_mut().enumerate() {
            if names.is_empty() || chosen.contains(&module) {
                *unlimited = !on;
            }
        }
        Ok(())
    }

    fn level(&self, module: usize, destination: usize) -> Level {
        let cell = self.levels.get(module).and_then(|m| m.get(destination));
        cell.map_or(Level::Off, |c| Level::from_u8(c.load(Relaxed)))
    }

    fn sinks(&self) -> MutexGuard<'_, Sinks> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, metadata: &Metadata<'_>, text: &str) {
        let level = Level::from(metadata.level());
        let mut sinks = self.sinks();
        let unlimited = sinks.unlimited.get(level::module_of(metadata.target())).is_some_and(|u| *u);
        if level <= Level::Warn && !unlimited {
            match sinks.limiter.admit(metadata.callsite(), Instant::now()) {
                Verdict::Hold => return,
                Verdict::Write => {}
                Verdict::WriteAfter(n, over, ago) => {
                    let held = format!(
                        "Dropped {n} log messages in last {} seconds (most recently, {} seconds ago) due to excessive rate",
                        over.as_secs(),
                        ago.as_secs()
                    );
                    self.write_to(&mut sinks, metadata, level, &held);
                }
            }
        }
        self.write_to(&mut sinks, metadata, level, text);
    }

    fn write_to(&self, sinks: &mut Sinks, metadata: &Metadata<'_>, level: Level, text: &str) {
        let module = level::module_of(metadata.target());
        let thread = std::thread::current();
        let message = Message {
            at: SystemTime::now(),
            number: self.written.fetch_add(1, Relaxed) + 1,
            module: MODULES.get(module).copied().unwrap_or_default(),
            thread: thread.name().filter(|n| *n != "main").unwrap_or_default(),
            level,
            facility: sinks.facility,
            text,
        };
        let mut line = String::new();
        for (i, destination) in Destination::ALL.into_iter().enumerate() {
            if level > self.level(module, i) {
                continue;
            }
            line.clear();
            if destination == Destination::Syslog {
                pattern::expand(SYSLOG_HEADER, &message, &mut line);
            }
            pattern::expand(sinks.patterns.get(i).map_or("%m", String::as_str), &message, &mut line);
            // A log that cannot be written to is no reason to stop, and there is nowhere to say it.
            match destination {
                Destination::Console => {
                    line.push('\n');
                    let _ = io::stderr().write_all(line.as_bytes());
                }
                Destination::Syslog => {
                    let sent = sinks.syslog.as_ref().is_some_and(|socket| is_sent(socket, &line));
                    if !sent {
                        // whoever listened may have been started anew
                        sinks.syslog = connect_syslog().ok().filter(|socket| is_sent(socket, &line));
                    }
                }
                Destination::File => {
                    if let Some((_, Some(file))) = &mut sinks.file {
                        line.push('\n');
                        let _ = file.write_all(line.as_bytes());
                    }
                }
            }
        }
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn connect_syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect("/dev/log")?;
    Ok(socket)
}

/// Whether it went, or is lost for want of room there.
fn is_sent(socket: &UnixDatagram, line: &str) -> bool {
    match socket.send(line.as_bytes()) {
        Ok(_) => true,
        Err(e) => e.kind() == io::ErrorKind::WouldBlock,
    }
}

struct ToVlog(Arc<Vlog>);

impl<S: Subscriber> Layer<S> for ToVlog {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes() // levels change at run time
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let module = level::module_of(metadata.target());
        let level = Level::from(metadata.level());
        (0..Destination::ALL.len()).any(|d| level <= self.0.level(module, d))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.0.write(event.metadata(), &text.finish());
    }
}

/// The message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    /// One line, whatever names and errors from outside hold.
    fn finish(self) -> String {
        (self.message + &self.fields).replace(|c: char| c.is_control(), "?")
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            let _ = write!(self.fields, " {}={value}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(vlog: &Arc<Vlog>, log: impl FnOnce()) {
        let subscriber = tracing_subscriber::registry().with(ToVlog(vlog.clone()));
        tracing::subscriber::with_default(subscriber, log);
    }

    fn quiet() -> Arc<Vlog> {
        let vlog = Vlog::new();
        vlog.set(&Spec::parse("console:off").unwrap());
        vlog.set(&Spec::parse("syslog:off").unwrap());
        Arc::new(vlog)
    }

    #[test]
    fn lists_as_vlog_does() {
        let vlog = quiet();
        vlog.set(&Spec::parse("bridge:file:dbg").unwrap());
        let list = vlog.list();
        let mut lines = list.lines();
        assert_eq!(lines.next(), Some("                 console    syslog    file"));
        assert_eq!(lines.next(), Some("                 -------    ------    ------"));
        assert!(list.contains("\nbridge             OFF        OFF        DBG\n"), "{list}");
        assert!(list.contains("\nunixctl            OFF        OFF       INFO\n"), "{list}");
        assert!(list.contains("\nlibrary            OFF        OFF       WARN\n"), "{list}");
        assert_eq!(
            vlog.list_patterns().lines().nth(2),
            Some("SYSLOG   <%B> %D{%h %e %T} %E %A:          ovs|%05N|%c%T|%p|%m")
        );
        assert_eq!(
            vlog.list_patterns().lines().nth(3),
            Some("CONSOLE  none                              %D{%Y-%m-%dT%H:%M:%SZ}|%05N|%c%T|%p|%m")
        );
    }

    #[test]
    fn the_file_follows_levels_and_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/x.log");
        let vlog = quiet();
        logged(&vlog, || {
            vlog.open_file(&path).unwrap();
            tracing::debug!(target: "control::reconcile", "not yet");
            vlog.set(&Spec::parse("bridge:dbg").unwrap());
            vlog.set(&Spec::parse("console:off").unwrap());
            tracing::debug!(target: "control::reconcile::ports", port = 3, "added\nand more");
            std::fs::rename(&path, dir.path().join("old.log")).unwrap();
            vlog.reopen().unwrap();
            tracing::warn!(target: "ovsdb", "after");
        });
        let old = std::fs::read_to_string(dir.path().join("old.log")).unwrap();
        let lines: Vec<&str> = old.lines().collect();
        assert_eq!(lines.len(), 3, "{old}");
        assert!(lines[0].contains("Z|00001|vlog(logging::tests::"), "{old}");
        assert!(
            lines[1].ends_with(
                "|bridge(logging::tests::the_file_follows_levels_and_rotation)|DBG|added?and more port=3"
            ),
            "{old}"
        );
        let new = std::fs::read_to_string(&path).unwrap();
        assert!(new.contains("|vlog") && new.contains("|ovsdb") && new.ends_with("|WARN|after\n"), "{new}");
    }

    #[test]
    fn repeated_warnings_are_held_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let vlog = quiet();
        logged(&vlog, || {
            vlog.open_file(&path).unwrap();
            for _ in 0..1000 {
                tracing::warn!("again");
            }
            tracing::warn!("another place");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let n = text.lines().filter(|l| l.ends_with("|WARN|again")).count();
        assert!((60..70).contains(&n), "{n}");
        assert!(text.ends_with("another place\n"));
    }
}

//! vlog's levels, destinations and modules, and the specifications that set them.

use std::fmt;

/// Severity, most severe first. `Off` admits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Level {
    Off,
    Emer,
    Err,
    Warn,
    Info,
    Dbg,
}

impl Level {
    const ALL: [Level; 6] = [Level::Off, Level::Emer, Level::Err, Level::Warn, Level::Info, Level::Dbg];

    pub(super) fn from_u8(n: u8) -> Level {
        Level::ALL.get(usize::from(n)).copied().unwrap_or(Level::Off)
    }

    fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|l| l.name().eq_ignore_ascii_case(name))
    }

    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Level::Off => "OFF",
            Level::Emer => "EMER",
            Level::Err => "ERR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Dbg => "DBG",
        }
    }

    /// RFC 5424 severity.
    pub(super) fn syslog(self) -> u8 {
        match self {
            Level::Off | Level::Emer => 1,
            Level::Err => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Dbg => 7,
        }
    }
}

impl From<&tracing::Level> for Level {
    fn from(l: &tracing::Level) -> Level {
        match *l {
            tracing::Level::ERROR => Level::Err,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            _ => Level::Dbg,
        }
    }
}

/// Where a message may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Destination {
    Console,
    Syslog,
    File,
}

impl Destination {
    /// All, in the order in which `vlog/list` has them.
    pub const ALL: [Destination; 3] = [Destination::Console, Destination::Syslog, Destination::File];

    fn from_name(name: &str) -> Option<Destination> {
        Destination::ALL.into_iter().find(|d| d.name().eq_ignore_ascii_case(name))
    }

    /// As `vlog/set` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Destination::Console => "console",
            Destination::Syslog => "syslog",
            Destination::File => "file",
        }
    }
}

/// Which code speaks under which vlog module: the first prefix that fits. Where the same work is one of Open vSwitch's
/// modules the name is that one's, so that known `vlog/set` commands go on working.
const TARGETS: &[(&str, &str)] = &[
    ("control::reconcile", "bridge"),
    ("control::status", "bridge"),
    ("control::bond", "bond"),
    ("control::bfd", "bfd"),
    ("bfd", "bfd"),
    ("control::cfm", "cfm"),
    ("cfm", "cfm"),
    ("control::loops", "bridge"),
    ("control::snooping", "bridge"),
    ("control::ipsec", "ipsec"),
    ("ikev2", "ipsec"),
    ("control::attach", "attach"),
    ("control::devices", "netdev_linux"),
    ("control::db_server", "jsonrpc"),
    ("control::unixctl", "unixctl"),
    ("control::logging", "vlog"),
    ("control", "vswitchd"),
    ("underpass", "vswitchd"),
    ("ovsdb", "ovsdb"),
    ("datapath", "dpif"),
    ("", "library"),
];

/// Every module, sorted by name.
pub const MODULES: [&str; 14] = [
    "attach",
    "bfd",
    "bond",
    "bridge",
    "cfm",
    "dpif",
    "ipsec",
    "jsonrpc",
    "library",
    "netdev_linux",
    "ovsdb",
    "unixctl",
    "vlog",
    "vswitchd",
];

/// Index in [`MODULES`] of the module that messages of a tracing target belong to.
pub(super) fn module_of(target: &str) -> usize {
    let name = TARGETS.iter().find(|(prefix, _)| under(target, prefix)).map_or("library", |(_, name)| name);
    module_index(name).unwrap_or(0)
}

fn under(target: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

pub(super) fn module_index(name: &str) -> Option<usize> {
    MODULES.iter().position(|m| m.eq_ignore_ascii_case(name))
}

/// What a specification such as `bridge:file:dbg` asks for. `None` means any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// Admit messages up to this level.
    Level {
        /// Index in [`MODULES`].
        module: Option<usize>,
        /// Where.
        destination: Option<Destination>,
        /// How much.
        level: Level,
    },
    /// Send to syslog under this facility.
    Facility(u8),
    /// Write messages like this.
    Pattern {
        /// Where.
        destination: Option<Destination>,
        /// How.
        pattern: String,
    },
}

/// What is wrong with a specification, in the words of Open vSwitch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSpec(String);

impl fmt::Display for BadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadSpec {}

/// Of syslog (RFC 5424 table 1), by the names that Open vSwitch has for them.
const FACILITIES: [(&str, u8); 23] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("clock", 9),
    ("ftp", 11),
    ("ntp", 12),
    ("audit", 13),
    ("alert", 14),
    ("clock2", 15),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

const SEPARATORS: [char; 4] = [' ', ',', ':', '\t'];

impl Spec {
    /// Words in any order, each a level, a destination, a module or `ANY`; or `PATTERN:destination:pattern`. What is
    /// left out means any, a missing level `dbg`.
    pub fn parse(text: &str) -> Result<Spec, BadSpec> {
        let bad = |s: String| Err(BadSpec(s));
        let text = text.trim_start_matches(SEPARATORS);
        let (first, rest) = text.split_once(SEPARATORS).unwrap_or((text, ""));
        if first.eq_ignore_ascii_case("PATTERN") {
            return Spec::parse_pattern(rest);
        }
        if first.eq_ignore_ascii_case("FACILITY") {
            let name = rest.trim_matches(SEPARATORS);
            let found = FACILITIES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            return found
                .map_or_else(|| bad("invalid facility".into()), |(_, code)| Ok(Spec::Facility(*code)));
        }
        let (mut module, mut destination, mut level) = (None, None, None);
        for word in text.split(SEPARATORS).filter(|w| !w.is_empty() && !w.eq_ignore_ascii_case("ANY")) {
            if let Some(d) = Destination::from_name(word) {
                if destination.replace(d).is_some() {
                    return bad("cannot specify multiple destinations".into());
                }
            } else if let Some(l) = Level::from_name(word) {
                if level.replace(l).is_some() {
                    return bad("cannot specify multiple levels".into());
                }
            } else if let Some(m) = module_index(word) {
                if module.replace(m).is_some() {
                    return bad("cannot specify multiple modules".into());
                }
            } else {
                return bad(format!("no destination, level, or module \"{word}\""));
            }
        }
        Ok(Spec::Level { module, destination, level: level.unwrap_or(Level::Dbg) })
    }

    fn parse_pattern(text: &str) -> Result<Spec, BadSpec> {
        let text = text.trim_start_matches(SEPARATORS);
        let (name, pattern) = text.split_once(SEPARATORS).unwrap_or((text, ""));
        if name.is_empty() {
            return Err(BadSpec("missing destination".into()));
        }
        let destination = match Destination::from_name(name) {
            None if name.eq_ignore_ascii_case("ANY") => None,
            None => return Err(BadSpec(format!("unknown destination \"{name}\""))),
            some => some,
        };
        Ok(Spec::Pattern { destination, pattern: pattern.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let name = |t| MODULES[module_of(t)];
        assert_eq!(name("control::reconcile::ports"), "bridge");
        assert_eq!(name("control::reconciler"), "vswitchd");
        assert_eq!(name("control"), "vswitchd");
        assert_eq!(name("ovsdb::log"), "ovsdb");
        assert_eq!(name("controlling"), "library");
        assert!(MODULES.is_sorted());
        assert!(TARGETS.iter().all(|(_, m)| module_index(m).is_some()));
    }

    #[test]
    fn specs() {
        let level = |module: Option<&str>, destination, level| {
            Ok(Spec::Level { module: module.and_then(module_index), destination, level })
        };
        let bad = |s: &str| Err(BadSpec(s.into()));
        let table = [
            ("ANY:console:dbg", level(None, Some(Destination::Console), Level::Dbg)),
            ("ANY:console:off", level(None, Some(Destination::Console), Level::Off)),
            ("console:emer", level(None, Some(Destination::Console), Level::Emer)),
            ("syslog:err", level(None, Some(Destination::Syslog), Level::Err)),
            ("file:info", level(None, Some(Destination::File), Level::Info)),
            ("bridge:file:WARN", level(Some("bridge"), Some(Destination::File), Level::Warn)),
            ("dbg bridge", level(Some("bridge"), None, Level::Dbg)),
            ("bridge", level(Some("bridge"), None, Level::Dbg)),
            ("", level(None, None, Level::Dbg)),
            ("any", level(None, None, Level::Dbg)),
            ("nosuch:dbg", bad("no destination, level, or module \"nosuch\"")),
            ("bridge:unixctl", bad("cannot specify multiple modules")),
            ("info:dbg", bad("cannot specify multiple levels")),
            ("file:file", bad("cannot specify multiple destinations")),
            ("PATTERN:nowhere:%m", bad("unknown destination \"nowhere\"")),
            ("PATTERN", bad("missing destination")),
            ("FACILITY:local3", Ok(Spec::Facility(19))),
            ("facility:user", Ok(Spec::Facility(1))),
            ("FACILITY:nosuch", bad("invalid facility")),
        ];
        for (text, want) in table {
            assert_eq!(Spec::parse(text), want, "{text}");
        }
        assert_eq!(
            Spec::parse("PATTERN:console:%c: %m"),
            Ok(Spec::Pattern { destination: Some(Destination::Console), pattern: "%c: %m".into() })
        );
    }
}

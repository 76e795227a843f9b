//! The same command lines, run by the stock `ovs-vsctl` and by ours, each on a database of its own: what they print,
//! how they end and what they leave in the database must be the same.
//!
//! UUIDs, times and directories are replaced by words before the comparison. A line of a script that begins with `~`
//! may print its lines in any order, since the order of rows is nobody's promise.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod vsctl_scripts;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

#[derive(Debug, Clone, Copy)]
enum Tool {
    Stock,
    Ours,
}

impl Tool {
    /// `name` is "vsctl" or "appctl". What hangs is killed.
    fn command(self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg("30");
        match self {
            Tool::Stock => command.arg(format!("ovs-{name}")),
            Tool::Ours => command.arg(env!("CARGO_BIN_EXE_underpass")).arg(name),
        };
        command
    }
}

/// A process that goes when it is dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace that goes when it is dropped.
struct Namespace(String);

impl Namespace {
    fn new(tool: Tool) -> Namespace {
        let name = format!("vsctl-{}-{tool:?}", std::process::id());
        run_ok(Command::new("ip").args(["netns", "add", &name]));
        Namespace(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A fresh database with its server, and perhaps a switch behind it.
struct World {
    tool: Tool,
    directory: tempfile::TempDir,
    // In the order in which they have to go.
    _switch: Option<(Daemon, Namespace)>,
    _server: Daemon,
}

impl World {
    fn new(tool: Tool, with_switch: bool) -> World {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        run_ok(Command::new("ovsdb-tool").arg("create").arg(at("conf.db")).arg(SCHEMA));
        let mut server = Command::new("ovsdb-server");
        server.arg(format!("--remote=punix:{}", at("db.sock").display())).arg("--pidfile").arg(at("conf.db"));
        let server = start(&mut server, directory.path());
        wait_for(&at("db.sock"));
        run_ok(stock(directory.path()).args(["--no-wait", "init"]));
        let switch = with_switch.then(|| {
            let namespace = Namespace::new(tool);
            let mut switch = Command::new("ip");
            switch
                .args(["netns", "exec", &namespace.0, "ovs-vswitchd", "--disable-system", "--pidfile"])
                .arg(format!("--unixctl={}", at("switch.ctl").display()))
                .arg(format!("unix:{}", at("db.sock").display()));
            (start(&mut switch, directory.path()), namespace)
        });
        World { tool, directory, _switch: switch, _server: server }
    }

    fn run(&self, words: &[String]) -> Outcome {
        self.run_tool(self.tool.command("vsctl").args(words))
    }

    fn run_tool(&self, command: &mut Command) -> Outcome {
        let output = command.env("OVS_RUNDIR", self.directory.path()).stdin(Stdio::null()).output().unwrap();
        Outcome {
            stdout: self.normalise(&output.stdout),
            stderr: self.normalise(&output.stderr),
            status: output.status.to_string(),
        }
    }

    /// What is in the database, each row called by its name, in alphabetical order.
    fn contents(&self) -> Vec<String> {
        let socket = format!("unix:{}", self.directory.path().join("db.sock").display());
        let output = Command::new("ovsdb-client")
            .args(["-f", "json", "dump", &socket, "Open_vSwitch"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let tables = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap);
        let mut rows = Vec::new();
        let mut names = BTreeMap::new();
        for table in tables {
            let headings = table["headings"].as_array().unwrap();
            let at = |wanted: &[&str]| headings.iter().position(|h| wanted.contains(&h.as_str().unwrap()));
            let (uuid, name) = (at(&["_uuid"]).unwrap(), at(&["name", "target", "type"]));
            for row in table["data"].as_array().unwrap() {
                let name = name.map_or(String::new(), |name| row[name].to_string());
                names.insert(
                    row[uuid][1].as_str().unwrap().to_owned(),
                    format!("<{}>", name.replace('"', "")),
                );
                rows.push(json!([table["caption"], row]));
            }
        }
        rows.iter_mut().for_each(|row| rename(row, &names));
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort();
        rows
    }

    fn normalise(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let text = text.replace(&self.directory.path().display().to_string(), "DIR");
        let lines = text.split('\n').map(|line| without_time(&without_uuids(line)));
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    stdout: String,
    stderr: String,
    status: String,
}

impl Outcome {
    fn sorted(mut self) -> Outcome {
        let mut lines: Vec<&str> = self.stdout.split('\n').collect();
        lines.sort_unstable();
        self.stdout = lines.join("\n");
        self
    }
}

/// Puts names in the place of UUIDs, and sets of them in order.
fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            if let Some(name) = names.get(text) {
                text.clone_from(name);
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| rename(item, names));
            if let [Value::String(kind), Value::Array(elements)] = items.as_mut_slice()
                && kind == "set"
            {
                elements.sort_by_key(Value::to_string);
            }
        }
        _ => {}
    }
}

fn without_uuids(line: &str) -> String {
    let mut text = line.to_owned();
    let is_uuid = |text: &str| {
        text.bytes()
            .enumerate()
            .all(|(i, b)| if [8, 13, 18, 23].contains(&i) { b == b'-' } else { b.is_ascii_hexdigit() })
    };
    let mut at = 0;
    while at + 36 <= text.len() {
        match text.get(at..at + 36) {
            Some(word) if is_uuid(word) => {
                // Links show the first part alone.
                let short = format!(">{}<", &word[..8]);
                text = text.replace(&word.to_owned(), "UUID").replace(&short, ">UUID<");
            }
            _ => at += 1,
        }
    }
    text
}

/// `2026-01-01T00:00:00Z|00002|…` without the time.
fn without_time(line: &str) -> String {
    match line.split_once("Z|") {
        Some((time, rest)) if time.len() == 19 && time.starts_with("20") => format!("TIME|{rest}"),
        _ => line.to_owned(),
    }
}

fn start(command: &mut Command, rundir: &Path) -> Daemon {
    command.env("OVS_RUNDIR", rundir).env("OVS_DBDIR", rundir).env("OVS_LOGDIR", rundir);
    Daemon(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn stock(rundir: &Path) -> Command {
    let mut command = Command::new("ovs-vsctl");
    command.arg("--timeout=20").env("OVS_RUNDIR", rundir);
    command
}

fn run_ok(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Until somebody answers at this socket.
fn wait_for(socket: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(socket).is_err() {
        assert!(Instant::now() < end, "nobody listens at {}", socket.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Words as a shell would see them; single quotes hold any text together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn is_installed() -> bool {
    let installed = Path::new(SCHEMA).exists()
        && ["ovs-vsctl", "ovsdb-server", "ovs-vswitchd"]
            .iter()
            .all(|tool| Command::new(tool).arg("-V").output().is_ok());
    if !installed {
        eprintln!("SKIPPED: Open vSwitch (openvswitch-switch) is not installed");
    }
    installed
}

/// Runs each script with both tools and reports every difference.
fn compare(scripts: &[(&str, &str)], with_switch: bool) {
    if !is_installed() {
        return;
    }
    let mut differences = Vec::new();
    let mut compared = 0;
    for (title, script) in scripts {
        let (stock, ours) = (World::new(Tool::Stock, with_switch), World::new(Tool::Ours, with_switch));
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (line, any_order) = line.strip_prefix("~ ").map_or((line, false), |line| (line, true));
            let mut words = words(line);
            if !with_switch {
                words.insert(0, "--no-wait".to_owned());
            }
            let (mut expected, mut actual) = (stock.run(&words), ours.run(&words));
            if any_order {
                (expected, actual) = (expected.sorted(), actual.sorted());
            }
            compared += 1;
            if expected != actual {
                differences.push(format!("[{title}] {line}\n  stock {expected:#?}\n  ours {actual:#?}"));
            }
        }
        let (expected, actual) = (stock.contents(), ours.contents());
        for row in expected.iter().filter(|row| !actual.contains(row)) {
            differences.push(format!("[{title}] only the stock tool leaves {row}"));
        }
        for row in actual.iter().filter(|row| !expected.contains(row)) {
            differences.push(format!("[{title}] only ours leaves {row}"));
        }
    }
    let count = differences.len();
    assert!(
        differences.is_empty(),
        "{count} differences in {compared} command lines:\n{}",
        differences.join("\n")
    );
    println!("{compared} command lines, no difference");
}

#[test]
fn the_database_alone() {
    compare(vsctl_scripts::DATABASE, false);
}

#[test]
fn with_a_switch_behind_it() {
    compare(vsctl_scripts::SWITCH, true);
}

/// Each run sees its view of the bridge's ports outdated by the others' and has to begin again.
#[test]
fn simultaneous_changes_all_survive() {
    if !is_installed() {
        return;
    }
    let world = World::new(Tool::Ours, false);
    let run = |line: &str| world.run(&words(line));
    run("--no-wait add-br br0");
    std::thread::scope(|scope| {
        for i in 0..16 {
            scope.spawn(move || {
                run(&format!("--no-wait add-port br0 p{i} -- set bridge br0 external_ids:k{i}=v"))
            });
        }
    });
    assert_eq!(run("list-ports br0").stdout.lines().count(), 16);
    assert_eq!(run("br-get-external-id br0").stdout.lines().count(), 16);
}

/// Both tools ask the same server.
#[test]
fn control_sockets() {
    if !is_installed() {
        return;
    }
    let world = World::new(Tool::Stock, false);
    std::fs::write(world.directory.path().join("stale.pid"), format!("{}\n", std::process::id())).unwrap();
    std::fs::write(world.directory.path().join("garbage.pid"), "x\n").unwrap();
    let pid = std::fs::read_to_string(world.directory.path().join("ovsdb-server.pid")).unwrap();
    let socket = world.directory.path().join(format!("ovsdb-server.{}.ctl", pid.trim()));
    let mut differences = Vec::new();
    for line in vsctl_scripts::APPCTL.lines().map(str::trim) {
        let words = words(&line.replace("SOCKET", &socket.display().to_string()));
        let expected = world.run_tool(Tool::Stock.command("appctl").args(&words));
        let actual = world.run_tool(Tool::Ours.command("appctl").args(&words));
        if expected != actual {
            differences.push(format!("{line}\n  stock {expected:#?}\n  ours {actual:#?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

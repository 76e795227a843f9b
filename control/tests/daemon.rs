//! The process as operators and start scripts meet it: the real binary in a network namespace of its own, driven by
//! the stock tools of Open vSwitch.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_underpass");
const LONG: Duration = Duration::from_secs(20);

/// A network namespace held by a process that sleeps, and a directory for everything that is written.
struct Place {
    holder: Child,
    dir: tempfile::TempDir,
}

impl Place {
    /// None, with a word why: the test cannot run here.
    fn new() -> Option<Place> {
        let tools = ["ovs-vsctl", "ovs-appctl", "setpriv", "nsenter"];
        let missing = tools
            .iter()
            .find(|t| !Command::new(t).arg("--version").output().is_ok_and(|o| o.status.success()));
        if let Some(tool) = missing {
            eprintln!("skipped: {tool} is not installed");
            return None;
        }
        let mut holder = dying_with_us("unshare");
        holder.args(["--net", "sh", "-c", "echo up; exec sleep 300"]).stdout(Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        let up = holder.stdout.as_mut().unwrap().read(&mut [0; 8]).unwrap();
        if up == 0 {
            let _ = holder.wait();
            eprintln!("skipped: no privilege to make a network namespace");
            return None;
        }
        Some(Place { holder, dir: tempfile::tempdir().unwrap() })
    }

    fn rundir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("conf.db")
    }

    /// A program in the namespace that finds our run directory.
    fn cmd(&self, program: &str) -> Command {
        let mut c = dying_with_us("nsenter");
        c.arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .arg(program)
            .env("OVS_RUNDIR", self.rundir());
        c.stdin(Stdio::null());
        c
    }

    fn vswitchd(&self, args: &[&str]) -> Command {
        let mut c = self.cmd(BINARY);
        c.arg("vswitchd");
        self.place_in(c, args)
    }

    /// By the name that start scripts know.
    fn ovs_vswitchd(&self, args: &[&str]) -> Command {
        let link = self.dir.path().join("ovs-vswitchd");
        let _ = std::os::unix::fs::symlink(BINARY, &link);
        self.place_in(self.cmd(link.to_str().unwrap()), args)
    }

    fn place_in(&self, mut c: Command, args: &[&str]) -> Command {
        c.args(["-vsyslog:off", "--workers=1", "--db"]).arg(self.db()).args(args);
        c
    }

    /// Starts the daemon and waits until it is ready.
    fn start(&self) -> Running {
        let child = self.vswitchd(&["-vconsole:warn"]).spawn().unwrap();
        let started = Instant::now();
        while !self.appctl(&["version"]).status.success() {
            assert!(started.elapsed() < LONG, "it does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Running(child)
    }

    fn tool(&self, name: &str, args: &[&str]) -> Output {
        self.cmd("timeout").arg("10").arg(name).args(args).output().unwrap()
    }

    fn appctl(&self, args: &[&str]) -> Output {
        self.tool("ovs-appctl", args)
    }

    fn vsctl(&self, line: &str) -> String {
        let out = self.tool("ovs-vsctl", &line.split(' ').collect::<Vec<_>>());
        assert!(out.status.success() && out.stderr.is_empty(), "ovs-vsctl {line}: {out:?}");
        text(&out.stdout)
    }

    fn links(&self) -> Vec<String> {
        let out = self.cmd("ip").args(["-o", "link"]).output().unwrap();
        let name = |l: &str| l.split(": ").nth(1).unwrap_or_default().to_owned();
        text(&out.stdout).lines().map(name).collect()
    }

    fn in_rundir(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.rundir())
            .map(|d| d.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

struct Running(Child);

impl Running {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn wait(mut self) -> Option<i32> {
        wait_for("its end", || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Killed when the test's thread ends, however it ends; the pid stays the program's own.
fn dying_with_us(program: &str) -> Command {
    let mut c = Command::new("setpriv");
    c.args(["--pdeathsig", "KILL", program]);
    c
}

#[track_caller]
fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(t) = done() {
            return t;
        }
        assert!(started.elapsed() < LONG, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn alive(pid: &str) -> bool {
    // A zombie of ours is none.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

#[test]
fn the_stock_tools_find_it() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();

    assert_eq!(text(&place.appctl(&["version"]).stdout), "ovs-vswitchd (Open vSwitch) 3.1.0\n");
    assert_eq!(
        text(&place.appctl(&["-t", "ovsdb-server", "version"]).stdout),
        "ovsdb-server (Open vSwitch) 3.1.0\n"
    );
    let commands = text(&place.appctl(&["list-commands"]).stdout);
    assert!(commands.starts_with("The available commands are:\n"), "{commands}");
    assert!(commands.contains("\n  fdb/show                bridge\n"), "{commands}");
    let out = place.appctl(&["nosuch/cmd"]);
    assert_eq!(out.status.code(), Some(2));
    let unknown =
        "\"nosuch/cmd\" is not a valid command (use \"list-commands\" to see a list of valid commands)\n";
    assert!(text(&out.stderr).starts_with(unknown), "{out:?}");

    place.vsctl("add-br br0");
    place.vsctl("add-port br0 gre0 -- set interface gre0 type=gre options:remote_ip=192.0.2.1");
    assert_eq!(place.vsctl("list-ports br0"), "gre0\n");
    assert_eq!(place.vsctl("get open . ovs_version"), "\"3.1.0\"\n");
    assert!(place.links().contains(&"br0".into()), "{:?}", place.links());
    assert_eq!(text(&place.appctl(&["ofproto/list"]).stdout), "br0\n");
    assert_eq!(
        text(&place.appctl(&["fdb/show", "br0"]).stdout).lines().next(),
        Some(" port  VLAN  MAC                Age")
    );
    assert!(place.appctl(&["fdb/add", "br0", "gre0", "0", "00:11:22:33:44:55"]).status.success());
    let shown = text(&place.appctl(&["fdb/show", "br0"]).stdout);
    assert!(shown.contains("\n    1     0  00:11:22:33:44:55  static\n"), "{shown}");
    let shown = text(&place.appctl(&["dpif/show"]).stdout);
    assert!(shown.contains("    br0 65534/") && shown.contains("(gre: remote_ip=192.0.2.1)"), "{shown}");
    drop(daemon);
}

#[test]
fn sigterm_leaves_the_configuration_and_nothing_else() {
    let Some(place) = Place::new() else { return };
    let before = place.links();
    let daemon = place.start();
    place.vsctl("add-br br0");
    let pid = daemon.pid();
    let made = ["db.sock".into(), format!("ovs-vswitchd.{pid}.ctl"), "ovs-vswitchd.pid".into()];
    assert!(made.iter().all(|f| place.in_rundir().contains(f)), "{:?}", place.in_rundir());
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(place.in_rundir(), [""; 0]);
    assert_eq!(place.links(), before);

    // The same again by command, which returns when all is undone.
    let daemon = place.start();
    assert_eq!(place.vsctl("list-br"), "br0\n");
    assert!(place.links().contains(&"br0".into()));
    assert!(place.appctl(&["exit"]).status.success());
    assert_eq!(place.links(), before);
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(place.in_rundir(), [""; 0]);
}

#[test]
fn a_killed_daemon_is_succeeded() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    place.vsctl("add-br br0");
    daemon.signal("KILL");
    // At once, perhaps before the dead one has let go of everything.
    let successor = place.vswitchd(&["--detach", "-vconsole:warn"]).output().unwrap();
    assert!(successor.status.success(), "{successor:?}");
    assert_eq!(daemon.wait(), None);
    assert!(place.appctl(&["exit"]).status.success());

    let daemon = place.start();
    daemon.signal("KILL");
    assert_eq!(daemon.wait(), None);
    assert!(place.in_rundir().contains(&"db.sock".into()));
    let daemon = place.start();
    assert_eq!(place.vsctl("list-br"), "br0\n");
    daemon.signal("INT");
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(place.in_rundir(), [""; 0], "the dead one's sockets are gone, too");
}

#[test]
fn a_busy_run_directory_names_its_owner() {
    let Some(place) = Place::new() else { return };
    let daemon = place.start();
    place.vsctl("add-br br0");
    for args in [&[][..], &["--detach"]] {
        let out = place.vswitchd(args).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(text(&out.stderr).contains(&format!("process {},", daemon.pid())), "{out:?}");
    }
    let out = place.vswitchd(&["--rundir"]).arg(place.dir.path().join("other")).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(text(&out.stderr).contains(&format!("in use by process {}:", daemon.pid())), "{out:?}");
    assert_eq!(place.vsctl("list-br"), "br0\n", "the first goes on");
}

#[test]
fn detach_returns_when_ready() {
    let Some(place) = Place::new() else { return };
    let log = place.dir.path().join("log/x.log");
    let out = place
        .ovs_vswitchd(&["--detach", "--pidfile", "--mlockall", "--no-chdir", "--monitor", "unix:/nowhere"])
        .arg(format!("--log-file={}", log.display()))
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    // No waiting: it is ready.
    place.vsctl("add-br br0");
    let pid = std::fs::read_to_string(place.rundir().join("ovs-vswitchd.pid")).unwrap();
    let pid = pid.trim();
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "ovs-vswitchd\n");
    let session = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let field = |n: usize| session.rsplit(") ").next().unwrap().split(' ').nth(n).map(str::to_owned);
    assert_eq!(field(3).as_deref(), Some(pid), "a session of its own: {session}");
    for fd in ["0", "1", "2"] {
        let to = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(to, Path::new("/dev/null"), "fd {fd}");
    }
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("ignoring unix:/nowhere"), "{said}");
    // --mlockall; a container may not be let to
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let locked = status.lines().find_map(|l| l.strip_prefix("VmLck:")).unwrap().trim() != "0 kB";
    assert_eq!(locked, !said.contains("mlockall failed"), "{status}{said}");
    assert!(place.appctl(&["exit"]).status.success());
    wait_for("its end", || (!alive(pid)).then_some(()));
}

#[test]
fn a_garbage_database_is_refused() {
    let Some(place) = Place::new() else { return };
    std::fs::write(place.db(), b"this is no database").unwrap();
    for args in [&[][..], &["--detach"]] {
        let out = place.vswitchd(args).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(text(&out.stderr).contains("conf.db"), "{out:?}");
        assert_eq!(std::fs::read(place.db()).unwrap(), b"this is no database");
        assert_eq!(place.in_rundir(), [""; 0]);
    }
}

#[test]
fn missing_capabilities_are_named() {
    let Some(place) = Place::new() else { return };
    for (dropped, name) in
        [("-net_admin", "CAP_NET_ADMIN"), ("-net_raw", "CAP_NET_RAW"), ("-sys_admin", "CAP_SYS_ADMIN")]
    {
        let mut c = place.cmd("setpriv");
        c.args(["--bounding-set", dropped, "--inh-caps", dropped, BINARY, "vswitchd", "--db"])
            .arg(place.db());
        let out = c.output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        let said = text(&out.stderr);
        assert!(said.contains(&format!("missing {name} (to ")) && said.contains("setcap"), "{said}");
        assert!(!place.db().exists());
    }
}

#[test]
fn signals_during_the_start_and_a_second_one() {
    let Some(place) = Place::new() else { return };
    let before = place.links();
    for _ in 0..10 {
        let daemon = Running(place.vswitchd(&["-vconsole:warn"]).spawn().unwrap());
        daemon.signal("TERM");
        daemon.signal("TERM");
        // Before the handler stands it kills (None), afterwards it ends in good order.
        let code = daemon.wait();
        assert!(matches!(code, None | Some(0)), "{code:?}");
        if code == Some(0) {
            assert_eq!(place.in_rundir(), [""; 0]);
        }
        assert_eq!(place.links(), before);
    }
}

#[test]
fn up_sets_up_and_undoes() {
    let Some(place) = Place::new() else { return };
    let ip =
        |line: &str| assert!(place.cmd("ip").args(line.split(' ')).status().unwrap().success(), "{line}");
    ip("link add docker0 type bridge");
    ip("link set docker0 up");
    ip("link set lo up");
    let before = place.links();
    let rundir = place.dir.path().join("up");
    let up = |device: &str| {
        let mut c = place.cmd(BINARY);
        c.args(["up", device, "--remote", "127.0.0.2,127.0.0.3", "-vsyslog:off", "--rundir"]).arg(&rundir);
        c.stdout(Stdio::piped()).stderr(Stdio::piped());
        c
    };

    let out = up("nosuch0").output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(text(&out.stderr).contains("nosuch0"), "{out:?}");
    assert_eq!(place.links(), before);
    assert!(!rundir.exists());

    // What a stopped switch keeps there is no business of ours
    std::fs::create_dir(&rundir).unwrap();
    let kept = rundir.join("conf.db");
    std::fs::write(&kept, "precious").unwrap();
    let mut running = Running(up("docker0").spawn().unwrap());
    let mut said = String::new();
    let out = running.0.stdout.as_mut().unwrap();
    while !said.contains("Ctrl-C") {
        let mut buffer = [0; 1024];
        let n = out.read(&mut buffer).unwrap();
        assert!(n > 0, "it ended: {said}");
        said += &text(&buffer[..n]);
    }
    assert!(said.contains("docker0 is joined to 127.0.0.2, 127.0.0.3 by bridge br0"), "{said}");
    let db = format!("--db=unix:{}", rundir.join("db.sock").display());
    let ports = text(&place.tool("ovs-vsctl", &[&db, "list-ports", "br0"]).stdout);
    assert_eq!(ports, "docker0\ngre0\ngre1\n");
    let second = up("docker0").output().unwrap();
    assert!(text(&second.stderr).contains(&format!("process {},", running.pid())), "{second:?}");

    running.signal("INT");
    assert_eq!(running.wait(), Some(0));
    assert_eq!(place.links(), before);
    let left: Vec<PathBuf> = std::fs::read_dir(&rundir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [kept.as_path()]);
    assert_eq!(std::fs::read(&kept).unwrap(), b"precious");
}

#[test]
fn attach_and_detach_with_and_without_a_daemon() {
    let Some(place) = Place::new() else { return };
    let ip = |line: &str| text(&place.cmd("ip").args(line.split(' ')).output().unwrap().stdout);
    ip("link add docker0 type bridge");
    ip("addr add 10.0.11.1/16 dev docker0");
    ip("link set docker0 up");
    let has = |device: &str| ip(&format!("-o addr show dev {device}")).contains(" 10.0.11.1/16 ");
    let run =
        |args: &[&str]| place.cmd(BINARY).args(args).env("OVS_DBDIR", place.dir.path()).output().unwrap();

    let out = run(&["attach", "docker0"]);
    assert!(!out.status.success() && text(&out.stderr).contains("no switch runs in"), "{out:?}");
    let daemon = place.start();
    assert!(!run(&["attach", "nosuch0"]).status.success());
    // A bridge that is made now refuses the IPv6 address
    ip("addr add fd00:11::1/64 dev docker0");
    let sysctl = |line: &str| assert!(place.cmd("sh").args(["-c", line]).status().unwrap().success());
    sysctl("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    let out = run(&["attach", "docker0"]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(text(&out.stderr).contains("cannot move the addresses of docker0 to br0: "), "{out:?}");
    sysctl("echo 0 > /proc/sys/net/ipv6/conf/br0/disable_ipv6");
    for _ in 0..2 {
        let out = run(&["attach", "docker0"]);
        assert!(out.status.success(), "{out:?}");
        assert!(has("br0") && !has("docker0"));
    }
    assert!(run(&["detach", "docker0"]).status.success());
    assert!(has("docker0") && !has("br0"));

    assert!(run(&["attach", "docker0"]).status.success());
    daemon.signal("KILL");
    daemon.wait();
    assert!(!has("docker0"), "nobody was left to give it back");
    assert!(run(&["detach", "docker0"]).status.success());
    assert!(has("docker0"));
    assert!(text(&run(&["detach", "docker0"]).stdout).contains("not attached"));
}

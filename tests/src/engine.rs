//! A real Docker Engine on a host namespace, and containers in it.
//!
//! Each engine runs in its own mount and pid namespace beside the host's network namespace: its mounts, its containerd
//! and its containers cannot meet another engine's, and all of them end with its first process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli::{self, Out, poll};
use crate::netns::{self, Netns};

/// Options of dockerd that give it one /24 of the shared /16.
pub fn subnet(n: u8) -> [String; 4] {
    ["--bip".into(), format!("10.0.{n}.1/16"), "--fixed-cidr".into(), format!("10.0.{n}.0/24")]
}

/// A running Docker Engine.
#[derive(Debug)]
pub struct Engine {
    outer: Child,
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Engine {
    /// Starts dockerd in `ns` with `args` added, waits until its API answers, and loads the image `busybox`.
    #[track_caller]
    pub fn start(ns: &Netns, args: &[String]) -> Engine {
        let dir = tempfile::Builder::new().prefix("up-engine-").tempdir().expect("a temporary directory");
        let d = dir.path().to_str().expect("a path in UTF-8").to_owned();
        let cgroup = format!("underpass-{}", ns.name());
        let log = std::fs::File::create(dir.path().join("log")).expect("the engine's log");
        let outer = cli::bound("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "nsenter"])
            .args([&format!("--net={}", ns.path()), "--", "sh", "-c", INIT, "dockerd"])
            .args(["--data-root", &format!("{d}/data"), "--exec-root", &format!("{d}/exec")])
            .args(["-p", &format!("{d}/pid"), "-H", &format!("unix://{d}/sock")])
            // vfs works on whatever file system the tests run on; the image is one small file
            .args(["--storage-driver", "vfs", "--cgroup-parent", &format!("/{cgroup}")])
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the engine's log"))
            .stderr(log)
            .spawn()
            .expect("unshare and dockerd");
        let mut engine = Engine { outer, dir, cgroup };
        poll("the Docker Engine", || {
            if let Ok(Some(status)) = engine.outer.try_wait() {
                panic!("dockerd ended with {status}\n{}", engine.log());
            }
            engine.try_docker(&["version"]).success().then_some(())
        });
        engine.load_image();
        engine
    }

    fn load_image(&self) {
        let script = "mkdir -p bin && cp \"$(command -v busybox)\" bin/busybox
            for a in sh nc ping ip sleep cat echo wget httpd; do ln -s busybox bin/$a; done
            tar -c bin | docker -H unix://$PWD/../sock import - busybox";
        let dir = self.dir.path().join("image");
        std::fs::create_dir(&dir).expect("the image's directory");
        cli::run(Command::new("sh").args(["-ec", script]).current_dir(dir));
    }

    /// The stock client, whatever its status.
    #[track_caller]
    pub fn try_docker(&self, args: &[&str]) -> Out {
        cli::output(Command::new("timeout").args(["30", "docker", "-H", &self.socket()]).args(args))
    }

    /// The stock client; must succeed.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        self.try_docker(args).ok()
    }

    /// Starts a container that only waits; `options` are `docker run`'s.
    #[track_caller]
    pub fn container(&self, options: &[&str]) -> Container {
        let mut args = vec!["run", "-d", "--stop-signal", "KILL"];
        args.extend(options);
        args.extend(["busybox", "/bin/sleep", "100000"]);
        let id = self.docker(&args);
        let facts =
            "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.MacAddress}} {{.NetworkSettings.SandboxKey}}";
        let facts = self.docker(&["inspect", "-f", facts, &id]);
        let facts: Vec<&str> = facts.split(' ').collect();
        let [ip, mac, sandbox] = facts[..] else { panic!("docker inspect said {facts:?}") };
        Container {
            id,
            ip: ip.to_owned(),
            mac: mac.to_owned(),
            socket: self.socket(),
            netns: format!("/proc/{}/root{sandbox}", self.pid().expect("dockerd runs")),
        }
    }

    fn socket(&self) -> String {
        format!("unix://{}/sock", self.dir.path().display())
    }

    /// What dockerd wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// dockerd's pid as seen from here: the one child of `unshare`.
    fn pid(&self) -> Option<u32> {
        let unshare = self.outer.id();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }
}

/// First process of the engine's namespaces. A machine that has no cgroup mounted gets one here, seen by the engine alone.
const INIT: &str = r#"
    if [ -z "$(ls /sys/fs/cgroup 2>/dev/null)" ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; fi
    exec dockerd "$@"
"#;

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = Command::new("kill").arg(pid.to_string()).output();
            cli::wait(&mut self.outer, Duration::from_secs(5));
        }
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        remove_cgroups(&self.cgroup);
    }
}

/// Removes the engine's cgroups; a hierarchy each in version 1. The kernel needs a moment after the last process.
fn remove_cgroups(name: &str) {
    for _ in 0..50 {
        let found = Command::new("find")
            .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("*/{name}*")])
            .output()
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
            .unwrap_or_default();
        let dirs: Vec<PathBuf> = found.lines().map(PathBuf::from).collect();
        if dirs.iter().filter(|d| std::fs::remove_dir(d).is_err()).count() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A container. It ends with its engine.
#[derive(Debug)]
pub struct Container {
    /// The id that Docker gave it.
    pub id: String,
    /// Its IPv4 address.
    pub ip: String,
    /// Its Ethernet address.
    pub mac: String,
    socket: String,
    netns: String,
}

impl Container {
    /// `docker exec`, whatever its status.
    #[track_caller]
    pub fn exec(&self, argv: &[&str]) -> Out {
        cli::output(&mut self.docker_exec(&[], argv))
    }

    /// The command for [`Container::exec`], with options of `docker exec`.
    pub fn docker_exec(&self, options: &[&str], argv: &[&str]) -> Command {
        let mut c = cli::bound("timeout");
        c.args(["60", "docker", "-H", &self.socket, "exec"]).args(options).arg(&self.id).args(argv);
        c
    }

    /// A program of the machine (not of the image) in the container's network namespace.
    pub fn cmd(&self, program: &str) -> Command {
        netns::enter(&self.netns, program)
    }

    /// Like [`Container::cmd`], and killed when the test's thread ends.
    pub fn bound(&self, program: &str) -> Command {
        let mut c = cli::bound("nsenter");
        c.args([&format!("--net={}", self.netns), "--", program]);
        c
    }

    /// A shell script of the machine in the container's network namespace; every line must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        cli::run(self.cmd("sh").args(["-ec", script]))
    }

    /// The file of its network namespace.
    pub fn netns(&self) -> &Path {
        Path::new(&self.netns)
    }
}

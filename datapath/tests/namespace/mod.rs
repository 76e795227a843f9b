//! Network namespaces for tests.
//!
//! A test runs itself again in a fresh namespace by `unshare`, so nothing is left when it ends, however it ends. Other
//! hosts are namespaces held open by a child. Without root the tests say so and pass.
#![allow(dead_code, reason = "each test program uses its part")]

use std::env;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use datapath::port::{LocalPort, RxFrame, Sent};
use datapath::slab::{SLOTS, Slab};
use datapath::txq::TxQueue;
use datapath::vnet::VnetHdr;

/// How long anything may take that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `body` in a fresh network namespace: this test, and no other, again in a process of its own.
pub fn in_namespace(test: &str, body: fn()) {
    const MARK: &str = "UNDERPASS_TEST_NAMESPACE";
    if env::var_os(MARK).is_some() {
        sh("ip link set dev lo up");
        return body();
    }
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    if id != b"0\n" {
        eprintln!("{test}: skipped, needs root");
        return;
    }
    let status = Command::new("timeout")
        .args(["120", "unshare", "--net", "--mount"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace");
}

pub fn sh(command: &str) {
    let status = Command::new("sh").args(["-ec", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// Another host: a network namespace that lives as long as this.
#[derive(Debug)]
pub struct Host(Child);

impl Host {
    pub fn new() -> Host {
        let child = Command::new("unshare").args(["--net", "sleep", "120"]).spawn().unwrap();
        let host = Host(child);
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        wait_for("the namespace", || {
            std::fs::read_link(format!("/proc/{}/ns/net", host.0.id())).is_ok_and(|theirs| theirs != ours)
        });
        host.sh("ip link set dev lo up");
        host
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn command(&self, command: &str) -> Command {
        let mut c = Command::new("nsenter");
        c.args(["--net", "--target", &self.pid().to_string(), "sh", "-ec", command]);
        c
    }

    /// Runs `open` in its namespace; a socket that it opens stays there.
    pub fn enter<T: Send + 'static>(&self, open: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        let entered = thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            open()
        });
        entered.join().unwrap()
    }

    pub fn sh(&self, command: &str) {
        assert!(self.command(command).status().unwrap().success(), "{command}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the device sends: the kernel sets that going on its own time after the carrier has come.
pub fn wait_up(device: &str) {
    wait_for("the carrier", || {
        let out = Command::new("ip").args(["link", "show", "dev", device]).output().unwrap().stdout;
        String::from_utf8_lossy(&out).contains("state UP")
    });
}

/// A veth pair, both ends here and up.
pub fn veth(a: &str, b: &str) {
    sh(&format!(
        "ip link add name {a} type veth peer name {b}
         sysctl -qw net.ipv6.conf.{a}.disable_ipv6=1 net.ipv6.conf.{b}.disable_ipv6=1
         ip link set dev {a} up; ip link set dev {b} up"
    ));
    wait_up(a);
    wait_up(b);
}

/// Sends one frame made of `parts`.
pub fn send(port: &LocalPort, vnet: VnetHdr, parts: &[&[u8]]) -> Sent {
    let (mut slab, mut queue, mut pieces) = (Slab::new(), TxQueue::new(), Vec::new());
    for part in parts {
        let piece = slab.alloc(part.len()).unwrap();
        slab.get_mut(piece).copy_from_slice(part);
        pieces.push(piece);
    }
    queue.push(vnet, &pieces);
    port.tx(&slab, &queue)
}

/// What waits on the port now.
pub fn drain(port: &LocalPort) -> Vec<(VnetHdr, Vec<u8>)> {
    let (mut slab, mut frames, mut all) = (Slab::new(), Vec::<RxFrame>::new(), Vec::new());
    while port.rx(&mut slab, SLOTS, &mut frames).unwrap() > 0 {
        all.extend(frames.iter().map(|f| (f.vnet, slab.get(f.data).to_vec())));
    }
    all
}

/// Waits for one frame.
pub fn recv(port: &LocalPort) -> (VnetHdr, Vec<u8>) {
    let mut got = Vec::new();
    wait_for("a frame", || {
        got = drain(port);
        !got.is_empty()
    });
    assert_eq!(got.len(), 1, "{got:x?}");
    got.remove(0)
}

//! Hosts for tests: a network namespace for each, made and held by the test's own thread.

use std::future::Future;
use std::process::Command;
use std::time::{Duration, Instant};

use datapath::port::LocalPort;
use datapath::slab::Slab;
use datapath::txq::TxQueue;
use datapath::vnet::VnetHdr;
use nix::sched::{CloneFlags, unshare};

/// Runs a test on a host of its own. Needs root.
pub fn in_namespace(test: impl Future<Output = ()>) {
    unshare(CloneFlags::CLONE_NEWNET).expect("tests of devices must run as root");
    ip("link set lo up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// Runs `ip` for each line, and returns what the last one says.
pub fn ip(lines: &str) -> String {
    let lines = lines.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.fold(String::new(), |_, line| sh(&format!("ip {line}")))
}

/// Runs a command, which must succeed, and returns what it says.
pub fn sh(command: &str) -> String {
    let done = Command::new("sh").arg("-c").arg(command).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A broadcast frame sent by one port arrives at the other.
pub async fn pass(from: &LocalPort, to: &LocalPort) {
    let mut frame = vec![0xff; 6];
    frame.extend([0x02, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend([0x5a; 60]);
    let mut slab = Slab::new();
    let piece = slab.alloc(frame.len()).unwrap();
    slab.get_mut(piece).copy_from_slice(&frame);
    let mut queue = TxQueue::new();
    queue.push(VnetHdr::default(), &[piece]);
    let mut got = Vec::new();
    let mut inbox = Slab::new();
    eventually("the frame arrives", || {
        // Again each time: a bridge forwards only once it has noticed that its port has carrier
        assert_eq!(from.tx(&slab, &queue).ok, 1);
        to.rx(&mut inbox, 32, &mut got).unwrap();
        got.iter().any(|f| inbox.get(f.data) == frame)
    })
    .await;
}

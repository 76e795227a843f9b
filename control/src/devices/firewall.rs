//! Docker's packet filter names docker0. While a bridge has docker0's addresses, routed packets pass by the bridge
//! instead, and need the same rights: out of it, answers into it, published ports into it, and no way between it and
//! Docker's other networks.
//!
//! And docker0 must not track connections meanwhile. It floods what containers send to the bridge's address, which is on
//! none of its ports; where net.bridge.bridge-nf-call-iptables is on, as Docker has it, that flooded copy would enter the
//! connection tracker first, as one that nobody translates, and the packet that is routed would leave with the
//! container's own address.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// How long the end waits for the rules to be closed.
const LIMIT: Duration = Duration::from_secs(15);

/// A rule: the table and the chain, where in it, and what it says. `BRIDGE` and `DEVICE` stand for their names.
struct Rule {
    table: &'static str,
    chain: &'static str,
    /// At the chain's start, or at its end, after Docker's own.
    first: bool,
    says: &'static str,
}

/// Those of the FORWARD chain stand at its end, so that every rule of the operator and of Docker goes before them.
/// The two isolation chains are Docker's; where they are missing there is nothing to take part in.
const RULES: [Rule; 6] = [
    Rule { table: "raw", chain: "PREROUTING", first: false, says: "-i DEVICE -j CT --notrack" },
    Rule {
        table: "filter",
        chain: "FORWARD",
        first: false,
        says: "-o BRIDGE -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    },
    Rule {
        table: "filter",
        chain: "FORWARD",
        first: false,
        says: "-o BRIDGE -m conntrack --ctstate DNAT -j ACCEPT",
    },
    Rule { table: "filter", chain: "FORWARD", first: false, says: "-i BRIDGE -j ACCEPT" },
    Rule {
        table: "filter",
        chain: "DOCKER-ISOLATION-STAGE-1",
        first: true,
        says: "-i BRIDGE ! -o BRIDGE -j DOCKER-ISOLATION-STAGE-2",
    },
    Rule { table: "filter", chain: "DOCKER-ISOLATION-STAGE-2", first: true, says: "-o BRIDGE -j DROP" },
];

/// Changes rules one call after another, in a thread of its own: another program may hold the packet filter's lock for
/// long, and nobody else shall wait for that.
#[derive(Debug)]
pub struct Firewall {
    orders: Arc<Orders>,
    tool: Arc<dyn Tool>,
    /// From the first order on.
    worker: Option<Worker>,
}

#[derive(Debug)]
struct Worker {
    wake: SyncSender<()>,
    /// Ends with the thread.
    done: oneshot::Receiver<()>,
}

/// A device and the bridge that has its addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    device: String,
    bridge: String,
}

/// What the thread has yet to do.
#[derive(Debug, Default)]
struct Orders {
    /// The last word on each pair: whether its rules shall stand.
    pending: Mutex<BTreeMap<Pair, bool>>,
    /// Nobody wants it any more.
    abandoned: AtomicBool,
}

impl Firewall {
    /// Works with the host's `iptables` and `ip6tables`.
    pub fn new() -> Firewall {
        Firewall::with_tool(Arc::new(Iptables))
    }

    pub(crate) fn with_tool(tool: Arc<dyn Tool>) -> Firewall {
        Firewall { orders: Arc::default(), tool, worker: None }
    }

    /// Has the rules that are missing added. Idempotent; to be repeated, for Docker writes its chains anew when it
    /// starts.
    pub fn open(&mut self, device: &str, bridge: &str) {
        self.order(device, bridge, true);
    }

    /// Has the rules removed.
    pub fn close(&mut self, device: &str, bridge: &str) {
        self.order(device, bridge, false);
    }

    /// Waits until all is done that was asked for, but not for ever.
    pub async fn finish(&mut self) {
        let Some(Worker { wake, done }) = self.worker.take() else { return };
        drop(wake);
        if tokio::time::timeout(LIMIT, done).await.is_err() {
            tracing::warn!("the packet filter is locked by another program; rules for bridges stay behind");
        }
    }

    fn order(&mut self, device: &str, bridge: &str, open: bool) {
        let pair = Pair { device: device.to_owned(), bridge: bridge.to_owned() };
        self.orders.pending().insert(pair, open);
        if self.worker.is_none() {
            match self.start() {
                Ok(worker) => self.worker = Some(worker),
                Err(e) => tracing::warn!("cannot change the packet filter: {e}"),
            }
        }
        if let Some(worker) = &self.worker {
            // Full: it has not yet looked since it was last woken, and will find this too
            let _ = worker.wake.try_send(());
        }
    }

    fn start(&self) -> io::Result<Worker> {
        let (wake, wakes) = sync_channel(1);
        let (at_end, done) = oneshot::channel();
        let (orders, tool) = (self.orders.clone(), self.tool.clone());
        std::thread::Builder::new().name("firewall".into()).spawn(move || {
            orders.work(&*tool, &wakes);
            // Nobody may listen
            let _ = at_end.send(());
        })?;
        Ok(Worker { wake, done })
    }
}

impl Default for Firewall {
    fn default() -> Firewall {
        Firewall::new()
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        self.orders.abandoned.store(true, Relaxed);
    }
}

impl Orders {
    fn pending(&self) -> MutexGuard<'_, BTreeMap<Pair, bool>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until nobody can wake it and nothing is left to do.
    fn work(&self, tool: &dyn Tool, wakes: &Receiver<()>) {
        loop {
            let more = wakes.recv().is_ok();
            let todo = std::mem::take(&mut *self.pending());
            // What is closed last could be what another pair needs
            let (open, close): (Vec<_>, Vec<_>) = todo.into_iter().partition(|(_, open)| *open);
            for (pair, open) in close.into_iter().chain(open) {
                if !self.change(tool, &pair, open) {
                    self.pending().entry(pair).or_insert(open);
                }
            }
            if !more && (self.pending().is_empty() || self.abandoned.load(Relaxed)) {
                break;
            }
        }
    }

    /// Whether there is no point in going on: something else was asked for in the meantime.
    fn is_stale(&self, pair: &Pair, open: bool) -> bool {
        self.abandoned.load(Relaxed) || self.pending().get(pair).is_some_and(|o| *o != open)
    }

    /// Brings a pair's rules to where they shall be. False: another program held the lock; try again.
    fn change(&self, tool: &dyn Tool, pair: &Pair, open: bool) -> bool {
        let mut done = true;
        for name in ["iptables", "ip6tables"] {
            for rule in &RULES {
                let call = |action: &str| match self.is_stale(pair, open) {
                    true => Err(io::ErrorKind::Interrupted.into()),
                    false => tool.run(name, &rule.words(action, pair)),
                };
                let changed = if open { add(rule, call) } else { remove(call) };
                match changed.map_err(|e| (e.kind(), e)) {
                    Ok(()) => {}
                    Err((io::ErrorKind::Interrupted, _)) => return true,
                    Err((io::ErrorKind::NotFound, _)) => {
                        tracing::debug!("{name} is not installed; the host's packet filter is left as it is");
                        break;
                    }
                    Err((kind, e)) => {
                        tracing::warn!("{name}: {e}");
                        done &= kind != io::ErrorKind::WouldBlock;
                        break;
                    }
                }
            }
        }
        done
    }
}

fn add(rule: &Rule, call: impl Fn(&str) -> io::Result<bool>) -> io::Result<()> {
    if call("-C")? {
        return Ok(());
    }
    // Refused where the chain or the conntrack match is missing: then nothing filters by it either
    call(if rule.first { "-I" } else { "-A" }).map(drop)
}

fn remove(call: impl Fn(&str) -> io::Result<bool>) -> io::Result<()> {
    // As often as it is there: an earlier run may have left some
    for _ in 0..8 {
        if !call("-D")? {
            break;
        }
    }
    Ok(())
}

impl Rule {
    fn words(&self, action: &str, pair: &Pair) -> Vec<String> {
        let named = |word| match word {
            "BRIDGE" => pair.bridge.clone(),
            "DEVICE" => pair.device.clone(),
            word => word.to_owned(),
        };
        let place = [action, self.chain, "-t", self.table].into_iter().map(str::to_owned);
        place.chain(self.says.split(' ').map(named)).collect()
    }
}

/// What rules are changed with.
pub(crate) trait Tool: Debug + Send + Sync {
    /// Whether the tool `name` took it. `WouldBlock`: another program holds the lock.
    fn run(&self, name: &str, words: &[String]) -> io::Result<bool>;
}

#[derive(Debug)]
struct Iptables;

impl Tool for Iptables {
    fn run(&self, name: &str, words: &[String]) -> io::Result<bool> {
        // -w: another program may be at it
        let done = Command::new(name)
            .args(["-w", "5"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()?;
        // Not the same as "no": the rule may be there
        if !done.status.success() && String::from_utf8_lossy(&done.stderr).contains("xtables lock") {
            let why = "another program holds the lock of the packet filter; will try again";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
        }
        Ok(done.status.success())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::devices::testing::eventually;

    /// A packet filter whose lock a test holds.
    #[derive(Debug, Default)]
    pub(crate) struct Held {
        pub(crate) held: AtomicBool,
        running: AtomicBool,
        calls: Mutex<Vec<String>>,
    }

    impl Tool for Held {
        fn run(&self, name: &str, words: &[String]) -> io::Result<bool> {
            let overlaps = self.running.swap(true, Relaxed);
            while self.held.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.running.store(false, Relaxed);
            let text = if overlaps { "two at once".to_owned() } else { format!("{name} {}", words[0]) };
            self.calls.lock().unwrap().push(text);
            Ok(false)
        }
    }

    fn block_on(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn closing_follows_an_opening_that_it_cuts_short() {
        block_on(async {
            let tool = Arc::new(Held { held: true.into(), ..Held::default() });
            let mut firewall = Firewall::with_tool(tool.clone());
            firewall.open("docker0", "br0");
            eventually("a rule is looked for", || tool.running.load(Relaxed)).await;
            for _ in 0..3 {
                firewall.open("docker0", "br0");
            }
            firewall.close("docker0", "br0");
            tool.held.store(false, Relaxed);
            firewall.finish().await;
            let calls = tool.calls.lock().unwrap();
            let (first, rest) = calls.split_first().unwrap();
            assert_eq!(first, "iptables -C");
            assert_eq!(rest[..RULES.len()], ["iptables -D"; RULES.len()]);
            assert_eq!(rest[RULES.len()..], ["ip6tables -D"; RULES.len()]);
        });
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let tool = Arc::new(Held { held: true.into(), ..Held::default() });
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut firewall = Firewall::with_tool(tool.clone());
            firewall.close("docker0", "br0");
            firewall.finish().await;
        });
        tool.held.store(false, Relaxed);
        block_on(eventually("the thread ends", || Arc::strong_count(&tool) == 1));
        assert!(tool.calls.lock().unwrap().len() <= 1, "it goes no further");
    }

    /// The first calls find the lock held.
    #[derive(Debug, Default)]
    struct Busy(Mutex<Vec<String>>);

    impl Tool for Busy {
        fn run(&self, name: &str, words: &[String]) -> io::Result<bool> {
            let mut calls = self.0.lock().unwrap();
            calls.push(format!("{name} {}", words[0]));
            if calls.len() <= 2 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(false) }
        }
    }

    #[test]
    fn what_the_lock_prevented_is_done_again() {
        block_on(async {
            let tool = Arc::new(Busy::default());
            let mut firewall = Firewall::with_tool(tool.clone());
            firewall.close("docker0", "br0");
            firewall.finish().await;
            let calls = tool.0.lock().unwrap();
            assert_eq!(calls[..2], ["iptables -D", "ip6tables -D"]);
            assert_eq!(calls.len(), 2 + 2 * RULES.len());
        });
    }
}

//! Docker's packet filter names docker0. While a bridge has docker0's addresses, routed packets pass by the bridge
//! instead, and need the same rights: out of it, answers into it, published ports into it, and no way between it and
//! Docker's other networks.
//!
//! And docker0 must not track connections meanwhile. It floods what containers send to the bridge's address, which is on
//! none of its ports; where net.bridge.bridge-nf-call-iptables is on, as Docker has it, that flooded copy would enter the
//! connection tracker first, as one that nobody translates, and the packet that is routed would leave with the
//! container's own address.

use std::io;
use std::process::{Command, Stdio};

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

/// Adds the rules that are missing. Idempotent; to be repeated, for Docker writes its chains anew when it starts.
pub async fn open(device: &str, bridge: &str) {
    each(device, bridge, |tool, rule, words| {
        if run(tool, "-C", rule, words)? {
            return Ok(());
        }
        let action = if rule.first { "-I" } else { "-A" };
        // Refused where the chain or the conntrack match is missing: then nothing filters by it either
        run(tool, action, rule, words).map(drop)
    })
    .await;
}

/// Removes the rules.
pub async fn close(device: &str, bridge: &str) {
    each(device, bridge, |tool, rule, words| {
        // As often as they are there: an earlier run may have left some
        for _ in 0..8 {
            if !run(tool, "-D", rule, words)? {
                break;
            }
        }
        Ok(())
    })
    .await;
}

async fn each(device: &str, bridge: &str, act: fn(&str, &Rule, &[String]) -> io::Result<()>) {
    let (device, bridge) = (device.to_owned(), bridge.to_owned());
    let all = tokio::task::spawn_blocking(move || {
        for tool in ["iptables", "ip6tables"] {
            for rule in &RULES {
                let named = |word| match word {
                    "BRIDGE" => bridge.clone(),
                    "DEVICE" => device.clone(),
                    word => word.to_owned(),
                };
                let words: Vec<String> = rule.says.split(' ').map(named).collect();
                match act(tool, rule, &words) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        tracing::debug!("{tool} is not installed; the host's packet filter is left as it is");
                        break;
                    }
                    Err(e) => tracing::warn!("{tool}: {e}"),
                }
            }
        }
    });
    if let Err(e) = all.await {
        tracing::warn!("cannot change the packet filter: {e}");
    }
}

/// Whether the tool took it.
fn run(tool: &str, action: &str, rule: &Rule, words: &[String]) -> io::Result<bool> {
    // -w: another program may be at it
    let done = Command::new(tool)
        .args(["-w", "5", "-t", rule.table, action, rule.chain])
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(done.success())
}

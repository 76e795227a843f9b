//! TCP throughput: iperf3 from one container to the other.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::interrupted;
use crate::noise::{Moment, Usage};
use crate::process::{Job, output_within};
use crate::topo::Topology;

const PORT: &str = "5201";

/// One iperf3 run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tcp {
    /// Goodput at the receiver, Gb/s.
    pub gbps: f64,
    /// Bytes received, in 10^9.
    pub gigabytes: f64,
    /// Segments that the sender sent again.
    pub retransmits: u64,
    /// What it took.
    pub usage: Usage,
}

impl Tcp {
    /// CPU seconds of the switch processes for each GB; None for peers in the kernel.
    pub fn switch_cpu_per_gb(&self) -> Option<f64> {
        (self.usage.switches > 0.0).then(|| self.usage.switches / self.gigabytes)
    }

    /// CPU seconds of the whole machine, without what other processes used, for each GB.
    pub fn machine_cpu_per_gb(&self) -> f64 {
        (self.usage.busy - self.usage.others) / self.gigabytes
    }
}

/// Option of iperf3: both directions at once, which [`tcp`] adds up.
pub const BOTH_WAYS: &str = "--bidir";

/// Runs iperf3 for `seconds` with more options; `switches` are the processes whose CPU time counts.
pub fn tcp(hosts: &Topology, seconds: u32, options: &[&str], switches: &[u32]) -> Result<Tcp> {
    let dir = tempfile::tempdir()?;
    let mut server = Command::new("iperf3");
    server.args(["-s", "-p", PORT]);
    let _server = hosts.b.container.enter(|| Job::start(&mut server, &dir.path().join("log")))?;

    let time = seconds.to_string();
    for _ in 0..40 {
        let before = Moment::now(switches);
        let mut client = Command::new("iperf3");
        client.args(["-c", hosts.b.container_ip, "-p", PORT, "-J", "-t", &time]).args(options);
        let limit = Duration::from_secs(u64::from(seconds) + 20);
        let json = hosts.a.container.enter(|| output_within(&mut client, limit))?;
        let usage = before.until(&Moment::now(switches));
        match parse(&json, usage) {
            // the server needs a moment to listen
            Err(e) if e.to_string().contains("Connection refused") && !interrupted() => {
                sleep(Duration::from_millis(50))
            }
            result => return result,
        }
    }
    bail!("the iperf3 server never listened")
}

fn parse(json: &str, usage: Usage) -> Result<Tcp> {
    let report: Value = serde_json::from_str(json).context("iperf3 printed no JSON")?;
    if let Some(error) = report.get("error").and_then(Value::as_str) {
        bail!("iperf3: {error}");
    }
    let number = |at: &str| report.pointer(at).and_then(Value::as_f64);
    let mut bytes = number("/end/sum_received/bytes").context("iperf3 reported no bytes")?;
    let mut bits = number("/end/sum_received/bits_per_second").context("iperf3 reported no rate")?;
    if bytes == 0.0 {
        bail!("iperf3: nothing arrived");
    }
    let back = |what: &str| number(&format!("/end/sum_received_bidir_reverse/{what}")).unwrap_or(0.0);
    bytes += back("bytes");
    bits += back("bits_per_second");
    Ok(Tcp {
        gbps: bits / 1e9,
        gigabytes: bytes / 1e9,
        retransmits: number("/end/sum_sent/retransmits").unwrap_or(0.0) as u64,
        usage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_receivers_side() {
        let json = r#"{"end": {"sum_sent": {"bytes": 2500000000, "retransmits": 7},
                               "sum_received": {"bytes": 2000000000, "bits_per_second": 5.5e9}}}"#;
        let usage = Usage { seconds: 3.0, busy: 5.0, steal: 0.0, others: 1.0, switches: 3.0 };
        let tcp = parse(json, usage).unwrap();
        assert_eq!((tcp.gbps, tcp.gigabytes, tcp.retransmits), (5.5, 2.0, 7));
        assert_eq!((tcp.switch_cpu_per_gb(), tcp.machine_cpu_per_gb()), (Some(1.5), 2.0));
    }

    #[test]
    fn adds_both_directions_up() {
        let json = r#"{"end": {"sum_received": {"bytes": 2000000000, "bits_per_second": 5.5e9},
                               "sum_received_bidir_reverse": {"bytes": 1000000000, "bits_per_second": 2e9}}}"#;
        let tcp = parse(json, Usage::default()).unwrap();
        assert_eq!((tcp.gbps, tcp.gigabytes), (7.5, 3.0));
    }

    #[test]
    fn passes_errors_on() {
        let error = |json| parse(json, Usage::default()).unwrap_err().to_string();
        assert_eq!(error(r#"{"error": "unable to connect"}"#), "iperf3: unable to connect");
        assert!(error("").contains("no JSON"));
        assert!(error("{}").contains("no bytes"));
        assert!(
            error(r#"{"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}"#)
                .contains("nothing arrived")
        );
    }
}

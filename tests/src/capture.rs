//! What is on the wire: tcpdump into a file, tshark's judgement of it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli;
use crate::topology::Place;

/// tshark preferences that have every checksum verified.
const CHECK: [&str; 5] = [
    "-oip.check_checksum:TRUE",
    "-otcp.check_checksum:TRUE",
    "-oudp.check_checksum:TRUE",
    "-oip.defragment:TRUE",
    "-otcp.analyze_sequence_numbers:FALSE",
];

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    dir: tempfile::TempDir,
}

impl Capture {
    /// Starts to capture `filter` (tcpdump's language) on `dev`; returns when the capture has begun.
    #[track_caller]
    pub fn start(at: &dyn Place, dev: &str, filter: &str) -> Capture {
        let dir = tempfile::Builder::new().prefix("up-capture-").tempdir().expect("a temporary directory");
        let mut tcpdump = at
            .bound("tcpdump")
            .args(["-i", dev, "--immediate-mode", "-U", "-Z", "root", "-s", "0", "-B", "32768", "-w"])
            .arg(dir.path().join("pcap"))
            .args(filter.split_whitespace())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump");
        let mut said = String::new();
        let mut stderr = BufReader::new(tcpdump.stderr.take().expect("its standard error"));
        while !said.contains("listening on") {
            assert!(stderr.read_line(&mut said).expect("its standard error") > 0, "tcpdump: {said}");
        }
        // it must not meet a closed pipe when it prints its totals
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Capture { tcpdump, dir }
    }

    /// Ends the capture.
    #[track_caller]
    pub fn stop(mut self) -> Packets {
        cli::signal(self.tcpdump.id(), "INT");
        cli::wait(&mut self.tcpdump, Duration::from_secs(10)).expect("tcpdump ends");
        Packets { file: self.dir.path().join("pcap"), _dir: self.dir }
    }
}

/// Captured packets.
#[derive(Debug)]
pub struct Packets {
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Packets {
    /// How many match a filter in tcpdump's language, which looks at the outer packet only.
    #[track_caller]
    pub fn outer(&self, filter: &str) -> usize {
        let out = cli::run(Command::new("tcpdump").arg("-nr").arg(&self.file).arg(filter));
        out.lines().filter(|l| !l.is_empty()).count()
    }

    /// tshark's lines for the packets that a display filter selects, with checksums verified.
    #[track_caller]
    pub fn tshark(&self, filter: &str, args: &[&str]) -> Vec<String> {
        let mut c = Command::new("tshark");
        c.arg("-nr").arg(&self.file).args(CHECK).args(["-Y", filter]).args(args);
        cli::run(&mut c).lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
    }

    /// How many packets a display filter selects.
    #[track_caller]
    pub fn count(&self, filter: &str) -> usize {
        self.tshark(filter, &[]).len()
    }

    /// Asserts what every capture of the underlay must show: some GRE, no outer fragment, nothing longer than the MTU,
    /// no bad checksum in any layer, nothing malformed.
    #[track_caller]
    pub fn assert_clean(&self, mtu: u32) {
        assert!(self.outer("ip proto 47 or ip6 proto 47") > 0, "no GRE packet captured");
        assert_eq!(self.outer("ip[6:2] & 0x3fff != 0 or ip6 proto 44"), 0, "outer fragments");
        assert_eq!(self.outer(&format!("ip[2:2] > {mtu} or ip6[4:2] + 40 > {mtu}")), 0, "longer than {mtu}");
        // inside an ICMP error a quoted packet is cut short: its checksum cannot be right
        let bad = "(ip.checksum.status == 0 or tcp.checksum.status == 0 or udp.checksum.status == 0 \
                    or icmp.checksum.status == 0 or icmpv6.checksum.status == 0) \
                   and not icmp.type == 3 and not icmpv6.type == 2";
        let bad = self.tshark(bad, &[]);
        assert!(bad.is_empty(), "bad checksums:\n{}", bad[..bad.len().min(10)].join("\n"));
        let malformed = self.tshark("_ws.malformed", &[]);
        assert!(malformed.is_empty(), "malformed:\n{}", malformed[..malformed.len().min(10)].join("\n"));
    }
}

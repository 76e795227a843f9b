//! What is on the wire: tcpdump into a file, tshark's judgement of it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli;
use crate::topology::Place;

/// tshark preferences that have every checksum verified, and no payload guessed at: it would find it malformed.
const CHECK: [&str; 7] = [
    "-dtcp.port==1-65535,data",
    "-dudp.port==1-65535,data",
    "-oip.check_checksum:TRUE",
    "-otcp.check_checksum:TRUE",
    "-oudp.check_checksum:TRUE",
    "-oip.defragment:TRUE",
    "-otcp.analyze_sequence_numbers:FALSE",
];

/// tshark's fields that say whether a checksum is right, and their values.
const CHECKSUMS: [&str; 5] = [
    "ip.checksum.status",
    "tcp.checksum.status",
    "udp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
];
const BAD: &str = "0";
const GOOD: &str = "1";

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

    /// Ends the capture, when tcpdump has written what it has been given: the file grows no more.
    #[track_caller]
    pub fn stop(mut self) -> Packets {
        let size = || self.dir.path().join("pcap").metadata().map_or(0, |m| m.len());
        let mut last = None;
        cli::poll("tcpdump to keep up", || {
            std::thread::sleep(Duration::from_millis(200));
            let now = size();
            (last.replace(now) == Some(now)).then_some(())
        });
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
        let mut fields = vec![
            "-T",
            "fields",
            "-e",
            "frame.number",
            "-e",
            "_ws.malformed",
            "-e",
            "icmp.type",
            "-e",
            "icmpv6.type",
        ];
        fields.extend(CHECKSUMS.iter().flat_map(|f| ["-e", *f]));
        let (mut good, mut bad) = (0, Vec::new());
        // Linux may send 0xffff for a TCP checksum of 0. It is the other zero of one's complement and every receiver takes
        // it (RFC 1624 section 3), but tshark calls it bad. One packet in 65,536 is like that.
        let judged = "gre and not (tcp.checksum == 0xffff and tcp.checksum_calculated == 0)";
        for line in self.tshark(judged, &fields) {
            let [frame, malformed, icmp, icmp6, sums @ ..] = &line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("tshark said {line:?}");
            };
            // an ICMP error quotes a packet and cuts it short: the checksum in there cannot be right
            let quotes = icmp.split(',').any(|t| t == "3") || icmp6.split(',').any(|t| t == "2");
            let status = |wanted| sums.iter().any(|s| s.split(',').any(|s| s == wanted));
            good += usize::from(status(GOOD));
            if !malformed.is_empty() || (status(BAD) && !quotes) {
                bad.push(frame.to_string());
            }
        }
        let shown =
            || self.tshark(&format!("frame.number in {{{}}}", bad[..bad.len().min(5)].join(",")), &["-V"]);
        assert!(
            bad.is_empty(),
            "{} packets malformed or with a bad checksum:\n{}",
            bad.len(),
            shown().join("\n")
        );
        assert!(good > 0, "no checksum was verified");
    }
}

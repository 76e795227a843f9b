//! What is on the wire: tcpdump into a file, tshark's judgement of it.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cli;
use crate::keys::{self, Keys};
use crate::pcap::{Packet, Reader, Sequences};
use crate::topology::Place;

/// tshark preferences that have every checksum verified, and no payload guessed at: it would find it malformed. UDP ports
/// that the tests' NAT gives or that GRE comes from are left out, as the other port tells what that is.
const CHECK: [&str; 13] = [
    "-dtcp.port==1-65535,data",
    "-dudp.port==1-19999,data",
    "-dudp.port==30000-49151,data",
    "-dudp.port==500,isakmp",
    "-dudp.port==4500,udpencap",
    "-dudp.port==4754,gre",
    "-dudp.port==4789,vxlan",
    "-dudp.port==6081,geneve",
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

/// GRE that nothing protects, in tcpdump's language.
const CLEAR: &str = "ip proto 47 or ip6 proto 47";
/// VXLAN and Geneve that nothing protects, likewise.
const OVERLAY: &str = "(udp dst port 4789 or udp dst port 6081)";
/// ESP by either road, and IKE on port 4500.
const ESP: &str = "ip proto 50 or ip6 proto 50 or udp port 4500";

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    dumps: Vec<(Child, JoinHandle<String>, PathBuf)>,
    dir: tempfile::TempDir,
}

/// Starts tcpdump and waits until it captures. Gives what it prints at its end.
#[track_caller]
fn tcpdump(mut command: Command) -> (Child, JoinHandle<String>) {
    let mut tcpdump =
        command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("tcpdump, by setpriv and nsenter");
    let mut said = String::new();
    let mut stderr = BufReader::new(tcpdump.stderr.take().expect("its standard error"));
    while !said.contains("listening on") {
        assert!(stderr.read_line(&mut said).expect("its standard error") > 0, "tcpdump: {said}");
    }
    let totals = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    (tcpdump, totals)
}

/// Ends tcpdump; gives how many packets it missed.
#[track_caller]
fn end(mut tcpdump: Child, totals: JoinHandle<String>) -> u64 {
    cli::signal(tcpdump.id(), "INT");
    cli::wait(&mut tcpdump, cli::LATEST).expect("tcpdump ends");
    let totals = totals.join().expect("what tcpdump says at its end");
    let missed =
        totals.lines().find_map(|l| l.strip_suffix(" packets dropped by kernel")?.trim().parse().ok());
    missed.unwrap_or_else(|| panic!("tcpdump said no total: {totals}"))
}

impl Capture {
    /// Starts to capture `filter` (tcpdump's language) on `dev`; returns when the capture has begun. Where a socket there
    /// asks for it, datagrams that came in are seen put together.
    #[track_caller]
    pub fn start(at: &dyn Place, dev: &str, filter: &str) -> Capture {
        Capture::of(&[at], dev, "inout", filter)
    }

    /// The same of what the two ends of a wire send by `dev`: each packet as it is on the wire.
    #[track_caller]
    pub fn wire(ends: [&dyn Place; 2], dev: &str, filter: &str) -> Capture {
        Capture::of(&ends, dev, "out", filter)
    }

    #[track_caller]
    fn of(places: &[&dyn Place], dev: &str, direction: &str, filter: &str) -> Capture {
        let dir = tempfile::Builder::new().prefix("up-capture-").tempdir().expect("a temporary directory");
        let dumps = places.iter().enumerate().map(|(i, at)| {
            let file = dir.path().join(format!("{i}.pcap"));
            let mut command = at.bound("tcpdump");
            command
                .args(["-i", dev, "-Q", direction, "--immediate-mode", "-U", "-Z", "root"])
                .args(["-s", "0", "-B", "32768", "-w"])
                .arg(&file)
                .args(filter.split_whitespace());
            let (tcpdump, totals) = tcpdump(command);
            (tcpdump, totals, file)
        });
        Capture { dumps: dumps.collect(), dir }
    }

    /// Ends the capture, when tcpdump has written what it has been given: the files grow no more.
    #[track_caller]
    pub fn stop(self) -> Packets {
        let mut last = None;
        cli::poll("tcpdump to keep up", || {
            std::thread::sleep(Duration::from_millis(200));
            let now: Vec<u64> =
                self.dumps.iter().map(|(_, _, file)| file.metadata().map_or(0, |m| m.len())).collect();
            (last.replace(now.clone()) == Some(now)).then_some(())
        });
        let all = self.dir.path().join("pcap");
        let mut merge = Command::new("mergecap");
        merge.args(["-F", "pcap", "-w"]).arg(&all);
        let mut missed = 0;
        for (tcpdump, totals, file) in self.dumps {
            missed += end(tcpdump, totals);
            merge.arg(file);
        }
        cli::run(&mut merge);
        Packets { file: all, missed, keys: None, _dir: self.dir }
    }
}

/// Looks at each ESP packet that a host sends, for as long as it takes: nothing is kept but which numbers were used.
#[derive(Debug)]
pub struct Watch {
    tcpdump: Child,
    totals: JoinHandle<String>,
    reader: JoinHandle<Sequences>,
}

impl Watch {
    /// Starts to watch what leaves by `dev`.
    #[track_caller]
    pub fn start(at: &dyn Place, dev: &str) -> Watch {
        let mut command = at.bound("tcpdump");
        command.args(["-i", dev, "-Q", "out", "-Z", "root", "-s", "96", "-B", "65536", "-U", "-w", "-", ESP]);
        let (mut tcpdump, totals) = tcpdump({
            command.stdout(Stdio::piped());
            command
        });
        let stdout = BufReader::with_capacity(1 << 20, tcpdump.stdout.take().expect("its standard output"));
        let reader = std::thread::spawn(move || {
            let mut sequences = Sequences::default();
            let packets =
                Reader::new(stdout).expect("tcpdump's capture").filter_map(|f| Packet::of_frame(&f));
            for (spi, sequence) in packets.filter_map(|p| p.esp()) {
                sequences.note(spi, sequence);
            }
            sequences
        });
        Watch { tcpdump, totals, reader }
    }

    /// Ends it. Gives what was seen, and how many packets tcpdump had no time to look at.
    #[track_caller]
    pub fn stop(self) -> (Sequences, u64) {
        // the kernel hands packets over a block at a time, each second at the latest
        std::thread::sleep(Duration::from_millis(1500));
        let missed = end(self.tcpdump, self.totals);
        (self.reader.join().expect("the reader"), missed)
    }
}

/// Captured packets.
#[derive(Debug)]
pub struct Packets {
    /// Where they are.
    pub file: PathBuf,
    /// How many more there were, for which tcpdump had no time.
    pub missed: u64,
    keys: Option<Keys>,
    _dir: tempfile::TempDir,
}

impl Packets {
    /// From now on tshark opens ESP and IKE with these.
    pub fn open_with(&mut self, keys: Keys) {
        self.keys = Some(keys);
    }

    /// How many match a filter in tcpdump's language, which looks at the outer packet only.
    #[track_caller]
    pub fn outer(&self, filter: &str) -> usize {
        let out = cli::run(Command::new("tcpdump").args(["--count", "-nr"]).arg(&self.file).arg(filter));
        let count = out.split_whitespace().next().and_then(|n| n.parse().ok());
        count.unwrap_or_else(|| panic!("tcpdump counted {out:?}"))
    }

    /// One after the other.
    #[track_caller]
    pub fn iter(&self) -> impl Iterator<Item = Packet> + use<> {
        let file = BufReader::new(std::fs::File::open(&self.file).expect("the capture"));
        Reader::new(file).expect("the capture").filter_map(|f| Packet::of_frame(&f))
    }

    /// Asserts what a capture of the underlay between protected tunnels must show: ESP, and not one packet of GRE, VXLAN or
    /// Geneve in the clear; nor did any escape the capture.
    #[track_caller]
    pub fn assert_protected(&self) {
        assert_eq!(self.missed, 0, "packets that the capture missed");
        self.assert_nothing_clear();
    }

    #[track_caller]
    fn assert_nothing_clear(&self) {
        let clear = self.outer(CLEAR);
        assert_eq!(clear, 0, "GRE in the clear:\n{}", self.tshark("gre", &[]).join("\n"));
        assert_eq!(self.outer(OVERLAY), 0, "VXLAN or Geneve in the clear");
        assert!(self.iter().any(|p| p.esp().is_some()), "no ESP captured");
        self.assert_no_repeats();
    }

    /// Asserts that no pair of SPI and sequence number was used twice.
    #[track_caller]
    pub fn assert_no_repeats(&self) {
        let mut sequences = Sequences::default();
        for (spi, sequence) in self.iter().filter_map(|p| p.esp()) {
            sequences.note(spi, sequence);
        }
        assert_eq!(sequences.repeated, (0, vec![]), "(SPI, sequence number) used twice");
    }

    /// tshark's lines for the packets that a display filter selects, with checksums verified.
    #[track_caller]
    pub fn tshark(&self, filter: &str, args: &[&str]) -> Vec<String> {
        let mut c = Command::new("tshark");
        c.arg("-nr").arg(&self.file).args(CHECK).args(["-Y", filter]).args(args);
        if let Some(keys) = &self.keys {
            c.env("WIRESHARK_CONFIG_DIR", keys.dir()).arg("-oesp.enable_encryption_decode:TRUE");
        }
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
        assert!(self.outer(CLEAR) > 0, "no GRE packet captured");
        self.assert_fits(mtu);
        self.assert_correct();
    }

    /// Asserts the same of GRE in UDP, of which none went in IP alone; and that it came from where RFC 8086 section 3.2.1
    /// says, and with a checksum.
    #[track_caller]
    pub fn assert_clean_in_udp(&self, mtu: u32) {
        assert_eq!(self.outer(CLEAR), 0, "GRE without UDP");
        let all = self.outer("udp dst port 4754");
        assert!(all > 0, "no GRE in UDP captured");
        assert_eq!(self.outer("udp dst port 4754 and udp src portrange 49152-65535 and udp[6:2] != 0"), all);
        assert_eq!(self.count("udp.dstport == 4754 and gre"), all, "tshark takes all of them for GRE");
        self.assert_fits(mtu);
        self.assert_correct();
    }

    /// Asserts the same of VXLAN to port 4789 and Geneve to port 6081, of which some must have been captured; with a UDP checksum or
    /// not at all.
    #[track_caller]
    pub fn assert_clean_overlay(&self, mtu: u32, checksums: bool) {
        let all = self.outer(OVERLAY);
        assert!(all > 0, "neither VXLAN nor Geneve captured");
        // a filter's udp[…] is for IPv4 alone
        let with = self.outer(&format!("{OVERLAY} and (udp[6:2] != 0 or ip6[46:2] != 0)"));
        assert_eq!(with, if checksums { all } else { 0 }, "UDP checksums");
        // others send from ports that are data here (CHECK)
        let ours = self.outer(&format!("{OVERLAY} and udp src portrange 49152-65535"));
        let known = self.count("(vxlan or geneve) and udp.srcport >= 49152 and udp.dstport in {4789, 6081}");
        assert_eq!(known, ours, "tshark takes all of them for what they are");
        self.assert_fits(mtu);
        self.assert_correct();
    }

    /// Asserts the same of what is in ESP, opened with the keys of all SAs that it was captured under; that all of it is
    /// authentic, and that none of it went in the clear. Under full load a capture may miss some.
    #[track_caller]
    pub fn assert_clean_within(&self, mtu: u32) {
        self.assert_nothing_clear();
        self.assert_fits(mtu);
        let sas = self.keys.as_ref().expect("keys").sas();
        for packet in self.iter().filter(|p| p.esp().is_some()) {
            let (spi, sequence) = packet.esp().expect("ESP");
            let opened = keys::open(&packet, &sas);
            let opened = opened.unwrap_or_else(|| panic!("SPI {spi:#x}, number {sequence} is not authentic"));
            assert!(matches!(opened.next_header, 47 | 17), "SPI {spi:#x}, number {sequence}: {opened:?}");
        }
        let closed = self.tshark("esp and not (gre or udp.dstport in {4789, 6081})", &[]);
        assert!(closed.is_empty(), "tshark did not open these:\n{}", closed.join("\n"));
        self.assert_correct();
    }

    #[track_caller]
    fn assert_fits(&self, mtu: u32) {
        assert_eq!(self.outer("ip[6:2] & 0x3fff != 0 or ip6 proto 44"), 0, "outer fragments");
        assert_eq!(self.outer(&format!("ip[2:2] > {mtu} or ip6[4:2] + 40 > {mtu}")), 0, "longer than {mtu}");
    }

    /// Looks at everything within GRE, VXLAN and Geneve.
    #[track_caller]
    fn assert_correct(&self) {
        let mut fields = vec!["-T", "fields"];
        let facts = ["frame.number", "frame.protocols", "_ws.malformed", "icmp.type", "icmpv6.type"];
        fields.extend(facts.iter().chain(&CHECKSUMS).flat_map(|f| ["-e", *f]));
        let (mut good, mut bad) = (0, Vec::new());
        // Linux may send 0xffff for a TCP checksum of 0. It is the other zero of one's complement and every receiver takes
        // it (RFC 1624 section 3), but tshark calls it bad. One packet in 65,536 is like that.
        let judged =
            "(gre or vxlan or geneve) and not (tcp.checksum == 0xffff and tcp.checksum_calculated == 0)";
        for line in self.tshark(judged, &fields) {
            // what is empty at the end of a line may have been cut off
            let fields: Vec<&str> = line.split('\t').collect();
            let field = |i: usize| fields.get(i).copied().unwrap_or_default();
            let [frame, layers, malformed, icmp, icmp6] = [0, 1, 2, 3, 4].map(field);
            // an ICMP error quotes a packet and cuts it short, or one that was joined of several (of a stream's last words to
            // a port that is closed): the checksum in there cannot be right
            let quotes =
                icmp.split(',').any(|t| t == "3") || icmp6.split(',').any(|t| ["1", "2"].contains(&t));
            // of tunnels and ESP in UDP the outer one is left to the network card, which a veth does not have
            let in_udp = ["udpencap", "udp:gre", "udp:vxlan", "udp:geneve"];
            let outer = usize::from(in_udp.iter().any(|layer| layers.contains(layer)));
            let (ip_and_tcp, udp, icmps) = ([5, 6].map(field), field(7), [8, 9].map(field));
            let rest = ip_and_tcp.into_iter().chain(icmps).flat_map(|s| s.split(','));
            let sums: Vec<&str> = udp.split(',').skip(outer).chain(rest).collect();
            good += usize::from(sums.contains(&GOOD));
            if !malformed.is_empty() || (sums.contains(&BAD) && !quotes) {
                bad.push(frame.to_owned());
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

//! An sFlow collector: what agents send, read by hand, for tshark knows too few of its structures to get through a datagram
//! with counters.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::cli;
use crate::netns::Netns;

/// Records of a sample: format and bytes, in order.
pub type Records = Vec<(u32, Vec<u8>)>;

/// A packet that was sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Flow {
    pub sequence: u32,
    pub source: u32,
    pub rate: u32,
    pub pool: u32,
    pub drops: u32,
    pub input: u32,
    pub output: u32,
    pub records: Records,
}

/// Listens in a namespace.
#[derive(Debug)]
pub struct Collector {
    socket: UdpSocket,
    /// Every datagram.
    pub datagrams: Vec<Vec<u8>>,
    /// What each began with: agent's address, its number, the datagram's number.
    pub headers: Vec<(Vec<u8>, u32, u32)>,
    /// Every packet that was sampled.
    pub flows: Vec<Flow>,
    /// The last counters of each source, and the number of the sample.
    pub counters: BTreeMap<u32, (u32, Records)>,
}

impl Collector {
    /// Listens on `port`.
    #[track_caller]
    pub fn start(at: &Netns, port: u16) -> Collector {
        let file = std::fs::File::open(at.path()).expect("the namespace");
        let bind = move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("to enter it");
            UdpSocket::bind(("::", port)).expect("a socket")
        };
        // a thread of its own is in the namespace, and gone when the socket is there
        let socket = std::thread::spawn(bind).join().expect("the thread");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        Collector {
            socket,
            datagrams: Vec::new(),
            headers: Vec::new(),
            flows: Vec::new(),
            counters: BTreeMap::new(),
        }
    }

    /// Takes what has come, until `enough`.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut enough: impl FnMut(&Collector) -> bool) {
        cli::poll(what, || {
            self.receive();
            enough(self).then_some(())
        });
    }

    fn receive(&mut self) {
        let mut buffer = [0; 65536];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            assert!(len <= 1400, "a datagram of {len} bytes");
            self.datagrams.push(buffer[..len].to_vec());
            self.read(&buffer[..len]);
        }
    }

    fn read(&mut self, datagram: &[u8]) {
        let mut words = Reader(datagram);
        assert_eq!(words.word(), 5, "the version");
        let agent = match words.word() {
            1 => words.take(4).to_vec(),
            2 => words.take(16).to_vec(),
            other => panic!("an agent address of type {other}"),
        };
        self.headers.push((agent, words.word(), words.word()));
        words.word();
        for _ in 0..words.word() {
            let (format, sample) = words.record();
            let mut words = Reader(sample);
            let (sequence, source) = (words.word(), words.word());
            if format == 1 {
                let [rate, pool, drops, input, output] = std::array::from_fn(|_| words.word());
                let records = words.records();
                self.flows.push(Flow { sequence, source, rate, pool, drops, input, output, records });
            } else {
                self.counters.insert(source, (sequence, words.records()));
            }
            assert!(words.0.is_empty(), "{} bytes behind a sample", words.0.len());
        }
        assert!(words.0.is_empty(), "{} bytes behind the samples", words.0.len());
    }

    /// What tshark reads in the datagrams that have samples of packets alone, or nothing: the fields, by line.
    #[track_caller]
    pub fn tshark(&self, fields: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        let (text, pcap) = (dir.path().join("text"), dir.path().join("pcap"));
        let line = |datagram: &Vec<u8>| {
            let bytes: String = datagram.iter().map(|byte| format!(" {byte:02x}")).collect();
            format!("000000{bytes}\n")
        };
        std::fs::write(&text, self.datagrams.iter().map(line).collect::<String>()).expect("a file");
        cli::run(Command::new("text2pcap").args(["-q", "-u", "6343,6343"]).args([&text, &pcap]));
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(&pcap).args([
            "-d",
            "udp.port==6343,sflow",
            "-T",
            "fields",
            "-e",
            "_ws.malformed",
        ]);
        tshark.args(fields.iter().flat_map(|field| ["-e", *field]));
        cli::run(&mut tshark).lines().map(str::to_owned).collect()
    }
}

impl Flow {
    /// The record of that format.
    pub fn record(&self, format: u32) -> Option<&[u8]> {
        find(&self.records, format)
    }
}

/// The record of that format.
pub fn find(records: &Records, format: u32) -> Option<&[u8]> {
    records.iter().find(|(f, _)| *f == format).map(|(_, bytes)| &bytes[..])
}

/// Words of a datagram.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(len).expect("as much as is announced");
        self.0 = rest;
        taken
    }

    fn word(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn record(&mut self) -> (u32, &'a [u8]) {
        let (format, len) = (self.word(), self.word() as usize);
        let bytes = self.take(len);
        self.take(len.next_multiple_of(4) - len);
        (format, bytes)
    }

    fn records(&mut self) -> Records {
        (0..self.word()).map(|_| self.record()).map(|(format, bytes)| (format, bytes.to_vec())).collect()
    }
}

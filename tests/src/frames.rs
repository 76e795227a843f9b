//! Frames of a test's own making, and what arrives of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::cli;
use crate::topology::Place;

/// EtherType for experiments (IEEE 802): what marks a frame as a test's.
const MINE: [u8; 2] = [0x88, 0xb5];
/// How long nothing must have arrived for the devices to be thought quiet.
const QUIET: Duration = Duration::from_millis(300);

/// Devices of a place under a test's control.
#[derive(Debug)]
pub struct Frames {
    child: Child,
    stdin: ChildStdin,
    /// Frames that it was told to send.
    told: usize,
    arrived: Arc<Mutex<Arrived>>,
}

#[derive(Debug)]
struct Arrived {
    /// (device, bytes) by the frame's number.
    frames: BTreeMap<u32, Vec<(String, Vec<u8>)>>,
    /// Frames that were sent.
    sent: usize,
    last: Instant,
}

/// A frame of a test, at least 60 bytes long: `tags` are those behind its addresses.
pub fn frame(number: u32, dst: [u8; 6], src: [u8; 6], tags: &[[u8; 4]]) -> Vec<u8> {
    let mut bytes = [dst, src].concat();
    bytes.extend(tags.concat());
    bytes.extend(MINE);
    bytes.extend(number.to_be_bytes());
    bytes.resize(60 + 4 * tags.len(), 0x5a);
    bytes
}

/// A frame of any kind with a number behind all that it holds, where padding is.
pub fn numbered(number: u32, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().max(60), 0);
    bytes.extend(MINE);
    bytes.extend(number.to_be_bytes());
    bytes
}

/// The number of a frame, if it is a test's: it stands behind the first EtherType that is no tag's, or at its end.
fn number(bytes: &[u8]) -> Option<u32> {
    let at = (12..32).step_by(4).find(|at| bytes.get(*at..at + 2) == Some(&MINE));
    let at = at.or_else(|| bytes.len().checked_sub(6).filter(|at| bytes[*at..].starts_with(&MINE)))?;
    Some(u32::from_be_bytes(*bytes.get(at + 2..)?.first_chunk()?))
}

impl Frames {
    /// Takes hold of `devices`.
    #[track_caller]
    pub fn start(at: &dyn Place, devices: &[String]) -> Frames {
        let program = cli::helper("frames");
        let mut command = at.bound(program.to_str().expect("a path in UTF-8"));
        let mut child =
            command.args(devices).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the helper");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        assert_eq!(lines.next().expect("a line").expect("UTF-8"), "ready");
        let stdin = child.stdin.take().expect("its input");
        let arrived =
            Arc::new(Mutex::new(Arrived { frames: BTreeMap::new(), sent: 0, last: Instant::now() }));
        let noted = arrived.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line == "sent" {
                    let mut noted = noted.lock().expect("its lock");
                    noted.sent += 1;
                    noted.last = Instant::now();
                    continue;
                }
                let (device, hex) = line.split_once(' ').expect("device and frame");
                let byte = |d: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(d), 16).expect("digits");
                let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(byte).collect();
                if let Some(number) = number(&bytes) {
                    let mut noted = noted.lock().expect("its lock");
                    noted.last = Instant::now();
                    noted.frames.entry(number).or_default().push((device.to_owned(), bytes));
                }
            }
        });
        Frames { child, stdin, told: 0, arrived }
    }

    /// Sends a frame out of a device.
    #[track_caller]
    pub fn send(&mut self, device: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        writeln!(self.stdin, "{device} {hex}").expect("the helper takes it");
        self.told += 1;
    }

    /// What arrived of each frame, by devices, once for a while nothing has, nor was sent.
    #[track_caller]
    pub fn settled(&self) -> BTreeMap<u32, Vec<(String, Vec<u8>)>> {
        cli::poll("the devices to be quiet", || {
            let arrived = self.arrived.lock().expect("its lock");
            (arrived.sent == self.told && arrived.last.elapsed() > QUIET).then(|| {
                let mut frames = arrived.frames.clone();
                frames.values_mut().for_each(|copies| copies.sort());
                frames
            })
        })
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

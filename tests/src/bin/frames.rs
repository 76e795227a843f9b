//! Ethernet frames, whole, out of and into the devices of a namespace, tags and all.
//!
//! ```text
//! frames DEVICE...   each line of standard input, a device and a frame in hexadecimal, is sent; each frame that arrives by one
//!                    of the devices becomes such a line of standard output. A line "sent" follows each that was
//! ```

use std::io::{BufRead, Error, Result, Write, stdin, stdout};
use std::sync::mpsc;
use std::time::Duration;

use datapath::port::LocalPort;
use datapath::slab::{SLOTS, Slab};
use datapath::txq::TxQueue;
use datapath::vnet::VnetHdr;

fn main() -> Result<()> {
    let devices: Vec<String> = std::env::args().skip(1).collect();
    let ports = devices.iter().map(|name| LocalPort::packet(name)).collect::<Result<Vec<_>>>()?;
    let (lines, orders) = mpsc::channel();
    std::thread::spawn(move || stdin().lock().lines().map_while(Result::ok).try_for_each(|l| lines.send(l)));
    let (mut slab, mut frames, mut out) = (Slab::new(), Vec::new(), stdout().lock());
    writeln!(out, "ready")?;
    loop {
        out.flush()?;
        match orders.recv_timeout(Duration::from_millis(1)) {
            Ok(line) => {
                send(&mut slab, &devices, &ports, &line)?;
                writeln!(out, "sent")?;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
        for (name, port) in devices.iter().zip(&ports) {
            port.rx(&mut slab, SLOTS, &mut frames)?;
            for frame in &frames {
                let hex: String = slab.get(frame.data).iter().map(|b| format!("{b:02x}")).collect();
                writeln!(out, "{name} {hex}")?;
            }
        }
    }
}

fn send(slab: &mut Slab, devices: &[String], ports: &[LocalPort], line: &str) -> Result<()> {
    let wrong = || Error::other(format!("{line}: neither device nor frame"));
    let (name, digits) = line.split_once(' ').ok_or_else(wrong)?;
    let at = devices.iter().position(|device| device == name).ok_or_else(wrong)?;
    let digits = digits.as_bytes().chunks(2).map(String::from_utf8_lossy);
    let bytes: Vec<u8> =
        digits.map(|d| u8::from_str_radix(&d, 16).map_err(|_| wrong())).collect::<Result<_>>()?;
    let (mut queue, piece) = (TxQueue::new(), slab.alloc(bytes.len()).ok_or_else(wrong)?);
    slab.get_mut(piece).copy_from_slice(&bytes);
    queue.push(VnetHdr::default(), &[piece]);
    let sent = ports[at].tx(slab, &queue);
    slab.reset();
    if sent.ok == 1 { Ok(()) } else { Err(Error::other(format!("{name} does not take a frame: {sent:?}"))) }
}

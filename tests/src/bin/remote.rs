//! Runs a shell script in a guest, where a shell listens: prints what it prints on either output, ends with its status.
//!
//! ```text
//! remote ADDR:PORT SECONDS                   a script on standard input
//! remote ADDR:PORT SECONDS PROGRAM ARGS…     the words may hold nothing that a shell would take apart
//! ```
//! 255 when there is no answer in so many seconds.

use std::io::{Error, Read, Result, Write, stdin, stdout};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What precedes the status at the end of all output.
const STATUS: &[u8] = b"\nstatus=";

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, seconds, program @ ..] = &args[..] else {
        return Err(Error::other("usage: remote ADDR:PORT SECONDS [PROGRAM ARGS…]"));
    };
    let mut script = program.join(" ");
    if program.is_empty() {
        stdin().read_to_string(&mut script)?;
    }
    let limit = Duration::from_secs(seconds.parse().map_err(Error::other)?);
    let deadline = Instant::now() + limit;
    let address = address.parse().map_err(Error::other)?;
    let Ok(mut shell) = TcpStream::connect_timeout(&address, limit) else { return Ok(ExitCode::from(255)) };
    writeln!(shell, "{{ ( set -e\n{script}\n) </dev/null 2>&1; printf '\\nstatus=%s' $?; exit; }}")?;

    // held back: what may be the beginning of the status
    let (mut held, mut buf) = (Vec::new(), [0; 65536]);
    loop {
        shell.set_read_timeout(Some(
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)),
        ))?;
        let Ok(n) = shell.read(&mut buf) else { break };
        held.extend_from_slice(&buf[..n]);
        if n == 0 {
            break;
        }
        let keep = STATUS.len() + 3;
        let sure = held.len().saturating_sub(keep);
        stdout().write_all(&held[..sure])?;
        stdout().flush()?;
        held.drain(..sure);
    }
    let end = held.windows(STATUS.len()).rposition(|w| w == STATUS);
    let (rest, status) = held.split_at(end.unwrap_or(held.len()));
    stdout().write_all(rest)?;
    let status = std::str::from_utf8(status.get(STATUS.len()..).unwrap_or(b"")).ok();
    Ok(ExitCode::from(status.and_then(|s| s.parse().ok()).unwrap_or(255)))
}

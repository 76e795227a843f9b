//! BFD sessions on ports; see [`crate::watch`].

use ::bfd::{Config, Session};
use datapath::slow_path::FrameKind;
use ovsdb::Datum;
use ring::rand::SecureRandom;

use crate::watch::{self, Millis, Watcher};

/// All sessions.
pub type Sessions = watch::Watch<Session>;
type Port = watch::Port<Config>;
type Status = [(&'static str, String); 6];

/// How often ports are looked at whose other traffic counts, too.
const LOOK: Millis = 100;
/// Source ports (RFC 5881 section 4) begin here, and there are so many.
const PORTS: (u16, u16) = (49152, 16384);

impl Watcher for Session {
    const KIND: FrameKind = FrameKind::Bfd;
    const NAMED: bool = false;
    type Config = Config;
    type Status = Status;

    fn begin(port: &Port, ordinal: u16, now: Millis) -> Session {
        tracing::info!("{}: BFD session begins", port.name);
        let source = PORTS.0 + ordinal % PORTS.1;
        Session::new(port.config.clone(), port.mac, discriminator(), source, now)
    }

    fn configure(&mut self, port: &Port, now: Millis) {
        self.configure(port.config.clone(), now);
        self.set_mac(port.mac);
    }

    fn receive(&mut self, _port: &Port, frame: &[u8], now: Millis) {
        self.receive(frame, now);
    }

    fn due(&self, config: &Config, now: Millis) -> Millis {
        let look = if config.forwarding_if_rx { now + LOOK } else { Millis::MAX };
        self.due().min(look)
    }

    fn tick(&mut self, port: &Port, now: Millis) -> Option<Vec<u8>> {
        if port.config.forwarding_if_rx {
            self.traffic(port.counters.sum().rx_packets, now);
        }
        self.tick(now)
    }

    fn status(&self, now: Millis) -> Status {
        self.status(now)
    }

    fn columns(status: Option<&Status>) -> Vec<(&'static str, Datum)> {
        let pairs = status.into_iter().flatten().map(|(key, value)| (*key, value.as_str()));
        vec![("bfd_status", Datum::map(pairs))]
    }

    fn log(name: &str, before: &Status, after: &Status) {
        let get = |status: &Status, key: &str| {
            status.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone()).unwrap_or_default()
        };
        let (state, diagnostic) = (get(after, "state"), get(after, "diagnostic"));
        if state != get(before, "state") {
            tracing::info!("{name}: BFD state is {state} ({diagnostic})");
        }
    }

    fn works(&self, now: Millis) -> bool {
        self.forwarding(now)
    }

    fn show(&self, now: Millis) -> String {
        self.show(now)
    }

    fn force(&mut self, forwarding: Option<bool>) {
        self.force(forwarding);
    }
}

/// Not 0, and one that nobody guesses.
fn discriminator() -> u32 {
    let mut bytes = [0; 4];
    // without randomness it is a number like any other
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    u32::from_ne_bytes(bytes).max(1)
}

//! The state machine of one session (RFC 5880 section 6.8), asynchronous mode.

use crate::Millis;
use crate::config::Config;
use crate::frame;
use crate::packet::{Diagnostic, Flags, Packet, State};

/// The least interval between packets of a session that is not up (RFC 5880 section 6.8.3), in milliseconds.
const SLOW: u32 = 1000;

/// Of so many `min_rx` one packet of the session must come for other traffic to count with `forwarding_if_rx`.
const DEMAND: Millis = 100;

/// What the other end last said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote {
    pub(crate) state: State,
    pub(crate) diagnostic: Diagnostic,
    pub(crate) flags: Flags,
    pub(crate) discriminator: u32,
    /// In milliseconds.
    pub(crate) min_tx: u32,
    /// In milliseconds.
    pub(crate) min_rx: u32,
    pub(crate) mult: u8,
}

impl Remote {
    /// Nothing yet.
    const NOBODY: Remote = Remote {
        state: State::Down,
        diagnostic: Diagnostic::NONE,
        flags: Flags(0),
        discriminator: 0,
        min_tx: 0,
        min_rx: 1,
        mult: 0,
    };
}

/// A session with whoever is at the other end of a port.
#[derive(Debug)]
pub struct Session {
    pub(crate) config: Config,
    mac: [u8; 6],
    source_port: u16,
    pub(crate) discriminator: u32,
    pub(crate) state: State,
    pub(crate) diagnostic: Diagnostic,
    /// Poll while a sequence is under way, Final on the packet that answers one.
    pub(crate) flags: Flags,
    /// In force, in milliseconds; what is configured comes into force when a poll sequence ends (section 6.8.3).
    min_tx: u32,
    pub(crate) min_rx: u32,
    /// What the poll sequence under way announces.
    announced: (u32, u32),
    pub(crate) remote: Remote,
    /// Until when the next packet must come; 0: none ever came.
    pub(crate) detect_at: Millis,
    pub(crate) last_tx: Millis,
    pub(crate) next_tx: Millis,
    /// `bfd/set-forwarding`.
    forced: Option<bool>,
    forwarding: bool,
    flaps: u64,
    traffic: Traffic,
    random: u32,
}

/// What comes in besides the session's packets.
#[derive(Debug, Default)]
struct Traffic {
    packets: u64,
    /// Until when the last sign of life counts.
    until: Millis,
    /// Until when it counts at all without a packet of the session.
    demand_until: Millis,
}

impl Session {
    /// A session that is down, on a port with address `mac`. `discriminator` (not 0) and `source_port` (from 49152 on) should be
    /// unlike those of all other sessions here. The first packet goes at `now`.
    pub fn new(config: Config, mac: [u8; 6], discriminator: u32, source_port: u16, now: Millis) -> Session {
        let mut session = Session {
            mac,
            source_port,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            flags: Flags(0),
            min_tx: config.min_tx,
            min_rx: config.min_rx,
            announced: (0, 0),
            remote: Remote::NOBODY,
            detect_at: 0,
            last_tx: 0,
            next_tx: now,
            forced: None,
            forwarding: false,
            flaps: 0,
            traffic: Traffic::default(),
            random: discriminator,
            config,
        };
        session.set_state(State::Down, Diagnostic::NONE);
        session
    }

    /// The rows say something else now.
    pub fn configure(&mut self, config: Config, now: Millis) {
        let before = std::mem::replace(&mut self.config, config);
        self.schedule();
        if before.cpath_down != self.config.cpath_down {
            self.set_state(self.state, Diagnostic::NONE);
            self.poll(now);
        }
        if (before.min_tx, before.min_rx) != (self.config.min_tx, self.config.min_rx) {
            if self.state != State::Up {
                (self.min_tx, self.min_rx) = (self.config.min_tx, self.config.min_rx);
            }
            self.poll(now);
        }
    }

    /// Its port's address is another one.
    pub fn set_mac(&mut self, mac: [u8; 6]) {
        self.mac = mac;
    }

    /// `bfd/set-forwarding`; None: as the session finds.
    pub fn force(&mut self, forwarding: Option<bool>) {
        self.forced = forwarding;
    }

    /// When [`Session::tick`] has something to do next.
    pub fn due(&self) -> Millis {
        let detect = if self.state > State::Down { self.detect_at } else { Millis::MAX };
        self.next_tx.min(detect)
    }

    /// Does what is due at `now`. A frame that is returned must be sent.
    pub fn tick(&mut self, now: Millis) -> Option<Vec<u8>> {
        if self.state > State::Down && now >= self.detect_at {
            self.set_state(State::Down, Diagnostic::EXPIRED);
        }
        // what was configured and not yet announced
        if (self.min_tx, self.min_rx) != (self.config.min_tx, self.config.min_rx) {
            self.poll(now);
        }
        self.note_forwarding(now);
        (now >= self.next_tx).then(|| self.transmit(now))
    }

    /// How many packets of any kind have come by the port.
    pub fn traffic(&mut self, packets: u64, now: Millis) {
        if packets > self.traffic.packets {
            self.traffic.until = now + self.detection();
        }
        self.traffic.packets = packets;
        self.note_forwarding(now);
    }

    /// A frame that came by the port. False: it was not for the session.
    pub fn receive(&mut self, frame: &[u8], now: Millis) -> bool {
        let Some(bytes) = frame::decode(&self.config, frame) else { return false };
        let packet = Packet::decode(bytes);
        // section 6.8.6: that of a session which is not there
        let packet = packet.filter(|p| [0, self.discriminator].contains(&p.your_discriminator));
        if let Some(packet) = packet {
            self.process(&packet, now);
            self.note_forwarding(now);
        }
        true
    }

    /// Section 6.8.6, behind the checks.
    fn process(&mut self, packet: &Packet, now: Millis) {
        let millis = |micros: u32| (micros / 1000).max(1);
        let slower = self.remote.min_rx != millis(packet.min_rx);
        self.remote = Remote {
            state: packet.state,
            diagnostic: packet.diagnostic,
            flags: packet.flags,
            discriminator: packet.my_discriminator,
            min_tx: millis(packet.min_tx),
            min_rx: millis(packet.min_rx),
            mult: packet.mult,
        };
        if slower {
            self.schedule();
        }
        if packet.flags.has(Flags::FINAL) && self.flags.has(Flags::POLL) {
            (self.min_tx, self.min_rx) = self.announced;
            self.flags.0 &= !Flags::POLL;
        }
        if packet.flags.has(Flags::POLL) {
            // section 6.5: answered at once; what is to be announced of ours waits
            self.flags.0 = self.flags.0 & !Flags::POLL | Flags::FINAL;
            self.next_tx = now;
        }
        self.detect_at = now + self.detection();
        self.traffic.demand_until = now + DEMAND * Millis::from(self.min_rx);
        let heard = packet.state;
        match self.state {
            State::AdminDown => {}
            _ if heard == State::AdminDown && self.state != State::Down => {
                self.set_state(State::Down, Diagnostic::REMOTE_DOWN);
            }
            State::Down if heard == State::Down => self.set_state(State::Init, self.diagnostic),
            State::Down if heard == State::Init => self.set_state(State::Up, self.diagnostic),
            State::Init if heard > State::Down => self.set_state(State::Up, self.diagnostic),
            State::Up if heard == State::Down => self.set_state(State::Down, Diagnostic::REMOTE_DOWN),
            _ => {}
        }
    }

    fn set_state(&mut self, state: State, diagnostic: Diagnostic) {
        let diagnostic = if self.config.cpath_down { Diagnostic::CPATH_DOWN } else { diagnostic };
        let before = std::mem::replace(&mut self.state, state);
        self.diagnostic = diagnostic;
        if state <= State::Down && before != state {
            self.remote = Remote::NOBODY;
            self.flags.0 &= !Flags::POLL;
        }
        if before != state {
            // at once, so that the other end soon knows (section 6.8.7)
            self.next_tx = self.last_tx;
        }
    }

    /// Begins a poll sequence, by which the other end learns of new intervals.
    fn poll(&mut self, now: Millis) {
        if self.state > State::Down && self.flags.0 == 0 {
            self.announced = (self.config.min_tx, self.config.min_rx);
            self.flags.0 |= Flags::POLL;
            self.next_tx = now;
        }
    }

    fn transmit(&mut self, now: Millis) -> Vec<u8> {
        let (min_tx, min_rx) = match self.flags.has(Flags::POLL) {
            true => self.announced,
            false => (self.slowed_tx(), self.min_rx),
        };
        let packet = Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            flags: self.flags,
            mult: self.config.mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            min_tx: min_tx.saturating_mul(1000),
            min_rx: min_rx.saturating_mul(1000),
        };
        self.flags.0 &= !Flags::FINAL;
        self.last_tx = now;
        self.schedule();
        frame::encode(&self.config, self.mac, self.source_port, &packet.encode())
    }

    /// The least interval that the other end is told of, in milliseconds.
    pub(crate) fn slowed_tx(&self) -> u32 {
        if self.state == State::Up { self.min_tx } else { self.min_tx.max(SLOW) }
    }

    /// Between two packets of ours, in milliseconds (section 6.8.2).
    pub(crate) fn tx_interval(&self) -> u32 {
        self.slowed_tx().max(self.remote.min_rx)
    }

    /// Between two packets of the other end's, in milliseconds.
    pub(crate) fn rx_interval(&self) -> u32 {
        self.min_rx.max(self.remote.min_tx)
    }

    /// How long silence is borne (section 6.8.4).
    fn detection(&self) -> Millis {
        Millis::from(self.rx_interval()) * Millis::from(self.remote.mult.max(1))
    }

    /// The next packet goes after the interval, less 0 to 25 % of it; 10 to 25 % if losing one is too much (section 6.8.7).
    fn schedule(&mut self) {
        // a linear congruential generator (Numerical Recipes): it has to be unlike others' alone
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let interval = Millis::from(self.tx_interval());
        let (least, span) = if self.config.mult == 1 { (10, 16) } else { (0, 26) };
        let less = least + Millis::from((self.random >> 16) % span);
        self.next_tx = self.last_tx + (interval - interval * less / 100).max(1);
    }

    /// Whether the port can be used, as far as the session knows.
    pub fn forwarding(&self, now: Millis) -> bool {
        self.forced.unwrap_or_else(|| self.found_forwarding(now))
    }

    fn found_forwarding(&self, now: Millis) -> bool {
        let traffic = &self.traffic;
        let hears = self.config.forwarding_if_rx && traffic.until > now && traffic.demand_until > now;
        (self.state == State::Up || hears)
            && self.remote.diagnostic != Diagnostic::CPATH_DOWN
            && self.remote.diagnostic != Diagnostic::REVERSE_CPATH_DOWN
    }

    fn note_forwarding(&mut self, now: Millis) {
        if self.forced.is_none() {
            let found = self.found_forwarding(now);
            self.flaps += u64::from(std::mem::replace(&mut self.forwarding, found) != found);
        }
    }

    /// Column `bfd_status`.
    pub fn status(&self, now: Millis) -> [(&'static str, String); 6] {
        let forwarding = self.forwarding(now);
        [
            ("diagnostic", self.diagnostic.name().to_owned()),
            ("flap_count", self.flaps.to_string()),
            ("forwarding", forwarding.to_string()),
            ("remote_diagnostic", self.remote.diagnostic.name().to_owned()),
            ("remote_state", self.remote.state.name().to_owned()),
            ("state", self.state.name().to_owned()),
        ]
    }
}

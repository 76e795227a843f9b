//! One maintenance point: says that it is there, and knows who else is.

use std::collections::BTreeMap;

use crate::Millis;
use crate::ccm::{Ccm, Unread};
use crate::config::{Config, Vlan};
use crate::fault::{Faults, Odd};

/// Remote points that are kept at most.
const REMOTES: usize = 256;
/// Health is of so many checks, each after 3.5 intervals.
const HEALTH_CHECKS: u32 = 6;
/// Messages of a healthy link in that time.
const HEALTHY: u32 = HEALTH_CHECKS * 7 / 2;
/// The least interval that checks go by where other traffic counts, in milliseconds.
const DEMAND_INTERVAL: u32 = 500;
/// Of so many intervals one message must come for other traffic to count.
const DEMAND: Millis = 100;

/// A remote point.
#[derive(Debug)]
pub(crate) struct Remote {
    /// A message has come since the last check.
    pub(crate) heard: bool,
    pub(crate) up: bool,
    seq: u32,
    /// Messages without a fault since health was last found.
    healthy: u32,
}

/// A maintenance point on a port.
#[derive(Debug)]
pub struct Point {
    pub(crate) config: Config,
    mac: [u8; 6],
    seq: u32,
    pub(crate) remotes: BTreeMap<u64, Remote>,
    /// As of the last check.
    found: Faults,
    /// Since then.
    news: Faults,
    /// `cfm/set-fault`.
    pub(crate) forced: Option<bool>,
    /// In percent.
    pub(crate) health: Option<u8>,
    /// Since it was found.
    checks: u32,
    pub(crate) remote_up: bool,
    /// Who had been heard at the last check.
    heard: Vec<u64>,
    flaps: u64,
    /// There has been a check.
    checked: bool,
    pub(crate) next_tx: Millis,
    pub(crate) next_check: Millis,
    traffic: Traffic,
    random: u32,
}

/// What comes in besides messages, with `cfm_demand`.
#[derive(Debug, Default)]
struct Traffic {
    packets: u64,
    /// At the last check.
    before: u64,
    /// Until when it counts without a message.
    until: Millis,
}

/// What rows tell of a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Columns `cfm_fault` and `cfm_fault_status`.
    pub faults: Faults,
    /// `cfm_flap_count`.
    pub flaps: u64,
    /// `cfm_remote_opstate`: up; extended mode alone tells.
    pub remote_up: Option<bool>,
    /// `cfm_health`, in percent. None: there are several remote points, or it is too early.
    pub health: Option<u8>,
    /// `cfm_remote_mpids`.
    pub remotes: Vec<u64>,
}

impl Point {
    /// A point that has heard nobody yet, on a port with address `mac`. Its first message goes at `now`. `random`: any number, unlike others'.
    pub fn new(config: Config, mac: [u8; 6], random: u32, now: Millis) -> Point {
        let mut point = Point {
            config,
            mac,
            seq: 0,
            remotes: BTreeMap::new(),
            found: Faults::NONE,
            news: Faults::NONE,
            forced: None,
            health: None,
            checks: 0,
            remote_up: true,
            heard: Vec::new(),
            flaps: 0,
            checked: false,
            next_tx: now,
            next_check: now,
            traffic: Traffic::default(),
            random,
        };
        point.next_check += point.patience();
        point
    }

    /// The rows say something else now.
    pub fn configure(&mut self, config: Config, now: Millis) {
        let before = std::mem::replace(&mut self.config, config);
        if before.interval != self.config.interval {
            self.next_tx = now;
            self.next_check = now + self.patience();
        }
        if self.config.demand && !before.demand {
            self.traffic.before = self.traffic.packets;
        }
    }

    /// Its port's address is another one.
    pub fn set_mac(&mut self, mac: [u8; 6]) {
        self.mac = mac;
    }

    /// `cfm/set-fault`; None: as the point finds.
    pub fn force(&mut self, fault: Option<bool>) {
        self.forced = fault;
    }

    /// When [`Point::tick`] has something to do next.
    pub fn due(&self) -> Millis {
        self.next_tx.min(self.next_check)
    }

    /// How many packets of any kind have come by the port.
    pub fn traffic(&mut self, packets: u64) {
        self.traffic.packets = packets;
    }

    /// Does what is due at `now`. A frame that is returned must be sent.
    pub fn tick(&mut self, now: Millis) -> Option<Vec<u8>> {
        if now >= self.next_check {
            self.check(now);
            self.next_check = now + self.patience();
        }
        if now < self.next_tx {
            return None;
        }
        let interval = Millis::from(self.config.interval.millis);
        // at a steady pace, as the other end counts, unless one is far behind
        self.next_tx = Some(self.next_tx + interval).filter(|next| *next > now).unwrap_or(now + interval);
        Some(self.message())
    }

    /// How long silence is borne: 3.5 intervals (IEEE 802.1ag clause 20.1).
    fn patience(&self) -> Millis {
        let least = if self.config.demand { DEMAND_INTERVAL } else { 0 };
        Millis::from(self.config.interval.millis.max(least)) * 7 / 2
    }

    fn message(&mut self) -> Vec<u8> {
        self.seq = self.seq.wrapping_add(1);
        let vlan = match self.config.vlan {
            Vlan::Of(vlan) => vlan,
            Vlan::Random => {
                // a linear congruential generator (Numerical Recipes): it has to vary alone
                self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (self.random >> 16) as u16 & 0xfff
            }
        };
        let tag = Some(u16::from(self.config.pcp) << 13 | vlan).filter(|tag| *tag != 0);
        let hears_nobody = self.checked && self.remotes.is_empty();
        Ccm::of(&self.config, self.seq, hears_nobody).frame(self.config.destination(), self.mac, tag)
    }

    /// A frame that came by the port, to [`Config::destination`].
    ///
    /// # Errors
    /// What somebody should look into.
    pub fn receive(&mut self, frame: &[u8], now: Millis) -> Result<(), Odd> {
        let ccm = Ccm::decode(frame).map_err(|why| match why {
            Unread::Short => Odd::Unreadable,
            Unread::Other(opcode) => Odd::Opcode(opcode),
        })?;
        if !ccm.ours {
            self.news.add(Faults::MAID);
            let source = frame.get(6..).and_then(|rest| rest.first_chunk());
            return Err(Odd::Maid(source.copied().unwrap_or_default()));
        }
        let extended = self.config.extended;
        let mpid = if extended { ccm.long_mpid } else { ccm.mpid.into() };
        let (own, room) = (mpid == self.config.mpid, self.remotes.len() < REMOTES);
        if !room && !self.remotes.contains_key(&mpid) {
            return Err(Odd::Overflow(mpid));
        }
        let healthy = !own && !ccm.rdi;
        let remote = self.remotes.entry(mpid).or_insert(Remote { heard: true, up: true, seq: 0, healthy: 0 });
        let before = std::mem::replace(&mut remote.seq, ccm.seq);
        remote.heard = true;
        remote.up = !(extended && ccm.down);
        remote.healthy = remote.healthy.saturating_add(healthy.into());
        if healthy {
            self.traffic.until = now + DEMAND * Millis::from(self.config.interval.millis);
        }
        if ccm.rdi {
            self.news.add(Faults::RDI);
        }
        if own {
            self.news.add(Faults::LOOPBACK);
            return Err(Odd::OwnMpid(mpid));
        }
        let interval = self.config.interval;
        if ccm.interval != interval.number {
            return Err(Odd::Interval(mpid, ccm.interval));
        }
        if extended && interval.number == 0 && u32::from(ccm.millis) != interval.millis {
            return Err(Odd::ExtendedInterval(mpid, ccm.millis));
        }
        if before != 0 && ccm.seq != before.wrapping_add(1) {
            return Err(Odd::Sequence(mpid, [before, ccm.seq]));
        }
        Ok(())
    }

    /// Finds what has been wrong since the last check.
    fn check(&mut self, now: Millis) {
        let mut found = std::mem::take(&mut self.news);
        if self.checks == HEALTH_CHECKS {
            self.checks = 0;
            self.find_health();
        }
        self.checks += 1;
        let traffic = &mut self.traffic;
        let busy = self.config.demand
            && self.remotes.len() == 1
            && traffic.packets > traffic.before
            && now < traffic.until;
        traffic.before = traffic.packets;
        self.remotes.retain(|_, remote| remote.heard || busy);
        let heard = || self.remotes.iter().filter(|(_, remote)| remote.heard);
        self.heard = heard().map(|(mpid, _)| *mpid).collect();
        // one that is down is enough; nobody heard, nothing new
        self.remote_up =
            if self.heard.is_empty() { self.remote_up } else { heard().all(|(_, remote)| remote.up) };
        self.remotes.values_mut().for_each(|remote| remote.heard = false);
        if self.remotes.is_empty() {
            found.add(Faults::RECV);
        }
        let before = std::mem::replace(&mut self.found, found);
        self.flaps += u64::from(before.any() != found.any());
        self.checked = true;
    }

    fn find_health(&mut self) {
        self.health = match self.remotes.len() {
            0 => Some(0),
            1 => self.remotes.first_entry().map(|mut remote| {
                let healthy = std::mem::take(&mut remote.get_mut().healthy);
                (healthy.min(HEALTHY) * 100 / HEALTHY) as u8
            }),
            _ => None,
        };
    }

    /// What is wrong.
    pub fn faults(&self) -> Faults {
        match self.forced {
            Some(true) => Faults::OVERRIDE,
            Some(false) => Faults::NONE,
            None => self.found,
        }
    }

    /// Whether the port can be used, as far as the point knows.
    pub fn works(&self) -> bool {
        !self.faults().any() && (self.remote_up || !self.config.extended)
    }

    /// For the rows.
    pub fn status(&self) -> Status {
        Status {
            faults: self.faults(),
            flaps: self.flaps,
            remote_up: self.config.extended.then_some(self.remote_up),
            health: self.health,
            remotes: self.heard.clone(),
        }
    }
}

//! Maintenance points of CFM on ports; see [`crate::watch`].

use ::cfm::{Config, Point, Status};
use datapath::slow_path::FrameKind;
use ovsdb::Datum;

use crate::watch::{self, Millis, Watcher};

/// All points.
pub type Points = watch::Watch<Watched>;
type Port = watch::Port<Config>;

/// What is odd is told once in so many milliseconds.
const PATIENCE: Millis = 60_000;

/// A point, and when something odd about what it hears was last told.
#[derive(Debug)]
pub struct Watched {
    point: Point,
    told: Option<Millis>,
}

impl Watcher for Watched {
    const KIND: FrameKind = FrameKind::Cfm;
    const NAMED: bool = true;
    type Config = Config;
    type Status = Status;

    fn begin(port: &Port, ordinal: u16, now: Millis) -> Watched {
        tracing::info!("{}: CFM begins as maintenance point {}", port.name, port.config.mpid);
        Watched { point: Point::new(port.config.clone(), port.mac, ordinal.into(), now), told: None }
    }

    fn configure(&mut self, port: &Port, now: Millis) {
        self.point.configure(port.config.clone(), now);
        self.point.set_mac(port.mac);
    }

    fn receive(&mut self, port: &Port, frame: &[u8], now: Millis) {
        if let Err(odd) = self.point.receive(frame, now)
            && self.told.is_none_or(|told| now - told >= PATIENCE)
        {
            self.told = Some(now);
            tracing::warn!("{}: {odd}", port.name);
        }
    }

    fn due(&self, _config: &Config, _now: Millis) -> Millis {
        self.point.due()
    }

    fn tick(&mut self, port: &Port, now: Millis) -> Option<Vec<u8>> {
        if port.config.demand {
            self.point.traffic(port.counters.sum().rx_packets);
        }
        self.point.tick(now)
    }

    fn status(&self, _now: Millis) -> Status {
        self.point.status()
    }

    fn columns(status: Option<&Status>) -> Vec<(&'static str, Datum)> {
        let state = |up| if up { "up" } else { "down" };
        let remotes = status.iter().flat_map(|s| &s.remotes).map(|mpid| mpid.cast_signed());
        vec![
            ("cfm_fault", Datum::set(status.map(|s| s.faults.any()))),
            ("cfm_fault_status", Datum::set(status.iter().flat_map(|s| s.faults.names()))),
            ("cfm_flap_count", Datum::set(status.map(|s| i64::try_from(s.flaps).unwrap_or(i64::MAX)))),
            ("cfm_remote_opstate", Datum::set(status.and_then(|s| s.remote_up).map(state))),
            ("cfm_health", Datum::set(status.and_then(|s| s.health).map(i64::from))),
            ("cfm_remote_mpids", Datum::set(remotes)),
        ]
    }

    fn log(name: &str, before: &Status, after: &Status) {
        if before.faults != after.faults {
            tracing::info!("{name}: CFM faults changed from [{}] to [{}].", before.faults, after.faults);
        }
    }

    fn works(&self, _now: Millis) -> bool {
        self.point.works()
    }

    fn show(&self, now: Millis) -> String {
        self.point.show(now)
    }

    fn force(&mut self, fault: Option<bool>) {
        self.point.force(fault);
    }
}

//! Points with a wire between them.

use proptest::prelude::*;

use super::*;

/// Points that all hear each other, unless cut off.
struct Wire {
    points: Vec<Point>,
    now: Millis,
    /// Frames of these reach nobody.
    cut: Vec<bool>,
}

impl Wire {
    fn new(configs: impl IntoIterator<Item = Config>) -> Wire {
        let point = |(i, config)| Point::new(config, [2, 0, 0, 0, 0, i as u8], 7, i as Millis * 13);
        let points: Vec<Point> = configs.into_iter().enumerate().map(point).collect();
        Wire { cut: vec![false; points.len()], points, now: 0 }
    }

    fn run(&mut self, millis: Millis) {
        let end = self.now + millis;
        while let Some(due) = self.points.iter().map(Point::due).min().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            for i in 0..self.points.len() {
                let Some(frame) = self.points[i].tick(self.now) else { continue };
                for to in (0..self.points.len()).filter(|to| *to != i && !self.cut[i]) {
                    let _ = self.points[to].receive(&frame, self.now);
                }
            }
        }
        self.now = end;
    }

    fn faults(&self) -> Vec<String> {
        self.points.iter().map(|point| point.faults().to_string()).collect()
    }

    fn health(&self) -> Vec<Option<u8>> {
        self.points.iter().map(|point| point.status().health).collect()
    }
}

fn config(mpid: i64, pairs: &[(&str, &'static str)]) -> Config {
    let get = |key: &str| {
        let fast = ("cfm_interval", "100");
        pairs.iter().chain([&fast]).find(|(k, _)| *k == key).map(|(_, value)| *value)
    };
    Config::read(Some(mpid), get, |why| panic!("{why}")).unwrap()
}

#[test]
fn well_until_cut() {
    let mut wire = Wire::new([config(5, &[]), config(9, &[])]);
    assert_eq!(wire.health(), [None, None], "before anything is known");
    wire.run(7 * 350 + 100);
    assert_eq!((wire.faults(), wire.health()), (vec![String::new(); 2], vec![Some(100); 2]));
    assert_eq!(wire.points[0].status().remotes, [9]);
    // one way: who hears nobody says so to the other
    wire.cut[0] = true;
    wire.run(1100);
    assert_eq!(wire.faults(), ["rdi", "recv"]);
    assert!(wire.points[1].status().remotes.is_empty() && !wire.points[0].works());
    wire.run(12 * 350);
    assert_eq!(wire.health(), [Some(0), Some(0)]);
    wire.cut[0] = false;
    wire.run(14 * 350);
    assert_eq!((wire.faults(), wire.health()), (vec![String::new(); 2], vec![Some(100); 2]));
    assert_eq!(wire.points.iter().map(|point| point.status().flaps).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn health_says_how_much_came() {
    let mut wire = Wire::new([config(5, &[]), config(9, &[])]);
    // three at the end of each check's time, of which each should hear three or four
    for _ in 0..13 {
        wire.cut = vec![true; 2];
        wire.run(150);
        wire.cut = vec![false; 2];
        wire.run(200);
    }
    assert_eq!(wire.faults(), ["", ""]);
    assert!(wire.health().iter().all(|health| (40..80).contains(&health.unwrap())), "{:?}", wire.health());
}

#[test]
fn more_than_two() {
    let mut wire = Wire::new([1, 2, 3].map(|mpid| config(mpid, &[])));
    wire.run(7 * 350 + 100);
    assert_eq!((wire.faults(), wire.health()), (vec![String::new(); 3], vec![None; 3]));
    assert_eq!(wire.points[2].status().remotes, [1, 2]);
    wire.cut = vec![true; 3];
    wire.cut[0] = false;
    // who hears nobody says so to the others, whom nobody else has to hear
    wire.run(1000);
    assert_eq!(wire.faults(), ["recv", "rdi", "rdi"]);
}

#[test]
fn what_is_wrong_is_told() {
    let mut alone = Wire::new([config(5, &[])]);
    alone.run(100);
    assert_eq!(alone.faults(), [""], "too early to say");
    let mut wire = Wire::new([config(5, &[]), config(5, &[])]);
    wire.run(1000);
    assert_eq!(wire.faults(), ["loopback", "loopback"]);
    assert!(wire.health().iter().all(|health| health.is_none_or(|percent| percent == 0)));
    // other intervals are odd, and no fault
    let mut wire = Wire::new([config(5, &[]), config(9, &[("cfm_interval", "10")])]);
    let frame = wire.points[1].tick(13).unwrap();
    assert_eq!(wire.points[0].receive(&frame, 13), Err(Odd::Interval(9, 2)));
    let mut foreign = frame.clone();
    foreign[26] ^= 1;
    assert_eq!(wire.points[0].receive(&foreign, 13), Err(Odd::Maid([2, 0, 0, 0, 0, 1])));
    wire.points[0].tick(350);
    assert_eq!(wire.faults()[0], "maid");
    // numbers that do not follow each other, too
    let frame = wire.points[1].tick(500).unwrap();
    wire.points[0].configure(config(5, &[("cfm_interval", "10")]), 500);
    assert_eq!(wire.points[0].receive(&frame, 500), Ok(()));
    assert_eq!(wire.points[0].receive(&frame, 500), Err(Odd::Sequence(9, [2, 2])));
}

#[test]
fn so_many_and_no_more() {
    let mut wire = Wire::new([config(5, &[])]);
    let mut odd = 0;
    for mpid in 100..400 {
        let frame = Point::new(config(mpid, &[]), [2; 6], 7, 0).tick(0).unwrap();
        odd += usize::from(wire.points[0].receive(&frame, 0) == Err(Odd::Overflow(mpid as u64)));
    }
    assert_eq!(odd, 300 - 256);
    wire.run(350);
    assert_eq!((wire.points[0].status().remotes.len(), wire.faults()), (256, vec![String::new()]));
}

#[test]
fn extended() {
    let extended = |mpid, more: &[_]| config(mpid, &[&[("cfm_extended", "true")], more].concat());
    let mut wire = Wire::new([extended(70_000, &[]), extended(-1, &[("cfm_opstate", "down")])]);
    wire.run(1000);
    assert_eq!(wire.faults(), ["", ""]);
    assert_eq!(wire.points[0].status().remotes, [u64::MAX]);
    assert_eq!(wire.points.iter().map(Point::works).collect::<Vec<_>>(), [false, true]);
    assert_eq!(wire.points[0].status().remote_up, Some(false));
    // a standard point neither says nor hears it
    wire.points[0].configure(config(5, &[]), wire.now);
    assert_eq!((wire.points[0].status().remote_up, wire.points[0].works()), (None, true));
}

#[test]
fn forced() {
    let mut wire = Wire::new([config(5, &[])]);
    wire.points[0].force(Some(true));
    assert_eq!(wire.faults(), ["override"]);
    assert!(wire.points[0].show(0).starts_with("MPID 5: fault_override\n  fault: override\n"));
    wire.points[0].force(Some(false));
    wire.run(1000);
    assert!(wire.points[0].works());
    wire.points[0].force(None);
    assert_eq!((wire.faults(), wire.points[0].status().flaps), (vec!["recv".to_owned()], 1));
}

#[test]
fn on_demand_other_traffic_counts_for_a_while() {
    let demand = |mpid| config(mpid, &[("cfm_extended", "true"), ("cfm_demand", "true")]);
    let mut wire = Wire::new([demand(5), demand(9)]);
    wire.run(1750);
    wire.cut = vec![true; 2];
    let mut lasted = 0;
    for packets in 1..20 {
        wire.points[0].traffic(packets);
        wire.run(1750);
        lasted += usize::from(wire.points[0].works());
    }
    assert_eq!(wire.faults(), ["recv", "recv"]);
    // 100 intervals without a message are too many
    assert!((4..8).contains(&lasted), "{lasted}");
}

#[test]
fn tags_are_sent() {
    let mut point = Point::new(config(5, &[("cfm_ccm_vlan", "random"), ("cfm_ccm_pcp", "3")]), [2; 6], 7, 0);
    let frames = [point.tick(0).unwrap(), point.tick(100).unwrap()];
    assert!(frames.iter().all(|frame| frame[12..14] == [0x81, 0] && frame[14] >> 5 == 3));
    assert_ne!(frames[0][14..16], frames[1][14..16]);
}

fn any_config() -> impl Strategy<Value = Config> {
    let values = prop_oneof!["[0-9]{1,7}", "random", "true", "down", "-[0-9]{1,10}", any::<String>()];
    let keys = ["cfm_interval", "cfm_extended", "cfm_demand", "cfm_opstate", "cfm_ccm_vlan", "cfm_ccm_pcp"];
    let columns = (any::<i64>(), proptest::collection::vec(values, 6));
    columns.prop_filter_map("without one", move |(mpid, values)| {
        let get = |key: &str| keys.iter().zip(&values).find(|(k, _)| **k == key).map(|(_, v)| v.as_str());
        Config::read(Some(mpid), get, |_| ())
    })
}

proptest! {
    /// Whatever is asked for and whatever comes, at whatever time.
    #[test]
    fn nothing_panics_and_time_goes_on(
        config in any_config(),
        frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..120), 0..10_000_000_i64), 0..20),
        forged in any::<[u8; 75]>(),
    ) {
        let mut point = Point::new(config.clone(), [2; 6], 1, 0);
        let mut now = 0;
        for (frame, later) in frames {
            now += later;
            if let Some(sent) = point.tick(now) {
                prop_assert!(sent.starts_with(&config.destination()));
            }
            prop_assert!(point.due() > now);
            let _ = point.receive(&frame, now);
            let mut near = Point::new(config.clone(), [4; 6], 1, 0).tick(0).unwrap();
            for (byte, other) in near.iter_mut().skip(14).zip(forged).step_by(5) {
                *byte ^= other;
            }
            let _ = point.receive(&near, now);
            point.traffic(later as u64);
            point.show(now);
            prop_assert!(point.status().health.is_none_or(|percent| percent <= 100));
        }
    }
}

//! What comes to the maintenance point of a port, whoever sends it.
//!
//! Input: a byte that says which settings the point has; then events: a byte for the time that passes and what happens, and for a
//! frame the length of what follows.
#![no_main]

use cfm::{Config, Point};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let flag = |bit: u8| if first & bit == 0 { "false" } else { "true" };
    let settings = |key: &str| match key {
        "cfm_extended" => Some(flag(1)),
        "cfm_demand" => Some(flag(2)),
        "cfm_interval" => Some(["100", "1000", "3", "65535"][usize::from(first >> 2 & 3)]),
        _ => None,
    };
    let config = Config::read(Some(5), settings, |why| panic!("{why}")).expect("a point");
    let (mut point, mut now) = (Point::new(config.clone(), [2; 6], 1, 0), 0);
    while let Some((what, more)) = rest.split_first() {
        now += i64::from(what >> 2) * 10;
        rest = more;
        match what & 3 {
            0 => {
                let sent = point.tick(now);
                assert!(sent.is_none_or(|frame| frame.starts_with(&config.destination())));
                assert!(point.due() > now);
            }
            1 => point.force([None, Some(true), Some(false)][usize::from(what >> 2) % 3]),
            2 => point.traffic(now.unsigned_abs()),
            _ => {
                let Some((len, more)) = rest.split_first() else { return };
                let (frame, more) = more.split_at(more.len().min(usize::from(*len)));
                let _ = point.receive(frame, now);
                rest = more;
            }
        }
        let status = point.status();
        assert!(status.health.is_none_or(|percent| percent <= 100) && status.remotes.len() <= 256);
        assert!(!point.show(now).is_empty());
    }
});

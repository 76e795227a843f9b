//! Two sessions with a wire between them.

use proptest::prelude::*;

use super::*;

/// Both ends, and what happens in between.
struct Wire {
    ends: [Session; 2],
    now: Millis,
    /// Frames sent by each, with their times.
    sent: [Vec<Millis>; 2],
    cut: [bool; 2],
}

impl Wire {
    fn new(configs: [Config; 2]) -> Wire {
        let [a, b] = configs;
        let ends = [
            Session::new(a, [2, 0, 0, 0, 0, 1], 0x11, 49152, 0),
            Session::new(b, [2, 0, 0, 0, 0, 2], 0x22, 49153, 300),
        ];
        Wire { ends, now: 0, sent: Default::default(), cut: [false; 2] }
    }

    fn run(&mut self, millis: Millis) {
        let end = self.now + millis;
        loop {
            let due = self.ends.iter().map(Session::due).min().unwrap();
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            for i in 0..2 {
                if let Some(frame) = self.ends[i].tick(self.now) {
                    self.sent[i].push(self.now);
                    if !self.cut[i] {
                        assert!(self.ends[1 - i].receive(&frame, self.now));
                    }
                }
            }
        }
        self.now = end;
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state, self.ends[1].state]
    }

    fn status(&self, end: usize, key: &str) -> String {
        self.ends[end].status(self.now).into_iter().find(|(k, _)| *k == key).unwrap().1
    }
}

fn fast() -> Config {
    Config { min_rx: 100, min_tx: 100, ..Config::default() }
}

#[test]
fn up_in_a_few_seconds_and_fast_from_then_on() {
    let mut wire = Wire::new([fast(), fast()]);
    wire.run(4000);
    assert_eq!(wire.states(), [State::Up; 2]);
    for end in 0..2 {
        assert_eq!(wire.status(end, "forwarding"), "true");
        assert_eq!(wire.status(end, "remote_state"), "up");
        assert_eq!(wire.status(end, "flap_count"), "1");
        wire.sent[end].clear();
    }
    wire.run(10_000);
    for sent in &wire.sent {
        // an interval less 0 to 25 %
        assert!((100..=134).contains(&sent.len()), "{}", sent.len());
        assert!(sent.windows(2).all(|w| (75..=100).contains(&(w[1] - w[0]))), "{sent:?}");
    }
}

#[test]
fn slow_until_it_is_up() {
    let mut wire = Wire::new([fast(), fast()]);
    wire.cut = [true; 2];
    wire.run(20_000);
    assert_eq!(wire.states(), [State::Down; 2]);
    assert!(wire.sent[0].windows(2).all(|w| (750..=1000).contains(&(w[1] - w[0]))), "{:?}", wire.sent[0]);
}

#[test]
fn silence_is_noticed_after_the_multiplier_and_the_other_end_is_told() {
    let mut wire = Wire::new([fast(), fast()]);
    wire.run(4000);
    // the second hears nothing any more
    wire.cut[0] = true;
    wire.run(150);
    assert_eq!(wire.states(), [State::Up; 2]);
    wire.run(1400);
    assert_eq!(wire.status(1, "diagnostic"), "Control Detection Time Expired");
    assert_eq!(wire.status(0, "diagnostic"), "Neighbor Signaled Session Down");
    assert_eq!(wire.status(1, "forwarding"), "false");
    wire.cut[0] = false;
    wire.run(4000);
    assert_eq!(wire.states(), [State::Up; 2]);
    assert_eq!(wire.status(1, "flap_count"), "3");
}

#[test]
fn new_intervals_are_announced_before_they_are_used() {
    let mut wire = Wire::new([fast(), fast()]);
    wire.run(4000);
    wire.ends[1].configure(Config { min_rx: 500, ..fast() }, wire.now);
    wire.run(2000);
    assert_eq!(wire.states(), [State::Up; 2]);
    assert_eq!(
        (wire.ends[0].remote.min_rx, wire.ends[0].tx_interval(), wire.ends[1].min_rx),
        (500, 500, 500)
    );
    assert_eq!(wire.ends[1].flags.names(), "none");
    wire.sent[0].clear();
    wire.run(5000);
    assert!(wire.sent[0].len() <= 14, "{:?}", wire.sent[0]);
    assert_eq!(wire.states(), [State::Up; 2]);
}

#[test]
fn a_path_that_goes_no_further_is_told_and_the_session_stays() {
    let mut wire = Wire::new([fast(), fast()]);
    wire.run(4000);
    wire.ends[0].configure(Config { cpath_down: true, ..fast() }, wire.now);
    wire.run(500);
    assert_eq!(wire.states(), [State::Up; 2]);
    assert_eq!(wire.status(1, "remote_diagnostic"), "Concatenated Path Down");
    assert_eq!([0, 1].map(|end| wire.status(end, "forwarding")), ["true", "false"]);
    wire.ends[0].configure(fast(), wire.now);
    wire.run(500);
    assert_eq!(wire.status(1, "forwarding"), "true");
}

#[test]
fn other_traffic_counts_when_asked_to() {
    let config = Config { forwarding_if_rx: true, ..fast() };
    let mut wire = Wire::new([config, fast()]);
    wire.run(4000);
    wire.cut[1] = true;
    for i in 1..=20 {
        wire.run(100);
        wire.ends[0].traffic(i, wire.now);
    }
    assert_eq!(wire.states()[0], State::Down);
    assert_eq!(wire.status(0, "forwarding"), "true");
    // a hundred intervals without a packet of the session: not even then
    for i in 21..220 {
        wire.run(100);
        wire.ends[0].traffic(i, wire.now);
    }
    assert_eq!(wire.status(0, "forwarding"), "false");
}

#[test]
fn forwarding_can_be_forced() {
    let mut wire = Wire::new([fast(), fast()]);
    wire.run(4000);
    wire.ends[0].force(Some(false));
    assert_eq!(wire.status(0, "forwarding"), "false");
    wire.ends[0].force(None);
    assert_eq!(wire.status(0, "forwarding"), "true");
}

/// As Open vSwitch 3.1 prints a session that has heard nobody.
#[test]
fn show() {
    let session = Session::new(Config::default(), [2; 6], 0x172d_1d36, 49152, 1_000);
    assert_eq!(
        session.show(500),
        "  Forwarding: false
  Detect Multiplier: 3
  Concatenated Path Down: false
  TX Interval: Approx 1000ms
  RX Interval: Approx 1000ms
  Detect Time: now -500ms
  Next TX Time: now +500ms
  Last TX Time: now -500ms

  Local Flags: none
  Local Session State: down
  Local Diagnostic: No Diagnostic
  Local Discriminator: 0x172d1d36
  Local Minimum TX Interval: 1000ms
  Local Minimum RX Interval: 1000ms

  Remote Flags: none
  Remote Session State: down
  Remote Diagnostic: No Diagnostic
  Remote Discriminator: 0x0
  Remote Minimum TX Interval: 0ms
  Remote Minimum RX Interval: 1ms
  Remote Detect Multiplier: 0
"
    );
}

proptest! {
    /// Whatever the settings, two ends that hear each other come up and stay so, and neither sends faster than it may.
    #[test]
    fn any_two_agree(a in (10u32..2000, 10u32..2000, 1u8..10), b in (10u32..2000, 10u32..2000, 1u8..10)) {
        let config = |(min_rx, min_tx, mult)| Config { min_rx, min_tx, mult, ..Config::default() };
        let mut wire = Wire::new([config(a), config(b)]);
        wire.run(15_000);
        prop_assert_eq!(wire.states(), [State::Up; 2]);
        wire.sent = Default::default();
        wire.run(5_000);
        prop_assert_eq!(wire.states(), [State::Up; 2]);
        for (sent, least) in wire.sent.iter().zip([a.1.max(b.0), b.1.max(a.0)]) {
            let least = Millis::from(least);
            prop_assert!(sent.windows(2).all(|w| w[1] - w[0] >= (least * 3 / 4).max(1)));
        }
    }
}

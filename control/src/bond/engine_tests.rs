//! Links that come and go, on a clock of the test's.

use proptest::prelude::*;

use super::*;

const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const NONE: Mac = [0; 6];

/// A bond of `a` and `b`, and which of their links are up.
struct Lab {
    bond: Bond,
    up: [bool; 2],
}

impl Lab {
    fn new(settings: Settings, last: Mac, up: [bool; 2]) -> Lab {
        let mut lab = Lab { bond: Bond::new("bond0", settings, last), up };
        lab.at(0, up);
        lab
    }

    /// The links are so at `now`. Gives the active member.
    fn at(&mut self, now: Millis, up: [bool; 2]) -> String {
        self.up = up;
        let [a, b] = up;
        let members = BTreeMap::from([("a".to_owned(), (A, a)), ("b".to_owned(), (B, b))]);
        self.bond.follow(&members, now);
        self.bond.run(now);
        self.bond.active().unwrap_or("-").to_owned()
    }

    fn later(&mut self, now: Millis) -> String {
        self.at(now, self.up)
    }
}

fn delays(updelay: Millis, downdelay: Millis) -> Settings {
    Settings { updelay, downdelay, ..Settings::default() }
}

fn primary(name: &str) -> Settings {
    Settings { primary: Some(name.into()), ..Settings::default() }
}

#[test]
fn the_active_member_stays_while_it_can() {
    let mut lab = Lab::new(Settings::default(), NONE, [true, true]);
    assert_eq!((lab.later(1).as_str(), lab.bond.active_mac()), ("a", A));
    assert!(lab.bond.take_moved() && !lab.bond.take_moved());
    assert_eq!((lab.at(2, [false, true]).as_str(), lab.bond.active_mac()), ("b", B));
    assert!(lab.bond.take_moved());
    assert_eq!(lab.at(3, [true, true]), "b", "without a primary nobody fails back");
    assert!(!lab.bond.take_moved());
    assert_eq!((lab.at(4, [false, false]).as_str(), lab.bond.active_mac()), ("-", NONE));
    assert!(!lab.bond.take_moved(), "there is nobody to tell, and no way");
    assert_eq!(lab.at(5, [true, false]), "a");
    assert_eq!(lab.bond.due(), None);
}

#[test]
fn who_was_active_before_a_restart_is_again() {
    assert_eq!(Lab::new(Settings::default(), B, [true, true]).later(1), "b");
    assert_eq!(Lab::new(Settings::default(), B, [true, false]).later(1), "a");
    assert_eq!(Lab::new(primary("a"), B, [true, true]).later(1), "a");
}

#[test]
fn the_primary_comes_first() {
    let mut lab = Lab::new(primary("b"), NONE, [true, true]);
    assert_eq!(lab.later(1), "b");
    assert_eq!(lab.at(2, [true, false]), "a");
    assert_eq!(lab.at(3, [true, true]), "b");
    assert_eq!(lab.bond.set_active("a"), Ok(true));
    assert_eq!(lab.later(4), "b", "at once");
    lab.bond.configure(primary("nobody"));
    assert_eq!(lab.at(5, [true, false]), "a");
    assert_eq!(lab.at(6, [true, true]), "a");
}

#[test]
fn delays_are_waited_out_and_begin_anew() {
    let mut lab = Lab::new(delays(300, 200), NONE, [true, true]);
    assert_eq!(lab.at(1000, [false, true]), "a");
    assert_eq!(lab.bond.due(), Some(1200));
    assert_eq!(lab.at(1199, [false, true]), "a");
    assert_eq!(lab.at(1199, [true, true]), "a", "it came back in time");
    assert_eq!(lab.bond.due(), None);
    assert_eq!(lab.at(1500, [false, true]), "a");
    assert_eq!(lab.later(1700), "b");
    // up again, b goes while a still waits: a is taken at once
    assert_eq!(lab.at(2000, [true, true]), "b");
    assert_eq!(lab.bond.due(), Some(2300));
    assert_eq!(lab.at(2100, [true, false]), "b", "downdelay");
    assert_eq!(lab.later(2299), "b");
    assert_eq!(lab.later(2300), "a");
    assert_eq!(lab.at(3000, [false, false]), "a");
    assert_eq!(lab.later(3200), "-");
    assert_eq!(lab.at(3300, [false, true]), "b", "no updelay where none is enabled");
    assert_eq!(lab.bond.due(), None);
}

#[test]
fn what_operators_ask_for() {
    let mut lab = Lab::new(delays(50, 0), NONE, [true, true]);
    assert_eq!(lab.bond.set_active("c"), Err(Refused::NoMember));
    assert_eq!(lab.bond.set_active("a"), Ok(false));
    assert_eq!(lab.bond.set_active("b"), Ok(true));
    assert_eq!((lab.later(1).as_str(), lab.bond.take_moved()), ("b", true));
    assert_eq!(lab.bond.enable("b", false), Ok(()));
    assert_eq!(lab.bond.set_active("b"), Err(Refused::Disabled));
    assert_eq!(lab.later(2), "a");
    assert_eq!(lab.bond.due(), Some(52), "its link is up, so it comes back");
    assert_eq!(lab.later(52), "a");
    assert_eq!(lab.bond.set_active("b"), Ok(true));
    assert_eq!(lab.bond.enable("c", true), Err(Refused::NoMember));
}

#[test]
fn members_come_and_go() {
    let mut bond = Bond::new("bond0", Settings::default(), NONE);
    let mut follow = |members: &[(&str, Mac)], now| {
        let members = members.iter().map(|(name, mac)| ((*name).to_owned(), (*mac, true))).collect();
        bond.follow(&members, now);
        bond.run(now);
        (bond.active().map(str::to_owned), bond.take_moved())
    };
    assert_eq!(follow(&[], 0), (None, false));
    assert_eq!(follow(&[("b", B)], 1), (Some("b".into()), true));
    assert_eq!(follow(&[("a", A), ("b", B)], 2), (Some("b".into()), false));
    assert_eq!(follow(&[("a", A)], 3), (Some("a".into()), true));
    assert_eq!(follow(&[], 4), (None, false));
}

#[test]
fn shown_as_open_vswitch_shows_it() {
    let settings = Settings { primary: Some("nix".into()), hash_basis: 7, ..delays(30, 40) };
    let mut lab = Lab::new(settings, NONE, [true, true]);
    lab.at(10, [true, false]);
    assert_eq!(
        lab.bond.show(23),
        "---- bond0 ----\n\
         bond_mode: active-backup\n\
         bond may use recirculation: no, Recirc-ID : -1\n\
         bond-hash-basis: 7\n\
         lb_output action: disabled, bond-id: -1\n\
         updelay: 30 ms\n\
         downdelay: 40 ms\n\
         lacp_status: off\n\
         lacp_fallback_ab: false\n\
         active-backup primary: nix (no such member)\n\
         active member mac: 02:00:00:00:00:0a(a)\n\
         \n\
         member a: enabled\n\
         \x20 active member\n\
         \x20 may_enable: true\n\
         \n\
         member b: enabled\n\
         \x20 downdelay expires in 27 ms\n\
         \x20 may_enable: false\n\
         \n"
    );
    lab.at(60, [false, false]);
    assert!(lab.later(200) == "-" && lab.bond.show(200).contains("mac: 00:00:00:00:00:00(none)"));
}

proptest! {
    /// Whatever links do: no member is active for longer than its delay after its link went, and there is an active one
    /// where any link is up.
    #[test]
    fn a_link_that_is_up_is_used(
        steps in prop::collection::vec((1..400i64, any::<[bool; 2]>()), 1..60),
        (updelay, downdelay) in (0..300i64, 0..300i64),
        first in prop::option::of(prop::sample::select(vec!["a", "b"])),
    ) {
        let settings = Settings { primary: first.map(str::to_owned), ..delays(updelay, downdelay) };
        let mut lab = Lab::new(settings, NONE, [true, false]);
        let (mut now, mut down_since) = (0, [0, 0]);
        for (wait, up) in steps {
            // what is due in between has its effect when it is due
            while let Some(due) = lab.bond.due().filter(|due| *due <= now + wait) {
                let active = lab.later(due);
                prop_assert!(active == "-" || lab.up != [false, false] || downdelay > 0);
            }
            now += wait;
            for (i, since) in down_since.iter_mut().enumerate() {
                if up[i] {
                    *since = Millis::MAX;
                } else if lab.up[i] {
                    *since = now;
                }
            }
            let active = lab.at(now, up);
            match active.as_str() {
                "-" => prop_assert_eq!(up, [false, false]),
                name => {
                    let since = down_since[usize::from(name == "b")];
                    prop_assert!(now < since.saturating_add(downdelay.max(1)), "{} since {}", name, since);
                }
            }
            prop_assert_eq!(lab.bond.active_mac() == NONE, active == "-");
        }
    }
}

//! `bond/…`. The old names of commands, with "slave" for "member", are answered and not listed, as in Open vSwitch.

use super::{Args, Reply};
use crate::bond::engine::{Bond, Refused};
use crate::bond::hash;
use crate::daemon::Daemon;
use crate::devices::parse_mac;
use crate::unixctl::Command;

/// What is asked of a bond about one of its members, and what is said of it.
type Change = fn(&mut Bond, &str) -> Result<&'static str, Refused>;

/// All of them.
pub fn commands() -> impl Iterator<Item = Command<Daemon>> {
    let changes: [(_, _, Change); 3] = [
        ("bond/set-active-member", "bond/set-active-slave", |bond, member| {
            bond.set_active(member).map(|changed| if changed { "done" } else { "no change" })
        }),
        ("bond/enable-member", "bond/enable-slave", |bond, member| {
            bond.enable(member, true).map(|()| "enabled")
        }),
        ("bond/disable-member", "bond/disable-slave", |bond, member| {
            bond.enable(member, false).map(|()| "disabled")
        }),
    ];
    let changes = changes.into_iter().flat_map(|(name, old, change)| {
        let run = move |d: &Daemon, args: Args<'_>| ask(d, args, change);
        [Command::new(name, "port member", 2..=2, run), Command::new(old, "", 2..=2, run).unlisted()]
    });
    let others = [
        Command::new("bond/list", "", 0..=0, |d: &Daemon, _| Ok(d.bonds().list())),
        Command::new("bond/show", "[port]", 0..=1, show),
        Command::new("bond/migrate", "port hash member", 3..=3, migrate),
        Command::new("bond/hash", "mac [vlan] [basis]", 1..=3, |_, args| hash(args)),
    ];
    changes.chain(others)
}

fn no_bond() -> String {
    "no such bond".into()
}

fn show(d: &Daemon, args: Args<'_>) -> Reply {
    d.bonds().show(args.first().map(String::as_str)).ok_or_else(no_bond)
}

fn ask(d: &Daemon, args: Args<'_>, change: Change) -> Reply {
    let [bond, member] = args else { return Err(no_bond()) };
    let answer = d.bonds().ask(bond, |bond| change(bond, member)).ok_or_else(no_bond)?;
    answer.map(str::to_owned).map_err(|e| e.to_string())
}

/// Of bonds that balance there is none.
fn migrate(d: &Daemon, args: Args<'_>) -> Reply {
    let bond = args.first().and_then(|bond| d.bonds().show(Some(bond)));
    Err(bond.map_or_else(no_bond, |_| "not an SLB bond".into()))
}

fn hash(args: Args<'_>) -> Reply {
    let mac = args.first().and_then(|text| parse_mac(text.get(..17).unwrap_or(text)));
    let number = |at: usize| args.get(at).map_or(Some(0), |text| scan(text));
    let vlan = number(1).ok_or("invalid vlan")?;
    let basis = number(2).ok_or("invalid basis")?;
    let mac = mac.ok_or("invalid mac")?;
    Ok(hash::bucket(mac, vlan as u16, basis).to_string())
}

/// A number as `scanf` takes it: what stands behind it does not count, and a negative one is counted from the other end.
fn scan(text: &str) -> Option<u32> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let number: i64 = digits.get(..end)?.parse().ok()?;
    Some((sign * number) as u32)
}

#[cfg(test)]
mod tests {
    use super::super::tests::args;
    use super::*;

    #[test]
    fn hashes_are_asked_for_as_open_vswitch_takes_them() {
        for (line, want) in [
            ("00:11:22:33:44:55", Ok("226")),
            ("00:11:22:33:44:55 5 77", Ok("99")),
            ("00:11:22:33:44:55:66", Ok("226")),
            ("02:aa:bb:cc:dd:ee 4095 -1", Ok("100")),
            ("00:11:22:33:44:55 5x 5x", Ok("232")),
            ("zz", Err("invalid mac")),
            ("00:11:22:33:44:55 x", Err("invalid vlan")),
            ("00:11:22:33:44:55 5 x", Err("invalid basis")),
        ] {
            let got = hash(&args(line));
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{line}");
        }
    }
}

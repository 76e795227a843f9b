//! What comes to a bridge's group address, whoever sends it.
//!
//! Input: a byte whose lowest bit says which protocol is spoken; then events: a byte that says which port it is and what (see
//! `event`), and for a BPDU the length of what follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rstp::bpdu::Bpdu;
use rstp::{Action, Bridge, BridgeConfig, BridgeId, PortConfig, PortId, Role, State, Version};

const PORTS: u16 = 4;

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let version = if first & 1 == 0 { Version::Rstp } else { Version::Stp };
    let id = BridgeId::new(0x8000, [2, 0, 0, 0, 0, 1]);
    let mut bridge = Bridge::new(BridgeConfig { version, ..BridgeConfig::new(id) });
    for key in 0..PORTS {
        bridge.set_port(key, PortConfig::new(PortId(0x8001 + key), 2000));
        bridge.set_enabled(key, true);
    }
    while let Some((what, more)) = rest.split_first() {
        rest = event(&mut bridge, *what, more);
        check(&mut bridge);
    }
});

/// Returns what is left of the input.
fn event<'a>(bridge: &mut Bridge, what: u8, rest: &'a [u8]) -> &'a [u8] {
    let key = u16::from(what & 3);
    match what >> 2 & 7 {
        0 => bridge.tick(),
        1 => bridge.set_enabled(key, false),
        2 => bridge.set_enabled(key, true),
        3 => bridge.check_migration(key),
        4 => bridge.force_topology_change(),
        _ => {
            let Some((len, rest)) = rest.split_first() else { return rest };
            let (payload, rest) = rest.split_at(rest.len().min(usize::from(*len)));
            bridge.receive(key, payload);
            return rest;
        }
    }
    rest
}

fn check(bridge: &mut Bridge) {
    let mut count = [0; PORTS as usize];
    while let Some(action) = bridge.poll() {
        if let Action::Transmit(key, bpdu) = action {
            count[usize::from(key)] += 1;
            let sent = bpdu.encode();
            // nobody heeds one whose time is up (802.1D 9.3.4)
            let over = matches!(bpdu, Bpdu::Config(m) if m.times.message_age >= m.times.max_age);
            assert!(over || Bpdu::decode(&sent).map(|b| b.encode()) == Ok(sent), "{bpdu:?}");
        }
    }
    assert!(count.iter().all(|n| *n <= 6), "no more than the hold count at once: {count:?}");
    for (key, port) in bridge.ports() {
        let blocked = matches!(port.role, Role::Alternate | Role::Backup | Role::Disabled);
        assert!(!blocked || port.state == State::Discarding, "{key}: {port:?}");
    }
    let roots = bridge.ports().filter(|(_, port)| port.role == Role::Root).count();
    assert_eq!(roots, usize::from(bridge.status().root_port.is_some()));
}

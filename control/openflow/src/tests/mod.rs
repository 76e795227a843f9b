//! Replies as a real Open vSwitch 3.1 gives them, and clients that say anything.

use std::time::Duration;

use proptest::prelude::*;

use crate::*;

/// Requests of `ovs-ofctl` and the replies of a bridge with ports p0, p1, gre0 and p2 = 42, in hexadecimal.
const RECORDED: &str = include_str!("recorded.txt");

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|d| std::str::from_utf8(d).unwrap());
    digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bridge of the recording, its ports in the order in which Open vSwitch's table has them.
fn bridge() -> Bridge {
    let copper = Features(Features::speed(10_000, true) | Features::COPPER);
    let port =
        |number, name: &str, mac| Port { number, name: name.into(), mac, current: copper, ..Port::default() };
    let counted = |rx_tx| {
        let [packets, bytes] = rx_tx;
        let zero = Some(0);
        PortStats {
            rx_packets: Some(packets),
            tx_packets: Some(packets),
            rx_bytes: Some(bytes),
            tx_bytes: Some(bytes),
            rx_dropped: zero,
            tx_dropped: zero,
            rx_errors: zero,
            tx_errors: zero,
            rx_frame_err: zero,
            rx_over_err: zero,
            rx_crc_err: zero,
            collisions: zero,
        }
    };
    let zero = Some(0);
    let tunnel = PortStats {
        rx_packets: zero,
        tx_packets: zero,
        rx_bytes: zero,
        tx_bytes: zero,
        ..PortStats::default()
    };
    let ports = vec![
        Port { stats: counted([1, 90]), ..port(1, "p0", [2, 0, 0, 0, 0, 0]) },
        Port { stats: counted([0, 0]), ..port(42, "p2", [2, 0, 0, 0, 0, 2]) },
        Port {
            stats: counted([0, 0]),
            config: PortConfig::DOWN,
            link_down: true,
            ..port(0xfffe, "br0", [2, 0, 0, 0, 0, 0xaa])
        },
        Port { stats: counted([0, 0]), ..port(2, "p1", [2, 0, 0, 0, 0, 1]) },
        Port {
            stats: tunnel,
            current: Features::default(),
            ..port(3, "gre0", [0x76, 0xb0, 0x1d, 0x31, 0x3e, 0x6c])
        },
    ];
    Bridge {
        datapath_id: 0x0200_0000_00aa,
        software: "3.1.0".into(),
        serial: "None".into(),
        description: "None".into(),
        ports,
        flow: Flow { idle: Some(Duration::from_secs(20)), ..Flow::default() },
    }
}

/// A session that has agreed on a version.
fn session(version: Version) -> Session {
    let mut session = Session::new(Version::ALL);
    let Ok(Some(Event::Send(hello))) = session.poll() else { panic!("no HELLO") };
    assert_eq!(hex(&hello), "04000010000000010001000800000012");
    let theirs = [version.number(), 0, 0, 8, 0, 0, 0, 1];
    session.receive(&theirs);
    assert!(matches!(session.poll(), Ok(None)));
    assert_eq!(session.version(), Some(version));
    session
}

/// Everything that is said to these bytes; ports are changed as asked.
fn converse(session: &mut Session, bytes: &[u8], bridge: &mut Bridge) -> Result<Vec<u8>, Broken> {
    session.receive(bytes);
    let mut said = Vec::new();
    while let Some(event) = session.poll()? {
        match event {
            Event::Send(reply) => said.extend(reply),
            Event::Ask(question) => said.extend(question.answer(bridge)),
            Event::Modify(change) => match change.check(bridge) {
                Ok(config) => {
                    bridge
                        .ports
                        .iter_mut()
                        .filter(|p| p.number == change.port)
                        .for_each(|p| p.config = config);
                }
                Err(refusal) => said.extend(refusal),
            },
        }
    }
    Ok(said)
}

fn ask(version: Version, request: &str) -> String {
    hex(&converse(&mut session(version), &bytes(request), &mut bridge()).unwrap())
}

/// Seconds and nanoseconds at an offset of a recorded reply.
fn duration(reply: &[u8], at: usize) -> Duration {
    let number = |at| u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
    Duration::new(number(at).into(), number(at + 4))
}

#[test]
fn as_recorded() {
    for line in RECORDED.lines() {
        let (request, reply) = line.split_once(' ').map(|(a, b)| (bytes(a), bytes(b))).unwrap();
        let mut bridge = bridge();
        // Time passed between one command and the next
        let stat = request.get(8..10).unwrap_or_default();
        match (request[0], stat, reply.len()) {
            (1, [0xff, 0xff], 80) => bridge.flow.age = duration(&reply, 28),
            (4, [0, 1], 96) => bridge.flow.age = duration(&reply, 20),
            (4, [0, 4], _) => {
                let ages = (0..5).map(|i| duration(&reply, 16 + 112 * i + 104));
                bridge.ports.iter_mut().zip(ages).for_each(|(port, age)| port.age = age);
            }
            _ => {}
        }
        let version = if request[0] == 1 { Version::V10 } else { Version::V13 };
        let mut said = converse(&mut session(version), &request, &mut bridge).unwrap();
        if let (1, [0xff, 0xff], 80) = (request[0], stat, reply.len()) {
            said[46..48].copy_from_slice(&reply[46..48]); // how old the flow is in whole seconds, counted apart
        }
        assert_eq!(hex(&said), hex(&reply), "{}", hex(&request));
    }
}

#[test]
fn flows_that_a_question_means() {
    let nxm = |out: &str, length: &str, table: &str, fields: &str| {
        let len = 32 + fields.len() / 2;
        let request = format!(
            "0110{len:04x}00000004ffff0000000023200000000000000000{out}{length}{table}000000{fields}"
        );
        ask(Version::V10, &request).len() == 160
    };
    assert!(nxm("ffff", "0000", "ff", ""));
    assert!(nxm("ffff", "0000", "00", ""), "its table");
    assert!(nxm("fffa", "0000", "ff", ""), "where it sends to");
    assert!(!nxm("0001", "0000", "ff", ""), "another port");
    assert!(!nxm("ffff", "0000", "01", ""), "another table");
    assert!(!nxm("ffff", "0006", "ff", "0000000200010000"), "in_port=1");
    assert!(nxm("ffff", "0014", "ff", "00013d100000000000000000ffffffffffffffff00000000"), "cookie=0/-1");
    assert!(!nxm("ffff", "0014", "ff", "00013d100000000000000007ffffffffffffffff00000000"), "cookie=7/-1");
    let v13 = |table: &str, port: &str, cookie: &str, of_match: &str| {
        let len = 48 + of_match.len() / 2;
        let request = format!(
            "0412{len:04x}000000020001000000000000{table}000000{port}ffffffff00000000{cookie}ffffffffffffffff{of_match}"
        );
        ask(Version::V13, &request).len() == 192
    };
    let any = "0001000400000000";
    assert!(v13("ff", "ffffffff", "0000000000000000", any));
    assert!(v13("00", "fffffffa", "0000000000000000", any));
    assert!(!v13("00", "00000001", "0000000000000000", any));
    assert!(!v13("00", "0000fffa", "0000000000000000", any), "no number of a port");
    assert!(!v13("00", "ffffffff", "0000000000000001", any));
    assert!(!v13("00", "ffffffff", "0000000000000000", "0001000c800000040000000100000000"), "in_port=1");
    let v10 = |wildcards: &str| {
        ask(
            Version::V10,
            &format!("0110003800000002000100 00{wildcards}{}ff00ffff", "00".repeat(36)).replace(' ', ""),
        )
        .len()
            > 24
    };
    assert!(v10("003fffff") && v10("003820ff"));
    assert!(!v10("003820fe"), "in_port");
}

#[test]
fn what_would_change_flows_is_refused() {
    for (version, kinds) in [(Version::V10, &[13, 14][..]), (Version::V13, &[13, 14, 15, 17, 29])] {
        for kind in kinds {
            let request = format!("{:02x}{kind:02x}001000000007{}", version.number(), "00".repeat(8));
            let said = ask(version, &request);
            assert_eq!(said, format!("{:02x}01001c0000000700010005{request}", version.number()));
        }
    }
    // NXT_FLOW_MOD, a bundle, a set of table features
    for request in [
        "0404001800000009000023200000000d0000000000000000",
        "04040010000000094f4e460000000900",
        "041200180000000900 0c000000000000ffffffffffffffff",
    ] {
        let said = ask(Version::V13, &request.replace(' ', ""));
        assert_eq!(&said[16..24], "00010005", "{request}");
    }
}

#[test]
fn ports_are_configured() {
    let mut bridge = bridge();
    let mut session = session(Version::V10);
    let down = "010f002000000004000202000000000100000001000000010000000000000000";
    assert_eq!(converse(&mut session, &bytes(down), &mut bridge), Ok(vec![]));
    assert_eq!(bridge.port(2).map(|p| p.config), Some(PortConfig::DOWN));
    let no_flood = "010f002000000004000202000000000100000010000000100000000000000000";
    assert_eq!(converse(&mut session, &bytes(no_flood), &mut bridge), Ok(vec![]));
    assert_eq!(bridge.port(2).map(|p| p.config.0), Some(0x11));
    // no such port; not its address
    for (request, code) in [
        ("010f002000000004000902000000000100000001000000010000000000000000", "00040000"),
        ("010f002000000004000202000000000900000001000000010000000000000000", "00040001"),
    ] {
        let said = converse(&mut session, &bytes(request), &mut bridge).unwrap();
        assert_eq!(hex(&said[8..12]), code);
    }
    assert_eq!(bridge.port(2).map(|p| p.config.0), Some(0x11));
    // what 1.3 has no bit for stays as it is
    let mut session = super::tests::session(Version::V13);
    let all = "041000280000000400000002000000000200000000010000000000 00ffffffff0000000000000000";
    assert_eq!(converse(&mut session, &bytes(&all.replace(' ', "")), &mut bridge), Ok(vec![]));
    assert_eq!(bridge.port(2).map(|p| p.config), Some(PortConfig::NO_FLOOD));
}

#[test]
fn versions_are_agreed_on() {
    for (hello, agreed) in [
        ("0100000800000001", Some(Version::V10)),
        ("0200000800000001", Some(Version::V10)),
        ("0400000800000001", Some(Version::V13)),
        ("0600000800000001", Some(Version::V13)),
        ("ff00000800000001", Some(Version::V13)),
        ("04000010000000010001000800000010", Some(Version::V13)),
        ("04000010000000010001000800000002", Some(Version::V10)),
        // an element that nobody knows, before it
        ("040000180000000100090006aaaa00000001000800000002", Some(Version::V10)),
        ("05000010000000010001000800000020", None),
        ("0000000800000001", None),
    ] {
        let mut session = Session::new(Version::ALL);
        session.poll().unwrap();
        session.receive(&bytes(hello));
        let outcome = session.poll();
        assert_eq!(session.version(), agreed, "{hello}");
        if agreed.is_none() {
            let farewell = outcome.unwrap_err().farewell;
            assert_eq!(hex(&farewell[..2]), "0101", "an error of a version that everybody reads");
            assert_eq!(hex(&farewell[8..12]), "00000000");
        }
    }
    for (ours, hello, agreed) in [
        (&[Version::V13][..], "0600000800000001", Some(Version::V13)),
        (&[Version::V13], "0100000800000001", None),
        (&[Version::V10], "0600000800000001", Some(Version::V10)),
        (&[], "0600000800000001", None),
    ] {
        let mut session = Session::new(ours.iter().copied());
        let Ok(Some(Event::Send(greeting))) = session.poll() else { panic!("no HELLO") };
        assert_eq!(greeting[0], ours.last().map_or(1, |v| v.number()));
        session.receive(&bytes(hello));
        assert_eq!(
            (session.poll().is_ok(), session.version()),
            (agreed.is_some(), agreed),
            "{ours:?} {hello}"
        );
    }
    let mut session = Session::new(Version::ALL);
    session.poll().unwrap();
    session.receive(&bytes("0105000800000002"));
    assert!(session.poll().is_err(), "no HELLO");
}

#[test]
fn other_messages() {
    for (version, request, reply) in [
        (Version::V10, "0102000a00000007abcd", "0103000a00000007abcd"),
        // a version that was not agreed on
        (Version::V10, "0405000800000007", "010100140000000700010000 0405000800000007"),
        (Version::V10, "0163000800000007", "010100140000000700010001 0163000800000007"),
        (Version::V10, "0118000c0000000700000000", "010100180000000700010001 0118000c0000000700000000"),
        (Version::V10, "0110000c0000000700630000", "010100180000000700010002 0110000c0000000700630000"),
        (Version::V10, "0104000c0000000700000001", "010100180000000700010003 0104000c0000000700000001"),
        (
            Version::V10,
            "01040010000000070000232000000063",
            "0101001c0000000700010004 01040010000000070000232000000063",
        ),
        (Version::V10, "0110000a000000070004", "010100160000000700010006 0110000a000000070004"),
        (Version::V10, "0101000c0000000700010005", ""),
        (
            Version::V13,
            "04180018000000070000000100000000 0000000000000000",
            "04190018000000070000000100000000 ffffffffffffffff",
        ),
        (
            Version::V13,
            "04180018000000070000000200000000 0000000000000000",
            "0401002400000007000b0001 041800180000000700000002000000000000000000000000",
        ),
    ] {
        assert_eq!(ask(version, &request.replace(' ', "")), reply.replace(' ', ""), "{request}");
    }
    // SET_CONFIG and what it is then; fragments stay as they are
    assert_eq!(ask(Version::V10, "0109000c00000003000100800107000800000004"), "0108000c0000000400000080");
}

/// Two ports that come, go and change; a client that listens in `version`, and has said `asks`.
fn hear(version: Version, asks: &str, changes: &[&dyn Fn(&mut Bridge)]) -> Vec<String> {
    let (mut session, mut bridge) = (session(version), bridge());
    bridge.ports.truncate(2);
    assert_eq!(converse(&mut session, &bytes(asks), &mut bridge), Ok(vec![]));
    assert_eq!(session.news(&bridge), Ok(vec![]), "how it is now");
    let mut heard = Vec::new();
    for change in changes {
        change(&mut bridge);
        let mut rest = &session.news(&bridge).unwrap()[..];
        assert!(well_formed(rest, version));
        while !rest.is_empty() {
            let (message, more) = rest.split_at(usize::from(u16::from_be_bytes([rest[2], rest[3]])));
            heard.push(hex(message));
            rest = more;
        }
        assert_eq!(session.news(&bridge), Ok(vec![]), "told once");
    }
    heard
}

#[test]
fn ports_come_change_and_go() {
    let add: &dyn Fn(&mut Bridge) =
        &|b| b.ports.push(Port { number: 7, name: "p7".into(), ..Port::default() });
    let lose: &dyn Fn(&mut Bridge) = &|b| b.ports[2].link_down = true;
    let rename: &dyn Fn(&mut Bridge) = &|b| b.ports[2].name = "p8".into();
    let count: &dyn Fn(&mut Bridge) = &|b| b.ports[2].stats.rx_packets = Some(9);
    let no_flood: &dyn Fn(&mut Bridge) = &|b| b.ports[2].config = PortConfig::NO_FLOOD;
    let remove: &dyn Fn(&mut Bridge) = &|b| drop(b.ports.remove(2));
    let changes = [add, lose, rename, count, no_flood, remove];
    let v10 = |reason: u8, name: &str, config: u8, state: u8| {
        format!(
            "010c004000000000{reason:02x}000000000000000007000000000000{}{}000000{config:02x}000000{state:02x}{}",
            hex(name.as_bytes()),
            "00".repeat(14),
            "00".repeat(16)
        )
    };
    assert_eq!(
        hear(Version::V10, "0109000c0000000300000080", &changes),
        [
            v10(0, "p7", 0, 0),
            v10(2, "p7", 0, 1),
            v10(1, "p7", 0, 1),
            v10(0, "p8", 0, 1),
            v10(2, "p8", 0x10, 1),
            v10(1, "p8", 0x10, 1)
        ]
    );
    // 1.3 has no bit for no-flood
    let v13 = hear(Version::V13, "0409000c0000000300000080", &changes);
    let reasons: Vec<&str> = v13.iter().map(|message| &message[..18]).collect();
    assert_eq!(
        reasons,
        ["00", "02", "01", "00", "01"].map(|reason| format!("040c005000000000{reason}")),
        "{v13:#?}"
    );
    assert_eq!(v13[0].len(), 160);
    for (version, asks, count) in [
        (Version::V10, "", 0),
        (Version::V10, "0109000c0000000300000000", 0),
        // NXT_SET_ASYNC_CONFIG asks by itself: all; ports that come and go; nothing
        (
            Version::V10,
            "010400280000000900002320000000130000000700000007000000070000000700000000 00000000",
            6,
        ),
        (
            Version::V10,
            "010400280000000900002320000000130000000700000007000000030000000700000000 00000000",
            4,
        ),
        (
            Version::V10,
            "010400280000000900002320000000130000000700000007000000000000000700000000 00000000",
            0,
        ),
        // NXT_SET_ASYNC_CONFIG2: ports that change
        (Version::V10, "0104001800000009000023200000001b0003000800000004", 2),
        (Version::V10, "0104001000000009000023200000001b", 6),
        // SET_ASYNC says what, but not whether
        (Version::V13, "041c0020000000090000000700000007000000070000000700000000 00000000", 0),
        (
            Version::V13,
            "041c0020000000090000000700000007000000010000000700000000 00000000 0409000c0000000300000080",
            2,
        ),
    ] {
        assert_eq!(hear(version, &asks.replace(' ', ""), &changes).len(), count, "{asks}");
    }
}

#[test]
fn wishes() {
    let get = "041a000800000009";
    let default = "000000030000000000000007000000070000000f00000000";
    for (asks, said) in [
        ("", format!("041b002000000009{default}")),
        (
            "041c002000000009ffffffff00000007ffffffff00000007000000000000000f",
            "041b002000000009000000070000000700000007000000070000000 00000000f".replace(' ', ""),
        ),
        // too short, too long
        (
            "041c001c00000009000000000000000000000000000000000000000 0",
            format!(
                "0401002800000009 00010006 041c001c00000009{} 041b002000000009{default}",
                "00".repeat(20)
            ),
        ),
        (
            "0404003000000009000023200000001b 0003000800000004 0002000800000001 0000000800000001 0005000800000004",
            "041b002000000009000000030000000100000004000000010000000400000000".into(),
        ),
        // a property, and a reason, that there is not
        (
            "0404001800000009000023200000001b 0006000800000001",
            format!(
                "0401002800000009 ffff0943 4f4e4600 0404001800000009000023200000001b 0006000800000001 041b002000000009{default}"
            ),
        ),
        (
            "0404001800000009000023200000001b 0003000800000010",
            format!(
                "0401002800000009 ffff0943 4f4e4600 0404001800000009000023200000001b 0003000800000010 041b002000000009{default}"
            ),
        ),
        (
            "0404001400000009000023200000001b 00030008",
            format!(
                "0401002000000009 00010006 0404001400000009000023200000001b 00030008 041b002000000009{default}"
            ),
        ),
    ] {
        let request = asks.replace(' ', "") + get;
        assert_eq!(ask(Version::V13, &request), said.replace(' ', ""), "{asks}");
    }
}

#[test]
fn who_changes_a_port_knows_it() {
    let mut sessions = [session(Version::V10), session(Version::V10)];
    let mut bridge = bridge();
    for session in &mut sessions {
        converse(session, &bytes("0109000c0000000300000080"), &mut bridge).unwrap();
        assert!(session.listens());
        session.news(&bridge).unwrap();
    }
    let no_flood = "010f002000000004000202000000000100000010000000100000000000000000";
    sessions[0].receive(&bytes(no_flood));
    let Ok(Some(Event::Modify(change))) = sessions[0].poll() else { panic!("no change") };
    let config = change.check(&bridge).unwrap();
    bridge.ports[3].config = config;
    sessions[0].modified(&change, config);
    assert_eq!(sessions.each_mut().map(|s| s.news(&bridge).unwrap().len()), [0, 64]);
    bridge.ports[3].link_down = true;
    assert_eq!(sessions.each_mut().map(|s| s.news(&bridge).unwrap().len()), [64, 64]);
    // who does not want to hear more is not told what was when they listen again
    converse(&mut sessions[0], &bytes("0109000c0000000300000000"), &mut bridge).unwrap();
    assert_eq!(sessions[0].news(&bridge), Ok(vec![]));
    bridge.ports.pop();
    converse(&mut sessions[0], &bytes("0109000c0000000300000080"), &mut bridge).unwrap();
    assert_eq!(sessions.each_mut().map(|s| s.news(&bridge).unwrap().len()), [0, 64]);
    bridge.datapath_id = 1;
    assert!(sessions[1].news(&bridge).is_err(), "it must ask again");
}

/// A thousand ports and more: replies of several messages, each with whole items; a features reply that is cut off.
#[test]
fn many_ports() {
    let mut bridge = bridge();
    let one = bridge.ports.remove(0);
    bridge.ports = (1..=1500).map(|number| Port { number, ..one.clone() }).collect();
    let reply = converse(
        &mut session(Version::V13),
        &bytes("04120010000000020 00d000000000000".replace(' ', "").as_str()),
        &mut bridge,
    )
    .unwrap();
    let (mut rest, mut flags, mut items) = (&reply[..], Vec::new(), 0);
    while !rest.is_empty() {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        flags.push(rest[11]);
        assert_eq!((length - 16) % 64, 0);
        items += (length - 16) / 64;
        rest = &rest[length..];
    }
    assert_eq!((flags, items), (vec![1, 0], 1500));
    let reply = converse(&mut session(Version::V10), &bytes("0105000800000002"), &mut bridge).unwrap();
    assert_eq!(usize::from(u16::from_be_bytes([reply[2], reply[3]])), reply.len());
    assert_eq!((reply.len() - 32) % 48, 0);
    assert!(reply.len() + 48 > usize::from(u16::MAX), "ovs-ofctl sees that there may be more");
}

#[test]
fn speeds() {
    for (mbps, full, bit, kbps) in [
        (10, false, 0, 10_000),
        (10, true, 1, 10_000),
        (1000, true, 5, 1_000_000),
        (10_000, true, 6, 10_000_000),
        (40_000, true, 7, 40_000_000),
        (100_000, true, 8, 100_000_000),
    ] {
        let features = Features(Features::speed(mbps, full));
        assert_eq!((features.0, features.kbps()), (1 << bit, kbps), "{mbps}");
    }
    assert_eq!(Features::speed(25_000, true), 0);
    assert_eq!(Features(1 << 6 | Features::COPPER | 1 << 8).v10(), 1 << 6 | 1 << 7);
}

/// A request that is mostly well-formed: header of the right version, a type that exists, any content.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        // statistics of some kind, with a body
        (0_u16..16, proptest::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(stat, body)| { [&stat.to_be_bytes()[..], &[0; 6], &body].concat() }),
        (0_u32..48, proptest::collection::vec(any::<u8>(), 0..64)).prop_map(|(subtype, body)| {
            [&[0xff, 0xff, 0, 0, 0, 0, 0x23, 0x20][..], &subtype.to_be_bytes(), &body].concat()
        }),
        (0_u32..48, proptest::collection::vec(any::<u8>(), 0..64)).prop_map(|(subtype, body)| [
            &[0, 0, 0x23, 0x20][..],
            &subtype.to_be_bytes(),
            &body
        ]
        .concat()),
    ];
    (0_u8..31, content).prop_map(|(kind, content)| {
        let length = u16::try_from(8 + content.len()).unwrap();
        [&[1, kind][..], &length.to_be_bytes(), &[0, 0, 0, 9], &content].concat()
    })
}

/// Messages one behind the other, each of the length that it says.
fn well_formed(mut said: &[u8], version: Version) -> bool {
    while !said.is_empty() {
        let Some([number, _, high, low]) = said.first_chunk() else { return false };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *number != version.number() || length < 8 || length > said.len() {
            return false;
        }
        said = &said[length..];
    }
    true
}

proptest! {
    /// Whatever comes, what is said is whole messages of the version agreed on; and it is the same in whatever pieces it comes.
    #[test]
    fn any_client(
        v13: bool,
        messages in proptest::collection::vec(message(), 1..6),
        junk in proptest::collection::vec(any::<u8>(), 0..40),
        cut in 1_usize..50,
    ) {
        let version = if v13 { Version::V13 } else { Version::V10 };
        let mut all: Vec<u8> = Vec::new();
        for mut message in messages {
            message[0] = version.number();
            all.extend(message);
        }
        all.extend(junk);
        let talk = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut session, mut bridge, mut said) = (session(version), bridge(), Vec::new());
            for piece in pieces {
                match converse(&mut session, piece, &mut bridge) {
                    Ok(more) => said.extend(more),
                    Err(broken) => {
                        prop_assert!(well_formed(&broken.farewell, version));
                        break;
                    }
                }
            }
            Ok(said)
        };
        let mut whole = talk(&mut std::iter::once(&all[..]))?;
        let pieces = talk(&mut all.chunks(cut))?;
        prop_assert!(well_formed(&pieces, version));
        // what a broken session said before it broke is lost by `converse` when all came at once
        if whole.is_empty() {
            whole.clone_from(&pieces);
        }
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        let mut session = Session::new(Version::ALL);
        let _ = session.poll();
        let _ = converse(&mut session, &bytes, &mut bridge());
    }
}

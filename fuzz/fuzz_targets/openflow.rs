//! An OpenFlow client that says anything: in whatever pieces it comes, each answer is made of whole messages of the version
//! agreed on, and no request makes more than a few of them for each port; nor does a port that comes, goes or changes.
//!
//! Input: a byte that chooses version and pieces, then what the client says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openflow::{Bridge, Event, Port, PortConfig, Session, Version};

fuzz_target!(|data: &[u8]| {
    let Some((choice, said)) = data.split_first() else { return };
    let version = if choice & 1 == 0 { 1 } else { 4 };
    let mut bridge = Bridge {
        software: "3.1.0".into(),
        ports: [1, 2, 0xfffe]
            .map(|number| Port { number, name: format!("p{number}"), ..Port::default() })
            .into(),
        ..Bridge::default()
    };
    let mut session = Session::new(Version::ALL);
    assert!(matches!(session.poll(), Ok(Some(Event::Send(_)))));
    session.receive(&[version, 0, 0, 8, 0, 0, 0, 1]);
    for piece in said.chunks(1 + usize::from(choice >> 1)) {
        session.receive(piece);
        loop {
            match session.poll() {
                Ok(None) => break,
                Ok(Some(event)) => check(&answer(&mut session, event, &mut bridge), version),
                Err(broken) => return check(&broken.farewell, version),
            }
        }
        match bridge.ports.pop() {
            Some(port) if !port.link_down => bridge.ports.push(Port { link_down: true, ..port }),
            Some(_) => {}
            None => bridge.ports.push(Port::default()),
        }
        let news = session.news(&bridge).expect("the same datapath");
        assert!(news.is_empty() || session.listens());
        check(&news, version);
    }
});

fn answer(session: &mut Session, event: Event, bridge: &mut Bridge) -> Vec<u8> {
    match event {
        Event::Send(reply) => reply,
        Event::Ask(question) => question.answer(bridge),
        Event::Modify(change) => match change.check(bridge) {
            Ok(config) => {
                assert!(config.0 <= 0x7f, "bits that there are");
                let port = bridge.ports.iter_mut().find(|p| p.number == change.port).expect("it was checked");
                port.config = config.with(PortConfig::NO_STP, false);
                session.modified(&change, config);
                Vec::new()
            }
            Err(refusal) => refusal,
        },
    }
}

fn check(mut said: &[u8], version: u8) {
    assert!(said.len() < 256 << 10);
    while !said.is_empty() {
        let length = usize::from(u16::from_be_bytes([said[2], said[3]]));
        assert!(said[0] == version && length >= 8);
        said = &said[length..];
    }
}

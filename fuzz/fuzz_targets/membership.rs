//! IGMP and MLD as hosts send them, whoever they are. Input: a frame.
//!
//! The checksum is made right first: a fuzzer would not find it.
#![no_main]

use datapath::wire::checksum::{Sum, pseudo};
use datapath::wire::membership::{self, Kind, Message};
use datapath::wire::parse::{self, Version};
use datapath::wire::{proto, put16};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut frame = data.to_vec();
    let Some(ip) = parse::parse(&frame).and_then(|parsed| parsed.ip) else { return };
    put16(&mut frame[ip.l4..ip.end], 2, 0);
    let message = &frame[ip.l4..ip.end];
    let sum = match ip.version {
        Version::V4 => Sum::of(message),
        Version::V6 => pseudo(ip.addresses(&frame), proto::ICMPV6, message.len()) + Sum::of(message),
    };
    put16(&mut frame[ip.l4..ip.end], 2, sum.checksum());
    let kind = membership::kind(&frame, &ip);
    match membership::read(&frame, &ip) {
        None => {}
        Some(Message::Router) => assert_eq!(kind, Some(Kind::Query)),
        Some(Message::Changes(changes)) => {
            assert_eq!(kind, Some(Kind::Report));
            let mut told = 0;
            for change in changes {
                let v4 = change.group.to_ipv4_mapped();
                assert_eq!(v4.is_some(), ip.version == Version::V4);
                assert!(v4.map_or(change.group.is_multicast(), |v4| v4.is_multicast()));
                told += 1;
            }
            // a record has its own header and a group
            assert!(told <= 1 || told * 8 <= ip.end - ip.l4);
        }
    }
});

//! `ofproto/trace bridge flow`: what would become of a frame. It is made as bytes and decided about by the datapath's own
//! code, which learns only if told to (`-generate`).

mod flow;

use std::fmt::Write;

use datapath::bridge::{self, Verdict};
use datapath::counters::DropReason;
use datapath::multicast::Audience;
use datapath::snapshot::{Bridge, Port, PortId, PortKind, Snapshot, StpState};
use datapath::vlan::{self, Tags};
use datapath::wire::ethernet;
use datapath::wire::parse::Link;

use super::{Args, Reply, bridges, fdb, ports, ports_of};
use crate::devices::mac_text;
use flow::{Flow, InPort};

/// How the answer is to look.
#[derive(Debug, Default)]
struct Options {
    names: bool,
    learn: bool,
}

/// The command.
pub fn trace(snapshot: &Snapshot, now: u32, args: Args<'_>) -> Reply {
    let (options, words) = options(args)?;
    let [name, text] = words[..] else {
        return Err(match words[..] {
            [] | [_] => format!(
                "syntax error at {} (or the bridge name was omitted)",
                words.first().copied().unwrap_or_default()
            ),
            _ => "too many arguments".into(),
        });
    };
    let found = bridges(snapshot).into_iter().find(|(_, b)| b.name == name);
    let (id, bridge) = found.ok_or_else(|| format!("{name}: unknown bridge"))?;
    let ports = ports_of(snapshot, id);
    let flow = Flow::parse(text, |name| ports.iter().find(|p| p.name == name).map(|p| p.ofport))?;
    let from = ports.iter().copied().find(|p| Some(p.ofport) == flow.in_port.number());
    let told = match from {
        Some(from) => decided(snapshot, bridge, from, &flow, now, &options),
        None => Told::dropped(unknown(&flow.in_port)),
    };
    let in_port = match from {
        Some(port) if options.names => port.name.clone(),
        Some(port) => fdb::port_number(port.ofport),
        None => flow.in_port.to_string(),
    };
    let heading = format!("bridge(\"{name}\")");
    let mut out = format!("Flow: {}\n\n{heading}\n{}\n", flow.text(&in_port), "-".repeat(heading.len()));
    out += " 0. priority 0\n    NORMAL\n";
    told.lines.iter().for_each(|line| {
        let _ = writeln!(out, "     {line}");
    });
    let number = |port: &&Port| match options.names {
        true => port.name.clone(),
        false => ports::number(port).to_string(),
    };
    let actions: Vec<String> = told.outputs.iter().map(number).collect();
    let actions = if actions.is_empty() { "drop".into() } else { actions.join(",") };
    let _ = write!(
        out,
        "\nFinal flow: unchanged\nMegaflow: recirc_id=0,eth,{}\nDatapath actions: {actions}\n",
        flow.looked_at(&in_port)
    );
    Ok(out)
}

fn options(args: Args<'_>) -> Result<(Options, Vec<&str>), String> {
    let (mut options, mut words) = (Options::default(), Vec::new());
    for arg in args {
        match arg.as_str() {
            "-generate" | "--generate" => options.learn = true,
            "--names" => options.names = true,
            option if option.starts_with('-') => return Err(format!("{option}: unknown option")),
            word => words.push(word),
        }
    }
    Ok((options, words))
}

/// What is said of a frame, and where it goes.
#[derive(Debug)]
struct Told<'a> {
    lines: Vec<String>,
    outputs: Vec<&'a Port>,
}

impl<'a> Told<'a> {
    fn dropped(lines: Vec<String>) -> Told<'a> {
        Told { lines, outputs: Vec::new() }
    }
}

fn unknown(port: &InPort) -> Vec<String> {
    vec![format!(">>>> received packet on unknown port {port} <<<<"), ">> no input bundle, dropping".into()]
}

fn decided<'a>(
    snapshot: &'a Snapshot,
    bridge: &Bridge,
    from: &'a Port,
    flow: &Flow,
    now: u32,
    options: &Options,
) -> Told<'a> {
    let frame = flow.frame();
    let Some(link) = Link::parse(&frame) else { return Told::dropped(vec![">> malformed, dropping".into()]) };
    let mut lines = Vec::new();
    let inside = vlan::ingress(from.vlan.as_deref(), Tags::read(&frame, &link, bridge.vlan_limit));
    let vid = inside.map(|inside| inside.vid);
    let vlan = vid.unwrap_or(0);
    let reaches = |to: PortId| {
        let (port, inside) = snapshot.port(to).zip(inside)?;
        (port.stp == StpState::Forwarding && !from.groups.meet(port.groups)).then_some(())?;
        vlan::egress(port.vlan.as_deref(), &inside)
    };
    let verdict = if options.learn {
        let before = bridge.fdb.lookup(vlan, link.src, now);
        let verdict = bridge::decide(bridge, from, &link, vid, now);
        if before != Some(from.id) && bridge.fdb.lookup(vlan, link.src, now) == Some(from.id) {
            lines.push(format!(
                "-> learned that {} is on port {} in VLAN {vlan}",
                mac_text(link.src),
                from.name
            ));
        }
        verdict
    } else {
        bridge::foresee(bridge, from, &link, vid, now)
    };
    let to: Vec<PortId> = match verdict {
        Verdict::Flood => {
            let audience = audience(bridge, &frame, &link, vlan);
            lines.push(match audience {
                Audience::All => "-> no learned MAC for destination, flooding".into(),
                Audience::Some(_) => "-> forwarding to mcast group, router and flood ports".into(),
            });
            let heard = |to: &PortId| *to != from.id && reaches(*to).is_some();
            bridge.hearing(audience).filter(heard).collect()
        }
        Verdict::Unicast(port) if reaches(port).is_none() => {
            lines.push(">> learned port does not forward, is kept apart or not in the VLAN, dropping".into());
            Vec::new()
        }
        Verdict::Unicast(port) => {
            lines.push("-> forwarding to learned port".into());
            vec![port]
        }
        Verdict::Punt(_) => {
            lines.push("-> passed up to the spanning tree".into());
            Vec::new()
        }
        Verdict::Discard(why) => {
            lines.push(reason(why));
            Vec::new()
        }
    };
    let outputs = to.into_iter().filter_map(|id| output(snapshot, id, &mut lines)).collect();
    Told { lines, outputs }
}

/// Whom a frame that would be flooded is for.
fn audience<'a>(bridge: &'a Bridge, frame: &[u8], link: &Link, vlan: u16) -> Audience<'a> {
    let groups = bridge.groups.as_ref().filter(|_| ethernet::is_group(link.dst));
    groups.map_or(Audience::All, |groups| groups.look(frame, link, bridge.vlan_limit.tags(), vlan).audience)
}

/// A port that a frame leaves by, with what is to be said of it.
fn output<'a>(snapshot: &'a Snapshot, id: PortId, lines: &mut Vec<String>) -> Option<&'a Port> {
    let port = snapshot.port(id)?;
    if let PortKind::Tunnel(tunnel) = &port.kind {
        lines.push("-> output to native tunnel".into());
        if snapshot.way(tunnel).is_err() {
            lines.push(">> the tunnel has no SA yet, skipping output".into());
            return None;
        }
    }
    Some(port)
}

/// In the words of Open vSwitch where it has any.
fn reason(why: DropReason) -> String {
    match why {
        DropReason::SamePort => "-> learned port is input port, dropping".into(),
        DropReason::ReservedGroup => "-> packet has reserved destination MAC, dropping".into(),
        DropReason::BadSource => "-> source MAC is a group address or zero, dropping".into(),
        DropReason::VlanIn => ">> the port does not take frames of that VLAN, dropping".into(),
        DropReason::NotForwarding => "-> spanning tree holds the port back, dropping".into(),
        DropReason::BondBackup => "-> bonding refused admissibility, dropping".into(),
        other => format!(">> {}, dropping", other.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{args, snapshot};
    use super::*;

    fn lines(line: &str) -> Vec<String> {
        let s = snapshot();
        lines_of(&s, line)
    }

    fn lines_of(s: &Snapshot, line: &str) -> Vec<String> {
        trace(s, 100, &args(line)).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn flooded_learned_and_sent_on() {
        let s = snapshot();
        let to_22 = "br0 in_port=gre0,dl_src=02:00:00:00:00:11,dl_dst=02:00:00:00:00:22";
        assert_eq!(
            lines_of(&s, to_22),
            [
                "Flow: in_port=1,vlan_tci=0x0000,dl_src=02:00:00:00:00:11,dl_dst=02:00:00:00:00:22,dl_type=0x0000",
                "",
                "bridge(\"br0\")",
                "-------------",
                " 0. priority 0",
                "    NORMAL",
                "     -> no learned MAC for destination, flooding",
                "     -> output to native tunnel",
                "",
                "Final flow: unchanged",
                "Megaflow: recirc_id=0,eth,in_port=1,dl_src=02:00:00:00:00:11,dl_dst=02:00:00:00:00:22,dl_type=0x0000",
                "Datapath actions: 3",
            ]
        );
        let fdb = &s.bridges[0].as_ref().unwrap().fdb;
        assert_eq!(fdb.stats().entries, 0, "nothing learned");
        assert_eq!(
            lines_of(&s, &format!("{to_22} -generate"))[6],
            "     -> learned that 02:00:00:00:00:11 is on port gre0 in VLAN 0"
        );
        assert_eq!(fdb.stats().entries, 1);
        let back = lines_of(&s, "br0 in_port=7,dl_src=02:00:00:00:00:22,dl_dst=02:00:00:00:00:11 --names");
        assert_eq!(
            back[0],
            "Flow: in_port=gre1,vlan_tci=0x0000,dl_src=02:00:00:00:00:22,dl_dst=02:00:00:00:00:11,dl_type=0x0000"
        );
        assert_eq!(back[6], "     -> forwarding to learned port");
        assert_eq!(back.last().unwrap(), "Datapath actions: gre0");
        let same = lines_of(&s, "br0 in_port=gre0,dl_src=02:00:00:00:00:33,dl_dst=02:00:00:00:00:11");
        assert_eq!(same[6], "     -> learned port is input port, dropping");
        assert_eq!(same.last().unwrap(), "Datapath actions: drop");
        let other_vlan =
            lines_of(&s, "br0 in_port=7,dl_vlan=10,dl_src=02:00:00:00:00:22,dl_dst=02:00:00:00:00:11");
        assert_eq!(
            other_vlan[0],
            "Flow: in_port=7,dl_vlan=10,dl_vlan_pcp=0,vlan_tci1=0x0000,dl_src=02:00:00:00:00:22,dl_dst=02:00:00:00:00:11,dl_type=0x0000"
        );
        assert_eq!(other_vlan[6], "     -> no learned MAC for destination, flooding");
    }

    #[test]
    fn dropped() {
        let from =
            |rest: &str| lines(&format!("br0 in_port=gre0,dl_src=02:00:00:00:00:11,{rest}"))[6].clone();
        assert_eq!(from("dl_dst=01:80:c2:00:00:00"), "     -> packet has reserved destination MAC, dropping");
        let group = lines("br0 in_port=gre0,dl_src=03:00:00:00:00:11,dl_dst=02:00:00:00:00:22");
        assert_eq!(group[6], "     -> source MAC is a group address or zero, dropping");
        let unknown = lines("br0 in_port=99,dl_src=02:00:00:00:00:11");
        assert_eq!(unknown[6], "     >>>> received packet on unknown port 99 <<<<");
        assert_eq!(unknown[7], "     >> no input bundle, dropping");
    }

    #[test]
    fn what_cannot_be_traced() {
        for (line, error) in [
            ("nosuch in_port=1", "nosuch: unknown bridge"),
            ("br0", "syntax error at br0 (or the bridge name was omitted)"),
            ("br0 in_port=1 x y", "too many arguments"),
            ("br0 in_port=1 --ct-next=trk", "--ct-next=trk: unknown option"),
            ("br0 nonsense", "Bad openflow flow syntax: nonsense: unknown field nonsense"),
        ] {
            assert_eq!(trace(&snapshot(), 0, &args(line)), Err(error.into()), "{line}");
        }
    }
}

//! A device that is a port is the switch's alone: the host's own stack does not take what comes in by it a second time.
//!
//! A packet socket gets a copy, and the frame goes on to the host's stack, which would answer for every address that the host has, be
//! it a bridge's, from whatever VLAN the port is in. So a program of ours ends IPv4, IPv6 and ARP there, behind the packet sockets.
//! What has a VLAN tag passes, for devices of VLANs may be made on it; so do DHCP's answers, for the host must be able to get an address
//! by the device.
//!
//! Nothing of it outlives the process: the program is attached for as long as its descriptor is open.

use std::io;

use crate::sys::bpf::Reg::{self, R0, R1, R2, R3, R4, R6, R10};
use crate::sys::bpf::{Assembler, Hook, If, Label, Link, Op, Program, ProgramKind, Size, helper};
use crate::wire::{ethernet, ipv4, ipv6, proto};

// struct __sk_buff
const PROTOCOL: i16 = 16;
const VLAN_PRESENT: i16 = 20;

/// Whoever comes next decides.
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// UDP ports of those who ask for an address (RFC 2131, RFC 8415).
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;

/// The program. It works on each device for as long as its [`Fenced`] is held.
#[derive(Debug)]
pub struct Fence {
    program: Program,
}

/// A device that the host's stack takes nothing from.
#[derive(Debug)]
pub struct Fenced {
    _link: Link,
}

impl Fence {
    /// Loads the program.
    ///
    /// # Errors
    /// EPERM: CAP_BPF or CAP_NET_ADMIN is missing, or eBPF is locked down. EINVAL: the kernel is older than 6.6.
    pub fn open() -> io::Result<Fence> {
        let program = Program::load(ProgramKind::SchedCls, Hook::TcxIngress, "underpass_port", program())?;
        Ok(Fence { program })
    }

    /// Puts it to work on the device with that index, in the calling thread's network namespace.
    ///
    /// # Errors
    /// ENODEV: there is no such device.
    pub fn attach(&self, ifindex: u32) -> io::Result<Fenced> {
        Ok(Fenced { _link: self.program.attach(Hook::TcxIngress, ifindex)? })
    }
}

fn program() -> Assembler {
    let mut asm = Assembler::new();
    let [v4, v6, drop, next] = std::array::from_fn(|_| asm.label());
    asm.mov(R6, R1);
    asm.load(Size::W, R2, R6, VLAN_PRESENT);
    asm.jump(If::Ne, R2, 0, next);
    asm.load(Size::W, R2, R6, PROTOCOL);
    for (ethertype, label) in [(ethernet::ARP, drop), (ethernet::IPV4, v4), (ethernet::IPV6, v6)] {
        asm.jump(If::Eq, R2, i32::from(ethertype.to_be()), label);
    }
    asm.place(next);
    asm.mov(R0, NEXT);
    asm.exit();

    asm.place(v4);
    // no options, and UDP
    let checks = [(0, Size::B, 0x45), (9, Size::B, i32::from(proto::UDP))];
    pass_datagrams(&mut asm, ipv4::HEADER, &checks, DHCP_CLIENT, next, drop);
    asm.place(v6);
    pass_datagrams(&mut asm, ipv6::HEADER, &[(6, Size::B, i32::from(proto::UDP))], DHCPV6_CLIENT, next, drop);

    asm.place(drop);
    asm.mov(R0, DROP);
    asm.exit();
    asm
}

/// Jumps to `next` with datagrams to that UDP port whose IP header has this length and these fields, to `drop` with all else.
fn pass_datagrams(
    asm: &mut Assembler,
    header: usize,
    checks: &[(i16, Size, i32)],
    port: u16,
    next: Label,
    drop: Label,
) {
    const AT: i16 = -48;
    let port_at = header as i16 + 2;
    asm.mov(R1, R6);
    asm.mov(R2, ethernet::HEADER as i32);
    asm.mov(R3, R10);
    asm.alu(Op::Add, R3, i32::from(AT));
    asm.mov(R4, header as i32 + 4);
    asm.call(helper::SKB_LOAD_BYTES);
    asm.jump(If::Ne, R0, 0, drop);
    for (at, size, wanted) in checks.iter().copied().chain([(port_at, Size::H, i32::from(port.to_be()))]) {
        asm.load(size, Reg::R2, R10, AT + at);
        asm.jump(If::Ne, R2, wanted, drop);
    }
    asm.goto(next);
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn ip_and_arp_end_here_and_dhcp_and_all_else_does_not() {
        let fence = match Fence::open() {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return eprintln!("skipped, needs root"),
            fence => fence.unwrap(),
        };
        let built = |builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>| {
            let mut frame = Vec::new();
            builder.write(&mut frame, &[7; 40]).unwrap();
            frame
        };
        let ether = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        let v4 = |port| built(ether().ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64).udp(9, port));
        let v6 = |port| built(ether().ipv6([1; 16], [2; 16], 64).udp(9, port));
        let of_type = |ethertype: u16| {
            let mut frame = vec![2; 60];
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            frame
        };
        let mut short = of_type(ethernet::IPV4);
        short.truncate(ethernet::HEADER + ipv4::HEADER + 2);
        let mut options = v4(68);
        options[14] = 0x46;
        let mut tcp = v4(68);
        tcp[23] = 6;
        for (what, frame, want) in [
            ("ARP", of_type(ethernet::ARP), DROP),
            ("IPv4", v4(53), DROP),
            ("IPv6", v6(53), DROP),
            ("ICMP or whatever", of_type(ethernet::IPV4), DROP),
            ("a short packet", short, DROP),
            ("options", options, DROP),
            ("TCP", tcp, DROP),
            ("DHCP", v4(68), NEXT),
            ("DHCPv6", v6(546), NEXT),
            ("DHCPv6's port, IPv4", v4(546), DROP),
            ("LLDP", of_type(0x88cc), NEXT),
        ] {
            let (action, out) = fence.program.test_run(&frame).unwrap();
            assert_eq!(action as i32, want, "{what}");
            assert_eq!(out, frame, "{what}");
        }
    }
}

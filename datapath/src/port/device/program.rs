//! What the kernel does with a packet of ours on its way: an eBPF program, in the order in which it runs.

use std::io;

use crate::sys::bpf::{Assembler, Hook, If, Link, Op, Program, ProgramKind, Reg, Size, helper};
use crate::wire::{ethernet, ipv6};

/// What stands in front of each packet where its Ethernet header would be, for [`program`] to read:
///
/// ```text
/// | 0: 6 bytes | index of the device: 4, order of this machine | hang: 1 | flags: 1 | EtherType: 2 |
/// ```
///
/// `hang` is 0 for a packet that goes as it is; the EtherType is its own. Else it is a superframe, the number says how many bytes of outer
/// headers and inner Ethernet header stand in front of its inner IP packet, and the EtherType is that of the inner one.
pub(super) const FRONT: usize = ethernet::HEADER;

/// In `flags`: the outer packet is IPv6. The other bits are the length of the inner Ethernet header.
pub(super) const OUTER_V6: u8 = 0x80;

/// The longest outer headers of a superframe: IPv6, GRE with a key, Ethernet with two tags.
pub(super) const MAX_HANG: usize = ipv6::HEADER + 8 + ethernet::HEADER + 8;

// struct __sk_buff
const MARK: i16 = 8;

// bpf_skb_adjust_room
const ROOM_MAC: i32 = 1;
const FIXED_GSO: i32 = 1 << 0;
const ENCAP_L3_IPV4: i32 = 1 << 1;
const ENCAP_L3_IPV6: i32 = 1 << 2;
const ENCAP_L4_GRE: i32 = 1 << 3;
const ENCAP_L2_ETH: i32 = 1 << 6;
/// How far left the length of the inner Ethernet header stands in the flags.
const ENCAP_L2_SHIFT: i32 = 56;

/// Not ours: whoever comes next decides.
const NEXT: i32 = -1;
/// The packet is dropped, and the sender told ENOBUFS.
const DROP: i32 = 2;

/// Loads the program for packets with this mark, and puts it to work on what leaves by a device.
///
/// # Errors
/// EPERM: CAP_BPF or CAP_NET_ADMIN is missing. EINVAL: the kernel is older than 6.6.
pub(super) fn attach(mark: u32, ifindex: u32) -> io::Result<Link> {
    let program = Program::load(ProgramKind::SchedCls, Hook::TcxEgress, "underpass_tx", program(mark))?;
    program.attach(Hook::TcxEgress, ifindex)
}

/// 1. What does not have the mark passes; what has it loses it.
/// 2. The outer headers of a superframe are taken off and hung in front again, so that the kernel knows them for those of a
///    tunnel, and cuts the packet behind them.
/// 3. It leaves by the device that its front names, and the kernel finds the next hop and writes the Ethernet header.
fn program(mark: u32) -> Assembler {
    use Reg::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};
    /// Where the front is copied to, from the end of the stack: its number of four bytes must be aligned.
    const AT: i16 = -22;
    const HEADERS: i32 = -128;
    let mut asm = Assembler::new();
    let [leave, v4, flags, drop, next] = std::array::from_fn(|_| asm.label());

    asm.load(Size::W, R2, R1, MARK);
    asm.jump32(If::Ne, R2, mark as i32, next);
    asm.mov(R6, R1);
    asm.mov(R2, 0);
    asm.store(Size::W, R6, MARK, R2);
    copy(&mut asm, R6, 0, i32::from(AT), FRONT as i32);
    asm.jump(If::Ne, R0, 0, drop);
    asm.load(Size::W, R7, R10, AT + 6);
    asm.load(Size::B, R8, R10, AT + 10);
    asm.load(Size::B, R9, R10, AT + 11);
    asm.jump(If::Eq, R8, 0, leave);

    asm.jump(If::Gt, R8, MAX_HANG as i32, drop);
    // the verifier wants to see it written whole, whatever the length
    for word in 0..(MAX_HANG as i16).div_euclid(8) + 1 {
        asm.store(Size::D, R10, HEADERS as i16 + 8 * word, 0);
    }
    copy(&mut asm, R6, FRONT as i32, HEADERS, R8);
    asm.jump(If::Ne, R0, 0, drop);
    asm.mov(R1, R6);
    asm.mov(R2, 0);
    asm.alu(Op::Sub, R2, R8);
    asm.mov(R3, ROOM_MAC);
    asm.mov(R4, FIXED_GSO);
    asm.call(helper::SKB_ADJUST_ROOM);
    asm.jump(If::Ne, R0, 0, drop);
    asm.mov(R4, R9);
    asm.alu(Op::And, R4, i32::from(!OUTER_V6));
    asm.alu(Op::Lsh, R4, ENCAP_L2_SHIFT);
    asm.alu(Op::Or, R4, FIXED_GSO | ENCAP_L4_GRE | ENCAP_L2_ETH);
    asm.jump(If::Le, R9, i32::from(!OUTER_V6), v4);
    asm.alu(Op::Or, R4, ENCAP_L3_IPV6);
    asm.goto(flags);
    asm.place(v4);
    asm.alu(Op::Or, R4, ENCAP_L3_IPV4);
    asm.place(flags);
    asm.mov(R1, R6);
    asm.mov(R2, R8);
    asm.mov(R3, ROOM_MAC);
    asm.call(helper::SKB_ADJUST_ROOM);
    asm.jump(If::Ne, R0, 0, drop);
    asm.mov(R1, R6);
    asm.mov(R2, FRONT as i32);
    asm.mov(R3, R10);
    asm.alu(Op::Add, R3, HEADERS);
    asm.mov(R4, R8);
    asm.mov(R5, 0);
    asm.call(helper::SKB_STORE_BYTES);
    asm.jump(If::Ne, R0, 0, drop);

    asm.place(leave);
    asm.mov(R1, R7);
    for none in [R2, R3, R4] {
        asm.mov(none, 0);
    }
    asm.call(helper::REDIRECT_NEIGH);
    asm.exit();

    asm.place(drop);
    asm.mov(R0, DROP);
    asm.exit();

    asm.place(next);
    asm.mov(R0, NEXT);
    asm.exit();
    asm
}

/// Copies bytes of the packet to the stack.
fn copy(asm: &mut Assembler, packet: Reg, from: i32, to: i32, len: impl Into<crate::sys::bpf::Operand>) {
    asm.mov(Reg::R1, packet);
    asm.mov(Reg::R2, from);
    asm.mov(Reg::R3, Reg::R10);
    asm.alu(Op::Add, Reg::R3, to);
    asm.mov(Reg::R4, len);
    asm.call(helper::SKB_LOAD_BYTES);
}

//! An assembler for eBPF, as little of it as the programs here need (RFC 9669).

use zerocopy::{Immutable, IntoBytes};

/// One instruction, as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Insn {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register. R0 is what a call or the program gives back, R1 to R5 are a call's arguments and lost by it, R6 to R9 stay, R10
/// is the end of the stack's 512 bytes and may not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// Bytes of a load or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// Four.
    W = 0x00,
    /// Two.
    H = 0x08,
    /// One.
    B = 0x10,
    /// Eight.
    D = 0x18,
}

/// What arithmetic does to its destination, 64 bits wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Op {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Or = 0x40,
    And = 0x50,
    Lsh = 0x60,
    Rsh = 0x70,
    Xor = 0xa0,
    Mov = 0xb0,
}

/// When to jump; numbers are taken as unsigned, 64 bits wide. An immediate is sign-extended to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum If {
    Eq = 0x10,
    Gt = 0x20,
    Ge = 0x30,
    /// They have bits in common.
    Set = 0x40,
    Ne = 0x50,
    Lt = 0xa0,
    Le = 0xb0,
}

/// The second operand: a register or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// What a register holds.
    Reg(Reg),
    /// This.
    Number(i32),
}

impl From<Reg> for Operand {
    fn from(reg: Reg) -> Operand {
        Operand::Reg(reg)
    }
}

impl From<i32> for Operand {
    fn from(number: i32) -> Operand {
        Operand::Number(number)
    }
}

/// A place in a program, to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// A program being written, instruction by instruction.
#[derive(Debug, Default)]
pub struct Assembler {
    insns: Vec<Insn>,
    /// Where each label stands.
    labels: Vec<Option<usize>>,
    /// Which instruction jumps to which label.
    jumps: Vec<(usize, Label)>,
}

// classes, modes and sources of instructions
const LD: u8 = 0;
const LDX: u8 = 1;
const ST: u8 = 2;
const STX: u8 = 3;
const ALU32: u8 = 4;
const JMP: u8 = 5;
const JMP32: u8 = 6;
const ALU64: u8 = 7;
const MEM: u8 = 0x60;
const FROM_REGISTER: u8 = 0x08;
const TO_BIG_ENDIAN: u8 = 0xd8;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// The number of a wide load is the descriptor of a map.
const PSEUDO_MAP_FD: u8 = 1;

impl Assembler {
    /// An empty program.
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// A label that does not stand anywhere yet.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// `label` stands here.
    pub fn place(&mut self, label: Label) {
        if let Some(at) = self.labels.get_mut(label.0) {
            *at = Some(self.insns.len());
        }
    }

    fn push(&mut self, code: u8, dst: Reg, src: u8, offset: i16, immediate: i32) {
        self.insns.push(Insn { code, registers: src << 4 | dst as u8, offset, immediate });
    }

    fn operand(&mut self, code: u8, dst: Reg, operand: Operand) {
        match operand {
            Operand::Reg(src) => self.push(code | FROM_REGISTER, dst, src as u8, 0, 0),
            Operand::Number(number) => self.push(code, dst, 0, 0, number),
        }
    }

    /// `dst op= operand`
    pub fn alu(&mut self, op: Op, dst: Reg, operand: impl Into<Operand>) {
        self.operand(op as u8 | ALU64, dst, operand.into());
    }

    /// `dst = operand`
    pub fn mov(&mut self, dst: Reg, operand: impl Into<Operand>) {
        self.alu(Op::Mov, dst, operand);
    }

    /// `dst = number`, all 64 bits of it.
    pub fn mov64(&mut self, dst: Reg, number: u64) {
        self.wide(dst, 0, number);
    }

    /// `dst =` the map with that descriptor.
    pub fn map(&mut self, dst: Reg, map: std::os::fd::BorrowedFd<'_>) {
        self.wide(dst, PSEUDO_MAP_FD, std::os::fd::AsRawFd::as_raw_fd(&map) as u64);
    }

    fn wide(&mut self, dst: Reg, kind: u8, number: u64) {
        self.push(LD | Size::D as u8, dst, kind, 0, number as u32 as i32);
        self.push(0, Reg::R0, 0, 0, (number >> 32) as i32);
    }

    /// Turns the low `bits` (16, 32, 64) of `dst` from the order of this machine into that of the wire, or back.
    pub fn swap(&mut self, dst: Reg, bits: i32) {
        self.push(ALU32 | TO_BIG_ENDIAN, dst, 0, 0, bits);
    }

    /// `dst = *(base + offset)`
    pub fn load(&mut self, size: Size, dst: Reg, base: Reg, offset: i16) {
        self.push(LDX | MEM | size as u8, dst, base as u8, offset, 0);
    }

    /// `*(base + offset) = operand`
    pub fn store(&mut self, size: Size, base: Reg, offset: i16, operand: impl Into<Operand>) {
        match operand.into() {
            Operand::Reg(src) => self.push(STX | MEM | size as u8, base, src as u8, offset, 0),
            Operand::Number(number) => self.push(ST | MEM | size as u8, base, 0, offset, number),
        }
    }

    /// Jumps to `label` if `dst` and `operand` compare so.
    pub fn jump(&mut self, when: If, dst: Reg, operand: impl Into<Operand>, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.operand(when as u8 | JMP, dst, operand.into());
    }

    /// [`Assembler::jump`] by the lower 32 bits of both.
    pub fn jump32(&mut self, when: If, dst: Reg, operand: impl Into<Operand>, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.operand(when as u8 | JMP32, dst, operand.into());
    }

    /// Jumps to `label`.
    pub fn goto(&mut self, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(JMP, Reg::R0, 0, 0, 0);
    }

    /// Calls a function of the kernel by its number ([`super::helper`]).
    pub fn call(&mut self, helper: i32) {
        self.push(JMP | CALL, Reg::R0, 0, 0, helper);
    }

    /// Ends the program with what is in R0.
    pub fn exit(&mut self) {
        self.push(JMP | EXIT, Reg::R0, 0, 0, 0);
    }

    /// The program. None: a jump leads nowhere, or too far.
    pub fn finish(mut self) -> Option<Vec<Insn>> {
        for (from, label) in self.jumps {
            let to = (*self.labels.get(label.0)?)?;
            let distance = to as isize - from as isize - 1;
            self.insns.get_mut(from)?.offset = i16::try_from(distance).ok()?;
        }
        Some(self.insns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `llvm-mc -triple bpfel -show-encoding` has it.
    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let mut asm = Assembler::new();
        let end = asm.label();
        asm.mov(Reg::R6, Reg::R1);
        asm.load(Size::W, Reg::R2, Reg::R6, 8);
        asm.jump(If::Ne, Reg::R2, 0x1234_5678, end);
        asm.alu(Op::Add, Reg::R3, -8);
        asm.store(Size::H, Reg::R10, -2, Reg::R3);
        asm.store(Size::B, Reg::R10, -3, 7);
        asm.swap(Reg::R4, 16);
        asm.mov64(Reg::R5, 0x1122_3344_5566_7788);
        asm.jump32(If::Set, Reg::R5, Reg::R4, end);
        asm.goto(end);
        asm.call(50);
        asm.place(end);
        asm.exit();
        let want: [[u8; 8]; 13] = [
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0x61, 0x62, 8, 0, 0, 0, 0, 0],
            [0x55, 0x02, 9, 0, 0x78, 0x56, 0x34, 0x12],
            [0x07, 0x03, 0, 0, 0xf8, 0xff, 0xff, 0xff],
            [0x6b, 0x3a, 0xfe, 0xff, 0, 0, 0, 0],
            [0x72, 0x0a, 0xfd, 0xff, 7, 0, 0, 0],
            [0xdc, 0x04, 0, 0, 16, 0, 0, 0],
            [0x18, 0x05, 0, 0, 0x88, 0x77, 0x66, 0x55],
            [0x00, 0x00, 0, 0, 0x44, 0x33, 0x22, 0x11],
            [0x4e, 0x45, 2, 0, 0, 0, 0, 0],
            [0x05, 0x00, 1, 0, 0, 0, 0, 0],
            [0x85, 0x00, 0, 0, 50, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(asm.finish().unwrap().as_bytes(), want.as_flattened());
    }

    #[test]
    fn a_jump_must_lead_somewhere() {
        let mut asm = Assembler::new();
        let nowhere = asm.label();
        asm.goto(nowhere);
        assert_eq!(asm.finish(), None);
    }
}

//! Classic BPF, as much of it as a filter of segments needs: an assembler that cannot jump wrongly.
//!
//! The machine ([linux/filter.h]) has an accumulator A and an index X. Conditional jumps reach 255 instructions, and only
//! forward; so a condition here jumps over one instruction at most, and that one jumps as far as it likes.
//!
//! [linux/filter.h]: https://docs.kernel.org/networking/filter.html

#![forbid(unsafe_code)]

use std::fmt;

/// What a program loads that is not in the packet, at the kernel's offset for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum About {
    /// The protocol, an EtherType.
    Protocol = 0xffff_f000,
    /// Whether it was sent or received: PACKET_OUTGOING and its like.
    Direction = 0xffff_f004,
    /// The interface's kind: ARPHRD_LOOPBACK and its like.
    HardwareType = 0xffff_f01c,
}

/// One instruction. `X` and `A` are the machine's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A: what is known of the packet.
    LoadAbout(About),
    /// A: the byte at this offset.
    LoadByte(u32),
    /// A: the two bytes there.
    LoadHalf(u32),
    /// A: the four bytes there.
    LoadWord(u32),
    /// A: the two bytes at X and this offset.
    LoadHalfAtX(u32),
    /// X: four times the lower half of the byte there, which is an IPv4 header's length.
    LoadXHeaderLen(u32),
    /// X: this number.
    SetX(u32),
    /// X: A.
    MoveToX,
    /// A: only these of its bits.
    And(u32),
    /// A: so much more.
    Add(u32),
    /// A: moved up by so many bits.
    ShiftLeft(u32),
    /// Passes over the next instruction if A is this.
    SkipIfEqual(u32),
    /// Passes over the next instruction unless A is this.
    SkipUnlessEqual(u32),
    /// Passes over the next instruction unless A has any of these bits.
    SkipUnlessAny(u32),
    /// Goes on so many instructions further.
    Jump(u32),
    /// Ends: so many bytes of the packet are kept; none means that it is not wanted.
    Return(u32),
}

/// A program for the kernel to run on each packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(Vec<Op>);

/// An instruction as the kernel has it: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// What to do.
    pub code: u16,
    /// How many instructions to pass over if a condition holds.
    pub jt: u8,
    /// How many if it does not.
    pub jf: u8,
    /// A number that the instruction uses.
    pub k: u32,
}

impl Program {
    /// The most instructions that the kernel takes, BPF_MAXINSNS.
    pub const MOST: usize = 4096;

    /// One that wants no packet.
    pub(super) fn nothing() -> Program {
        Program(vec![Op::Return(0)])
    }

    /// Its instructions.
    pub fn ops(&self) -> &[Op] {
        &self.0
    }

    /// The same in the kernel's form.
    pub fn code(&self) -> impl Iterator<Item = Code> {
        self.0.iter().map(|op| op.code())
    }
}

impl Op {
    fn code(self) -> Code {
        let plain = |code, k| Code { code, jt: 0, jf: 0, k };
        match self {
            Op::LoadAbout(what) => plain(0x20, what as u32),
            Op::LoadByte(at) => plain(0x30, at),
            Op::LoadHalf(at) => plain(0x28, at),
            Op::LoadWord(at) => plain(0x20, at),
            Op::LoadHalfAtX(at) => plain(0x48, at),
            Op::LoadXHeaderLen(at) => plain(0xb1, at),
            Op::SetX(value) => plain(0x01, value),
            Op::MoveToX => plain(0x07, 0),
            Op::And(bits) => plain(0x54, bits),
            Op::Add(value) => plain(0x04, value),
            Op::ShiftLeft(bits) => plain(0x64, bits),
            Op::SkipIfEqual(value) => Code { code: 0x15, jt: 1, jf: 0, k: value },
            Op::SkipUnlessEqual(value) => Code { code: 0x15, jt: 0, jf: 1, k: value },
            Op::SkipUnlessAny(bits) => Code { code: 0x45, jt: 0, jf: 1, k: bits },
            Op::Jump(distance) => plain(0x05, distance),
            Op::Return(len) => plain(0x06, len),
        }
    }
}

/// A place in a program that is being assembled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program that is being assembled.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    ops: Vec<Op>,
    /// Where each label is, once it has been placed.
    labels: Vec<Option<usize>>,
    /// The jumps, and where they go.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A place that is yet to be.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Here it is.
    pub(super) fn place(&mut self, label: Label) {
        let before = self.labels[label.0].replace(self.ops.len());
        assert!(before.is_none(), "a label has one place");
    }

    pub(super) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.ops.len(), to));
        self.ops.push(Op::Jump(0));
    }

    pub(super) fn jump_if_equal(&mut self, value: u32, to: Label) {
        self.push(Op::SkipUnlessEqual(value));
        self.jump(to);
    }

    pub(super) fn jump_unless_equal(&mut self, value: u32, to: Label) {
        self.push(Op::SkipIfEqual(value));
        self.jump(to);
    }

    pub(super) fn jump_if_any(&mut self, bits: u32, to: Label) {
        self.push(Op::SkipUnlessAny(bits));
        self.jump(to);
    }

    /// The program, unless it has more instructions than the kernel takes.
    pub(super) fn finish(mut self) -> Option<Program> {
        for (from, label) in self.jumps {
            let to = self.labels[label.0].expect("a label that is jumped to has a place");
            let distance = to.checked_sub(from + 1).expect("jumps go forward");
            self.ops[from] = Op::Jump(distance as u32);
        }
        assert!(matches!(self.ops.last(), Some(Op::Return(_))), "a program ends");
        (self.ops.len() <= Program::MOST).then_some(Program(self.ops))
    }
}

impl fmt::Display for Program {
    /// A line an instruction, much as `tcpdump -d` writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, op) in self.0.iter().enumerate() {
            write!(f, "({at:03}) ")?;
            let (next, after) = (at + 1, at + 2);
            match *op {
                Op::LoadAbout(About::Protocol) => writeln!(f, "ld       #proto")?,
                Op::LoadAbout(About::Direction) => writeln!(f, "ld       #type")?,
                Op::LoadAbout(About::HardwareType) => writeln!(f, "ld       #hatype")?,
                Op::LoadByte(at) => writeln!(f, "ldb      [{at}]")?,
                Op::LoadHalf(at) => writeln!(f, "ldh      [{at}]")?,
                Op::LoadWord(at) => writeln!(f, "ld       [{at}]")?,
                Op::LoadHalfAtX(at) => writeln!(f, "ldh      [x + {at}]")?,
                Op::LoadXHeaderLen(at) => writeln!(f, "ldxb     4*([{at}]&0xf)")?,
                Op::SetX(value) => writeln!(f, "ldx      #{value:#x}")?,
                Op::MoveToX => writeln!(f, "tax")?,
                Op::And(bits) => writeln!(f, "and      #{bits:#x}")?,
                Op::Add(value) => writeln!(f, "add      #{value}")?,
                Op::ShiftLeft(bits) => writeln!(f, "lsh      #{bits}")?,
                Op::SkipIfEqual(value) => writeln!(f, "jeq      #{value:#x}  jt {after}  jf {next}")?,
                Op::SkipUnlessEqual(value) => writeln!(f, "jeq      #{value:#x}  jt {next}  jf {after}")?,
                Op::SkipUnlessAny(bits) => writeln!(f, "jset     #{bits:#x}  jt {next}  jf {after}")?,
                Op::Jump(distance) => writeln!(f, "ja       {}", at + 1 + distance as usize)?,
                Op::Return(len) => writeln!(f, "ret      #{len}")?,
            }
        }
        Ok(())
    }
}

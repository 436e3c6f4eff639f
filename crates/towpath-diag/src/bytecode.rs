//! A filter as the kernel takes it (INET_DIAG_REQ_BYTECODE, `linux/inet_diag.h`): a program of tests, each of which goes on
//! behind itself if it holds, and otherwise jumps ahead by a number of bytes. A jump to the end of the program admits the socket,
//! one to four bytes beyond it does not.
//!
//! The kernel takes such a program only if each test's way on is its own length, and each jump ahead lands on an instruction
//! that is reached by going on from one to the next; it has no jump back. So a choice is laid out as
//!
//! ```text
//!     first      no: ──┐
//!     jump end ────────┼──┐
//!     second  ◀────────┘  │   no: where the whole choice goes if it fails
//!     end     ◀───────────┘
//! ```
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::filter::{End, Filter, Prefix};
use crate::row::{AF_INET, AF_INET6};

// INET_DIAG_BC_*: what an instruction does. The latter two compare one end with `struct inet_diag_hostcond`.
const JUMP: u8 = 1;
const LOCAL: u8 = 7;
const PEER: u8 = 8;

/// The length of an instruction without what it compares with, and of `struct inet_diag_hostcond` without the address.
const OP: usize = 4;
const CONDITION: usize = 8;

/// The longest program: it is an attribute, whose length has 16 bits, header included.
const LONGEST: usize = (u16::MAX as usize - 4) & !3;

/// An instruction is at most this long: a condition with an address of IPv6.
const WIDEST: usize = OP + CONDITION + 16;

/// What must hold.
enum Rule {
    /// Each.
    All(Vec<Rule>),
    /// One, at least.
    Any(Vec<Rule>),
    Not(Box<Rule>),
    Port(Side, u16),
    Address(Side, Prefix),
}

#[derive(Clone, Copy)]
enum Side {
    Local,
    Peer,
}

/// Ports and addresses of the filter as a program; none if any will do. The states are no part of it.
///
/// The error is the length in bytes of a program that the kernel would not take.
pub(crate) fn compile(filter: &Filter) -> Result<Option<Vec<u8>>, usize> {
    let mut rules = Vec::new();
    if !filter.ports.is_empty() {
        rules.push(Rule::Any(vec![ports(Side::Local, &filter.ports), ports(Side::Peer, &filter.ports)]));
    }
    if !filter.addresses.is_empty() {
        rules
            .push(Rule::Any(vec![addresses(Side::Local, &filter.addresses), addresses(Side::Peer, &filter.addresses)]));
    }
    for (side, End { ports: wanted, addresses: prefixes }) in [(Side::Local, &filter.local), (Side::Peer, &filter.peer)]
    {
        if !wanted.is_empty() {
            rules.push(ports(side, wanted));
        }
        if !prefixes.is_empty() {
            rules.push(addresses(side, prefixes));
        }
    }
    if rules.is_empty() {
        return Ok(None);
    }
    let mut program = Program::default();
    program.emit(&Rule::All(rules), Target::REJECT);
    program.assemble().map(Some)
}

fn ports(side: Side, ports: &[u16]) -> Rule {
    // A peer that is not there has port 0.
    let real = ports.iter().filter(|&&port| port != 0 || matches!(side, Side::Local));
    Rule::Any(real.map(|&port| Rule::Port(side, port)).collect())
}

fn addresses(side: Side, prefixes: &[Prefix]) -> Rule {
    let any = Rule::Any(prefixes.iter().map(|&prefix| address(side, prefix)).collect());
    match side {
        Side::Local => any,
        // The address of a peer that is not there means nothing.
        Side::Peer => Rule::All(vec![Rule::Not(Box::new(Rule::Port(side, 0))), any]),
    }
}

fn address(side: Side, prefix: Prefix) -> Rule {
    let rule = Rule::Address(side, prefix);
    // What begins so shortly may be IPv4 on an IPv6 socket, which the kernel compares as it is written: ::ffff:10.0.0.1.
    if prefix.address().is_ipv6() && prefix.length() < 96 {
        return Rule::All(vec![rule, Rule::Not(Box::new(Rule::Address(side, Prefix::EVERY_V4)))]);
    }
    rule
}

/// Where an instruction jumps: an index among the places of a program, which are known once it is complete.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Target(usize);

impl Target {
    const REJECT: Target = Target(usize::MAX);
}

struct Instruction {
    code: u8,
    condition: Vec<u8>,
    no: Target,
}

#[derive(Default)]
struct Program {
    instructions: Vec<Instruction>,
    /// For each target, the index of the instruction that it stands before.
    places: Vec<usize>,
}

impl Program {
    /// Goes on behind what is emitted if the rule holds, and to `no` otherwise.
    fn emit(&mut self, rule: &Rule, no: Target) {
        match rule {
            Rule::All(rules) => rules.iter().for_each(|rule| self.emit(rule, no)),
            Rule::Any(rules) => self.emit_any(rules, no),
            Rule::Not(rule) => {
                let fails = self.target();
                self.emit(rule, fails);
                self.instruction(JUMP, Vec::new(), no);
                self.place(fails);
            }
            Rule::Port(side, port) => self.instruction(code(*side), condition(i32::from(*port), None), no),
            Rule::Address(side, prefix) => self.instruction(code(*side), condition(-1, Some(*prefix)), no),
        }
    }

    fn emit_any(&mut self, rules: &[Rule], no: Target) {
        let Some((last, others)) = rules.split_last() else { return self.instruction(JUMP, Vec::new(), no) };
        let end = self.target();
        for rule in others {
            let next = self.target();
            self.emit(rule, next);
            self.instruction(JUMP, Vec::new(), end);
            self.place(next);
        }
        self.emit(last, no);
        self.place(end);
    }

    fn instruction(&mut self, code: u8, condition: Vec<u8>, no: Target) {
        self.instructions.push(Instruction { code, condition, no });
    }

    fn target(&mut self) -> Target {
        self.places.push(usize::MAX);
        Target(self.places.len() - 1)
    }

    fn place(&mut self, target: Target) {
        self.places[target.0] = self.instructions.len();
    }

    fn assemble(&self) -> Result<Vec<u8>, usize> {
        let mut offsets = vec![0];
        for Instruction { condition, .. } in &self.instructions {
            offsets.push(offsets[offsets.len() - 1] + OP + condition.len());
        }
        let length = offsets[self.instructions.len()];
        if length > LONGEST {
            return Err(length);
        }
        let mut bytes = Vec::with_capacity(length);
        for (Instruction { code, condition, no }, here) in self.instructions.iter().zip(&offsets) {
            let target = if *no == Target::REJECT { length + OP } else { offsets[self.places[no.0]] };
            let own = OP + condition.len();
            debug_assert!(own <= WIDEST && target - here >= OP);
            // A jump never goes on, yet the kernel walks over it.
            bytes.extend([*code, own as u8]);
            bytes.extend(((target - here) as u16).to_ne_bytes());
            bytes.extend(condition);
        }
        Ok(bytes)
    }
}

fn code(side: Side) -> u8 {
    match side {
        Side::Local => LOCAL,
        Side::Peer => PEER,
    }
}

/// `struct inet_diag_hostcond`: a family, the length of a prefix, a port or -1, and as much of the address as its family has.
fn condition(port: i32, prefix: Option<Prefix>) -> Vec<u8> {
    let (family, length) = match prefix {
        None => (0, 0),
        Some(prefix) => (if prefix.address().is_ipv4() { AF_INET } else { AF_INET6 }, prefix.length()),
    };
    let mut bytes = vec![family, length, 0, 0];
    bytes.extend(port.to_ne_bytes());
    match prefix.map(|prefix| prefix.address()) {
        Some(IpAddr::V4(address)) => bytes.extend(address.octets()),
        Some(IpAddr::V6(address)) => bytes.extend(address.octets()),
        None => {}
    }
    bytes
}

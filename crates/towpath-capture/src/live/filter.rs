//! Which segments to capture, as a program for the kernel.
//!
//! The socket gives packets from the IP header on, so offsets are the same whatever the link. A VLAN's tag is usually
//! taken off by the card or the kernel; the inner one of two is not.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::bpf::{About, Assembler, Label, Op, Program};

/// Which segments are wanted: TCP, to or from any of the ports, and to or from any of the hosts. Of an IPv4 or IPv6 packet in
/// fragments, ports let only the first through, for only that has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Ports at either end; empty for all.
    pub ports: Vec<u16>,
    /// Addresses at either end; empty for all.
    pub hosts: Vec<IpAddr>,
}

const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const TCP: u32 = 6;
/// 802.1Q and 802.1ad.
const TAGS: [u32; 2] = [0x8100, 0x88a8];
/// ARPHRD_LOOPBACK and PACKET_OUTGOING.
const LOOPBACK: u32 = 772;
const OUTGOING: u32 = 4;

impl Filter {
    /// The program that keeps up to `snap_len` bytes, from the IP header on, of what is wanted. None if there are so many
    /// ports and hosts that the kernel would not take it: more than a hundred are no problem.
    pub fn program(&self, snap_len: u32) -> Option<Program> {
        let mut asm = Assembler::default();
        let reject = asm.label();
        let accept = asm.label();

        // Loopback shows each packet twice: as it is sent, and as it is received.
        let not_loopback = asm.label();
        asm.push(Op::LoadAbout(About::HardwareType));
        asm.jump_unless_equal(LOOPBACK, not_loopback);
        asm.push(Op::LoadAbout(About::Direction));
        asm.jump_if_equal(OUTGOING, reject);
        asm.place(not_loopback);

        let (tagged, ipv6) = (asm.label(), asm.label());
        let (ipv4, tagged_ipv4, tagged_ipv6) = (asm.label(), asm.label(), asm.label());
        asm.push(Op::LoadAbout(About::Protocol));
        asm.jump_if_equal(IPV6, ipv6);
        asm.jump_if_equal(IPV4, ipv4);
        asm.jump_if_equal(TAGS[0], tagged);
        asm.jump_unless_equal(TAGS[1], reject);
        // A tag begins what was received, and is two bytes of its own and two of what follows; what a card cannot tag by
        // itself is sent with the tag before the part that is seen here.
        asm.place(tagged);
        asm.push(Op::LoadHalf(2));
        asm.jump_if_equal(IPV6, tagged_ipv6);
        asm.jump_if_equal(IPV4, tagged_ipv4);
        asm.push(Op::LoadByte(0));
        asm.push(Op::And(0xf0));
        asm.jump_if_equal(0x60, ipv6);
        asm.jump_if_equal(0x40, ipv4);
        asm.jump(reject);

        for (start, ipv4, ipv6) in [(4, tagged_ipv4, tagged_ipv6), (0, ipv4, ipv6)] {
            asm.place(ipv4);
            self.ipv4(&mut asm, start, accept, reject);
            asm.place(ipv6);
            self.ipv6(&mut asm, start, accept, reject);
        }
        asm.place(accept);
        asm.push(Op::Return(snap_len));
        asm.place(reject);
        asm.push(Op::Return(0));
        asm.finish()
    }

    fn ipv4(&self, asm: &mut Assembler, start: u32, accept: Label, reject: Label) {
        asm.push(Op::LoadByte(start + 9));
        asm.jump_unless_equal(TCP, reject);
        let hosts = self.hosts.iter().filter_map(|host| match host {
            IpAddr::V4(host) => Some(vec![u32::from(*host)]),
            IpAddr::V6(_) => None,
        });
        self.either_host(asm, [start + 12, start + 16], hosts.collect(), reject);
        if !self.ports.is_empty() {
            asm.push(Op::LoadHalf(start + 6));
            asm.jump_if_any(0x1fff, reject);
        }
        asm.push(Op::LoadXHeaderLen(start));
        self.either_port(asm, start, accept, reject);
    }

    fn ipv6(&self, asm: &mut Assembler, start: u32, accept: Label, reject: Label) {
        let hosts = self.hosts.iter().filter_map(|host| match host {
            IpAddr::V6(host) => {
                let words = host
                    .octets()
                    .chunks_exact(4)
                    .map(|word| u32::from_be_bytes(word.try_into().expect("four")))
                    .collect();
                Some(words)
            }
            IpAddr::V4(_) => None,
        });
        self.either_host(asm, [start + 8, start + 24], hosts.collect(), reject);

        // TCP follows at once, or after one extension: hop-by-hop (which jumbograms have), routing, destination options,
        // or a fragment's. X becomes the extension's length.
        let (direct, extension, ports) = (asm.label(), asm.label(), asm.label());
        asm.push(Op::LoadByte(start + 6));
        asm.jump_if_equal(TCP, direct);
        for kind in [0, 43, 60] {
            asm.jump_if_equal(kind, extension);
        }
        // A fragment: eight bytes, of which thirteen bits are its place.
        asm.jump_unless_equal(44, reject);
        if !self.ports.is_empty() {
            asm.push(Op::LoadHalf(start + 42));
            asm.jump_if_any(0xfff8, reject);
        }
        asm.push(Op::LoadByte(start + 40));
        asm.jump_unless_equal(TCP, reject);
        asm.push(Op::SetX(8));
        asm.jump(ports);

        asm.place(extension);
        asm.push(Op::LoadByte(start + 40));
        asm.jump_unless_equal(TCP, reject);
        asm.push(Op::LoadByte(start + 41));
        asm.push(Op::Add(1));
        asm.push(Op::ShiftLeft(3));
        asm.push(Op::MoveToX);
        asm.jump(ports);

        asm.place(direct);
        asm.push(Op::SetX(0));
        asm.place(ports);
        self.either_port(asm, start + 40, accept, reject);
    }

    /// Goes on if an address at either offset, as words, is one of those that are wanted.
    fn either_host(&self, asm: &mut Assembler, offsets: [u32; 2], hosts: Vec<Vec<u32>>, reject: Label) {
        if self.hosts.is_empty() {
            return;
        }
        let wanted = asm.label();
        for offset in offsets {
            for host in &hosts {
                let other = asm.label();
                for (&word, at) in host.iter().zip((offset..).step_by(4)) {
                    asm.push(Op::LoadWord(at));
                    asm.jump_unless_equal(word, other);
                }
                asm.jump(wanted);
                asm.place(other);
            }
        }
        asm.jump(reject);
        asm.place(wanted);
    }

    /// Ends: whether the port at either end, at X and `start`, is one of those that are wanted.
    fn either_port(&self, asm: &mut Assembler, start: u32, accept: Label, reject: Label) {
        if self.ports.is_empty() {
            asm.jump(accept);
            return;
        }
        for end in [0, 2] {
            asm.push(Op::LoadHalfAtX(start + end));
            for &port in &self.ports {
                asm.jump_if_equal(port.into(), accept);
            }
        }
        asm.jump(reject);
    }
}

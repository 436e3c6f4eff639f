//! The kernel's side of a filter's program, after its own (`inet_diag_bc_audit` and `inet_diag_bc_run` in
//! `net/ipv4/inet_diag.c`): what it takes, and what it does with it. Every program must be taken, and admit what the filter does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{AF_INET, AF_INET6, JUMP, LOCAL, PEER, compile};
use crate::netlink::message::HEADER;
use crate::{End, Family, Filter, Prefix, Socket, bytes, row};

/// Whether going on from instruction to instruction reaches what is `left` bytes from the end.
fn is_boundary(program: &[u8], left: usize) -> bool {
    let mut rest = program;
    while rest.len() > left {
        let yes = usize::from(rest[1]);
        if yes < 4 || yes % 4 != 0 {
            return false;
        }
        rest = rest.get(yes..).unwrap_or_default();
    }
    rest.len() == left
}

/// Whether the kernel takes the program.
fn audit(program: &[u8]) -> bool {
    let mut rest = program;
    while !rest.is_empty() {
        let (code, yes, no) = (rest[0], usize::from(rest[1]), usize::from(bytes::u16(rest, 2).unwrap()));
        let shortest = match code {
            JUMP => 4,
            LOCAL | PEER => {
                let (family, length) = (rest[4], usize::from(rest[5]));
                let address = [(0, 0), (AF_INET, 4), (AF_INET6, 16)].into_iter().find(|known| known.0 == family);
                match address {
                    Some((_, address)) if length <= 8 * address && rest.len() >= 12 + address => 12 + address,
                    _ => return false,
                }
            }
            _ => return false,
        };
        let jumps = no >= shortest && no <= rest.len() + 4 && no % 4 == 0;
        if !jumps || (no < rest.len() && !is_boundary(program, rest.len() - no)) {
            return false;
        }
        if yes < shortest || yes > rest.len() + 4 || yes % 4 != 0 {
            return false;
        }
        rest = &rest[yes..];
    }
    true
}

fn starts_alike(one: &[u8], other: &[u8], bits: usize) -> bool {
    (0..bits).all(|bit| (one[bit / 8] ^ other[bit / 8]) >> (7 - bit % 8) & 1 == 0)
}

fn holds(condition: &[u8], family: u8, address: [u8; 16], port: u16) -> bool {
    let (of, length) = (condition[0], usize::from(condition[1]));
    let wanted = bytes::u32(condition, 4).unwrap() as i32;
    if wanted != -1 && wanted != i32::from(port) {
        return false;
    }
    if of != 0 && of != family {
        let mapped = address[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255];
        return family == AF_INET6 && of == AF_INET && mapped && starts_alike(&address[12..], &condition[8..], length);
    }
    starts_alike(&address, &condition[8..], length)
}

/// Whether the kernel admits this socket.
fn run(program: &[u8], row: &[u8]) -> bool {
    let (family, mut left) = (row[0], program.len() as isize);
    while left > 0 {
        let at = &program[program.len() - left as usize..];
        let port = |offset| bytes::array(row, offset).map(u16::from_be_bytes).unwrap();
        let yes = match at[0] {
            LOCAL => holds(&at[4..], family, bytes::array(row, 8).unwrap(), port(4)),
            PEER => holds(&at[4..], family, bytes::array(row, 24).unwrap(), port(6)),
            _ => false,
        };
        left -= if yes { isize::from(at[1]) } else { bytes::u16(at, 2).unwrap() as isize };
    }
    left == 0
}

/// `struct inet_diag_msg` of a socket of these ends.
fn row_of(family: Family, local: SocketAddr, peer: Option<SocketAddr>) -> Vec<u8> {
    let mut row = vec![0; 72];
    row[0] = if family == Family::V4 { AF_INET } else { AF_INET6 };
    row[1] = 1;
    for (end, port, address) in [(Some(local), 4, 8), (peer, 6, 24)] {
        let Some(end) = end else { continue };
        row[port..port + 2].copy_from_slice(&end.port().to_be_bytes());
        match (family, end.ip()) {
            (Family::V4, IpAddr::V4(ip)) => row[address..address + 4].copy_from_slice(&ip.octets()),
            (_, IpAddr::V4(ip)) => row[address..address + 16].copy_from_slice(&ip.to_ipv6_mapped().octets()),
            (_, IpAddr::V6(ip)) => row[address..address + 16].copy_from_slice(&ip.octets()),
        }
    }
    row
}

/// Numbers that look random and are the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    /// From a few, so that they meet.
    fn ip(&mut self, family: Family) -> IpAddr {
        let (upper, lower) = (self.below(2) as u8, self.below(3) as u8);
        match (family, self.below(2)) {
            (Family::V6, 0) => {
                Ipv6Addr::new(0, 0, 0, 0, 0, u16::from(upper), 0xffff * u16::from(upper), lower.into()).into()
            }
            _ => Ipv4Addr::new(127 + upper, 0, 0, lower).into(),
        }
    }

    fn prefix(&mut self) -> Prefix {
        let family = if self.below(2) == 0 { Family::V4 } else { Family::V6 };
        let address = self.ip(family);
        Prefix::new(address, self.below(if address.is_ipv4() { 33 } else { 129 }) as u8).unwrap()
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Dice) -> T) -> Vec<T> {
        (0..[0, 0, 1, 3][self.below(4)]).map(|_| item(self)).collect()
    }

    fn end(&mut self) -> End {
        End { ports: self.list(|dice| dice.below(4) as u16), addresses: self.list(Dice::prefix) }
    }

    fn filter(&mut self) -> Filter {
        let End { ports, addresses } = self.end();
        Filter { ports, addresses, local: self.end(), peer: self.end(), ..Filter::new() }
    }

    fn socket(&mut self) -> Socket {
        let family = if self.below(2) == 0 { Family::V4 } else { Family::V6 };
        let local = SocketAddr::new(self.ip(family), 1 + self.below(3) as u16);
        let peer = SocketAddr::new(self.ip(family), 1 + self.below(3) as u16);
        let peer = (self.below(4) > 0).then_some(peer);
        row::parse(&row_of(family, local, peer)).unwrap()
    }
}

#[test]
fn a_program_admits_what_the_filter_does() {
    let (mut dice, mut admitted) = (Dice(1), 0);
    for _ in 0..3000 {
        let filter = dice.filter();
        let Some(program) = compile(&filter).unwrap() else { continue };
        assert!(audit(&program), "{filter:?} {program:?}");
        for _ in 0..20 {
            let socket = dice.socket();
            let row = row_of(socket.family, socket.local, socket.peer);
            let admits = run(&program, &row);
            assert_eq!(admits, filter.matches(&socket), "{filter:?} {socket:?} {program:?}");
            admitted += u32::from(admits);
        }
    }
    assert!((3000..57_000).contains(&admitted), "{admitted} of 60000: this tests one side only");
}

#[test]
fn a_program_is_laid_out_as_a_choice_of_tests() {
    let program = compile(&Filter::new().port(8330)).unwrap().unwrap();
    let port = 8330_i32.to_ne_bytes();
    let no = |distance: u16| distance.to_ne_bytes();
    let expected = [
        // Not the local port: behind the jump. The jump: to the end.
        [&[LOCAL, 12][..], &no(16), &[0; 4], &port].concat(),
        [&[JUMP, 4][..], &no(16)].concat(),
        // Nor the peer's: beyond the end.
        [&[PEER, 12][..], &no(16), &[0; 4], &port].concat(),
    ];
    assert_eq!(program, expected.concat());
}

#[test]
fn a_filter_that_admits_all_has_no_program() {
    assert_eq!(compile(&Filter::new()).unwrap(), None);
}

#[test]
fn the_longest_program_is_taken_and_no_longer_one() {
    let filter = |count| Filter { local: End { ports: (1..=count).collect(), addresses: Vec::new() }, ..Filter::new() };
    let (mut fits, mut does_not) = (0, u16::MAX);
    while does_not - fits > 1 {
        let middle = fits + (does_not - fits) / 2;
        *(if compile(&filter(middle)).is_ok() { &mut fits } else { &mut does_not }) = middle;
    }
    let program = compile(&filter(fits)).unwrap().unwrap();
    assert!(audit(&program) && program.len() > 65_500, "{}", program.len());
    assert!(program.len() + 4 <= usize::from(u16::MAX) && HEADER + program.len() > 0);
    assert!(compile(&filter(does_not)).unwrap_err() > program.len());
}

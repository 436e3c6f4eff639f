//! An address as it was typed, taken apart by rules alone: nothing is read, asked or looked up, so any text may be
//! thrown at it. What its parts stand for on this machine and on the network is for `lookup.rs` to find out.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An address as it was typed, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: Host,
    pub(crate) port: Port,
}

/// The part before the port. A zone names an interface, or is its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    None,
    Ip(IpAddr),
    Zoned(Ipv6Addr, String),
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Number(u16),
    Service(String),
}

impl FromStr for HostPort {
    type Err = AddrError;

    /// Reads `host:port`, where the host may be left out and an IPv6 address stands in brackets (RFC 3986, 3.2.2).
    fn from_str(typed: &str) -> Result<Self, AddrError> {
        let parse = || {
            let (host, port) = split(typed)?;
            let (host, port) = (Host::parse(host)?, Port::parse(port)?);
            Ok(HostPort { host, port })
        };
        parse().map_err(|wrong| AddrError::new(typed, wrong))
    }
}

impl HostPort {
    /// Takes the host by itself, in which an IPv6 address has no brackets.
    pub(super) fn from_parts(host: &str, port: u16) -> Result<Self, AddrError> {
        let port = Port::Number(port);
        match printable(host).and_then(|()| Host::parse(host)) {
            Ok(host) => Ok(HostPort { host, port }),
            Err(wrong) => Err(AddrError::new(host, wrong)),
        }
    }
}

fn split(typed: &str) -> Result<(&str, &str), Wrong> {
    printable(typed)?;
    let (host, port) = if typed.is_empty() {
        return Err(Wrong::Empty);
    } else if let Some(bracketed) = typed.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or(Wrong::MissingBracket)?;
        (host, rest.strip_prefix(':').ok_or(Wrong::MissingPort)?)
    } else {
        let (host, port) = typed.rsplit_once(':').ok_or(Wrong::MissingPort)?;
        if host.contains(':') {
            return Err(Wrong::TooManyColons);
        }
        (host, port)
    };
    if port.contains(':') {
        return Err(Wrong::TooManyColons);
    }
    let bracket = host.chars().chain(port.chars()).find(|c| matches!(c, '[' | ']'));
    match bracket {
        Some(bracket) => Err(Wrong::UnexpectedBracket(bracket)),
        None => Ok((host, port)),
    }
}

/// White space and control characters are in an address by mistake, and unseen in a message that shows it.
fn printable(typed: &str) -> Result<(), Wrong> {
    let unseen = |c: &char| c.is_whitespace() || c.is_control();
    match typed.chars().find(unseen) {
        Some(c) => Err(Wrong::Character(c)),
        None => Ok(()),
    }
}

impl Host {
    fn parse(typed: &str) -> Result<Host, Wrong> {
        if typed.is_empty() {
            return Ok(Host::None);
        }
        if let Ok(ip) = typed.parse() {
            return Ok(Host::Ip(ip));
        }
        if let Some((ip, zone)) = typed.split_once('%') {
            let ip = ip.parse().map_err(|_| Wrong::ZoneWithoutV6)?;
            return match zone.is_empty() {
                false => Ok(Host::Zoned(ip, zone.to_owned())),
                true => Err(Wrong::EmptyZone),
            };
        }
        match typed.contains(':') {
            false => Ok(Host::Name(typed.to_owned())),
            true => Err(Wrong::NotV6),
        }
    }
}

impl Port {
    /// An empty port is an error, though Go takes it for 0: `$HOST:$PORT` with nothing set must not listen anywhere.
    fn parse(typed: &str) -> Result<Port, Wrong> {
        let digits = typed.strip_prefix(['+', '-']).unwrap_or(typed);
        if typed.is_empty() {
            Err(Wrong::MissingPort)
        } else if digits.is_empty() || digits.contains(|c: char| !c.is_ascii_digit()) {
            Ok(Port::Service(typed.to_owned()))
        } else {
            let number = typed.parse().map(Port::Number);
            number.map_err(|_| Wrong::PortOutOfRange(typed.to_owned()))
        }
    }
}

/// As it would be typed: what was typed differs from it in spelling alone.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::None => {}
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}")?,
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Host::Zoned(ip, zone) => write!(f, "[{ip}%{zone}]")?,
            Host::Name(name) => f.write_str(name)?,
        }
        match &self.port {
            Port::Number(number) => write!(f, ":{number}"),
            Port::Service(name) => write!(f, ":{name}"),
        }
    }
}

/// An address that names nothing, and the part of it that is wrong. Its words are Go's where Go has the same error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AddrError {
    addr: String,
    wrong: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Empty,
    Character(char),
    MissingPort,
    MissingBracket,
    UnexpectedBracket(char),
    TooManyColons,
    NotV6,
    EmptyZone,
    ZoneWithoutV6,
    PortOutOfRange(String),
    /// This and the next only the lookup can tell.
    UnknownService(String),
    UnknownZone(String),
}

impl AddrError {
    pub(crate) fn new(addr: impl fmt::Display, wrong: Wrong) -> Self {
        let addr = addr.to_string();
        AddrError { addr, wrong }
    }
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.addr.is_empty() {
            // Escaped: it may hold what a terminal would obey.
            write!(f, "address {}: ", self.addr.escape_debug())?;
        }
        match &self.wrong {
            Wrong::Empty => f.write_str("missing address"),
            Wrong::Character(c) => write!(f, "unexpected character {c:?} in address"),
            Wrong::MissingPort => f.write_str("missing port in address"),
            Wrong::MissingBracket => f.write_str("missing ']' in address"),
            Wrong::UnexpectedBracket(c) => write!(f, "unexpected {c:?} in address"),
            Wrong::TooManyColons => f.write_str("too many colons in address"),
            Wrong::NotV6 => f.write_str("not an IPv6 address"),
            Wrong::EmptyZone => f.write_str("zone without a name"),
            Wrong::ZoneWithoutV6 => f.write_str("zone without an IPv6 address"),
            Wrong::PortOutOfRange(port) => write!(f, "port out of range: {port}"),
            Wrong::UnknownService(service) => write!(f, "unknown service: {service}"),
            Wrong::UnknownZone(zone) => write!(f, "unknown zone: {zone}"),
        }
    }
}

impl Error for AddrError {}

impl From<AddrError> for io::Error {
    fn from(error: AddrError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(typed: &str) -> String {
        let error = io::Error::from(typed.parse::<HostPort>().expect_err(typed));
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn what_is_typed_is_taken_apart() {
        let ip = |ip: &str| Host::Ip(ip.parse().expect("the tests write addresses"));
        let name = |name: &str| Host::Name(name.to_owned());
        let zoned = |ip: &str, zone: &str| Host::Zoned(ip.parse().unwrap(), zone.to_owned());
        let service = |name: &str| Port::Service(name.to_owned());
        use Port::Number;
        for (typed, host, port) in [
            (":8330", Host::None, Number(8330)),
            ("[]:8330", Host::None, Number(8330)),
            (":0", Host::None, Number(0)),
            (":65535", Host::None, Number(65535)),
            (":http", Host::None, service("http")),
            ("127.0.0.1:+80", ip("127.0.0.1"), Number(80)),
            ("127.0.0.1:000080", ip("127.0.0.1"), Number(80)),
            ("[127.0.0.1]:80", ip("127.0.0.1"), Number(80)),
            ("0.0.0.0:80", ip("0.0.0.0"), Number(80)),
            ("[::]:80", ip("::"), Number(80)),
            ("[::1]:http", ip("::1"), service("http")),
            ("[::ffff:1.2.3.4]:80", ip("::ffff:1.2.3.4"), Number(80)),
            ("[::1%lo]:80", zoned("::1", "lo"), Number(80)),
            ("[fe80::1%3]:80", zoned("fe80::1", "3"), Number(80)),
            ("[fe80::1%odd%d]:80", zoned("fe80::1", "odd%d"), Number(80)),
            ("localhost:80", name("localhost"), Number(80)),
            ("[localhost]:80", name("localhost"), Number(80)),
            ("localhost:http", name("localhost"), service("http")),
            ("localhost:-http", name("localhost"), service("-http")),
            ("127.1:80", name("127.1"), Number(80)),
            ("b\u{fc}cher.example:80", name("b\u{fc}cher.example"), Number(80)),
        ] {
            let meant = HostPort { host, port };
            assert_eq!(typed.parse(), Ok(meant), "{typed}");
        }
    }

    #[test]
    fn an_error_names_the_part_that_is_wrong() {
        for (typed, reason) in [
            ("8330", "missing port in address"),
            ("localhost", "missing port in address"),
            ("localhost:", "missing port in address"),
            (":", "missing port in address"),
            ("[::1]", "missing port in address"),
            ("[::1]:", "missing port in address"),
            ("[::1]80", "missing port in address"),
            ("::1", "too many colons in address"),
            ("::1:80", "too many colons in address"),
            ("a:b:80", "too many colons in address"),
            ("[::1]:80:90", "too many colons in address"),
            ("http://localhost:80", "too many colons in address"),
            ("[::1", "missing ']' in address"),
            ("[::1:80", "missing ']' in address"),
            ("[", "missing ']' in address"),
            ("[[::1]:80", "unexpected '[' in address"),
            ("a[b:80", "unexpected '[' in address"),
            ("host:80]", "unexpected ']' in address"),
            ("::1]:80", "too many colons in address"),
            ("1]:80", "unexpected ']' in address"),
            ("[a:b]:80", "not an IPv6 address"),
            ("[:::]:80", "not an IPv6 address"),
            ("[12345::]:80", "not an IPv6 address"),
            ("[::1%]:80", "zone without a name"),
            ("127.0.0.1%lo:80", "zone without an IPv6 address"),
            ("[localhost%lo]:80", "zone without an IPv6 address"),
            ("%lo:80", "zone without an IPv6 address"),
            (":70000", "port out of range: 70000"),
            (":65536", "port out of range: 65536"),
            ("localhost:-1", "port out of range: -1"),
            ("[::1]:99999999999999999999", "port out of range: 99999999999999999999"),
            ("local host:80", "unexpected character ' ' in address"),
        ] {
            assert_eq!(wrong(typed), format!("address {typed}: {reason}"));
        }
    }

    #[test]
    fn an_error_is_one_visible_line_whatever_was_typed() {
        assert_eq!(wrong(""), "missing address");
        assert_eq!(wrong(":8330\n"), r"address :8330\n: unexpected character '\n' in address");
        assert_eq!(wrong("\u{1b}[2J:80"), r"address \u{1b}[2J:80: unexpected character '\u{1b}' in address");
        assert_eq!(wrong("a\0b:80"), r"address a\0b:80: unexpected character '\0' in address");
    }

    #[test]
    fn a_host_beside_its_port_has_no_brackets() {
        let parse = |host| HostPort::from_parts(host, 80).map(|meant| meant.to_string());
        assert_eq!(parse("::1"), Ok("[::1]:80".to_owned()));
        assert_eq!(parse("fe80::1%lo"), Ok("[fe80::1%lo]:80".to_owned()));
        assert_eq!(parse("localhost"), Ok("localhost:80".to_owned()));
        assert_eq!(parse(""), Ok(":80".to_owned()));
        for (host, text) in [
            ("[::1]", "address [::1]: not an IPv6 address"),
            ("localhost:80", "address localhost:80: not an IPv6 address"),
            ("::1%", "address ::1%: zone without a name"),
            ("a b", "address a b: unexpected character ' ' in address"),
        ] {
            assert_eq!(parse(host).unwrap_err().to_string(), text);
        }
    }

    /// Every text is an address or an error, and an address written out means itself.
    #[test]
    fn any_text_can_be_typed() {
        const PIECES: [&str; 18] = [
            "[",
            "]",
            ":",
            "::",
            "%",
            ".",
            "0",
            "1",
            "80",
            "f",
            "lo",
            "-",
            "+",
            "\u{e9}",
            " ",
            "\n",
            "127.0.0.1",
            "70000",
        ];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 32) as usize % below
        };
        let mut addresses = 0;
        for _ in 0..if cfg!(miri) { 200 } else { 200_000 } {
            let typed: String = (0..next(9)).map(|_| PIECES[next(PIECES.len())]).collect();
            match typed.parse::<HostPort>() {
                Ok(meant) => {
                    addresses += 1;
                    assert_eq!(meant.to_string().parse(), Ok(meant), "{typed:?}");
                }
                Err(error) => assert!(!error.to_string().contains(char::is_control)),
            }
        }
        assert!(addresses > 50, "{addresses}");
    }
}

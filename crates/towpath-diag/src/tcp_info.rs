//! `struct tcp_info` of `linux/tcp.h` at whatever length the running kernel sends it. The bytes are kept as they came and
//! each field is read from its offset when asked for: one that lies beyond what was sent is not there, and what a newer kernel
//! adds at the end is left alone.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::bytes;

/// The length that this library has names for: that of Linux 6.18.
const KNOWN: usize = 280;

/// What a connection is doing (`tcp_info`, tcp(7)).
///
/// Each field may be absent: because the kernel is older than the field, or because the value means "not known". Times are
/// of the kernel's granularity, which is that of the field's unit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    bytes: [u8; KNOWN],
    len: u16,
}

/// One field of [`TcpInfo`], as [`TcpInfo::fields`] lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Value {
    /// A count, or bytes, or bytes a second.
    Number(u64),
    /// A length of time.
    Time(Duration),
    /// Yes or no.
    Flag(bool),
    /// Options that the handshake agreed on.
    Options(Options),
    /// What congestion control is doing.
    CaState(CaState),
}

/// What congestion control is doing (tcp_ca_state in `linux/tcp.h`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CaState {
    /// Nothing is amiss.
    Open,
    /// Acknowledgements came out of order or selectively.
    Disorder,
    /// The window was reduced because of an explicit notice of congestion.
    CongestionWindowReduced,
    /// Fast retransmission is going on.
    Recovery,
    /// The retransmission timer has fired.
    Loss,
    /// One that this library has no name for, by the kernel's number.
    Other(u8),
}

bitflags::bitflags! {
    /// What the handshake agreed on, and how it went (TCPI_OPT_* in `linux/tcp.h`).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Options: u8 {
        /// Timestamps (RFC 7323): `ts` in `ss`.
        const TIMESTAMPS = 1;
        /// Selective acknowledgement (RFC 2018): `sack`.
        const SACK = 2;
        /// Window scaling (RFC 7323): `wscale`.
        const WINDOW_SCALE = 4;
        /// Explicit congestion notification (RFC 3168): `ecn`.
        const ECN = 8;
        /// A packet that bears a mark of ECN was received: `ecnseen`.
        const ECN_SEEN = 16;
        /// Data in our SYN was acknowledged (RFC 7413): `fastopen`.
        const SYN_DATA = 32;
        /// Timestamps in microseconds.
        const MICROSECOND_TIMESTAMPS = 64;
        /// Came from a SYN with data (RFC 7413).
        const FAST_OPEN_CHILD = 128;
    }
}

impl TcpInfo {
    /// What the kernel sent, be it from a dump or from `getsockopt(TCP_INFO)`. Bytes after those that are known are left out.
    pub fn new(bytes: &[u8]) -> TcpInfo {
        let len = bytes.len().min(KNOWN);
        let mut info = TcpInfo { bytes: [0; KNOWN], len: len as u16 };
        info.bytes[..len].copy_from_slice(&bytes[..len]);
        info
    }

    /// The bytes that fields are read from.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn octet(&self, at: usize) -> Option<u8> {
        bytes::u8(self.as_bytes(), at)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        bytes::u16(self.as_bytes(), at)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        bytes::u32(self.as_bytes(), at)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        bytes::u64(self.as_bytes(), at)
    }

    fn micros(&self, at: usize) -> Option<Duration> {
        self.u32(at).map(micros)
    }

    fn micros64(&self, at: usize) -> Option<Duration> {
        Some(Duration::from_micros(self.u64(at)?))
    }

    fn millis(&self, at: usize) -> Option<Duration> {
        Some(Duration::from_millis(self.u32(at)?.into()))
    }

    fn scale(&self, shift: u32) -> Option<u8> {
        let octet = self.octet(6)?;
        self.options()?.contains(Options::WINDOW_SCALE).then_some(octet >> shift & 15)
    }
}

fn micros(number: u32) -> Duration {
    Duration::from_micros(number.into())
}

/// Each line is a field: its documentation, name, type, and how it is read.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty = |$info:ident| $read:expr;)*) => {
        impl TcpInfo {
            $($(#[$doc])* pub fn $name(&self) -> Option<$type> { let $info = self; $read })*

            /// Every field that is there, with its name, in the kernel's order.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, Value)> {
                [$((stringify!($name), self.$name().map(Value::from))),*]
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?)))
            }
        }
    };
}

fields! {
    /// What congestion control is doing.
    ca_state: CaState = |info| info.octet(1).map(CaState::from);
    /// How often the retransmission timer has fired since the peer last answered.
    retransmits: u8 = |info| info.octet(2);
    /// How many probes of a closed window, or of an idle peer, were not answered.
    probes: u8 = |info| info.octet(3);
    /// How often the retransmission timeout was doubled.
    backoff: u8 = |info| info.octet(4);
    /// What the handshake agreed on.
    options: Options = |info| info.octet(5).map(Options::from_bits_truncate);
    /// By how many bits the windows that the peer announces are shifted. None without window scaling.
    snd_wscale: u8 = |info| info.scale(if cfg!(target_endian = "little") { 0 } else { 4 });
    /// By how many bits the windows that we announce are shifted. None without window scaling.
    rcv_wscale: u8 = |info| info.scale(if cfg!(target_endian = "little") { 4 } else { 0 });
    /// Whether [`delivery_rate`](Self::delivery_rate) was bounded by what the program had to send. Since Linux 4.9.
    delivery_rate_app_limited: bool = |info| info.octet(7).map(|o| o & if cfg!(target_endian = "little") { 1 } else { 128 } != 0);
    /// Why a connection that was to send data in its SYN did not (tcp_fastopen_client_fail in `linux/tcp.h`): 0, it did or was
    /// not to; 1, no cookie; 2, the data was not acknowledged; 3, the SYN had to be sent again. Since Linux 5.5.
    fastopen_client_fail: u8 = |info| info.octet(7).map(|o| o >> if cfg!(target_endian = "little") { 1 } else { 5 } & 3);
    /// The retransmission timeout.
    rto: Duration = |info| info.micros(8);
    /// How long an acknowledgement may be delayed, by the estimate at hand. None if it is not known.
    ato: Duration = |info| info.micros(12).filter(|time| !time.is_zero());
    /// The most bytes in a segment that we send.
    snd_mss: u32 = |info| info.u32(16);
    /// The estimate of the most bytes in a segment that the peer sends.
    rcv_mss: u32 = |info| info.u32(20);
    /// Segments sent and not acknowledged; of a listener, connections not accepted.
    unacked: u32 = |info| info.u32(24);
    /// Segments acknowledged selectively; of a listener, how many connections may wait.
    sacked: u32 = |info| info.u32(28);
    /// Segments taken for lost.
    lost: u32 = |info| info.u32(32);
    /// Segments sent again and not acknowledged.
    retrans: u32 = |info| info.u32(36);
    /// How long ago data was last sent.
    last_data_sent: Duration = |info| info.millis(44);
    /// How long ago data was last received.
    last_data_recv: Duration = |info| info.millis(52);
    /// How long ago an acknowledgement was last received.
    last_ack_recv: Duration = |info| info.millis(56);
    /// The path's MTU, in bytes.
    pmtu: u32 = |info| info.u32(60);
    /// The receive window's slow start threshold, in bytes.
    rcv_ssthresh: u32 = |info| info.u32(64);
    /// The smoothed round-trip time. None if it was not measured yet.
    rtt: Duration = |info| info.micros(68).filter(|time| !time.is_zero());
    /// The mean deviation of the round-trip time.
    rttvar: Duration = |info| info.micros(72);
    /// The slow start threshold, in segments. None while slow start has no end.
    snd_ssthresh: u32 = |info| info.u32(76).filter(|&segments| segments < 0x7fff_ffff);
    /// The congestion window, in segments.
    snd_cwnd: u32 = |info| info.u32(80);
    /// The most bytes in a segment that we have announced.
    advmss: u32 = |info| info.u32(84);
    /// By how many segments the network may reorder, by the estimate at hand.
    reordering: u32 = |info| info.u32(88);
    /// The receiver's estimate of the round-trip time. None if it was not measured yet.
    rcv_rtt: Duration = |info| info.micros(92).filter(|time| !time.is_zero());
    /// How many bytes the program reads in a round trip, by which the receive buffer grows.
    rcv_space: u32 = |info| info.u32(96);
    /// Segments sent again, ever.
    total_retrans: u32 = |info| info.u32(100);
    /// The rate at which data is sent, in bytes a second. None if it is not bounded. Since Linux 3.15.
    pacing_rate: u64 = |info| info.u64(104).filter(|&rate| rate != u64::MAX);
    /// The most that the program allows for that (SO_MAX_PACING_RATE). None if it is not bounded. Since Linux 3.15.
    max_pacing_rate: u64 = |info| info.u64(112).filter(|&rate| rate != u64::MAX);
    /// Bytes that the peer acknowledged. The SYN counts as one, and the FIN. Since Linux 4.1.
    bytes_acked: u64 = |info| info.u64(120);
    /// Bytes received in order. The FIN counts as one. Since Linux 4.1.
    bytes_received: u64 = |info| info.u64(128);
    /// Segments sent. Since Linux 4.2.
    segs_out: u32 = |info| info.u32(136);
    /// Segments received. Since Linux 4.2.
    segs_in: u32 = |info| info.u32(140);
    /// Bytes written and not sent yet. Since Linux 4.6.
    notsent_bytes: u32 = |info| info.u32(144);
    /// The least round-trip time in the last while. None if it is not known. Since Linux 4.6.
    min_rtt: Duration = |info| info.u32(148).filter(|&micros| micros != u32::MAX && micros != 0).map(micros);
    /// Segments with data received. Since Linux 4.6.
    data_segs_in: u32 = |info| info.u32(152);
    /// Segments with data sent. Since Linux 4.6.
    data_segs_out: u32 = |info| info.u32(156);
    /// The rate at which data was delivered most recently, in bytes a second. Since Linux 4.9.
    delivery_rate: u64 = |info| info.u64(160);
    /// How long there was something to send, in all. Since Linux 4.10.
    busy_time: Duration = |info| info.micros64(168);
    /// How much of that the peer's window held us up. Since Linux 4.10.
    rwnd_limited: Duration = |info| info.micros64(176);
    /// How much of that our send buffer held us up. Since Linux 4.10.
    sndbuf_limited: Duration = |info| info.micros64(184);
    /// Segments delivered, those out of order too. Since Linux 4.18.
    delivered: u32 = |info| info.u32(192);
    /// Of them, those of which the peer says that they met congestion. Since Linux 4.18.
    delivered_ce: u32 = |info| info.u32(196);
    /// Bytes of data sent, again or not. Since Linux 4.19.
    bytes_sent: u64 = |info| info.u64(200);
    /// Bytes of data sent again. Since Linux 4.19.
    bytes_retrans: u64 = |info| info.u64(208);
    /// Segments that the peer received twice, as it says. Since Linux 4.19.
    dsack_dups: u32 = |info| info.u32(216);
    /// How often segments were seen to be reordered. Since Linux 4.19.
    reord_seen: u32 = |info| info.u32(220);
    /// Segments received out of order. Since Linux 5.4.
    rcv_ooopack: u32 = |info| info.u32(224);
    /// The window that the peer announced, in bytes. Since Linux 5.4.
    snd_wnd: u32 = |info| info.u32(228);
    /// The window that we announced, in bytes. Since Linux 6.2.
    rcv_wnd: u32 = |info| info.u32(232);
    /// How often another path was tried after a timeout. Since Linux 6.2.
    rehash: u32 = |info| info.u32(236);
    /// How often the retransmission timer has fired. Since Linux 6.7.
    total_rto: u16 = |info| info.u16(240);
    /// How often the connection got over that. Since Linux 6.7.
    total_rto_recoveries: u16 = |info| info.u16(242);
    /// How long that took, in all. Since Linux 6.7.
    total_rto_time: Duration = |info| info.millis(244);
    /// Segments received that had met congestion. Since Linux 6.18.
    received_ce: u32 = |info| info.u32(248);
    /// Bytes delivered with the mark ECT(1), as the peer says (accurate ECN). Since Linux 6.18.
    delivered_e1_bytes: u32 = |info| info.u32(252);
    /// Bytes delivered with the mark ECT(0), as the peer says. Since Linux 6.18.
    delivered_e0_bytes: u32 = |info| info.u32(256);
    /// Bytes delivered that had met congestion, as the peer says. Since Linux 6.18.
    delivered_ce_bytes: u32 = |info| info.u32(260);
    /// Bytes received with the mark ECT(1). Since Linux 6.18.
    received_e1_bytes: u32 = |info| info.u32(264);
    /// Bytes received with the mark ECT(0). Since Linux 6.18.
    received_e0_bytes: u32 = |info| info.u32(268);
    /// Bytes received that had met congestion. Since Linux 6.18.
    received_ce_bytes: u32 = |info| info.u32(272);
    /// What went wrong with accurate ECN, a set of bits. Since Linux 6.18.
    accecn_fail_mode: u16 = |info| info.u16(276);
    /// Where options of accurate ECN were seen: 0, not looked for; 1, nowhere; 2, in some segments. Since Linux 6.18.
    accecn_opt_seen: u16 = |info| info.u16(278);
}

impl fmt::Debug for TcpInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("TcpInfo");
        for (name, value) in self.fields() {
            match value {
                Value::Number(number) => all.field(name, &number),
                Value::Time(time) => all.field(name, &time),
                Value::Flag(flag) => all.field(name, &flag),
                Value::Options(options) => all.field(name, &options),
                Value::CaState(state) => all.field(name, &state),
            };
        }
        all.finish()
    }
}

macro_rules! value {
    ($($from:ty => $variant:ident,)*) => {
        $(impl From<$from> for Value { fn from(value: $from) -> Value { Value::$variant(value.into()) } })*
    };
}

value! { u8 => Number, u16 => Number, u32 => Number, u64 => Number, Duration => Time, bool => Flag, Options => Options, CaState => CaState, }

impl From<u8> for CaState {
    fn from(number: u8) -> CaState {
        match number {
            0 => CaState::Open,
            1 => CaState::Disorder,
            2 => CaState::CongestionWindowReduced,
            3 => CaState::Recovery,
            4 => CaState::Loss,
            other => CaState::Other(other),
        }
    }
}

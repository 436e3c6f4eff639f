//! `tcp_info` from a dump is that of getsockopt(2), and says what `ss` says.

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use common::ss::Row;
use common::{PLACES, Pair, look, tcp_info};
use towpath_diag::{CaState, Options, TcpInfo, Value};

/// A connection on which something has happened, and all of it is over.
fn used(place: (&str, &str)) -> Pair {
    let mut pair = Pair::at(place);
    for round in 1..20 {
        pair.client.write_all(&vec![1; 1000 * round]).unwrap();
        pair.server.read_exact(&mut vec![0; 1000 * round]).unwrap();
        pair.server.write_all(b"thanks").unwrap();
        pair.client.read_exact(&mut [0; 6]).unwrap();
    }
    // The last acknowledgement is put off a while, in case that there is data to go with it.
    for stream in [&pair.client, &pair.server] {
        common::until("every acknowledgement", || look(stream).info?.unacked().filter(|&segments| segments == 0));
    }
    pair
}

/// Whether the field tells how long ago something was.
fn moves(name: &str) -> bool {
    name.starts_with("last_")
}

#[test]
fn a_dump_and_getsockopt_agree_in_every_field() {
    for place in PLACES {
        let pair = used(place);
        for stream in [&pair.client, &pair.server] {
            let (option, dumped) = (TcpInfo::new(&tcp_info(stream)), look(stream).info.unwrap());
            let (one, other): (Vec<_>, Vec<_>) = (
                option.fields().filter(|(name, _)| !moves(name)).collect(),
                dumped.fields().filter(|(name, _)| !moves(name)).collect(),
            );
            assert_eq!(one, other);
            assert!(dumped.fields().any(|(name, _)| name == "last_data_sent"));
        }
    }
}

#[test]
fn the_kernel_of_this_machine_sends_what_we_know() {
    let pair = used(PLACES[0]);
    let (sent, info) = (tcp_info(&pair.client).len(), look(&pair.client).info.unwrap());
    assert_eq!(info.as_bytes().len(), sent.min(280));
    assert!(sent >= 232, "a kernel from before 5.4 sends {sent} bytes: this test knows no better");
    assert!(info.snd_wnd().is_some());
    assert_eq!(info.rcv_wnd().is_some(), sent >= 236);
    assert_eq!(info.accecn_opt_seen().is_some(), sent >= 280);
}

#[test]
fn fields_mean_what_happened() {
    let pair = used(PLACES[0]);
    let info = look(&pair.client).info.unwrap();
    let sent = (1..20).map(|round| 1000 * round).sum::<u64>();
    assert_eq!(info.bytes_sent(), Some(sent));
    assert_eq!(info.bytes_acked(), Some(sent + 1), "the SYN counts");
    assert_eq!(info.bytes_received(), Some(19 * 6));
    assert_eq!((info.ca_state(), info.total_retrans(), info.lost()), (Some(CaState::Open), Some(0), Some(0)));
    assert!(info.options().unwrap().contains(Options::TIMESTAMPS | Options::SACK | Options::WINDOW_SCALE));
    assert!(info.min_rtt().unwrap() <= info.rtt().unwrap() + info.rttvar().unwrap());
    assert!(info.last_data_sent().unwrap() < Duration::from_secs(60));
}

/// A listener measures no times.
#[test]
fn what_is_not_known_is_not_there() {
    let pair = Pair::new();
    let listener = pair.listener.local_addr().unwrap();
    let socket = towpath_diag::Diag::open().unwrap().find(listener, None, towpath_diag::Want::INFO).unwrap().unwrap();
    let info = socket.info.unwrap();
    assert_eq!((info.rtt(), info.min_rtt(), info.snd_wscale()), (None, None, None));
    assert_eq!(info.unacked(), Some(0));
}

#[test]
fn a_field_that_was_not_sent_is_not_there() {
    let whole = tcp_info(&used(PLACES[0]).client);
    for length in 0..whole.len() {
        let (all, cut) = (TcpInfo::new(&whole), TcpInfo::new(&whole[..length]));
        let fields: Vec<_> = cut.fields().collect();
        assert!(fields.iter().all(|field| all.fields().any(|other| other == *field)), "{length}");
        assert!(fields.len() < all.fields().count(), "{length} bytes have as many fields as all");
    }
    let longer = [whole.clone(), vec![255; 100]].concat();
    assert!(TcpInfo::new(&longer).fields().take(60).eq(TcpInfo::new(&whole).fields().take(60)));
}

#[test]
fn ss_says_the_same() {
    let pair = used(PLACES[0]);
    let Some(row) = Row::of(&pair.client) else { return println!("ss_says_the_same: left out, needs ss") };
    let socket = look(&pair.client);
    let info = socket.info.unwrap();
    assert_eq!(row.words[0], socket.state.short());
    assert_eq!(row.number("ino"), socket.inode.map(u64::from));
    assert_eq!(row.named["sk"], format!("{:x}", socket.cookie));
    assert!(row.has(socket.congestion.as_deref().unwrap()));
    assert_eq!(row.has("app_limited"), info.delivery_rate_app_limited().unwrap());
    let scales = format!("{},{}", info.snd_wscale().unwrap(), info.rcv_wscale().unwrap());
    assert_eq!(row.named["wscale"], scales);
    for (name, value) in [
        ("mss", info.snd_mss()),
        ("rcvmss", info.rcv_mss()),
        ("advmss", info.advmss()),
        ("pmtu", info.pmtu()),
        ("cwnd", info.snd_cwnd()),
        ("segs_out", info.segs_out()),
        ("segs_in", info.segs_in()),
        ("data_segs_out", info.data_segs_out()),
        ("data_segs_in", info.data_segs_in()),
        ("delivered", info.delivered()),
        ("rcv_space", info.rcv_space()),
        ("rcv_ssthresh", info.rcv_ssthresh()),
        ("snd_wnd", info.snd_wnd()),
    ] {
        // What ss has no name for yet, it leaves out.
        assert!(
            row.number(name).is_none_or(|number| Some(number) == value.map(u64::from)),
            "{name}: {row:?} {value:?}"
        );
    }
    assert_eq!(row.number("bytes_acked"), info.bytes_acked());
    assert_eq!(row.number("bytes_received"), info.bytes_received());
    for (name, value) in [("rto", info.rto().unwrap()), ("minrtt", info.min_rtt().unwrap())] {
        let millis: f64 = row.named[name].parse().unwrap();
        assert!((millis / 1000.0 - value.as_secs_f64()).abs() < 0.000_6, "{name}: {row:?} {value:?}");
    }
    let memory = socket.memory.unwrap();
    let told = row.memory();
    assert_eq!((told["rb"], told["tb"], told["bl"]), (memory.receive_limit, memory.send_limit, memory.backlog));
    assert_eq!(Some(told["d"]), memory.drops);
}

#[test]
fn fields_are_listed_by_name() {
    let info = look(&used(PLACES[0]).client).info.unwrap();
    let fields: Vec<_> = info.fields().collect();
    assert!(fields.contains(&("rto", Value::Time(info.rto().unwrap()))));
    assert!(fields.contains(&("bytes_sent", Value::Number(info.bytes_sent().unwrap()))));
    assert!(fields.contains(&("options", Value::Options(info.options().unwrap()))));
    assert!(format!("{info:?}").contains("bytes_sent: 190000"));
}

/// Where the fields behind the first eight octets are in Linux 6.18, by its type information.
const OFFSETS: [(&str, u64); 58] = [
    ("rto", 8),
    ("ato", 12),
    ("snd_mss", 16),
    ("rcv_mss", 20),
    ("unacked", 24),
    ("sacked", 28),
    ("lost", 32),
    ("retrans", 36),
    ("last_data_sent", 44),
    ("last_data_recv", 52),
    ("last_ack_recv", 56),
    ("pmtu", 60),
    ("rcv_ssthresh", 64),
    ("rtt", 68),
    ("rttvar", 72),
    ("snd_ssthresh", 76),
    ("snd_cwnd", 80),
    ("advmss", 84),
    ("reordering", 88),
    ("rcv_rtt", 92),
    ("rcv_space", 96),
    ("total_retrans", 100),
    ("pacing_rate", 104),
    ("max_pacing_rate", 112),
    ("bytes_acked", 120),
    ("bytes_received", 128),
    ("segs_out", 136),
    ("segs_in", 140),
    ("notsent_bytes", 144),
    ("min_rtt", 148),
    ("data_segs_in", 152),
    ("data_segs_out", 156),
    ("delivery_rate", 160),
    ("busy_time", 168),
    ("rwnd_limited", 176),
    ("sndbuf_limited", 184),
    ("delivered", 192),
    ("delivered_ce", 196),
    ("bytes_sent", 200),
    ("bytes_retrans", 208),
    ("dsack_dups", 216),
    ("reord_seen", 220),
    ("rcv_ooopack", 224),
    ("snd_wnd", 228),
    ("rcv_wnd", 232),
    ("rehash", 236),
    ("total_rto", 240),
    ("total_rto_recoveries", 242),
    ("total_rto_time", 244),
    ("received_ce", 248),
    ("delivered_e1_bytes", 252),
    ("delivered_e0_bytes", 256),
    ("delivered_ce_bytes", 260),
    ("received_e1_bytes", 264),
    ("received_e0_bytes", 268),
    ("received_ce_bytes", 272),
    ("accecn_fail_mode", 276),
    ("accecn_opt_seen", 278),
];

#[test]
fn each_field_is_read_from_its_offset() {
    // Each field holds its own offset, the rest of it being 0.
    let mut bytes = [0; 280];
    for (_, offset) in OFFSETS {
        let low = offset as usize;
        bytes[low..low + 2].copy_from_slice(&(offset as u16).to_ne_bytes());
    }
    let info = TcpInfo::new(&bytes);
    let fields: Vec<_> = info.fields().filter(|(name, _)| OFFSETS.iter().any(|known| known.0 == *name)).collect();
    assert_eq!(fields.iter().map(|field| field.0).collect::<Vec<_>>(), OFFSETS.map(|known| known.0));
    for ((name, value), (_, offset)) in fields.into_iter().zip(OFFSETS) {
        let millis = name.starts_with("last_") || name == "total_rto_time";
        let number = match value {
            Value::Number(number) => number,
            Value::Time(time) if millis => time.as_millis() as u64,
            Value::Time(time) => time.as_micros() as u64,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(number, offset, "{name}");
    }
}

#[test]
fn values_that_mean_not_known_are_not_there() {
    let all = TcpInfo::new(&[255; 280]);
    assert_eq!((all.min_rtt(), all.pacing_rate(), all.max_pacing_rate(), all.snd_ssthresh()), (None, None, None, None));
    assert_eq!((all.ca_state(), all.delivery_rate_app_limited()), (Some(CaState::Other(255)), Some(true)));
    assert_eq!(
        (all.fastopen_client_fail(), all.snd_wscale(), all.options()),
        (Some(3), Some(15), Some(Options::all()))
    );
    let none = TcpInfo::new(&[0; 280]);
    assert_eq!((none.rtt(), none.min_rtt(), none.rcv_rtt(), none.ato()), (None, None, None, None));
    assert_eq!((none.rcv_wscale(), none.rttvar()), (None, Some(Duration::ZERO)));
    // Which nibble and which bits are whose.
    let mut bits = [0; 8];
    (bits[5], bits[6], bits[7]) = (4, 0x97, 0b101);
    let bits = TcpInfo::new(&bits);
    if cfg!(target_endian = "little") {
        assert_eq!((bits.snd_wscale(), bits.rcv_wscale()), (Some(7), Some(9)));
        assert_eq!((bits.delivery_rate_app_limited(), bits.fastopen_client_fail()), (Some(true), Some(2)));
    }
}

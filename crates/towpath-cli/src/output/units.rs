//! How long and how much, in words short enough for a line.

#![forbid(unsafe_code)]

use std::time::Duration;

/// A measured time to three figures or so: `75 µs`, `1.4 ms`, `400 ms`, `2.1 s`, `1m02s`, `3h05m`.
pub(crate) fn time(time: Duration, ascii: bool) -> String {
    let micros = time.as_micros();
    match micros {
        0..1_000 => format!("{micros} {}", if ascii { "us" } else { "µs" }),
        1_000..10_000 => format!("{:.1} ms", tenths(micros, 1_000)),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        1_000_000..60_000_000 => format!("{:.1} s", tenths(micros, 1_000_000)),
        60_000_000..3_600_000_000 => {
            format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60)
        }
        _ => format!("{}h{:02}m", time.as_secs() / 3600, time.as_secs() / 60 % 60),
    }
}

/// The same without a space, for a column: `75µs`, `2.1s`, `1m02s`.
pub(crate) fn short_time(duration: Duration, ascii: bool) -> String {
    let mut text = time(duration, ascii);
    text.retain(|c| c != ' ');
    text
}

/// A time as one types it for an option: `200ms`, `5s`, `1m30s`.
pub(crate) fn option(time: Duration) -> String {
    let seconds = time.as_secs();
    let millis = u64::from(time.subsec_millis());
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (millis, "ms")];
    let mut text = String::new();
    for (number, unit) in parts {
        if number > 0 {
            text += &format!("{number}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A number of bytes: exact while it is short, `14 B`, then `12.3 KiB` and so on.
pub(crate) fn bytes(count: u64) -> String {
    if count < 10_000 {
        return format!("{count} B");
    }
    let mut unit = 1u64 << 10;
    let mut names = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter();
    let mut name = names.next().copied().unwrap_or_default();
    while count / unit >= 1024
        && let Some(next) = names.next()
    {
        (unit, name) = (unit << 10, next);
    }
    format!("{:.1} {name}", tenths(count.into(), unit.into()))
}

/// `n / unit`, cut (not rounded) to tenths, so that 999.96 ms never reads "1000.0 ms".
fn tenths(n: u128, unit: u128) -> f64 {
    (n * 10 / unit) as f64 / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_about_three_figures() {
        for (micros, text) in [
            (0, "0 µs"),
            (75, "75 µs"),
            (999, "999 µs"),
            (1_449, "1.4 ms"),
            (9_999, "9.9 ms"),
            (400_999, "400 ms"),
            (2_199_999, "2.1 s"),
            (59_999_999, "59.9 s"),
            (62_000_000, "1m02s"),
            (3 * 3_600_000_000 + 5 * 60_000_000, "3h05m"),
        ] {
            assert_eq!(time(Duration::from_micros(micros), false), text);
        }
        assert_eq!(time(Duration::from_micros(28), true), "28 us");
        assert_eq!(short_time(Duration::from_millis(2_100), false), "2.1s");
    }

    #[test]
    fn an_options_time_can_be_typed_again() {
        for (millis, text) in [(0, "0s"), (200, "200ms"), (5_000, "5s"), (90_000, "1m30s"), (3_600_000, "1h")] {
            assert_eq!(option(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn bytes_are_exact_while_they_are_few() {
        for (count, text) in [
            (0, "0 B"),
            (9_999, "9999 B"),
            (12_600, "12.3 KiB"),
            (1 << 20, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}

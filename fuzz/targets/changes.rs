//! Pages of the kernel's trace ring, and the texts that say how they are laid out.
//!
//! The first byte says what the rest is: a page, the layout of pages, or the format of the event.

#![no_main]

use libfuzzer_sys::fuzz_target;
use towpath_diag::fuzzing::page;

const LAYOUT: &str = include_str!("../corpus/changes/layout.txt");
const FORMAT: &str = include_str!("../corpus/changes/format.txt");

fuzz_target!(|input: &[u8]| {
    let Some((what, rest)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let some_page = [7; 4096];
    let read = match what {
        b'\t' => page(&some_page, &text, &FORMAT[1..]),
        b'n' => page(&some_page, &LAYOUT[1..], &text),
        _ => page(rest, &LAYOUT[1..], &FORMAT[1..]),
    };
    if let Some((_, changes)) = read {
        // A record is four bytes at the least.
        assert!(changes.len() <= input.len().max(some_page.len()) / 4);
    }
});

#![allow(missing_docs)]
use towpath_capture::{file::Reader, flow::Flows};
fn main() {
    let mut r = Reader::open(std::env::args().nth(1).unwrap()).unwrap();
    let mut flows = Flows::new();
    while let Some(f) = r.read_frame().unwrap() {
        let Ok(Some(s)) = f.segment() else {
            println!("-");
            continue;
        };
        let st = flows.push(&s);
        println!(
            "{}|{}|{}|{}|{}|{}|{}|{}",
            st.flow.0 - 1,
            st.seq,
            st.ack.unwrap_or(0),
            st.len,
            st.window.map_or(-1, |w| w as i64),
            st.notes,
            st.after.client,
            st.after.server
        );
    }
}

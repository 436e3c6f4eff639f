//! A capture file, pcap or pcapng: what can be read of it is followed, to its end or to the error with its offset.

#![no_main]

use libfuzzer_sys::fuzz_target;
use towpath_capture::file::Reader;
use towpath_capture::flow::Flows;

fuzz_target!(|file: &[u8]| {
    let Ok(mut reader) = Reader::new(file) else { return };
    let mut flows = Flows::new();
    loop {
        match reader.read_frame() {
            Ok(Some(frame)) => {
                if let Ok(Some(segment)) = frame.segment() {
                    flows.push(&segment);
                }
            }
            Ok(None) => break,
            Err(error) => {
                assert!(error.offset() <= file.len() as u64, "{error}");
                break;
            }
        }
    }
    flows.finish();
});

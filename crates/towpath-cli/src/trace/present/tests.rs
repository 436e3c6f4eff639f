//! In which order ladders and lines come.

use std::net::SocketAddr;

use towpath_capture::flow::Flows;
use towpath_capture::segment::{Flags, Segment};

use super::*;

const LOOK: Look = Look { color: false, ascii: true };

/// What is presented of connections to one server, which are known by their ports.
struct Show {
    presenter: Presenter,
    flows: Flows,
    text: String,
    nanos: u64,
}

impl Show {
    fn new(shape: Shape) -> Show {
        let form = Form::Human { stdout: LOOK, stderr: LOOK };
        let presenter = Presenter::new(form, shape, false, Ends::numeric());
        Show { presenter, flows: Flows::new(), text: String::new(), nanos: 0 }
    }

    fn pass(&mut self, port: u16, flags: Flags) -> &mut Show {
        let client = SocketAddr::from(([10, 0, 0, 1], port));
        let server = SocketAddr::from(([10, 0, 0, 2], 80));
        self.nanos += 1_000;
        let time = towpath_capture::Timestamp::from_nanos(self.nanos);
        let (from, to, seq, ack) =
            if flags.contains(Flags::RST) { (server, client, 0, 1) } else { (client, server, 0, 0) };
        let segment = Segment::new(time, from, to, seq, ack, flags);
        let step = self.flows.push(&segment);
        self.presenter.segment(&Told { segment: &segment, step: &step, comment: "" }, 80, &mut self.text);
        if step.verdict.is_some() {
            let flow = self.flows.flow(step.flow).unwrap();
            self.presenter.over(flow, None, 80, &mut self.text);
        }
        self
    }

    fn syn(&mut self, port: u16) -> &mut Show {
        self.pass(port, Flags::SYN)
    }

    fn rst(&mut self, port: u16) -> &mut Show {
        self.pass(port, Flags::RST | Flags::ACK)
    }

    /// What was drawn, a word a line: headings, segments by their flags, summaries.
    fn drawn(&self) -> Vec<&str> {
        let word = |line: &'static str| line;
        let name = |line: &str| match line {
            "" => word("blank"),
            _ if line.contains(" RST,ACK ") => word("rst"),
            _ if line.contains(" SYN ") => word("syn"),
            _ if line.contains("refused") => word("refused"),
            _ if line.starts_with("#1 ") => word("#1"),
            _ if line.starts_with("#2 ") => word("#2"),
            _ if line.starts_with("#3 ") => word("#3"),
            _ => word(""),
        };
        self.text.lines().map(name).filter(|name| !name.is_empty()).collect()
    }
}

#[test]
fn the_first_ladder_is_drawn_at_once_and_the_others_after_it() {
    let mut show = Show::new(Shape::LadderByLadder);
    show.syn(1001);
    assert_eq!(show.drawn(), ["#1", "syn"]);
    show.syn(1002).syn(1003).rst(1002);
    assert_eq!(show.drawn(), ["#1", "syn"], "the others wait");
    show.rst(1001);
    assert_eq!(
        show.drawn(),
        ["#1", "syn", "rst", "refused", "blank", "#2", "syn", "rst", "refused", "blank", "#3", "syn"]
    );
    show.rst(1003);
    assert_eq!(show.drawn()[12..], ["rst", "refused"], "under its heading");
}

#[test]
fn what_comes_after_a_ladder_is_complete_holds_up_no_other() {
    let mut show = Show::new(Shape::LadderByLadder);
    show.syn(1001).rst(1001).rst(1001).syn(1002);
    assert_eq!(show.drawn(), ["#1", "syn", "rst", "refused", "rst", "blank", "#2", "syn"]);
    show.rst(1001).rst(1002);
    assert_eq!(show.drawn()[8..], ["blank", "#1", "rst", "blank", "#2", "rst", "refused"]);
}

#[test]
fn what_is_held_back_is_bounded() {
    let mut show = Show::new(Shape::LadderByLadder);
    show.presenter.queue.most = 300;
    show.syn(1001).syn(1002).syn(1003);
    assert_eq!(show.drawn(), ["#1", "syn", "blank", "#2", "syn", "blank", "#3", "syn"]);
    let mut rest = String::new();
    show.presenter.finish(&mut rest);
    assert_eq!(rest, "");
}

#[test]
fn of_the_wire_everything_is_drawn_as_it_happens() {
    let mut show = Show::new(Shape::Ladders);
    show.syn(1001).syn(1002).rst(1001).rst(1002);
    assert_eq!(
        show.drawn(),
        ["#1", "syn", "blank", "#2", "syn", "blank", "#1", "rst", "refused", "blank", "#2", "rst", "refused"]
    );
}

#[test]
fn a_line_has_its_number_and_both_ends() {
    let mut show = Show::new(Shape::Lines);
    show.syn(1001).rst(1001);
    assert_eq!(
        show.text,
        "\
#1 +0 us      10.0.0.1:1001 -> 10.0.0.2:80  SYN seq 0 win 0 - client SYN-SENT - server SYN-RECV
#1 +1 us      10.0.0.2:80 -> 10.0.0.1:1001  RST,ACK seq 1 ack 1 win 0 - client CLOSED - server CLOSED
#1 0 B data - closed first by :80 - refused (RST) - 0 retransmitted
"
    );
}

//! From frames to what there is to tell: which segments are wanted, what each meant to its connection, and which
//! connections are over. Takes frames from anywhere and knows no clock, so that a file gives the same as the wire.

#![forbid(unsafe_code)]

use towpath_capture::Frame;
use towpath_capture::flow::{Flow, FlowId, Flows, Step};
use towpath_capture::segment::{ParseError, Segment};
use towpath_diag::State;

use crate::watch::filter::{Filter, Subject};

/// Which segments are told of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Ports and addresses. Connections are counted among those that pass.
    pub(crate) filter: Filter,
    /// This connection only.
    pub(crate) conn: Option<u64>,
}

/// Follows connections, frame by frame.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    wanted: Wanted,
    flows: Flows,
    tally: Tally,
    /// Connections that are forgotten and have not been told to be over.
    forgotten: Vec<Flow>,
}

/// What a trace has come to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Segments that were wanted.
    pub(crate) segments: u64,
    /// Connections that they belong to.
    pub(crate) connections: u64,
    /// The connections that pass the filter are numbered up to this.
    pub(crate) numbered: u64,
    /// Frames that could not be read, and why the first could not.
    pub(crate) unreadable: u64,
    pub(crate) why: Option<ParseError>,
}

/// A segment that is wanted.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) segment: Segment<'a>,
    pub(crate) step: Step,
    /// Connections that are forgotten and have not been told to be over.
    pub(crate) forgotten: Vec<Flow>,
    /// Its connection, if this is its end.
    pub(crate) over: Option<Flow>,
}

impl Tracer {
    pub(crate) fn new(wanted: Wanted) -> Tracer {
        Tracer { wanted, ..Tracer::default() }
    }

    /// Takes in the next frame; none if it is not wanted, or cannot be read.
    pub(crate) fn push<'a>(&mut self, frame: &Frame<'a>) -> Option<Seen<'a>> {
        let segment = match frame.segment() {
            Ok(segment) => segment?,
            Err(why) => {
                self.tally.unreadable += 1;
                self.tally.why.get_or_insert(why);
                return None;
            }
        };
        let subject = Subject { state: State::Established, local: segment.from, peer: Some(segment.to), owners: &[] };
        if !self.wanted.filter.passes_by_address(&subject) {
            return None;
        }
        let mut step = self.flows.push(&segment);
        self.tally.numbered = self.tally.numbered.max(step.flow.0);
        let wanted = |id: FlowId| self.wanted.conn.is_none_or(|conn| id == FlowId(conn));
        let retired = std::mem::take(&mut step.retired).into_iter();
        self.forgotten.extend(retired.filter(|flow| flow.ended.is_none() && wanted(flow.id)));
        if !wanted(step.flow) {
            return None;
        }
        self.tally.segments += 1;
        self.tally.connections += u64::from(step.first);
        let over = step.verdict.and_then(|_| self.flows.flow(step.flow)).cloned();
        Some(Seen { segment, step, forgotten: std::mem::take(&mut self.forgotten), over })
    }

    /// What it has come to so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// The connections that have not been told to be over, as they stand.
    pub(crate) fn finish(self) -> Vec<Flow> {
        let Tracer { wanted, flows, forgotten, .. } = self;
        let open = flows.finish().into_iter().filter(|flow| flow.ended.is_none());
        forgotten
            .into_iter()
            .chain(open.filter(|flow| wanted.conn.is_none_or(|conn| flow.id == FlowId(conn))))
            .collect()
    }
}

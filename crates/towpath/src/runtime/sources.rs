//! The registrations of one worker: which source a token means.
//!
//! A token that was given up is given out again with a higher generation, so that a report that is still under way for
//! the old registration finds nothing. Generations are odd: 0 is the waker's.

use std::sync::Arc;

use super::worker::Source;
use crate::poller::Token;

#[derive(Default)]
pub(super) struct Sources {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

struct Entry {
    generation: u32,
    source: Option<Arc<dyn Source>>,
}

impl Sources {
    pub(super) fn insert(&mut self, source: Arc<dyn Source>) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 1, source: None });
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.source = Some(source);
        Token { index, generation: entry.generation }
    }

    #[inline]
    pub(super) fn find(&self, token: Token) -> Option<&Arc<dyn Source>> {
        let entry = self.entries.get(token.index as usize)?;
        entry.source.as_ref().filter(|_| entry.generation == token.generation)
    }

    pub(super) fn remove(&mut self, token: Token) {
        if self.find(token).is_some() {
            let entry = &mut self.entries[token.index as usize];
            entry.source = None;
            entry.generation = entry.generation.wrapping_add(2);
            self.free.push(token.index);
        }
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<dyn Source>> + '_ {
        self.free.clear();
        self.entries.drain(..).filter_map(|entry| entry.source)
    }
}

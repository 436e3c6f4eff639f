//! What was meant by `towpath tour`.

#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, stdin};

use super::typed;
use crate::exit::{Exit, Failure};
use crate::tour::{Place, Refusal};

/// `towpath tour`
#[derive(Debug, Clone)]
pub(crate) struct Tour {
    /// Waits for a key before each step.
    pub(crate) step: bool,
    /// Where it takes place; the arguments do not say.
    pub(crate) place: Place,
}

impl Tour {
    pub(super) fn meant(typed: &typed::tour::Tour) -> Result<Tour, Failure> {
        if typed.step && !stdin().is_terminal() {
            let what = "--step: stdin is no terminal, and a key has to come from one";
            return Err(Failure::new(Exit::Usage, what).hint("For the whole of it at once: towpath tour"));
        }
        let nowhere = Refusal { what: "nobody has tried yet".to_owned(), hint: String::new() };
        Ok(Tour { step: typed.step, place: Place::Shared(nowhere) })
    }
}

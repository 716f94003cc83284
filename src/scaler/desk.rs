//! Answers nodes and operators for the scaler that acts.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use peregrine_runtime::{Address, Clock, Failure, Inbox, Worker};

use super::book::Book;
use super::messages::{FromScaler, ToScaler};
use super::rounds::{LatestPicture, Nudge, wall};
use super::view::report;

/// The actor that is spoken to; it never waits for a pool.
pub(crate) struct Desk {
    pub(crate) book: Arc<Mutex<Book>>,
    pub(crate) picture: LatestPicture,
    pub(crate) groups: BTreeSet<String>,
    pub(crate) rounds: Address<Nudge>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Worker<ToScaler> for Desk {
    fn run(&mut self, inbox: &mut Inbox<ToScaler>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            let answer = match envelope.message {
                ToScaler::Vitals(vitals) => {
                    FromScaler::Orders(self.book.lock().hear(vitals, wall(&*self.clock)))
                }
                ToScaler::Report => {
                    let picture = self.picture.load_full();
                    FromScaler::Report(report(picture.as_deref(), &self.book.lock()).to_string())
                }
                ToScaler::Release { group, release } => FromScaler::Released(self.release(group, release)),
            };
            envelope.slot.send(answer);
        }
        Ok(())
    }
}

impl Desk {
    fn release(&mut self, group: String, release: String) -> Result<(), String> {
        if !self.groups.contains(&group) {
            let known = self.groups.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(format!("there is no group `{group}`; there are {known}"));
        }
        self.book.lock().order(group, release, wall(&*self.clock))?;
        // One that is waiting already goes round with this too.
        let _ = self.rounds.tell(Nudge);
        Ok(())
    }
}

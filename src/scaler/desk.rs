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

/// Longest name of a release.
const RELEASE_LEN_MAX: usize = 256;

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
        let is_word = |c: char| c.is_ascii_graphic();
        if release.is_empty() || release.len() > RELEASE_LEN_MAX || !release.chars().all(is_word) {
            return Err("a release is a word of up to 256 visible characters".to_owned());
        }
        let mut book = self.book.lock();
        let stamp = u64::try_from(wall(&*self.clock).as_millisecond()).unwrap_or(0);
        // Later than what was said before, whatever the clock of this node says.
        book.releases.stamp_ms = stamp.max(book.releases.stamp_ms + 1);
        book.releases.by_group.insert(group, release);
        drop(book);
        // One that is waiting already goes round with this too.
        let _ = self.rounds.tell(Nudge);
        Ok(())
    }
}

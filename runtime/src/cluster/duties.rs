//! What this node does for the others, as far as its leaving has to wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::cluster::drain::Rest;
use crate::deadline::Deadline;

/// All of it, by name.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    rests: watch::Sender<BTreeMap<String, Said>>,
    /// Everything ends now, by this deadline.
    leaving: watch::Sender<Option<Deadline>>,
}

/// What is still here of one, and which view that follows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    rest: Rest,
    revision: u64,
}

/// One of them; done with when dropped.
#[derive(Debug)]
pub(crate) struct Duty {
    duties: Arc<Duties>,
    name: String,
}

impl Duties {
    /// Takes one on; nothing when there is one of this name, or the node leaves.
    pub(crate) fn enter(self: &Arc<Self>, name: &str) -> Option<Duty> {
        if self.leaving.borrow().is_some() {
            return None;
        }
        let entered = self.rests.send_if_modified(|rests| {
            let new = !rests.contains_key(name);
            rests.entry(name.to_owned()).or_default();
            new
        });
        entered.then(|| Duty { duties: Arc::clone(self), name: name.to_owned() })
    }

    /// What is still here of all of them.
    pub(crate) fn rest(&self) -> Rest {
        let rests = self.rests.borrow();
        rests.values().map(|said| said.rest).fold(Rest::default(), Rest::plus)
    }

    /// Waits until all of them have looked at a view of at least this revision.
    pub(crate) async fn have_seen(&self, revision: u64) {
        let mut rests = self.rests.subscribe();
        // The sender is here.
        let _ = rests.wait_for(|rests| rests.values().all(|said| said.revision >= revision)).await;
    }

    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<String, Said>> {
        self.rests.subscribe()
    }

    /// Ends all of them, and waits for that until the deadline.
    pub(crate) async fn end(&self, deadline: Deadline) {
        self.leaving.send_if_modified(|leaving| {
            let first = leaving.is_none();
            leaving.get_or_insert(deadline);
            first
        });
        let mut rests = self.rests.subscribe();
        let ended = rests.wait_for(BTreeMap::is_empty);
        if tokio::time::timeout_at(deadline.instant().into(), ended).await.is_err() {
            let left: Vec<String> = self.rests.borrow().keys().cloned().collect();
            tracing::warn!(?left, "not ended by the deadline");
        }
    }
}

impl Duty {
    /// Says what is still here of it, as follows from the view of this revision.
    pub(crate) fn post(&self, rest: Rest, revision: u64) {
        let said = Said { rest, revision };
        self.duties.rests.send_if_modified(|rests| {
            let posted = rests.get_mut(&self.name);
            posted.is_some_and(|posted| std::mem::replace(posted, said) != said)
        });
    }

    /// Resolves when it has to end, with the deadline for that.
    pub(crate) fn leaving(&self) -> watch::Receiver<Option<Deadline>> {
        self.duties.leaving.subscribe()
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.duties.rests.send_if_modified(|rests| rests.remove(&self.name).is_some());
    }
}

/// Waits for the word to end.
pub(crate) async fn told_to_leave(leaving: &mut watch::Receiver<Option<Deadline>>) -> Deadline {
    loop {
        if let Ok(told) = leaving.wait_for(Option::is_some).await
            && let Some(deadline) = *told
        {
            return deadline;
        }
        // The sender lives as long as the duty.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_rest_is_the_sum_of_all_duties() {
        let duties = Arc::new(Duties::default());
        let (a, b) = (duties.enter("a").unwrap(), duties.enter("b").unwrap());
        assert!(duties.enter("a").is_none(), "a name is taken once");
        a.post(Rest { shards: 2, messages: 5, ..Rest::default() }, 1);
        b.post(Rest { singletons: 1, messages: 1, ..Rest::default() }, 1);
        assert_eq!(duties.rest(), Rest { in_flight: 0, shards: 2, messages: 6, singletons: 1 });
        drop(a);
        assert_eq!(duties.rest(), Rest { singletons: 1, messages: 1, ..Rest::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_waits_until_all_have_ended_or_time_is_up() {
        let duties = Arc::new(Duties::default());
        let duty = duties.enter("a").unwrap();
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(5));
        let mut leaving = duty.leaving();
        let ends = tokio::spawn(async move {
            let told = told_to_leave(&mut leaving).await;
            drop(duty);
            told
        });
        duties.end(deadline).await;
        assert_eq!(ends.await.unwrap(), deadline);
        assert!(duties.enter("b").is_none(), "nothing begins on a node that leaves");
    }
}

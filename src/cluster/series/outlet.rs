//! Predictions on their way to other nodes: a bounded queue and a task for each, batches in order, tried again until
//! the node is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use peregrine_actors::series::{Outlet, SeriesName};
use peregrine_actors::stream::StreamEvent;
use peregrine_runtime::{AskError, Clock, Cluster, Deadline, NodeId};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::SERVICE;
use super::wire::{Ask, NodeAnswer, NodeAsk, WireSourceError};
use crate::series::Audience;

/// Events that wait for one node. One more is lost, and the node finds out by the numbers.
const QUEUE_MAX: usize = 8192;
/// Events of one message, so that it fits.
const BATCH_MAX: usize = 256;
/// Longest that one message may take to be answered.
const TRY_MAX: Duration = Duration::from_secs(1);
/// Between two tries.
const PATIENCE: Duration = Duration::from_millis(50);

pub(super) struct ClusterOutlet {
    cluster: Cluster,
    audience: Audience,
    runtime: Handle,
    clock: Arc<dyn Clock>,
    queues: Mutex<HashMap<Arc<str>, mpsc::Sender<StreamEvent>>>,
    pub(super) lost: Arc<AtomicU64>,
}

impl ClusterOutlet {
    pub(super) fn new(cluster: Cluster, audience: Audience, runtime: Handle, clock: Arc<dyn Clock>) -> Self {
        Self { cluster, audience, runtime, clock, queues: Mutex::default(), lost: Arc::default() }
    }

    fn send(&self, node: &Arc<str>, mut event: StreamEvent) {
        let mut queues = self.queues.lock();
        loop {
            let queue = queues.entry(Arc::clone(node)).or_insert_with(|| self.open(node));
            match queue.try_send(event) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // The node was gone, and may be back.
                Err(mpsc::error::TrySendError::Closed(back)) => {
                    queues.remove(node);
                    event = back;
                }
            }
        }
    }

    fn open(&self, node: &Arc<str>) -> mpsc::Sender<StreamEvent> {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        let carrier = Carrier {
            cluster: self.cluster.clone(),
            clock: Arc::clone(&self.clock),
            lost: Arc::clone(&self.lost),
            node: Arc::clone(node),
        };
        self.runtime.spawn(carrier.run(events));
        queue
    }
}

impl Outlet for ClusterOutlet {
    fn deliver(&self, nodes: &[Arc<str>], event: StreamEvent) {
        if let StreamEvent::Prediction(prediction) = &event {
            self.audience.predicted(prediction);
        }
        for node in nodes {
            if **node == *self.cluster.id().as_str() {
                self.audience.publish(event.clone());
            } else {
                self.send(node, event.clone());
            }
        }
    }

    fn observed(&self, series: &SeriesName, position: u64, value: f32) {
        self.audience.observed(series, position, value);
    }
}

/// Carries events to one node, until it is gone.
struct Carrier {
    cluster: Cluster,
    clock: Arc<dyn Clock>,
    lost: Arc<AtomicU64>,
    node: Arc<str>,
}

impl Carrier {
    async fn run(self, mut events: mpsc::Receiver<StreamEvent>) {
        let Ok(node) = NodeId::new(&self.node) else { return };
        let mut batch = Vec::new();
        while events.recv_many(&mut batch, BATCH_MAX).await > 0 {
            loop {
                let answer = match self.cluster.address::<Ask>(&node, SERVICE) {
                    Some(address) => {
                        let question = Ask(NodeAsk::Deliver(batch.iter().map(Into::into).collect()));
                        let deadline = Deadline::after(self.clock.now(), TRY_MAX);
                        Some(address.ask(question, deadline).await)
                    }
                    None => None,
                };
                match then(answer, self.cluster.view().get(&node).is_some()) {
                    Then::Next => break,
                    Then::Again => tokio::time::sleep(PATIENCE).await,
                    Then::Lose => {
                        self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                        break;
                    }
                    Then::End => {
                        self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                        return;
                    }
                }
            }
            batch.clear();
        }
    }
}

/// What becomes of a batch after a try to deliver it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It has arrived.
    Next,
    /// It is tried again: the last of a stream would be missed by nobody until the next comes.
    Again,
    /// It is dropped: the node does not understand it, a program of another version.
    Lose,
    /// Whoever wanted it has gone, and all that follows is wanted by nobody.
    End,
}

/// `answer`: none where the node could not be asked. A node can be a member before it is known how to ask it.
fn then(answer: Option<Result<NodeAnswer, AskError>>, is_member: bool) -> Then {
    match answer {
        Some(Ok(NodeAnswer::Done)) => Then::Next,
        Some(Err(_) | Ok(NodeAnswer::Refused(WireSourceError::Unavailable(_)))) | None if is_member => {
            Then::Again
        }
        Some(Ok(_)) if is_member => Then::Lose,
        Some(_) | None => Then::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_does_not_take_now_is_tried_again() {
        #[track_caller]
        fn check(answer: impl Fn() -> Option<Result<NodeAnswer, AskError>>, as_member: Then, as_other: Then) {
            assert_eq!((then(answer(), true), then(answer(), false)), (as_member, as_other));
        }
        let later = || NodeAnswer::Refused(WireSourceError::Unavailable("later".to_owned()));
        let odd = || NodeAnswer::Failed("it makes no sense".to_owned());
        check(|| Some(Ok(NodeAnswer::Done)), Then::Next, Then::Next);
        check(|| None, Then::Again, Then::End);
        check(|| Some(Err(AskError::Deadline)), Then::Again, Then::End);
        check(|| Some(Ok(later())), Then::Again, Then::End);
        check(|| Some(Ok(odd())), Then::Lose, Then::End);
    }
}

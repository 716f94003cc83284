//! Predictions on their way to other nodes: a bounded queue and a task for each, batches in order, tried again until
//! the node is gone. Of what does not fit the queue the newest of each stream follows it: by its number the node finds
//! out what else there was, and asks for it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use peregrine_actors::series::{Outlet, SeriesName};
use peregrine_actors::stream::{StreamEvent, StreamId};
use peregrine_runtime::{AskError, Clock, Cluster, Deadline, NodeId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use super::SERVICE;
use super::wire::{Ask, NodeAnswer, NodeAsk, WireSourceError};
use crate::series::Audience;

/// Events that wait for one node in their order.
const QUEUE_MAX: usize = 8192;
/// Streams of which the newest event waits behind them. One of yet another stream is lost, and the node finds out by the
/// next number of that stream.
const STREAMS_MAX: usize = 16_384;
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
    lines: Mutex<HashMap<Arc<str>, Line>>,
    pub(super) lost: Arc<AtomicU64>,
}

impl ClusterOutlet {
    pub(super) fn new(cluster: Cluster, audience: Audience, runtime: Handle, clock: Arc<dyn Clock>) -> Self {
        Self { cluster, audience, runtime, clock, lines: Mutex::default(), lost: Arc::default() }
    }

    fn send(&self, node: &Arc<str>, mut event: StreamEvent) {
        let mut lines = self.lines.lock();
        loop {
            let line = lines.entry(Arc::clone(node)).or_insert_with(|| self.open(node));
            match line.send(event) {
                Ok(lost) => {
                    self.lost.fetch_add(lost, Ordering::Relaxed);
                    return;
                }
                // The node was gone, and may be back.
                Err(back) => {
                    lines.remove(node);
                    event = back;
                }
            }
        }
    }

    fn open(&self, node: &Arc<str>) -> Line {
        let (line, events) = Line::new(QUEUE_MAX, STREAMS_MAX);
        let carrier = Carrier {
            cluster: self.cluster.clone(),
            clock: Arc::clone(&self.clock),
            lost: Arc::clone(&self.lost),
            node: Arc::clone(node),
        };
        self.runtime.spawn(carrier.run(events, Arc::clone(&line.rest)));
        line
    }
}

/// What waits for one node.
struct Line {
    queue: mpsc::Sender<StreamEvent>,
    rest: Arc<Rest>,
}

/// What did not fit the queue.
struct Rest {
    newest: Mutex<Newest>,
    /// There is some.
    some: Notify,
}

/// The newest event of each stream, in the order in which streams came.
struct Newest {
    order: VecDeque<StreamId>,
    by_stream: HashMap<StreamId, StreamEvent>,
    streams_max: usize,
}

impl Line {
    fn new(queue_max: usize, streams_max: usize) -> (Self, mpsc::Receiver<StreamEvent>) {
        let (queue, events) = mpsc::channel(queue_max);
        let newest = Newest { order: VecDeque::new(), by_stream: HashMap::new(), streams_max };
        let rest = Rest { newest: Mutex::new(newest), some: Notify::new() };
        (Self { queue, rest: Arc::new(rest) }, events)
    }

    /// How many events are not sent because of it; the event itself where nobody carries any more.
    fn send(&self, mut event: StreamEvent) -> Result<u64, StreamEvent> {
        if self.queue.is_closed() {
            return Err(event);
        }
        let mut newest = self.rest.newest.lock();
        // Where one of its stream waits behind the queue, so does it.
        if !newest.by_stream.contains_key(stream_of(&event)) {
            event = match self.queue.try_send(event) {
                Ok(()) => return Ok(0),
                Err(mpsc::error::TrySendError::Closed(back)) => return Err(back),
                Err(mpsc::error::TrySendError::Full(back)) => back,
            };
        }
        let lost = newest.put(event);
        self.rest.some.notify_one();
        Ok(u64::from(lost))
    }
}

impl Rest {
    /// Adds some of it to a batch.
    fn take(&self, batch: &mut Vec<StreamEvent>) {
        let mut newest = self.newest.lock();
        while batch.len() < BATCH_MAX {
            let Some(stream) = newest.order.pop_front() else { return };
            batch.extend(newest.by_stream.remove(&stream));
        }
        if !newest.order.is_empty() {
            self.some.notify_one();
        }
    }
}

impl Newest {
    /// Whether an event is lost: the one before it, or it itself.
    fn put(&mut self, event: StreamEvent) -> bool {
        let is_full = self.order.len() >= self.streams_max;
        match self.by_stream.entry(stream_of(&event).clone()) {
            Entry::Occupied(mut older) => {
                older.insert(event);
                true
            }
            Entry::Vacant(_) if is_full => true,
            Entry::Vacant(place) => {
                self.order.push_back(place.key().clone());
                place.insert(event);
                false
            }
        }
    }
}

fn stream_of(event: &StreamEvent) -> &StreamId {
    match event {
        StreamEvent::Prediction(one) => &one.stream,
        StreamEvent::Gap(gap) => &gap.stream,
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
    async fn run(self, mut events: mpsc::Receiver<StreamEvent>, rest: Arc<Rest>) {
        let Ok(node) = NodeId::new(&self.node) else { return };
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                queued = events.recv_many(&mut batch, BATCH_MAX) => if queued == 0 { return },
                () = rest.some.notified() => {}
            }
            if !batch.is_empty() && !self.carry(&node, &mut batch).await {
                return;
            }
            // In turns, so that what waits behind a queue that stays full gets through too.
            rest.take(&mut batch);
            if !batch.is_empty() && !self.carry(&node, &mut batch).await {
                return;
            }
        }
    }

    /// Until the node has a batch, or never will. False: the node is gone.
    async fn carry(&self, node: &NodeId, batch: &mut Vec<StreamEvent>) -> bool {
        loop {
            let answer = match self.cluster.address::<Ask>(node, SERVICE) {
                Some(address) => {
                    let question = Ask(NodeAsk::Deliver(batch.iter().map(Into::into).collect()));
                    let deadline = Deadline::after(self.clock.now(), TRY_MAX);
                    Some(address.ask(question, deadline).await)
                }
                None => None,
            };
            let then = then(answer, self.cluster.view().get(node).is_some());
            match then {
                Then::Next => {}
                Then::Again => {
                    tokio::time::sleep(PATIENCE).await;
                    continue;
                }
                Then::Lose | Then::End => {
                    self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                }
            }
            batch.clear();
            return then != Then::End;
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
    use peregrine_actors::stream::{Gap, GapReason};

    use super::*;

    fn event(series: &str, seq: u64) -> StreamEvent {
        let series = SeriesName::new(series).expect("a name");
        let stream = StreamId { model: "m".into(), series };
        StreamEvent::Gap(Gap { stream, from: seq, to: seq, reason: GapReason::Failed })
    }

    fn shown(events: &[StreamEvent]) -> Vec<String> {
        let text = |event: &StreamEvent| match event {
            StreamEvent::Gap(gap) => format!("{}{}", gap.stream.series, gap.to),
            StreamEvent::Prediction(_) => unreachable!("none was sent"),
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn the_end_of_a_stream_that_does_not_fit_the_queue_comes_behind_it() {
        let (line, mut events) = Line::new(3, 2);
        let sent = [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", 3), ("b", 3), ("b", 4), ("c", 1), ("a", 4)];
        let lost = sent.map(|(series, seq)| line.send(event(series, seq)).expect("it is carried"));
        assert_eq!(lost, [0, 0, 0, 0, 0, 1, 1, 1, 1], "of two streams the newest, and no third");
        let mut batch = Vec::new();
        while let Ok(one) = events.try_recv() {
            batch.push(one);
        }
        assert_eq!(shown(&batch), ["a1", "a2", "b1"]);
        // There is room again, but what is older has not gone yet.
        assert_eq!(line.send(event("a", 5)).expect("it is carried"), 1);
        assert_eq!(line.send(event("c", 2)).expect("it is carried"), 0);
        batch.clear();
        line.rest.take(&mut batch);
        assert_eq!(shown(&batch), ["b4", "a5"]);
        assert_eq!(line.send(event("a", 6)).expect("it is carried"), 0);
        batch.clear();
        line.rest.take(&mut batch);
        assert!(batch.is_empty(), "in the queue once more");
        drop(events);
        assert!(line.send(event("a", 7)).is_err(), "the node is gone");
    }

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

//! What a recorded request leaves behind: spans, made of instants that are taken anyway, after the work is done.
//!
//! A request that is not recorded carries an empty [`Trace`], and every place here costs it one branch. Where spans go
//! is behind a port; that it never waits is part of the contract.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use peregrine_runtime::{Clock, SpanId, TraceContext, TraceId, TraceState};

/// Links of one span beyond this many are left out, as OpenTelemetry has it.
const LINKS_MAX: usize = 128;

/// Where spans go.
pub trait SpanSink: Send + Sync + 'static {
    /// An id that no other span has.
    fn span_id(&self) -> SpanId;

    /// Takes a span or drops and counts it; never waits.
    fn finished(&self, span: Span);
}

/// The piece of work that others are part of; empty unless its trace is recorded. Cheap to clone.
#[derive(Clone, Default)]
pub struct Trace(Option<Arc<Open>>);

struct Open {
    context: TraceContext,
    parent: Option<SpanId>,
    state: Option<TraceState>,
    began: Began,
    sink: Arc<dyn SpanSink>,
}

/// A piece of work, as another node is told that its own is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Its ids.
    pub context: TraceContext,
    /// What other systems wanted to be passed on.
    pub state: Option<TraceState>,
}

/// One moment by both clocks. A trace has one on each node, or a clock that is set meanwhile would tear it apart.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    at: Instant,
    wall: SystemTime,
}

/// A finished piece of work.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its own ids.
    pub context: TraceContext,
    /// What it is part of; `None`: nothing.
    pub parent: Option<SpanId>,
    /// What other systems wanted to be passed on.
    pub state: Option<TraceState>,
    /// When it began, by the time of day.
    pub start: SystemTime,
    /// And when it ended.
    pub end: SystemTime,
    /// All else.
    pub done: Done,
}

/// What is known of a piece of work once it is done.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was done; few different ones.
    pub name: Cow<'static, str>,
    /// For whom.
    pub kind: SpanKind,
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
    /// Particulars.
    pub attributes: Vec<(&'static str, Value)>,
    /// Work of the same or other traces that it has to do with.
    pub links: Vec<TraceContext>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// On which side of a border a piece of work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// On neither.
    Internal,
    /// It answers somebody outside.
    Server,
    /// It waits for somebody outside.
    Client,
}

/// One particular.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Words.
    Text(Cow<'static, str>),
    /// A count.
    Int(i64),
    /// Yes or no.
    Flag(bool),
}

impl Began {
    /// Now.
    #[must_use]
    pub fn now(clock: &dyn Clock) -> Self {
        Self { at: clock.now(), wall: clock.wall() }
    }

    fn wall_of(self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.at) {
            Some(later) => self.wall + later,
            None => self.wall - self.at.saturating_duration_since(at),
        }
    }
}

impl Trace {
    /// Work with these ids, part of `parent`, to be recorded.
    #[must_use]
    pub fn begin(
        context: TraceContext,
        parent: Option<SpanId>,
        state: Option<TraceState>,
        began: Began,
        sink: Arc<dyn SpanSink>,
    ) -> Self {
        Self(Some(Arc::new(Open { context, parent, state, began, sink })))
    }

    /// Work that somebody outside is the cause of, and wants to be recorded.
    #[must_use]
    pub fn follow(caller: TraceParent, began: Began, sink: Arc<dyn SpanSink>) -> Self {
        let TraceParent { context: caller, state } = caller;
        let context = TraceContext { span: sink.span_id(), sampled: true, ..caller };
        Self::begin(context, Some(caller.span), state, began, sink)
    }

    /// Whether anything here is kept.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Its ids, as others are told them; `None`: it is not recorded.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|open| open.context)
    }

    /// The same with what goes along, for other nodes.
    #[must_use]
    pub fn parent(&self) -> Option<TraceParent> {
        let open = self.0.as_ref()?;
        Some(TraceParent { context: open.context, state: open.state.clone() })
    }

    /// The id of its trace, for log lines; `None`: it is not recorded.
    #[must_use]
    pub fn id(&self) -> Option<tracing::field::DisplayValue<TraceId>> {
        self.context().map(|context| tracing::field::display(context.trace))
    }

    /// A piece of this work.
    #[must_use]
    pub fn child(&self) -> Self {
        let Some(open) = &self.0 else { return Self(None) };
        let context = TraceContext { span: open.sink.span_id(), ..open.context };
        let (state, sink) = (open.state.clone(), Arc::clone(&open.sink));
        Self::begin(context, Some(open.context.span), state, open.began, sink)
    }

    /// It is done.
    pub fn end(&self, done: impl FnOnce() -> Done) {
        let Some(open) = &self.0 else { return };
        let mut done = done();
        done.links.truncate(LINKS_MAX);
        open.sink.finished(Span {
            context: open.context,
            parent: open.parent,
            state: open.state.clone(),
            start: open.began.wall_of(done.start),
            end: open.began.wall_of(done.end.max(done.start)),
            done,
        });
    }

    /// A piece of this work that has no pieces of its own is done.
    pub fn piece(&self, done: impl FnOnce() -> Done) {
        if self.is_recorded() {
            self.child().end(done);
        }
    }
}

impl Done {
    /// Work on neither side of a border.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>, start: Instant, end: Instant) -> Self {
        let (attributes, links) = (Vec::new(), Vec::new());
        Self { name: name.into(), kind: SpanKind::Internal, start, end, attributes, links, error: None }
    }

    /// On this side of a border.
    #[must_use]
    pub fn of_kind(self, kind: SpanKind) -> Self {
        Self { kind, ..self }
    }

    /// One more particular.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// It has to do with these.
    #[must_use]
    pub fn linked(mut self, links: impl IntoIterator<Item = TraceContext>) -> Self {
        self.links.extend(links.into_iter().take(LINKS_MAX));
        self
    }

    /// It failed, if there is a reason: `kind` is one of few words, which is what can be searched for.
    #[must_use]
    pub fn failed(self, why: Option<(&'static str, String)>) -> Self {
        match why {
            None => self,
            Some((kind, why)) => Self { error: Some(why), ..self.with("error.type", kind) },
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Self {
        Self::Int(count.into())
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

/// Two are the same if they are the same piece of work.
impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        self.context() == other.context()
    }
}

impl Eq for Trace {}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Trace").field(&self.context()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use peregrine_runtime::ManualClock;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Span>>);

    impl SpanSink for Kept {
        fn span_id(&self) -> SpanId {
            SpanId::new([self.0.lock().len() as u8 + 1; 8]).unwrap()
        }

        fn finished(&self, span: Span) {
            self.0.lock().push(span);
        }
    }

    #[test]
    fn pieces_know_what_they_are_part_of_and_when_that_was() {
        let (clock, kept) = (ManualClock::new(), Arc::new(Kept::default()));
        let caller = TraceContext {
            trace: TraceId::new([7; 16]).unwrap(),
            span: SpanId::new([9; 8]).unwrap(),
            sampled: true,
        };
        let before = clock.now();
        clock.advance(Duration::from_secs(1));
        let state = TraceState::parse([&b"a=1"[..]]);
        let parent = TraceParent { context: caller, state: state.clone() };
        let trace = Trace::follow(parent, Began::now(&clock), kept.clone());
        let told = trace.parent().unwrap();
        assert_eq!((Some(told.context), told.state), (trace.context(), state));
        trace.piece(|| Done::new("before", before, clock.now()).with("rows", 3_usize).linked([caller]));
        trace.end(|| Done::new("whole", clock.now(), before).failed(Some(("full", "it is full".to_owned()))));
        let kept = kept.0.lock();
        let [piece, whole] = &kept[..] else { panic!("two spans") };
        assert_eq!((piece.parent, whole.parent), (Some(whole.context.span), Some(caller.span)));
        assert_eq!(whole.context, trace.context().unwrap());
        assert_eq!(piece.start, clock.wall() - Duration::from_secs(1), "earlier than the trace itself");
        assert_eq!((piece.end, &piece.done.links), (clock.wall(), &vec![caller]));
        assert_eq!(whole.end, whole.start, "an end is not before its start");
        assert_eq!(whole.done.attributes, [("error.type", Value::from("full"))]);
    }

    #[test]
    fn what_is_not_recorded_is_not_even_described() {
        let trace = Trace::default();
        trace.end(|| unreachable!("nobody asks"));
        trace.piece(|| unreachable!("nobody asks"));
        assert_eq!((trace.child().is_recorded(), trace.context()), (false, None));
        assert_eq!(trace.parent(), None);
    }
}

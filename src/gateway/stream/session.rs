//! One client of the stream: its subscriptions, its ticks on their way, and what it is told.

use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actix_web::web::Data;
use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{Stream, StreamExt, future};
use peregrine_actors::series::{Effect, Pattern, SeriesName, Tick, TickError, Timestamp};
use peregrine_actors::stream::{
    Encoding, Form, Item, Levels, Opener, Past, PastError, PastItem, Read, Render, Selector, SourceError,
    StreamEvent, Subscription,
};
use peregrine_actors::{Done as Piece, ForecastError, SpanKind};
use peregrine_runtime::{Deadline, TraceContext};
use peregrine_shaders::ModelSpec;
use tokio::time::timeout_at;

use super::super::Shared;
use super::super::guard::{INGEST, PREDICT, Pass};
use super::fanout::{self, Place};
use super::message_pack::to_json;
use super::ops::{self, Id, Op, Subscribe};
use super::port::{End, Message, Outbox, Session, Written};
use super::print::{self, Frames, Subscribed};
use super::ws::{CloseReason, POLICY, UNSUPPORTED};
use crate::gateway::error::Refusal;
use crate::gateway::v1::parse::refuse_several;
use crate::gateway::v1::print::no_level;
use crate::levels::offers;
use crate::security::{Denied, Refused as NotAdmitted, Scopes};

/// When a client that is sent away should come back.
const RECONNECT_AFTER_MS: u64 = 1000;
/// Logs that one subscription asks for at once.
const LOGS_MAX: usize = 16;
/// How long a subscription waits for all of them: predictions come behind it, also while an owner is away.
const LOGS_WITHIN: Duration = Duration::from_millis(250);

pub(super) struct Talk {
    shared: Data<Shared>,
    pass: Pass,
    encoding: Encoding,
    /// What its handshake was part of, and so are its ticks that say nothing else.
    caller: Option<TraceContext>,
    /// What its socket is sent comes out as it goes in: others may write to it.
    is_plain: bool,
    subscriptions: Vec<Entry>,
    /// Its only subscription has left no waker at the end of its log: its place is to be taken by others.
    gives_place: bool,
    place: Option<Place>,
    begun: Option<Box<FuturesUnordered<Begun>>>,
    subscribing: bool,
}

type Begun = Pin<Box<dyn Future<Output = Done>>>;

struct Entry {
    id: Option<Id>,
    past: Past,
    /// Of the past, rendered, not yet taken.
    next: Option<Bytes>,
    reader: Subscription,
    /// It was told that the version that answers now lacks levels that it asked for.
    told_of_levels: bool,
}

/// What was begun has ended.
enum Done {
    Subscribed(Option<Id>, Result<Box<Begins>, Refused>),
    Ticked(Option<Id>, Vec<Result<Effect, TickError>>),
}

/// A subscription was made.
struct Begins {
    reader: Subscription,
    past: Past,
    /// Of named series that are not long enough yet: what they are short of.
    missing: Vec<(SeriesName, usize)>,
}

/// A subscription was refused.
struct Refused {
    code: &'static str,
    detail: String,
}

impl Talk {
    pub(super) fn new(
        shared: Data<Shared>,
        pass: Pass,
        encoding: Encoding,
        caller: Option<TraceContext>,
        is_plain: bool,
    ) -> Self {
        Self {
            shared,
            pass,
            encoding,
            caller,
            is_plain,
            subscriptions: Vec::new(),
            gives_place: false,
            place: None,
            begun: None,
            subscribing: false,
        }
    }

    fn begin(&mut self, what: impl Future<Output = Done> + 'static) {
        self.begun.get_or_insert_default().push(Box::pin(what));
    }

    fn op(&mut self, text: &[u8], out: &mut Outbox) {
        let limits = self.shared.stream.limits();
        let (id, op) = ops::parse(text, limits.patterns_max);
        let encoding = self.encoding;
        let needed = match &op {
            Ok(Op::Subscribe(_)) => PREDICT,
            Ok(Op::Ticks(..)) => INGEST,
            Ok(Op::Ping | Op::Unsubscribe) | Err(_) => Scopes::NONE,
        };
        if let Err(refused) = self.pass.message(needed, &*self.shared.clock) {
            let code = match &refused {
                NotAdmitted::Denied(_) => "denied",
                NotAdmitted::Limited(_) => "rate_limited",
            };
            return out.push(print::error(encoding, id.as_ref(), code, &Refusal::from(refused).to_string()));
        }
        match op {
            Err(bad) => out.push(print::error(encoding, id.as_ref(), "malformed", &bad.detail(encoding))),
            Ok(Op::Ping) => out.push(print::pong(encoding, id.as_ref())),
            Ok(Op::Unsubscribe) => match self.subscriptions.iter().position(|entry| entry.id == id) {
                Some(at) => {
                    self.subscriptions.remove(at);
                    out.push(print::unsubscribed(encoding, id.as_ref()));
                }
                None => {
                    out.push(print::error(
                        encoding,
                        id.as_ref(),
                        "unknown_subscription",
                        "nothing has this id",
                    ));
                }
            },
            Ok(Op::Subscribe(wish)) => {
                if self.subscriptions.iter().any(|entry| entry.id == id) {
                    let detail = "a subscription has this id already";
                    out.push(print::error(encoding, id.as_ref(), "duplicate", detail));
                } else if self.subscriptions.len() >= limits.subscriptions_max {
                    let detail =
                        format!("a connection has at most {} subscriptions", limits.subscriptions_max);
                    out.push(print::error(encoding, id.as_ref(), "too_many", &detail));
                } else {
                    self.subscribing = true;
                    let (shared, opener) = (self.shared.clone(), self.pass.opener());
                    self.begin(async move {
                        let subscribed = subscribe(&shared, encoding, wish, opener).await;
                        Done::Subscribed(id, subscribed.map(Box::new))
                    });
                }
            }
            Ok(Op::Ticks(ticks, parent)) => {
                let shared = self.shared.clone();
                let caller = parent.or(self.caller);
                self.begin(async move { Done::Ticked(id, feed(&shared, ticks, caller).await) });
            }
        }
    }

    fn done(&mut self, done: Done, out: &mut Outbox) {
        match done {
            Done::Ticked(id, results) => out.push(print::ticked(self.encoding, id.as_ref(), &results)),
            Done::Subscribed(id, Err(refused)) => {
                self.subscribing = false;
                out.push(print::error(self.encoding, id.as_ref(), refused.code, &refused.detail));
            }
            Done::Subscribed(id, Ok(subscribed)) => {
                self.subscribing = false;
                let Begins { reader, mut past, missing } = *subscribed;
                let told = Subscribed {
                    id: id.as_ref(),
                    channel: reader.channel_number(),
                    model: reader.selector().model(),
                    retention: self.shared.stream.hub().limits().retention,
                    next: &past.next,
                    missing: &missing,
                };
                out.push(print::subscribed(self.encoding, &told));
                past.next = Vec::new();
                self.subscriptions.push(Entry { id, past, next: None, reader, told_of_levels: false });
            }
        }
    }
}

impl Session for Talk {
    fn message(&mut self, message: Message, out: &mut Outbox) -> Result<(), CloseReason> {
        match (message, self.encoding) {
            (Message::Text(text), Encoding::Json) => self.op(&text, out),
            (Message::Binary(bytes), Encoding::MessagePack) => match to_json(&bytes) {
                Ok(text) => self.op(&text, out),
                Err(bad) => out.push(print::error(self.encoding, None, "malformed", &bad.to_string())),
            },
            _ => return Err(CloseReason::new(UNSUPPORTED, "JSON comes as text, MessagePack as binary")),
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        // What comes behind a subscription may speak of it.
        !self.subscribing
            && self
                .begun
                .as_ref()
                .is_none_or(|begun| begun.len() < self.shared.stream.limits().ticks_in_flight_max)
    }

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Result<(), CloseReason> {
        while let Some(begun) = &mut self.begun {
            match Pin::new(&mut **begun).poll_next(cx) {
                Poll::Ready(Some(done)) => self.done(done, out),
                Poll::Ready(None) => self.begun = None, // an idle connection keeps nothing
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn frames(
        &mut self,
        waker: &Waker,
        take: &mut dyn FnMut(&Bytes) -> bool,
        out: &mut Outbox,
    ) -> Result<bool, CloseReason> {
        let (mut frames, mut bytes) = (0_u64, 0_u64);
        let mut counted = |frame: &Bytes| {
            let taken = take(frame);
            if taken {
                frames += 1;
                bytes += frame.len() as u64;
            }
            taken
        };
        let (mut fell, mut more) = (false, false);
        let alone = self.is_plain && self.subscriptions.len() == 1;
        self.gives_place = false;
        for entry in &mut self.subscriptions {
            if !entry.past(&mut counted) {
                more = true;
                break;
            }
            // Decided once: meanwhile others may come and go, and who has left no waker must give its place.
            self.gives_place = alone && fanout::takes(&entry.reader);
            match entry.reader.read((!self.gives_place).then_some(waker), &mut counted) {
                Read::Waiting => continue,
                Read::Full => more = true,
                Read::Fell => fell = true,
            }
            break;
        }
        self.shared.stream.count(frames, bytes);
        self.shared.stream.saw_lag(frames);
        if fell { Err(self.fall(out)) } else { Ok(more) }
    }

    fn entrust(&mut self, socket: RawFd, waker: &Waker) {
        if let [entry] = &self.subscriptions[..]
            && self.gives_place
        {
            self.place = fanout::join(&self.shared.stream, &entry.reader, socket, waker);
            if self.place.is_none() {
                waker.wake_by_ref(); // it reads on by itself
            }
        }
    }

    fn take_back(&mut self) -> Option<Written> {
        let (place, written) = self.place.take()?.leave();
        if let [entry] = &mut self.subscriptions[..] {
            entry.reader.advance(place);
        }
        Some(written)
    }

    fn blocked(&mut self, waker: &Waker, out: &mut Outbox) -> Result<(), CloseReason> {
        let mut fell = false;
        for entry in &mut self.subscriptions {
            self.shared.stream.saw_lag(entry.reader.lag());
            match entry.reader.blocked(waker) {
                Some(conflated) => self.shared.stream.conflated(conflated),
                None => fell = true,
            }
        }
        if fell { Err(self.fall(out)) } else { Ok(()) }
    }

    fn quiet(&mut self, out: &mut Outbox) {
        let since = self.shared.clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let at = Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        out.push(print::heartbeat(self.encoding, at));
    }

    fn tick(&mut self, out: &mut Outbox) -> Result<(), CloseReason> {
        self.pass.renew(&*self.shared.clock).map_err(|denied| {
            self.subscriptions.clear();
            let why = if denied == Denied::Expired { "expired" } else { "revoked" };
            out.push(print::goodbye(self.encoding, 0, why));
            super::denied(denied)
        })?;
        for entry in &mut self.subscriptions {
            if let Some(lacking) = entry.lacks_levels(&self.shared) {
                out.push(print::error(self.encoding, entry.id.as_ref(), "levels", &lacking));
            }
        }
        Ok(())
    }

    fn goodbye(&mut self, why: End, out: &mut Outbox) {
        let why = if why == End::Drained { "drain" } else { why.name() };
        out.push(print::goodbye(self.encoding, RECONNECT_AFTER_MS, why));
    }
}

impl Talk {
    /// The client read too slowly and has not asked for less.
    fn fall(&mut self, out: &mut Outbox) -> CloseReason {
        self.subscriptions.clear();
        let detail =
            "messages left the log before they were read: resume with `from`, or subscribe with `conflate`";
        out.push(print::error(self.encoding, None, "slow", detail));
        out.push(print::goodbye(self.encoding, 0, "slow"));
        CloseReason::new(POLICY, "the client reads too slowly")
    }
}

impl Entry {
    /// Hands out what comes before the log; whether all of it was taken.
    fn past(&mut self, take: &mut impl FnMut(&Bytes) -> bool) -> bool {
        loop {
            let Some(frame) = self.next.take().or_else(|| self.render_next()) else { return true };
            if !take(&frame) {
                self.next = Some(frame);
                return false;
            }
        }
    }

    /// That the version that answers by now has not all intervals that were asked for, where that is news: none is refused
    /// for it, and it would be missing without a word.
    fn lacks_levels(&mut self, shared: &Shared) -> Option<String> {
        let selector = self.reader.selector();
        let levels = selector.form().levels?;
        let model = shared.system.find(selector.model(), None).ok()?;
        let lacking = levels.percent().find(|&level| !offers(&model.spec.head, level));
        let was_told = std::mem::replace(&mut self.told_of_levels, lacking.is_some());
        let lacking = no_level(&model.spec, lacking.filter(|_| !was_told)?);
        Some(format!("version {} answers now: {lacking}", model.version))
    }

    fn render_next(&mut self) -> Option<Bytes> {
        let form = self.reader.selector().form();
        let item = self.past.items.pop_front()?;
        if self.past.items.is_empty() {
            self.past = Past::default();
        }
        Some(match &item {
            PastItem::Snapshot(one) => Frames.render(form, Item::Snapshot(one)),
            PastItem::Event(StreamEvent::Prediction(one)) => Frames.render(form, Item::Prediction(one)),
            PastItem::Event(StreamEvent::Gap(gap)) => Frames.render(form, Item::Gap(gap)),
        })
    }
}

async fn subscribe(
    shared: &Shared,
    encoding: Encoding,
    wish: Subscribe,
    opener: Opener,
) -> Result<Begins, Refused> {
    let refused = |code, detail: String| Refused { code, detail };
    let model = shared.model(wish.model.as_deref(), None).await.map_err(|refusal| {
        let unknown = matches!(
            refusal,
            Refusal::Forecast(ForecastError::UnknownModel(_) | ForecastError::UnknownVersion { .. })
        );
        refused(if unknown { "unknown_model" } else { "unavailable" }, refusal.to_string())
    })?;
    let spec = &model.spec;
    refuse_several(spec).map_err(|bad| refused("unsuitable", bad.to_string()))?;
    shared.live.series.suits(spec).map_err(|unsuitable| refused("unsuitable", unsuitable.to_string()))?;
    let offered = |level: f64| offers(&spec.head, level);
    if let Some(level) = wish.levels.iter().flat_map(Levels::percent).find(|&level| !offered(level)) {
        return Err(refused("levels", no_level(spec, level).to_string()));
    }
    let form = Form { encoding, levels: wish.levels };
    let hub = shared.stream.hub();
    let selector = Selector::new(&spec.name, wish.patterns, form);
    let mut reader =
        hub.join(selector, wish.conflate, opener).map_err(|full| refused("too_many", full.to_string()))?;
    let past = hub.past(&mut reader, &wish.wish, shared.deadline(None)).await.map_err(|error| {
        let code = match &error {
            PastError::TooMuch { .. } => "too_many",
            PastError::Source(SourceError::UnknownModel(_)) => "unknown_model",
            PastError::Source(SourceError::UnknownSeries(_)) => "unknown_series",
            PastError::Source(SourceError::Unsuitable(_)) => "unsuitable",
            PastError::Source(SourceError::Unavailable(_)) => "unavailable",
        };
        refused(code, error.to_string())
    })?;
    let deadline = Deadline::after(shared.clock.now(), LOGS_WITHIN);
    let missing = missing(shared, spec, reader.selector().patterns(), &past, deadline).await;
    Ok(Begins { reader, past, missing })
}

/// Which series that were named have no stream because they are shorter than the model's window, and by how much; one that
/// nobody has fed is short of all of it. Of those that do not answer in time nothing is known.
async fn missing(
    shared: &Shared,
    spec: &ModelSpec,
    patterns: &[Pattern],
    past: &Past,
    deadline: Deadline,
) -> Vec<(SeriesName, usize)> {
    let named = patterns.iter().filter(|pattern| pattern.is_exact());
    let named = named.filter_map(|pattern| SeriesName::new(pattern.as_str()).ok());
    let silent = named
        .filter(|series| past.silent.contains(series) || !past.next.iter().any(|(known, _)| known == series));
    let asked = stream::iter(silent).map(|series| async move {
        let log = shared.stream.source().log(&series, deadline);
        let missing = match timeout_at(deadline.instant().into(), log).await {
            Ok(Ok(log)) => shared.live.series.missing(&log, spec),
            Ok(Err(SourceError::UnknownSeries(_))) => spec.window,
            Ok(Err(_)) | Err(_) => 0,
        };
        (series, missing)
    });
    asked.buffered(LOGS_MAX).filter(|(_, missing)| future::ready(*missing > 0)).collect().await
}

async fn feed(
    shared: &Shared,
    mut ticks: Vec<Tick>,
    caller: Option<TraceContext>,
) -> Vec<Result<Effect, TickError>> {
    let Some(telemetry) = &shared.telemetry else { return feed_untraced(shared, ticks).await };
    let began = shared.clock.now();
    let span = telemetry.begin(caller, std::iter::empty, true, began);
    if !span.is_recorded() {
        return feed_untraced(shared, ticks).await;
    }
    ticks.iter_mut().for_each(|tick| tick.trace = span.clone());
    let effects = feed_untraced(shared, ticks).await;
    span.end(|| {
        let failed = effects.iter().find_map(|effect| effect.as_ref().err());
        Piece::new("tick", began, shared.clock.now())
            .of_kind(SpanKind::Server)
            .with("network.protocol.name", "websocket")
            .with("peregrine.ticks", effects.len())
            .failed(failed.map(|error| (error.code(), error.to_string())))
    });
    effects
}

async fn feed_untraced(shared: &Shared, ticks: Vec<Tick>) -> Vec<Result<Effect, TickError>> {
    let (count, deadline) = (ticks.len(), shared.deadline(None));
    let source = Arc::clone(shared.stream.source());
    let fed = source.ticks(ticks, deadline);
    let late = TickError::Unavailable("no answer within the deadline".to_owned());
    let answers = tokio::time::timeout_at(deadline.instant().into(), fed).await;
    answers.unwrap_or_else(|_elapsed| vec![Err(late); count])
}

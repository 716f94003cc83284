//! A hub whose frames are words, over a source that has the streams it is given.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use peregrine_runtime::{Clock, Deadline, SystemClock};

use super::super::From;
use super::*;
use crate::series::{Effect, Listing, Pattern, SeriesLog, Tick, TickError};

const FORM: Form = Form { encoding: Encoding::Json, levels: None };

#[test]
fn readers_of_equal_wishes_share_what_is_rendered_once() {
    let (hub, rendered) = hub(64);
    let mut readers: Vec<_> = (0..3).map(|_| join(&hub, &["*"], false)).collect();
    for event in events("a", "1 2 3") {
        hub.publish(event);
    }
    for reader in &mut readers {
        assert_eq!(read(reader), (Read::Waiting, "a:1 a:2 a:3".to_owned()));
    }
    assert_eq!(rendered.load(Ordering::SeqCst), 3);
    assert_eq!(hub.stats().channels, 1);
}

#[test]
fn a_reader_gets_what_its_patterns_mean() {
    let (hub, _) = hub(64);
    let mut few = join(&hub, &["x/*", "b"], false);
    for series in ["a", "b", "x/1", "x", "x/2"] {
        hub.publish(event(series, "1"));
    }
    assert_eq!(read(&mut few).1, "b:1 x/1:1 x/2:1");
}

#[test]
fn a_waiting_reader_is_woken_once_per_event() {
    let (hub, _) = hub(64);
    let mut reader = join(&hub, &["a"], false);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    for _ in 0..3 {
        assert_eq!(reader.read(Some(&waker), |_| true), Read::Waiting);
    }
    hub.publish(event("a", "1"));
    hub.publish(event("a", "2"));
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_reader_that_falls_off_is_told_and_others_are_not_held_up() {
    let (hub, _) = hub(4);
    let (mut fast, mut slow) = (join(&hub, &["a"], false), join(&hub, &["a"], false));
    let mut got = String::new();
    for seq in 1..=9 {
        hub.publish(event("a", &seq.to_string()));
        got += &read(&mut fast).1;
    }
    assert_eq!(got, "a:1a:2a:3a:4a:5a:6a:7a:8a:9");
    assert_eq!(read(&mut slow).0, Read::Fell);
}

#[test]
fn a_blocked_reader_that_conflates_gets_the_newest_of_each_series_and_what_it_missed() {
    let (hub, _) = hub(8);
    let mut reader = join(&hub, &["*"], true);
    let waker = Waker::noop();
    for seq in 1..=20 {
        hub.publish(event("a", &seq.to_string()));
        if seq % 3 == 0 {
            hub.publish(event("b", &(seq / 3).to_string()));
        }
        assert!(reader.blocked(waker).is_some(), "fell off at {seq}");
    }
    let (end, got) = read(&mut reader);
    assert_eq!(end, Read::Waiting);
    let numbers = |series: &str| -> Vec<u64> {
        let mut seen = Vec::new();
        for word in got.split(' ').filter_map(|word| word.strip_prefix(series)) {
            let (from, to) = word.split_once('-').unwrap_or((word, word));
            seen.extend(from.parse::<u64>().expect("from")..=to.parse::<u64>().expect("to"));
        }
        seen
    };
    // Every number once, as a prediction or within a gap.
    assert_eq!(numbers("a:"), (1..=20).collect::<Vec<_>>(), "{got}");
    assert_eq!(numbers("b:"), (1..=6).collect::<Vec<_>>(), "{got}");
    assert!(got.split(' ').count() < 12, "{got}");
}

#[test]
fn who_conflates_misses_no_number_however_seldom_it_comes() {
    for seed in 1..=300_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut draw = |below: u64| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let (hub, _) = hub(8);
        let (mut reader, waker) = (join(&hub, &["*"], true), Waker::noop());
        let (mut next, mut got) = ([1, 1], String::new());
        for _ in 0..120 {
            match draw(12) {
                0 => assert!(reader.blocked(waker).is_some(), "seed {seed}"),
                1 => {
                    let mut room = draw(6);
                    let end = reader.read(Some(waker), |frame| {
                        let taken = room > 0;
                        room = room.saturating_sub(1);
                        if taken {
                            got.push_str(std::str::from_utf8(frame).expect("text"));
                            got.push(' ');
                        }
                        taken
                    });
                    assert_ne!(end, Read::Fell, "seed {seed}");
                }
                _ => {
                    let which = usize::from(draw(4) == 0);
                    hub.publish(event(["a", "b"][which], &next[which].to_string()));
                    next[which] += 1;
                }
            }
        }
        let (end, rest) = read(&mut reader);
        assert_eq!(end, Read::Waiting, "seed {seed}");
        got += &rest;
        for (series, next) in ["a:", "b:"].into_iter().zip(next) {
            let words = got.split_whitespace().filter_map(|word| word.strip_prefix(series));
            let numbers = words.flat_map(|word| {
                let (from, to) = word.split_once('-').unwrap_or((word, word));
                from.parse::<u64>().expect("from")..=to.parse::<u64>().expect("to")
            });
            assert_eq!(numbers.collect::<Vec<_>>(), (1..next).collect::<Vec<_>>(), "seed {seed}: {got}");
        }
    }
}

#[test]
fn a_blocked_reader_is_woken_before_its_place_leaves() {
    let (hub, _) = hub(4);
    let mut reader = join(&hub, &["a"], true);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert_eq!(reader.blocked(&waker), Some(0));
    for event in events("a", "1 2") {
        hub.publish(event);
    }
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    hub.publish(event("a", "3"));
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
}

#[test]
fn there_are_only_so_many_channels() {
    let (hub, _) = hub(4);
    let kept: Vec<_> = (0..8).map(|at| join(&hub, &[&format!("s{at}")], false)).collect();
    let refused = hub.join(selector(&["other"]), false, Opener(1)).err();
    assert_eq!(refused, Some(JoinRefused::TooManyChannels { channels_max: 8 }));
    drop(kept);
}

#[test]
fn a_channel_that_nobody_reads_gives_way_when_all_are_taken() {
    let (hub, _) = hub(4);
    let mut kept: Vec<_> = (0..8).map(|at| join(&hub, &[&format!("s{at}")], false)).collect();
    hub.publish(event("s2", "1"));
    drop(kept.remove(2));
    assert_eq!((hub.stats().channels, hub.stats().streams), (8, 1), "its reader may come back");
    let mut newcomer = join(&hub, &["other"], false);
    assert_eq!((hub.stats().channels, hub.stats().streams), (8, 0));
    hub.publish(event("other", "1"));
    assert_eq!(read(&mut newcomer).1, "other:1");
    let refused = hub.join(selector(&["s2"]), false, Opener(0)).err();
    assert_eq!(refused, Some(JoinRefused::TooManyChannels { channels_max: 8 }));
}

#[test]
fn a_caller_leaves_room_for_others() {
    let limits = HubLimits { channels_max: 4, channels_per_caller_max: 2, ..HubLimits::default() };
    let hub = Hub::new(Arc::new(Words(Arc::default())), limits);
    let open = |series: &str, opener| hub.join(selector(&[series]), false, Opener(opener));
    let greedy = [open("a", 1).expect("room"), open("b", 1).expect("room")];
    assert_eq!(open("c", 1).err(), Some(JoinRefused::TooManyOfCaller { channels_max: 2 }));
    let others = [open("c", 2).expect("room"), open("d", 3).expect("room")];
    let beside = open("c", 1).expect("it is there, whoever opened it");
    drop((greedy, beside));
    let own_gave_way = open("e", 1).expect("room");
    let is_left = |series: &str| hub.inner.registry.read().channels.contains_key(&selector(&[series]));
    assert_eq!(["a", "b", "c", "d", "e"].map(is_left), [false, true, true, true, true]);
    drop((others, own_gave_way));
}

#[test]
fn a_missing_number_is_lost_when_nobody_can_be_asked() {
    let (hub, _) = hub(64);
    let mut reader = join(&hub, &["a"], false);
    for event in events("a", "1 4") {
        hub.publish(event);
    }
    assert_eq!(read(&mut reader).1, "a:1 a:2-3 a:4");
}

#[tokio::test(start_paused = true)]
async fn a_missing_number_is_asked_for() {
    let (hub, source) = attached(&[("a", "1 2 3 4 5")]);
    let mut reader = join(&hub, &["a"], false);
    for event in events("a", "1 4 5") {
        hub.publish(event);
    }
    assert_eq!(settled(&mut reader, 5).await, "a:1 a:2 a:3 a:4 a:5");
    assert_eq!(source.replays.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_is_told_and_forgotten_after_a_grace() {
    let (hub, source) = attached(&[]);
    let reader = join(&hub, &["b", "a"], false);
    let again = join(&hub, &["a", "b"], false);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(source.told(), ["a b"]);
    drop((reader, again));
    hub.publish(event("a", "1"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(source.told(), ["a b", ""]);
    assert_eq!((hub.stats().channels, hub.stats().streams), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_the_newest_of_each_series_and_is_not_repeated() {
    let (hub, _) = attached(&[("a", "1 2 3"), ("b", "7")]);
    check(&hub, Wish { snapshot: true, ..Wish::default() }, &["a 3", "a 4"], "a=3 b=7", "a:4").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_comes_first_and_nothing_twice() {
    let (hub, _) = attached(&[("a", "1 2 3 4-5 6"), ("b", "7")]);
    let from = Wish { from: Some(From::All(3)), ..Wish::default() };
    // The hub hears the end of it again.
    let want = "a3 a4-5 a6 b3-6:expired b7";
    check(&hub, from, &["a 6", "a 7", "b 7", "b 8"], want, "a:7 b:8").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_made_again_and_still_here_is_no_gap() {
    let (hub, _) =
        attached(&[("a", "1-8:expired 9 10"), ("b", "1-8:expired 9' 10'"), ("c", "1-2 3-9:expired 10")]);
    let _first = join(&hub, &["*"], false);
    for seq in ["5", "6", "7-7", "8", "9", "10"] {
        ["a", "b", "c"].into_iter().for_each(|series| hub.publish(event(series, seq)));
    }
    let from = Wish { from: Some(From::All(1)), ..Wish::default() };
    // Of an owner before the one that has answered nothing counts.
    let b = "b1-8:expired b9 b10";
    let c = "c1-2 c3-4:expired c5 c6 c7-7:expired c8 c9 c10";
    check(&hub, from, &["a 11"], &format!("a1-4:expired a5 a6 a7-7:expired a8 a9 a10 {b} {c}"), "a:11").await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_ahead_of_this_node_gets_nothing_twice() {
    let (hub, _) = attached(&[("a", "1 2 3")]);
    let from = Wish { from: Some(From::All(6)), ..Wish::default() };
    check(&hub, from, &["a 4", "a 5", "a 6", "a 7"], "", "a:6 a:7").await;
}

#[tokio::test(start_paused = true)]
async fn numbers_that_began_again_are_told_and_gone_on_with() {
    // A source whose numbers end below what is asked for says a gap that ends before its newest.
    let (hub, _) = attached(&[("a", "9-2 3")]);
    let from = Wish { from: Some(From::All(9)), ..Wish::default() };
    check(&hub, from, &["a 3", "a 4"], "a9-2 a3", "a:4").await;
}

#[tokio::test(start_paused = true)]
async fn series_are_resumed_each_from_its_own_number() {
    let (hub, _) = attached(&[("a", "1 2 3"), ("b", "1 2 3")]);
    let each = [(SeriesName::new("a").expect("a name"), 3)].into();
    let wish = Wish { snapshot: true, from: Some(From::Each(each)), epoch: None };
    check(&hub, wish, &["b 4", "a 4"], "a3 b=3", "b:4 a:4").await;
}

#[tokio::test(start_paused = true)]
async fn a_series_that_is_named_is_resumed_by_one_number_as_by_its_own() {
    let each = From::Each([(SeriesName::new("a").expect("a name"), 9)].into());
    for from in [From::All(9), each] {
        let (hub, _) = attached(&[]);
        let mut reader = join(&hub, &["a"], false);
        let wish = Wish { from: Some(from), ..Wish::default() };
        let past = hub.past(&mut reader, &wish, soon()).await.expect("a past");
        assert_eq!(past.items.len(), 1, "{past:?}");
        let Some(PastItem::Event(gap)) = past.items.front() else { panic!("{past:?}") };
        assert_eq!(word(gap), "9-0:lost");
        assert_eq!(past.silent.iter().map(SeriesName::as_str).collect::<Vec<_>>(), ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_that_begins_later_does_not_bring_is_told() {
    for (patterns, from, want) in [
        // The window of the model is 2.
        (&["*"][..], 9, "a:9-1 a:2 a:3"),
        (&["*"], 1, "a:1-1:failed a:2 a:3"),
        (&["*"], 2, "a:2 a:3"),
        (&["a"], 1, "a:1-1:failed a:2 a:3"),
    ] {
        for conflate in [false, true] {
            let (hub, _) = attached(&[]);
            let mut reader = join(&hub, patterns, conflate);
            let wish = Wish { from: Some(From::All(from)), ..Wish::default() };
            let past = hub.past(&mut reader, &wish, soon()).await.expect("a past");
            assert!(past.items.is_empty() && past.next.is_empty(), "{past:?}");
            assert_eq!(reader.place(), None);
            events("a", "2 3").into_iter().for_each(|event| hub.publish(event));
            assert_eq!(read(&mut reader).1, want, "{patterns:?} {conflate}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_not_heard_of_in_time_is_lost_and_a_full_reader_is_told_once() {
    let (hub, _) = attached(&[]);
    let mut reader = join(&hub, &["*"], false);
    let wish = Wish { from: Some(From::All(3)), ..Wish::default() };
    hub.past(&mut reader, &wish, soon()).await.expect("a past");
    events("a", "7 8").into_iter().for_each(|event| hub.publish(event));
    let mut got = String::new();
    for room in [0, 1, 1, 1] {
        let mut left = room;
        reader.read(Some(Waker::noop()), |frame| {
            let taken = left > 0;
            if taken {
                left -= 1;
                got += std::str::from_utf8(frame).expect("words");
            }
            taken
        });
    }
    assert_eq!(got, "a:3-6 a:7 a:8 ");
}

#[tokio::test(start_paused = true)]
async fn a_conflating_reader_that_was_overtaken_is_told_what_a_stream_did_not_bring() {
    let (hub, _) = attached(&[]);
    let mut reader = join(&hub, &["*"], true);
    let wish = Wish { from: Some(From::All(9)), ..Wish::default() };
    hub.past(&mut reader, &wish, soon()).await.expect("a past");
    (2..200).for_each(|seq| hub.publish(event("a", &seq.to_string())));
    let got = read(&mut reader).1;
    assert!(got.starts_with("a:9-1 a:2-"), "{got}");
    assert!(got.ends_with(" a:199"), "{got}");
}

#[tokio::test(start_paused = true)]
async fn a_series_without_a_prediction_is_silent_for_all_who_name_it() {
    let (hub, _) = attached(&[("b", "1 2")]);
    let each = From::Each([(SeriesName::new("a").expect("a name"), 9)].into());
    for from in [Some(each), None] {
        let mut reader = join(&hub, &["a", "b"], false);
        let past = hub.past(&mut reader, &Wish { from, ..Wish::default() }, soon()).await.expect("a past");
        assert_eq!(past.next.len(), 2, "{past:?}");
        assert_eq!(past.silent.iter().map(SeriesName::as_str).collect::<Vec<_>>(), ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_serves_is_refused() {
    let (hub, _) = attached(&[]);
    let mut reader = hub.join(Selector::new("x", vec![pattern("*")], FORM), false, Opener(0)).expect("room");
    let past = hub.past(&mut reader, &Wish::default(), soon()).await;
    assert_eq!(past.err(), Some(PastError::Source(SourceError::UnknownModel("x".to_owned()))));
}

/// What a reader is told first, and what after the events `then`.
async fn check(hub: &Hub, wish: Wish, then: &[&str], want_past: &str, want_live: &str) {
    let mut reader = join(hub, &["*"], false);
    let past = hub.past(&mut reader, &wish, soon()).await.expect("a past");
    let told = past.items.iter().map(|item| match item {
        PastItem::Snapshot(one) => format!("{}={}", one.stream.series, one.seq),
        PastItem::Event(StreamEvent::Prediction(one)) => format!("{}{}", one.stream.series, one.seq),
        PastItem::Event(event @ StreamEvent::Gap(gap)) => format!("{}{}", gap.stream.series, word(event)),
    });
    assert_eq!(told.collect::<Vec<_>>().join(" "), want_past);
    for one in then {
        let (series, word) = one.split_once(' ').expect("a series and a word");
        hub.publish(event(series, word));
    }
    assert_eq!(read(&mut reader).1, want_live);
}

/// Frames are words, counted.
struct Words(Arc<AtomicUsize>);

impl Render for Words {
    fn render(&self, _: Form, item: Item<'_>) -> Bytes {
        self.0.fetch_add(1, Ordering::SeqCst);
        let text = match item {
            Item::Prediction(one) => format!("{}:{} ", one.stream.series, one.seq),
            Item::Snapshot(one) => format!("{}={} ", one.stream.series, one.seq),
            Item::Gap(gap) => match gap.reason {
                GapReason::Failed => format!("{}:{}-{}:failed ", gap.stream.series, gap.from, gap.to),
                _ => format!("{}:{}-{} ", gap.stream.series, gap.from, gap.to),
            },
        };
        text.into()
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Has streams of the model `m`.
#[derive(Default)]
struct Fake {
    streams: HashMap<String, Vec<StreamEvent>>,
    replays: AtomicUsize,
    told: Mutex<Vec<String>>,
}

impl Fake {
    fn told(&self) -> Vec<String> {
        self.told.lock().expect("no holder panics").clone()
    }
}

#[async_trait]
impl Source for Fake {
    async fn ticks(&self, _: Vec<Tick>, _: Deadline) -> Vec<Result<Effect, TickError>> {
        Vec::new()
    }

    fn wanted(&self, wanted: Vec<(Arc<str>, Pattern)>) {
        let patterns: Vec<_> = wanted.iter().map(|(_, pattern)| pattern.as_str()).collect();
        self.told.lock().expect("no holder panics").push(patterns.join(" "));
    }

    async fn replay(
        &self,
        stream: &StreamId,
        from: u64,
        _: Deadline,
    ) -> Result<Vec<StreamEvent>, SourceError> {
        self.replays.fetch_add(1, Ordering::SeqCst);
        let Some(all) = self.streams.get(stream.series.as_str()).cloned() else {
            return match from {
                ..=1 => Err(SourceError::UnknownSeries(stream.series.to_string())),
                _ => Ok(vec![lost(stream, from, 0)]),
            };
        };
        let last = |event: &StreamEvent| match event {
            StreamEvent::Prediction(one) => one.seq,
            StreamEvent::Gap(gap) => gap.to,
        };
        let begins_again =
            |event: &StreamEvent| matches!(event, StreamEvent::Gap(gap) if gap.from == from && gap.to < from);
        let again = all.iter().any(begins_again);
        Ok(all.into_iter().filter(|event| again || last(event) >= from).collect())
    }

    async fn newest(
        &self,
        model: &str,
        pattern: &Pattern,
        _: Deadline,
    ) -> Result<Vec<Arc<Prediction>>, SourceError> {
        if model != "m" {
            return Err(SourceError::UnknownModel(model.to_owned()));
        }
        let matching = self.streams.iter().filter(|(series, _)| pattern.matches(series));
        let newest = matching.filter_map(|(_, events)| match events.last() {
            Some(StreamEvent::Prediction(one)) => Some(Arc::clone(one)),
            _ => None,
        });
        Ok(newest.collect())
    }

    async fn log(&self, series: &SeriesName, _: Deadline) -> Result<SeriesLog, SourceError> {
        Err(SourceError::UnknownSeries(series.to_string()))
    }

    async fn list(&self, _: &Pattern, _: Option<&SeriesName>, _: usize, _: Deadline) -> Listing {
        Listing::default()
    }
}

fn lost(stream: &StreamId, from: u64, to: u64) -> StreamEvent {
    StreamEvent::Gap(Gap { stream: stream.clone(), from, to, reason: GapReason::Lost })
}

fn hub(frames_max: usize) -> (Hub, Arc<AtomicUsize>) {
    let limits = HubLimits {
        log_frames_max: frames_max,
        channels_max: 8,
        grace: Duration::ZERO,
        ..HubLimits::default()
    };
    let rendered = Arc::new(AtomicUsize::new(0));
    (Hub::new(Arc::new(Words(Arc::clone(&rendered))), limits), rendered)
}

fn attached(streams: &[(&str, &str)]) -> (Hub, Arc<Fake>) {
    let (hub, _) = hub(64);
    let streams = streams.iter().map(|(series, words)| ((*series).to_owned(), events(series, words)));
    let source = Arc::new(Fake { streams: streams.collect(), ..Fake::default() });
    drop(tokio::spawn(hub.attach(Arc::clone(&source) as Arc<dyn Source>, Arc::new(SystemClock))));
    (hub, source)
}

fn soon() -> Deadline {
    Deadline::after(SystemClock.now(), Duration::from_secs(5))
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a pattern")
}

fn selector(patterns: &[&str]) -> Selector {
    Selector::new("m", patterns.iter().map(|text| pattern(text)).collect(), FORM)
}

fn join(hub: &Hub, patterns: &[&str], conflate: bool) -> Subscription {
    hub.join(selector(patterns), conflate, Opener(0)).expect("room for a channel")
}

fn read(reader: &mut Subscription) -> (Read, String) {
    let mut text = String::new();
    let end = reader.read(Some(Waker::noop()), |frame| {
        text += std::str::from_utf8(frame).expect("words");
        true
    });
    (end, text.trim_end().to_owned())
}

/// Reads until so many frames have come.
async fn settled(reader: &mut Subscription, count: usize) -> String {
    let mut text = String::new();
    while text.split_whitespace().count() < count {
        text += &read(reader).1;
        text.push(' ');
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

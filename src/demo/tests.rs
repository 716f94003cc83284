//! A source that writes down what it was fed and when, a clock that moves when the feeder pauses.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Mutex;

use peregrine_actors::series::{Effect, Listing, Pattern, SeriesLog, SeriesName, Tick, TickError};
use peregrine_actors::stream::{Prediction, SourceError, StreamEvent, StreamId};
use peregrine_runtime::ManualClock;

use super::*;
use crate::series_store::SeriesStore;

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn windows_fill_at_once_and_then_ticks_come_at_the_rate() {
    let fed = run(Pace { history_len: 3, rate: 20.0 }, &[], 10).await;
    let times: Vec<u128> = fed.iter().map(|(_, at)| at.as_millis()).collect();
    assert_eq!(times, [0, 0, 0, 0, 0, 0, 0, 50, 100, 150]);
    let values: Vec<f32> = fed.iter().map(|(tick, _)| tick.value.unwrap()).collect();
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0]);
}

#[tokio::test]
async fn high_rates_are_sent_several_at_a_time() {
    let fed = run(Pace { history_len: 0, rate: 250.0 }, &[], 7).await;
    let times: Vec<u128> = fed.iter().map(|(_, at)| at.as_millis()).collect();
    assert_eq!(times, [0, 0, 0, 12, 12, 12, 24]);
}

#[tokio::test]
async fn what_is_refused_is_sent_again_after_the_time_that_was_asked_for() {
    let overloaded = || Err(TickError::Overloaded { retry_after_ms: 70 });
    let answers =
        [new(), overloaded(), new(), overloaded(), new(), Err(TickError::Unavailable(String::new()))];
    let fed = run(Pace { history_len: 1, rate: 10.0 }, &answers, 4).await;
    let got: Vec<_> = fed.iter().map(|(tick, at)| (tick.value.unwrap(), at.as_millis())).collect();
    // Two fill the windows, the second of them later. The third comes at once and is refused too; the fourth, due 100 ms
    // after that one was sent, is refused for a second.
    assert_eq!(got, [(1.0, 0), (2.0, 70), (3.0, 140), (4.0, 1170)]);
}

#[tokio::test]
async fn what_can_never_be_taken_is_left_out() {
    for refused in [TickError::Invalid("no".to_owned()), TickError::Full { series_max: 1 }] {
        let fed = run(Pace { history_len: 1, rate: 10.0 }, &[Err(refused), new()], 3).await;
        let got: Vec<_> = fed.iter().map(|(tick, at)| (tick.value.unwrap(), at.as_millis())).collect();
        assert_eq!(got, [(2.0, 0), (3.0, 0), (4.0, 100)]);
    }
}

#[tokio::test]
async fn what_can_never_be_taken_costs_its_time() {
    let invalid = || Err(TickError::Invalid("no".to_owned()));
    let fed = run(Pace { history_len: 0, rate: 10.0 }, &[invalid(), invalid(), new()], 2).await;
    let times: Vec<u128> = fed.iter().map(|(_, at)| at.as_millis()).collect();
    assert_eq!(times, [200, 300]);
}

#[tokio::test]
async fn what_the_windows_have_already_costs_no_time() {
    let known = || Ok(Effect::Duplicate { seq: 1 });
    let late = || Ok(Effect::TooLate { seq: 1 });
    let fed = run(Pace { history_len: 0, rate: 10.0 }, &[late(), known(), known(), new()], 6).await;
    let times: Vec<u128> = fed.iter().map(|(_, at)| at.as_millis()).collect();
    assert_eq!(times, [0, 0, 0, 0, 100, 200]);
}

#[test]
fn a_batch_that_is_far_behind_is_not_followed_by_a_burst() {
    let start = Instant::now();
    assert_eq!(next(start, 50 * MS, start + 60 * MS), start + 50 * MS);
    assert_eq!(next(start, 50 * MS, start + 5000 * MS), start + 5000 * MS);
    assert_eq!(batches(1.0), (1, Duration::from_secs(1)));
    assert_eq!(batches(1000.0), (10, 10 * MS));
}

fn new() -> Result<Effect, TickError> {
    Ok(Effect::Advanced { seq: 1 })
}

/// What the series took, and when, until they have so many; answers beyond the given ones are that a tick is new.
async fn run(pace: Pace, answers: &[Result<Effect, TickError>], until: usize) -> Vec<(Tick, Duration)> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"unique_id,ds,v\nA,1,1\nA,2,3\nA,3,5\nB,1,2\nB,2,4\nB,3,6\n").unwrap();
    let replay = Replay::new(&SeriesStore::load(file.path(), &["v"]).unwrap(), "", "v").unwrap();
    let clock = Arc::new(ManualClock::new());
    let (full_to, mut full) = tokio::sync::mpsc::channel(1);
    let source = Arc::new(Fake {
        clock: clock.clone(),
        start: clock.now(),
        answers: Mutex::new(answers.iter().cloned().collect()),
        taken: Mutex::default(),
        until,
        full: full_to,
    });
    let pause = Arc::new(Jump(clock.clone()));
    let demo = Demo::start(replay, pace, source.clone(), clock, pause);
    full.recv().await.unwrap();
    drop(demo);
    let mut taken = source.taken.lock().unwrap().clone();
    taken.truncate(until);
    taken
}

struct Jump(Arc<ManualClock>);

#[async_trait]
impl Pause for Jump {
    async fn pause(&self, time: Duration) {
        self.0.advance(time);
        tokio::task::yield_now().await;
    }
}

struct Fake {
    clock: Arc<ManualClock>,
    start: Instant,
    answers: Mutex<VecDeque<Result<Effect, TickError>>>,
    taken: Mutex<Vec<(Tick, Duration)>>,
    until: usize,
    full: tokio::sync::mpsc::Sender<()>,
}

#[async_trait]
impl Source for Fake {
    async fn ticks(&self, ticks: Vec<Tick>, _: Deadline) -> Vec<Result<Effect, TickError>> {
        let at = self.clock.now() - self.start;
        let mut answer = |tick: Tick| {
            let answer = self.answers.lock().unwrap().pop_front().unwrap_or_else(new);
            if answer.is_ok() {
                self.taken.lock().unwrap().push((tick, at));
            }
            answer
        };
        let answers = ticks.into_iter().map(&mut answer).collect();
        if self.taken.lock().unwrap().len() >= self.until {
            let _ = self.full.try_send(()); // once is enough
        }
        answers
    }

    fn wanted(&self, _: Vec<(Arc<str>, Pattern)>) {}

    async fn replay(&self, _: &StreamId, _: u64, _: Deadline) -> Result<Vec<StreamEvent>, SourceError> {
        Ok(Vec::new())
    }

    async fn newest(&self, _: &str, _: &Pattern, _: Deadline) -> Result<Vec<Arc<Prediction>>, SourceError> {
        Ok(Vec::new())
    }

    async fn log(&self, series: &SeriesName, _: Deadline) -> Result<SeriesLog, SourceError> {
        Err(SourceError::UnknownSeries(series.to_string()))
    }

    async fn list(&self, _: &Pattern, _: Option<&SeriesName>, _: usize, _: Deadline) -> Listing {
        Listing::default()
    }
}

//! Predictions that are made in the thread that took their tick, and what must not wait for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use peregrine_shaders::NotServed;

use super::fake::{Mode, Staying};
use super::series::{Hub, L, everything, feed, start, tick, ticks};
use super::{Rig, until};
use crate::series::{Alone, Effect, Series, Tick};
use crate::stream::{GapReason, StreamEvent};
use crate::{Profile, Settings};

/// A model that stays on its device, whose pace is known, and series that have it forecast.
async fn staying(change: impl FnOnce(&mut Settings)) -> (Rig, Arc<Hub>, Series) {
    let rig = Rig::gpu(|settings| {
        settings.profiles.default = Profile::UltraLowLatency;
        change(settings);
    })
    .await;
    for _ in 0..2 {
        rig.ask().await.unwrap();
    }
    let hub = Arc::<Hub>::default();
    let series = start(&rig.system, &hub, None, Arc::new(Alone));
    series.want("here", everything());
    (0..4).for_each(|shard| series.gained(shard, 9));
    (rig, hub, series)
}

fn seqs(hub: &Hub) -> Vec<u64> {
    hub.predictions().iter().map(|prediction| prediction.seq).collect()
}

#[tokio::test]
async fn a_model_that_stays_is_asked_by_who_took_the_tick() {
    let (rig, hub, series) = staying(|_| {}).await;
    feed(&series, 9, ticks("a", 0..L)).await;
    // This runtime has one thread and nothing above waits: no task can have run.
    assert_eq!((seqs(&hub), series.stats().in_line), (vec![L as u64], 1));
    for at in L..L + 5 {
        feed(&series, 9, vec![tick("a", at)]).await;
        assert_eq!(seqs(&hub).last(), Some(&(at as u64 + 1)));
    }
    assert_eq!((series.stats().in_line, series.stats().predictions), (6, 6));
    assert_eq!(rig.gpu.answered_staying(), 8);
}

#[tokio::test]
async fn other_profiles_leave_it_to_the_task() {
    let (_rig, hub, series) = staying(|settings| settings.profiles.default = Profile::Balanced).await;
    feed(&series, 9, ticks("a", 0..L)).await;
    assert_eq!(seqs(&hub), [0; 0]);
    until("the task makes it", || seqs(&hub) == [L as u64]).await;
    assert_eq!(series.stats().in_line, 0);
}

#[tokio::test]
async fn several_windows_leave_together() {
    let (rig, hub, series) = staying(|_| {}).await;
    feed(&series, 9, ticks("a", 0..L + 3)).await;
    assert_eq!(seqs(&hub), [0; 0]);
    until("the task makes them", || hub.predictions().len() == 4).await;
    assert_eq!((rig.gpu.rows(), series.stats().in_line), (vec![4], 0));
}

#[tokio::test]
async fn ticks_are_acknowledged_while_a_prediction_takes_long() {
    let (rig, hub, series) = staying(|_| {}).await;
    rig.gpu.set_staying(Staying::Not(NotServed::Away));
    rig.gpu.set(Mode::Hang);
    for at in 0..L + 3 {
        let effects = feed(&series, 9, vec![tick("a", at)]).await;
        assert_eq!(effects, [Ok(Effect::Advanced { seq: at as u64 + 1 })]);
    }
    until("the device has the first", || rig.gpu.entered() == 1).await;
    assert_eq!((seqs(&hub), series.stats().acknowledged), (vec![], L as u64 + 3));
    rig.gpu.set_staying(Staying::Serves);
    feed(&series, 9, vec![tick("a", L + 3)]).await;
    assert_eq!(seqs(&hub), [0; 0], "it does not overtake those before it");
    rig.gpu.set(Mode::Good);
    until("all of them", || hub.predictions().len() == 5).await;
    assert_eq!(seqs(&hub), (L as u64..L as u64 + 5).collect::<Vec<_>>());
    assert_eq!(series.stats().in_line, 0);
}

#[tokio::test]
async fn a_device_that_has_become_slow_is_not_waited_for() {
    let (rig, hub, series) = staying(|_| {}).await;
    rig.gpu.set_staying(Staying::Not(NotServed::Away));
    rig.gpu.set(Mode::Slow(std::time::Duration::from_millis(5)));
    for _ in 0..3 {
        rig.ask().await.unwrap();
    }
    feed(&series, 9, ticks("a", 0..L)).await;
    assert_eq!(seqs(&hub), [0; 0]);
    until("the task makes it", || seqs(&hub) == [L as u64]).await;
}

#[tokio::test]
async fn what_has_no_window_is_told_after_the_predictions_before_it() {
    let (_rig, hub, series) = staying(|settings| settings.profiles.default = Profile::Balanced).await;
    let unseen = |at| Tick { value: None, ..tick("a", at) };
    // Of the first full window one value is known, of the next two none, and of the last one again.
    let mut all = vec![tick("a", 0)];
    all.extend((1..L + 2).map(unseen));
    all.push(tick("a", L + 2));
    feed(&series, 9, all).await;
    until("all is told", || hub.events.lock().len() == 3).await;
    let told = |(_, event): &(_, StreamEvent)| match event {
        StreamEvent::Prediction(prediction) => (prediction.seq, prediction.seq, None),
        StreamEvent::Gap(gap) => (gap.from, gap.to, Some(gap.reason)),
    };
    let told: Vec<_> = hub.events.lock().iter().map(told).collect();
    let first = L as u64;
    let nothing = (first + 1, first + 2, Some(GapReason::Failed));
    assert_eq!(told, [(first, first, None), nothing, (first + 3, first + 3, None)]);
    assert_eq!((series.stats().predictions, series.stats().failed), (2, 1));
}

#[tokio::test]
async fn a_failure_in_line_is_told_as_a_gap_and_holds_up_nothing() {
    let (rig, hub, series) = staying(|settings| settings.fallback = crate::FallbackPolicy::Never).await;
    rig.gpu.set_staying(Staying::Not(NotServed::Silent));
    rig.gpu.set(Mode::Panic);
    feed(&series, 9, ticks("a", 0..L)).await;
    until(
        "a gap says so",
        || matches!(&hub.events.lock()[..], [(_, StreamEvent::Gap(gap))] if gap.from == L as u64),
    )
    .await;
    assert_eq!(series.stats().failed, 1);
    rig.gpu.set(Mode::Good);
    rig.gpu.set_staying(Staying::Serves);
    rig.recover("the device is back", || rig.gpu.built() == 2).await;
    feed(&series, 9, vec![tick("a", L)]).await;
    until("the next is told of", || hub.events.lock().len() == 2).await;
    let (_, next) = hub.events.lock()[1].clone();
    let seq = match next {
        StreamEvent::Prediction(prediction) => prediction.seq,
        StreamEvent::Gap(gap) => gap.from,
    };
    assert_eq!(seq, L as u64 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn predictions_of_one_stream_never_overtake_each_other() {
    const TICKS: i64 = 300;
    let (_rig, hub, series) = staying(|_| {}).await;
    for name in ["a", "b"] {
        feed(&series, 9, ticks(name, 0..L)).await;
    }
    let mut feeders = Vec::new();
    for name in ["a", "b"] {
        let next = Arc::new(AtomicI64::new(L));
        for _ in 0..2 {
            let (series, next) = (series.clone(), Arc::clone(&next));
            feeders.push(tokio::spawn(async move {
                let mut windows = 0;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= L + TICKS {
                        return windows;
                    }
                    // One that was kept away for long may come too late.
                    let effect = feed(&series, 9, vec![tick(name, at)]).await.remove(0).unwrap();
                    windows += u64::from(matches!(effect, Effect::Advanced { .. } | Effect::Inserted { .. }));
                }
            }));
        }
    }
    let mut windows = 2;
    for feeder in feeders {
        windows += feeder.await.unwrap();
    }
    assert!(windows > TICKS as u64, "{windows}");
    let counted = || series.stats().predictions + series.stats().conflated + series.stats().failed;
    until("every window is accounted for", || counted() >= windows).await;
    assert_eq!(counted(), windows);
    let mut last = BTreeMap::new();
    for prediction in hub.predictions() {
        let before = last.insert(prediction.stream.series.clone(), prediction.seq);
        assert!(before < Some(prediction.seq), "{before:?} before {}", prediction.seq);
    }
    assert!(series.stats().in_line > 0);
}

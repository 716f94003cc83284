//! What nodes say to each other about series, as a function of bytes; see [`crate::fuzzing`].

use std::sync::{Arc, LazyLock};

use peregrine_actors::Trace;
use peregrine_actors::series::{
    Effect, Holder, Pattern, SeriesEntry, SeriesName, Shard, ShardLimits, Tick, TickError, Timestamp,
};
use peregrine_actors::stream::SourceError;
use peregrine_shaders::ModelSpec;

use super::desk::parent;
use super::wire::{
    Ask, Impossible, NodeAnswer, NodeAsk, ShardAnswer, ShardAsk, WireEvent, WireLog, WireTick, ends, gap,
    heard, name, names, said, stream, taken, wanted,
};
use crate::fuzzing::{answer, message};
use crate::testing::point_spec;

/// Under which this node owns its shard.
const EPOCH: u64 = 2;
static SPEC: LazyLock<Arc<ModelSpec>> = LazyLock::new(|| Arc::new(point_spec(3, 2)));
static LIMITS: LazyLock<ShardLimits> = LazyLock::new(|| {
    let steps = vec![(Pattern::new("grid*").expect("a pattern"), 1000)];
    ShardLimits { history: 8, series_max: 4, steps }
});

/// A question to the owner of a shard, its answer, a question to a node, or its answer: the first byte chooses.
pub fn series(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    let sound = match choice % 4 {
        0 => message(bytes).map(fed),
        1 => answer::<ShardAsk>(bytes).map(effects),
        2 => message(bytes).map(|Ask(question)| asked(question)),
        _ => answer::<Ask>(bytes).map(answered),
    };
    matches!(sound, Some(Ok(())))
}

fn fed(question: ShardAsk) -> Result<(), Impossible> {
    let ticks = match question {
        ShardAsk::Where => return Ok(()),
        ShardAsk::Ticks(ticks) => ticks,
        ShardAsk::Traced(ticks, trace, span) => {
            let _ = parent(trace, span, "");
            ticks
        }
        ShardAsk::Stated(ticks, trace, span, state) => {
            let _ = parent(trace, span, &state);
            ticks
        }
    };
    let ticks: Vec<Tick> = ticks.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    let mut shard = Shard::default();
    for tick in &ticks {
        let _ = shard.feed(tick, EPOCH, &LIMITS);
        assert_eq!(Tick::try_from(WireTick::from(tick.clone())).as_ref(), Ok(tick));
    }
    held(&mut shard);
    Ok(())
}

fn effects(answer: ShardAnswer) -> Result<(), Impossible> {
    if let ShardAnswer::Effects(effects) = answer {
        effects.into_iter().for_each(|effect| drop(Result::<Effect, TickError>::from(effect)));
    }
    Ok(())
}

fn asked(question: NodeAsk) -> Result<(), Impossible> {
    match question {
        NodeAsk::Replicate { epoch, logs, .. } => {
            let mut shard = Shard::default();
            shard.raise(EPOCH);
            shard.raise(epoch);
            copied(&mut shard, logs)
        }
        NodeAsk::Ends { .. } => Ok(()),
        NodeAsk::Fetch { series, .. } => names(&series).map(drop),
        NodeAsk::Want { wanted: pairs, .. } => wanted(&pairs).map(drop),
        NodeAsk::Deliver(events) => told(events),
        NodeAsk::Replay { model, series, .. } => stream(&model, &series).map(drop),
        NodeAsk::Newest { pattern, .. } => Pattern::new(&pattern).map(drop).map_err(|_| Impossible),
        NodeAsk::Log { series } => name(&series).map(drop),
        NodeAsk::List { pattern, after, .. } => {
            Pattern::new(&pattern).map_err(|_| Impossible)?;
            after.as_deref().map(name).transpose().map(drop)
        }
    }
}

fn answered(answer: NodeAnswer) -> Result<(), Impossible> {
    match answer {
        NodeAnswer::Taken(answers) => {
            let holder: Holder = ("copy".into(), 1);
            let mut shard = Shard::default();
            for (name, taken) in taken(answers)? {
                let _ = shard.feed(&tick(&name, 1), EPOCH, &LIMITS);
                shard.answered(&holder, &name, taken);
                assert!(shard.lacking(&holder, [&name]).iter().all(|log| log.ticks.len() == 1));
            }
            Ok(())
        }
        NodeAnswer::Ends(found) => ends(found).map(drop),
        NodeAnswer::Logs(logs) => copied(&mut Shard::default(), logs),
        NodeAnswer::Events(events) => told(events),
        NodeAnswer::Listed(entries, _) => {
            entries.into_iter().try_for_each(|entry| SeriesEntry::try_from(entry).map(drop))
        }
        NodeAnswer::Refused(why) => {
            drop(SourceError::from(why));
            Ok(())
        }
        NodeAnswer::Done | NodeAnswer::Fenced | NodeAnswer::Failed(_) => Ok(()),
    }
}

fn copied(shard: &mut Shard, logs: Vec<WireLog>) -> Result<(), Impossible> {
    for log in heard(logs)? {
        assert!(LIMITS.missing(&log, &SPEC) <= SPEC.window);
        let _ = shard.take(&log, &LIMITS);
    }
    held(shard);
    Ok(())
}

/// What is held can be handed on, and goes on.
fn held(shard: &mut Shard) {
    assert!(shard.len() <= LIMITS.series_max);
    let mut ends = shard.ends();
    ends.sort_by(|one, next| one.series.cmp(&next.series));
    let mut copy = Shard::default();
    for end in &ends {
        let whole = shard.whole(&end.series).expect("it is held");
        assert!((1..=LIMITS.history).contains(&whole.ticks.len()));
        let again = heard(said(vec![whole])).expect("what is held can be said");
        assert_eq!(again.len(), 1, "as one log");
        let _ = copy.take(&again[0], &LIMITS);
    }
    let mut copied = copy.ends();
    copied.sort_by(|one, next| one.series.cmp(&next.series));
    assert_eq!(copied, ends, "a copy holds as much");
    for end in ends {
        let fed = shard.feed(&tick(&end.series, i64::MAX), end.epoch.max(EPOCH), &LIMITS);
        assert!(fed.is_ok_and(|effect| effect.seq() >= end.seq));
        assert!(shard.get(&end.series).is_some_and(|history| history.first_seq() <= history.seq()));
    }
}

fn tick(series: &SeriesName, at: i64) -> Tick {
    let (hist_exog, futr_exog, stat_exog) = (Vec::new(), Vec::new(), Vec::new());
    let (at, trace) = (Timestamp(at), Trace::default());
    Tick { series: series.clone(), at, value: Some(1.0), hist_exog, futr_exog, stat_exog, trace }
}

fn told(events: Vec<WireEvent>) -> Result<(), Impossible> {
    for event in events {
        match event {
            WireEvent::Gap { model, series, from, to, reason } => {
                let gap = gap(&model, &series, from, to, reason)?;
                assert!(gap.from <= gap.to);
            }
            WireEvent::Prediction(prediction) => {
                let prediction = prediction.with(Arc::clone(&SPEC))?;
                assert_eq!(prediction.values.len(), SPEC.answer_len());
            }
        }
    }
    Ok(())
}

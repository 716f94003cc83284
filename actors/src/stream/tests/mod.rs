//! Streams as words: `7` is a prediction, `7'` one of the next epoch, `3-5` a gap.

mod hub;
mod order;

use std::sync::Arc;

use peregrine_shaders::{Family, Head, ModelSpec, NormalizerKind};

use super::*;
use crate::series::{SeriesName, Timestamp};

fn stream(series: &str) -> StreamId {
    StreamId { model: "m".into(), series: SeriesName::new(series).expect("a name") }
}

fn spec() -> Arc<ModelSpec> {
    Arc::new(ModelSpec {
        name: "m".to_owned(),
        family: Family::Mlp,
        horizon: 1,
        window: 2,
        series: 1,
        normalizer: NormalizerKind::Identity,
        head: Head::Point,
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: vec!["mean".to_owned()],
    })
}

fn prediction(series: &str, seq: u64, epoch: u64) -> Arc<Prediction> {
    let at = Timestamp(0);
    Arc::new(Prediction {
        stream: stream(series),
        seq,
        epoch,
        position: seq,
        last: at,
        accepted_at: Some(at),
        made_at: at,
        spec: spec(),
        version: 1,
        values: Box::new([0.5]),
        backend: "cpu".into(),
        degraded: false,
    })
}

/// Of one series, from its words.
fn events(series: &str, words: &str) -> Vec<StreamEvent> {
    words.split_whitespace().map(|word| event(series, word)).collect()
}

fn event(series: &str, word: &str) -> StreamEvent {
    let number = |text: &str| text.parse().expect("a number");
    if let Some((from, to)) = word.split_once('-') {
        let (to, reason) = match to.split_once(':') {
            Some((to, "expired")) => (to, GapReason::Expired),
            Some((_, reason)) => panic!("no test has {reason}"),
            None => (to, GapReason::Conflated),
        };
        let (from, to, stream) = (number(from), number(to), stream(series));
        return StreamEvent::Gap(Gap { stream, from, to, reason });
    }
    let seq = word.trim_end_matches('\'');
    let epoch = 1 + (word.len() - seq.len()) as u64;
    StreamEvent::Prediction(prediction(series, number(seq), epoch))
}

fn word(event: &StreamEvent) -> String {
    match event {
        StreamEvent::Prediction(one) => {
            format!("{}{}", one.seq, "'".repeat(usize::try_from(one.epoch - 1).expect("few")))
        }
        StreamEvent::Gap(gap) => match gap.reason {
            GapReason::Conflated => format!("{}-{}", gap.from, gap.to),
            reason => format!("{}-{}:{}", gap.from, gap.to, reason.name()),
        },
    }
}

fn words(events: &[StreamEvent]) -> String {
    events.iter().map(word).collect::<Vec<_>>().join(" ")
}

//! What the scorecard costs a prediction: one truth and one prediction of 24 steps and 5 quantiles, in turn.
//!
//! `cargo run --release -p peregrine_actors --example scorecard_cost`

use std::sync::Arc;
use std::time::Instant;

use peregrine_actors::scorecard::{Question, Scorecard};
use peregrine_actors::series::{SeriesName, Timestamp};
use peregrine_actors::stream::{Prediction, StreamId};
use peregrine_shaders::{Family, Head, ModelSpec, NormalizerKind};

const HORIZON: usize = 24;
const COLUMNS: [&str; 5] = ["median", "lo-80", "hi-80", "lo-95", "hi-95"];

fn main() {
    println!("{:>8} {:>12} {:>12} {:>12} {:>10}", "series", "ns/tick", "…observed", "…predicted", "MB");
    for series_count in [1, 100, 1000, 10_000] {
        measure(series_count, 2_000_000 / series_count.max(100));
    }
}

fn measure(series_count: usize, place_count: usize) {
    let spec = Arc::new(ModelSpec {
        name: "m".to_owned(),
        family: Family::Nhits,
        horizon: HORIZON,
        window: 168,
        series: 1,
        normalizer: NormalizerKind::Identity,
        head: Head::Quantiles(vec![0.5, 0.1, 0.9, 0.025, 0.975]),
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: COLUMNS.map(str::to_owned).to_vec(),
    });
    let mut predictions: Vec<Prediction> = (0..series_count)
        .map(|at| Prediction {
            stream: StreamId {
                model: Arc::from("m"),
                series: SeriesName::new(&format!("series/{at}")).expect("a name"),
            },
            seq: 0,
            epoch: 0,
            position: 0,
            last: Timestamp(0),
            accepted_at: None,
            made_at: Timestamp(0),
            spec: Arc::clone(&spec),
            version: 1,
            values: (0..HORIZON * COLUMNS.len()).map(|at| (at % 7) as f32).collect(),
            backend: Arc::from("cpu"),
            degraded: false,
        })
        .collect();
    let card = Scorecard::default();
    let mut tick = |place: usize, observed: &mut f64, predicted: &mut f64| {
        let start = Instant::now();
        for prediction in &predictions {
            card.observed(&prediction.stream.series, place as u64, (place % 5) as f32);
        }
        *observed += start.elapsed().as_secs_f64();
        predictions.iter_mut().for_each(|prediction| prediction.position = place as u64);
        let start = Instant::now();
        for prediction in &predictions {
            card.predicted(prediction);
        }
        *predicted += start.elapsed().as_secs_f64();
    };
    // Until every step of every stream is scored at each truth.
    for place in 0..2 * HORIZON {
        tick(place, &mut 0.0, &mut 0.0);
    }
    let (mut observed, mut predicted) = (0.0, 0.0);
    for place in 2 * HORIZON..2 * HORIZON + place_count {
        tick(place, &mut observed, &mut predicted);
    }
    let each = 1e9 / (series_count * place_count) as f64;
    let megabytes = card.status().bytes as f64 / 1e6;
    println!(
        "{series_count:>8} {:>12.0} {:>12.0} {:>12.0} {megabytes:>10.1}",
        (observed + predicted) * each,
        observed * each,
        predicted * each
    );
    let start = Instant::now();
    let scores = card.scores(Question { by_step: true, ..Question::default() });
    println!("{:>8} all scores, by step: {:?}, {} lines", "", start.elapsed(), scores.len());
}

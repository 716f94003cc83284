//! Records as bytes, chains of them, and a store that fails when it is told to.

mod chain;
mod failing;
mod hostile;

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use peregrine_shaders::{Backend, Forecaster, ModelSpec, Windows};

use super::*;
use crate::request::{ServedBy, Timing};

pub(super) fn spec() -> Arc<ModelSpec> {
    let folder = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/nhits-vol-quantile");
    Arc::clone(Forecaster::load(&folder).unwrap().spec())
}

/// The body of a record of two rows with everything in it; `number` tells it from others.
pub(super) fn body(spec: &Arc<ModelSpec>, number: u64) -> Vec<u8> {
    let mut body = record::begin(&windows(), 0);
    record::finish(&mut body, &forecast(spec, number), &finish(&rows(), number));
    body
}

pub(super) fn windows() -> Windows {
    Windows {
        rows: 2,
        y: vec![1.0, -0.0, f32::MIN_POSITIVE, 4.5],
        mask: Some(vec![1.0, 0.0, 1.0, 1.0]),
        hist_exog: vec![0.1, 0.2],
        futr_exog: Vec::new(),
        stat_exog: vec![7.0, 8.0],
    }
}

fn rows() -> Vec<RowName> {
    let position = Some(Position { seq: 12, epoch: 3 });
    vec![RowName { series: "fx/EUR".into(), position }, RowName { series: "x".into(), position: None }]
}

fn finish<'a>(rows: &'a [RowName], number: u64) -> record::Finish<'a> {
    record::Finish {
        ids: PredictionIds { run: 7, first: number * 2 },
        request: "order 1",
        rows,
        caller: "desk",
        digest: "00ff",
        node: "a",
        region: "fra",
        at_ms: 99,
        took: Duration::from_micros(5),
    }
}

fn forecast(spec: &Arc<ModelSpec>, number: u64) -> Forecast {
    Forecast {
        spec: Arc::clone(spec),
        version: 4,
        values: (0..2 * spec.answer_len()).map(|at| at as f32 + number as f32 * 0.5).collect(),
        backend: Backend::Gpu,
        served_by: ServedBy::Here,
        degraded: true,
        timing: Timing { queue: Duration::from_nanos(1), compute: Duration::from_nanos(2), batch_rows: 3 },
    }
}

#[test]
fn a_record_reads_back_as_it_was_made() {
    let spec = spec();
    let body = body(&spec, 5);
    let estimate = record::room_for(&windows(), spec.answer_len(), "order 1", &rows());
    assert!((body.len()..body.len() + 512).contains(&estimate), "{} for {}", estimate, body.len());
    let read = Record::decode(&body).unwrap();
    assert_eq!(read.windows, windows());
    assert_eq!(read.windows.y[1].to_bits(), (-0.0_f32).to_bits());
    assert_eq!(read.values, forecast(&spec, 5).values);
    assert_eq!((read.ids, &*read.request), (PredictionIds { run: 7, first: 10 }, "order 1"));
    assert_eq!((&*read.model, read.version, &*read.digest), ("nhits-vol-quantile", 4, "00ff"));
    assert_eq!((&*read.caller, &*read.node, &*read.region), ("desk", "a", "fra"));
    assert_eq!((read.backend, read.degraded, read.is_remote), (Backend::Gpu, true, false));
    assert_eq!((read.at_ms, read.took, read.batch_rows), (99, Duration::from_micros(5), 3));
    assert_eq!((read.queue, read.compute), (Duration::from_nanos(1), Duration::from_nanos(2)));
    assert_eq!(read.rows, rows());
    // Of six counts and the numbers, as who sent them can compute it too.
    assert_eq!(
        read.window_hash.to_string(),
        "60471b5736d520af43aedd7b9e575696aee95091ae1989bf69a4bfb5529f1799"
    );
}

#[test]
fn a_record_is_found_by_all_of_its_names_and_no_others() {
    let body = body(&spec(), 5);
    let record = Record::decode(&body).unwrap();
    let mut made = index::Index::default();
    made.add(88, &body);
    let kept = made.clone().encode();
    for (name, rows) in [
        ("7-a", &[0][..]),
        ("7-b", &[1]),
        ("order 1", &[0, 1]),
        ("nhits-vol-quantile/fx/EUR#12", &[0]),
        ("nhits-vol-quantile/fx/EUR#12@3", &[0]),
        ("7-c", &[]),
        ("7-0a", &[]),
        ("8-a", &[]),
        ("order", &[]),
        ("", &[]),
        ("nhits-vol-quantile/fx/EUR#1", &[]),
        ("nhits-vol-quantile/x#12", &[]),
        ("nhits-vol-quantile/x#12@3", &[]),
        ("nhits-vol-quantile/fx/EUR#12@", &[]),
        ("nhits-vol-quantile/fx/EUR#12@+3", &[]),
    ] {
        assert_eq!(record.rows_called(name), rows, "{name}");
        let places: &[u32] = if rows.is_empty() { &[] } else { &[88] };
        let keys = keys_of_name(name);
        assert_eq!(made.find(&keys), places, "{name}");
        assert_eq!(index::find_in(&kept, &keys).unwrap(), places, "{name}");
    }
    assert_eq!(record.rows_called("nhits-vol-quantile/fx/EUR#12@4"), [0; 0], "of another epoch");
}

#[test]
fn the_newest_of_a_name_comes_first() {
    let mut made = index::Index::default();
    for at in [100, 200, 300] {
        made.add(at, &body(&spec(), at));
    }
    let keys = keys_of_name("order 1");
    assert_eq!(made.find(&keys), [300, 200, 100]);
    assert_eq!(index::find_in(&made.encode(), &keys).unwrap(), [300, 200, 100]);
}

#[test]
fn an_index_that_is_none_is_not_believed() {
    assert_eq!(index::find_in(b"", &[1]), None);
    assert_eq!(index::find_in(b"PGAINDX2", &[1]), None);
    assert_eq!(index::find_in(b"PGAINDX1 ", &[1]), None);
    assert_eq!(index::find_in(b"PGAINDX1", &[1]), Some(Vec::new()));
}

#[test]
fn notes_read_back() {
    for note in [
        Note::Opened {
            at_ms: 1,
            node: "n".to_owned(),
            region: "r".to_owned(),
            was_closed: true,
            cut_bytes: 9,
        },
        Note::Closed { at_ms: 2 },
        Note::Gap { from_ms: 1, to_ms: 2, count: 3, reason: "full".to_owned() },
        Note::Dropped { at_ms: 1, segment: 2, end: Link([3; 32]), bytes: 4 },
        Note::Broken { at_ms: 1, segment: 2, offset: 3, link: Link([4; 32]), found: "?".to_owned() },
    ] {
        assert_eq!(Note::decode(&note.encode()), Ok(note));
    }
}

pub(super) fn settings(on_failure: OnFailure, survives: Survives) -> AuditSettings {
    AuditSettings {
        node: "a".to_owned(),
        region: "fra".to_owned(),
        on_failure,
        survives,
        sync_every: Duration::from_secs(1),
        queue_bytes_max: 1 << 20,
        record_bytes_max: 1 << 20,
        group_bytes: 64 << 10,
    }
}

/// Ends a draft as a system would.
pub(super) async fn end(
    audit: &Audit,
    draft: Option<Draft<'_>>,
    forecast: &Forecast,
) -> Result<(), ForecastError> {
    let answer = Answer {
        forecast,
        ids: PredictionIds { run: 1, first: 0 },
        names: None,
        caller: "",
        digest: "",
        at: UNIX_EPOCH,
        took: Duration::ZERO,
        until: Instant::now() + Duration::from_secs(10),
    };
    audit.end(draft, &answer).await
}

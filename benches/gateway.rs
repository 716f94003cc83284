//! Bodies: reading 256-value windows and printing 24 numbers each, as JSON and binary, beside any arithmetic.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use peregrine::gateway::codec;
use peregrine_shaders::{Family, Head, ModelSpec, NormalizerKind};

const WINDOW: usize = 256;
const HORIZON: usize = 24;

fn spec() -> ModelSpec {
    ModelSpec {
        name: "bench".to_owned(),
        family: Family::Nhits,
        horizon: HORIZON,
        window: WINDOW,
        series: 1,
        normalizer: NormalizerKind::Standard,
        head: Head::Point,
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: vec!["y".to_owned()],
    }
}

/// Values of log volatility with all the digits that an `f32` has.
fn values(count: usize) -> Vec<f32> {
    let mut noise = super::noise();
    (0..count).map(|_| noise() - 3.0).collect()
}

fn json(rows: usize) -> Vec<u8> {
    let mut text =
        format!(r#"{{"inputs":[{{"name":"y","datatype":"FP32","shape":[{rows},{WINDOW}],"data":["#);
    for (i, value) in values(rows * WINDOW).iter().enumerate() {
        write!(text, "{}{value}", if i > 0 { "," } else { "" }).expect("memory");
    }
    text.push_str("]}]}");
    text.into_bytes()
}

fn binary(rows: usize) -> (Vec<u8>, usize) {
    let size = rows * WINDOW * size_of::<f32>();
    let mut body = format!(
        r#"{{"inputs":[{{"name":"y","datatype":"FP32","shape":[{rows},{WINDOW}],"parameters":{{"binary_data_size":{size}}}}}]}}"#
    )
    .into_bytes();
    let json_len = body.len();
    body.extend(values(rows * WINDOW).iter().flat_map(|value| value.to_le_bytes()));
    (body, json_len)
}

/// One window and a thousand.
pub(crate) fn bodies(criterion: &mut Criterion) {
    let spec = spec();
    let mut group = criterion.benchmark_group("gateway");
    for rows in [1, 1000] {
        group.throughput(Throughput::Elements(rows as u64));
        let text = json(rows);
        group.bench_function(BenchmarkId::new("read-json", rows), |bencher| {
            bencher.iter(|| codec::read(black_box(&text), None, &spec).expect("a good body"));
        });
        let (bytes, json_len) = binary(rows);
        group.bench_function(BenchmarkId::new("read-binary", rows), |bencher| {
            bencher.iter(|| codec::read(black_box(&bytes), Some(json_len), &spec).expect("a good body"));
        });
        let answer = values(rows * HORIZON);
        for (name, is_binary) in [("print-json", false), ("print-binary", true)] {
            group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                bencher.iter(|| codec::print(&spec, black_box(&answer), is_binary));
            });
        }
    }
    group.finish();
}

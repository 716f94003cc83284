//! The CPU executor on a real model, whole forecast: normalize, plan, head, undo the normalizer.

use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput};
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{Forecaster, Scratch, Windows};

const MODEL: &str = "models/nhits-168x24-quantile";

/// A random walk: real windows are walks too.
fn windows(rows: usize, window: usize) -> Windows {
    let mut noise = super::noise();
    let mut level = -2.5_f32;
    let mut step = || {
        level += (noise() - 0.5) * 0.1;
        level
    };
    let y = (0..rows * window).map(|_| step()).collect();
    Windows { rows, y, ..Windows::default() }
}

/// Batch 1, 32 and 1,024 on one and two threads.
pub(crate) fn forecast(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(MODEL);
    let forecaster = Forecaster::load(&folder).unwrap_or_else(|err| panic!("{}: {err}", folder.display()));
    let mut group = criterion.benchmark_group("cpu/nhits-168x24-quantile");
    for threads in [1, 2] {
        let mut executor = CpuExecutor::new(threads);
        for rows in [1, 32, 1024] {
            let windows = windows(rows, forecaster.spec().window);
            let (mut scratch, mut out) = (Scratch::default(), Vec::new());
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::new(format!("{threads}-threads"), rows), |bencher| {
                bencher.iter(|| {
                    forecaster
                        .forecast(&mut executor, black_box(&windows), &mut scratch, &mut out)
                        .expect("finite");
                    black_box(&out);
                });
            });
        }
    }
    group.finish();
}

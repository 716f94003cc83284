//! Ticks into the journal: how long one append takes, alone and with many entries.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use peregrine::config::{Durability, JournalConfig};
use peregrine::journal::TickJournal;
use peregrine_actors::series::{Journal, JournalEntry, SeriesName, Tick, Timestamp};
use peregrine_runtime::SystemClock;

const SERIES: u64 = 10_000;

pub(crate) fn append(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let names: Vec<SeriesName> =
        (0..SERIES).map(|at| SeriesName::new(&format!("series/{at}")).expect("a name")).collect();
    let mut group = criterion.benchmark_group("journal");
    let process = Durability::Process { sync_every: Duration::from_millis(100) };
    for (name, durability) in [("process", process), ("disk", Durability::Disk)] {
        for entry_count in [1, 100, 1000] {
            let dir = tempfile::tempdir().expect("a folder");
            let config =
                JournalConfig { dir: dir.path().to_owned(), capacity: 256, series_max: 10_000, durability };
            let (journal, _) = TickJournal::open(&config, Arc::new(SystemClock)).expect("a journal");
            group.throughput(Throughput::Elements(entry_count));
            let mut next = 0;
            group.bench_function(format!("{name}/{entry_count}"), |bencher| {
                bencher.iter(|| {
                    let entries = (next..next + entry_count).map(|at| entry(&names, at)).collect();
                    next += entry_count;
                    runtime.block_on(journal.append(entries)).expect("room");
                });
            });
        }
    }
    group.finish();
}

fn entry(names: &[SeriesName], at: u64) -> JournalEntry {
    let tick = Tick {
        series: names[(at % SERIES) as usize].clone(),
        at: Timestamp(1_700_000_000_000_000_000 + at as i64),
        value: Some(at as f32),
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        trace: peregrine_actors::Trace::default(),
    };
    JournalEntry { seq: at / SERIES, epoch: 1, tick }
}

//! A node whose only stream says a number so and so often: what the fan-out is measured on.
//!
//! `fanout RATE [GO]`: prints `ready PORT` and says numbers once the file GO is there; subscribe to series `s` of model `nhits-vol-quantile`.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use peregrine::backends::Factories;
use peregrine::config::{Overrides, Sources, resolve};
use peregrine::node::Node;
use peregrine_actors::series::{Effect, Listing, Pattern, SeriesLog, SeriesName, Tick, TickError, Timestamp};
use peregrine_actors::stream::{Hub, Prediction, Source, SourceError, StreamEvent, StreamId};
use peregrine_actors::{ExecutorFactory, Placement};
use peregrine_runtime::Deadline;
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{Executor, Family, Head, ModelSpec, NormalizerKind};

struct Silent;

#[async_trait]
impl Source for Silent {
    async fn ticks(&self, _: Vec<Tick>, _: Deadline) -> Vec<Result<Effect, TickError>> {
        Vec::new()
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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rate: f64 = std::env::args().nth(1).ok_or("say a rate")?.parse()?;
    let keys = [("SERVER__CONNECTIONS_MAX", "20000"), ("LOG__FILTER", "error")];
    let keys = keys.map(|(key, value)| (format!("PEREGRINE_{key}"), value.to_owned()));
    let own = std::env::vars().filter(|(key, _)| key.starts_with("PEREGRINE_"));
    let environment = keys.into_iter().chain(own).collect();
    let overrides = Overrides { listen: Some("127.0.0.1:0".to_owned()), ..Overrides::default() };
    let resolved = resolve(&Sources { files: Vec::new(), environment, overrides })?;
    let cpu: ExecutorFactory = Arc::new(|| Ok(Box::new(CpuExecutor::new(1)) as Box<dyn Executor>));
    let factories =
        Factories { cpu, gpus: Vec::new(), placement: Placement::Cpu, cpu_first: false, meters: None };
    let feed = Box::new(move |hub: &Hub| {
        let hub = hub.clone();
        thread::spawn(move || speak(&hub, Duration::from_secs_f64(1.0 / rate)));
        Arc::new(Silent) as Arc<dyn Source>
    });
    let node = Node::start_fed(resolved, factories, feed)?;
    println!("ready {}", node.addr.port());
    loop {
        thread::park();
    }
}

fn speak(hub: &Hub, every: Duration) {
    let spec = Arc::new(ModelSpec {
        name: "nhits-vol-quantile".to_owned(),
        family: Family::Mlp,
        horizon: 1,
        window: 1,
        series: 1,
        normalizer: NormalizerKind::Identity,
        head: Head::Point,
        hist_exog: Vec::new(),
        futr_exog: Vec::new(),
        stat_exog: Vec::new(),
        columns: vec!["mean".to_owned()],
    });
    let stream = StreamId {
        model: "nhits-vol-quantile".into(),
        series: SeriesName::new("s").unwrap_or_else(|_| unreachable!("it is a name")),
    };
    while !std::env::args().nth(2).is_none_or(|go| std::path::Path::new(&go).exists()) {
        thread::sleep(Duration::from_millis(10));
    }
    let start = Instant::now();
    for seq in 1_u32.. {
        thread::sleep((every * seq).saturating_sub(start.elapsed()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
        hub.publish(StreamEvent::Prediction(Arc::new(Prediction {
            stream: stream.clone(),
            seq: u64::from(seq),
            epoch: 1,
            position: u64::from(seq),
            last: Timestamp(0),
            accepted_at: None,
            made_at: now,
            spec: Arc::clone(&spec),
            version: 1,
            values: Box::new([0.5]),
            backend: "cpu".into(),
            degraded: false,
        })));
    }
}

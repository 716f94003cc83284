//! Writes the tree down: which actors there are, in which order they start, and what happens when one fails.
//!
//! Takes no decision while the system runs; that is the runtime's part.
//!
//! Router, breaker and health publish what they decide, so callers do not notice a restart. A device fails as often
//! as its hardware does, so its budget is never spent: it is tried again for as long as the node lives.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use peregrine_runtime::watchdog::lag::LoopLag;
use peregrine_runtime::{
    Address, Backoff, Budget, ChildSpec, Children, Clock, Escalate, Mailbox, StartError, Strategy, Tree,
};
use peregrine_shaders::{Backend, Stay};

use crate::breaker::{Breaker, BreakerMail, Gates, Orders, Trusts};
use crate::devices::{DeviceId, PerDevice};
use crate::health::{Health, HealthParts, Latest, LatestMeters, MeterReader, Meters, Sample};
use crate::inference::{Device, ExecutorFactory, Line, LineSpec, Order, RESIDENT_ROWS_MAX};
use crate::router::{Published, Router, RouterMail, Scores, Table};
use crate::settings::Settings;

/// Names of the actors, as snapshots and injected faults know them.
pub(crate) const ROUTER: &str = "router";
pub(crate) const BREAKER: &str = "breaker";
pub(crate) const HEALTH: &str = "health";
pub(crate) const METERS: &str = "meters";

/// A tree that has been started, and what is published by its actors.
pub(crate) struct Started {
    pub(crate) tree: Tree,
    pub(crate) router: Address<RouterMail>,
    pub(crate) breaker: Address<BreakerMail>,
    pub(crate) table: Published,
    pub(crate) scores: Scores,
    /// `None`: what intervals hold decides nothing.
    pub(crate) trusts: Option<Arc<Trusts>>,
    pub(crate) gates: Gates,
    pub(crate) lines: PerDevice<Arc<Line>>,
    pub(crate) vitals: Latest,
    pub(crate) meters: LatestMeters,
    /// Of the loop that all light actors share.
    pub(crate) lag: Arc<LoopLag>,
}

/// Messages that may wait for router and health; loads are rare.
const MAILBOX_LEN: usize = 256;
/// Of the reader of meters: one reading that waits is as good as many.
const METERS_MAILBOX_LEN: usize = 1;
/// Reports that may wait for the breaker, which takes a microsecond for each.
const BREAKER_MAILBOX_LEN: usize = 4096;

pub(crate) fn start(
    settings: &Settings,
    orders: &Arc<Orders>,
    cpu: ExecutorFactory,
    gpus: impl IntoIterator<Item = ExecutorFactory>,
    meters: Option<Arc<dyn Meters>>,
    clock: &Arc<dyn Clock>,
    seed: u64,
) -> Result<Started, StartError> {
    let mut children = Children::new(Strategy::OneForOne);

    let table: Published = Arc::new(ArcSwap::from_pointee(Table::default()));
    let router_box = Mailbox::new(MAILBOX_LEN, Arc::clone(clock));
    let router = router_box.address();
    let scores = Scores::default();
    let (published, known, timed) = (Arc::clone(&table), Arc::clone(&scores), Arc::clone(clock));
    let new = |limits| (limits, Arc::new(Trusts::new(settings.breaker.clone(), Arc::clone(orders))));
    let coverage = settings.coverage.map(new);
    let trusts = coverage.as_ref().map(|(_, trusts)| Arc::clone(trusts));
    let make = move || {
        let (published, known) = (Arc::clone(&published), Arc::clone(&known));
        Ok(Router::new(published, known, coverage.clone(), Arc::clone(&timed)))
    };
    children.light(ChildSpec::new(ROUTER), router_box, make);

    let gates = Gates::default();
    let breaker_box = Mailbox::new(BREAKER_MAILBOX_LEN, Arc::clone(clock));
    let breaker = breaker_box.address();
    let known = gates.clone();
    children.light(ChildSpec::new(BREAKER), breaker_box, move || Ok(Breaker::new(known.clone())));

    let mut open = |device: DeviceId, factory: ExecutorFactory, spare: Option<Arc<Line>>| {
        let mailbox = Mailbox::<Order>::new(MAILBOX_LEN, Arc::clone(clock));
        let told = breaker.clone();
        let line = Arc::new(Line::new(LineSpec {
            device,
            limits: settings.batching.clone(),
            checks: settings.checks.clone(),
            clock: Arc::clone(clock),
            door: mailbox.address(),
            spare,
            held: device.backend == Backend::Gpu && settings.holds_gpus(),
            stay: (device.backend == Backend::Gpu && settings.resident)
                .then_some(Stay { rows_max: RESIDENT_ROWS_MAX, rest_after: settings.rest_after }),
            notice: Box::new(move |up, why| {
                let mail = BreakerMail::Device { device, up, why: why.to_owned() };
                if told.tell(mail).is_err() {
                    tracing::warn!("breaker is behind, a device's notice is lost");
                }
            }),
        }));
        let served = Arc::clone(&line);
        let name = format!("inference-{device}");
        children.worker(device_spec(name), mailbox, move || Device::open(&served, &factory));
        line
    };
    let cpu = open(DeviceId::CPU, cpu, None);
    let spare = settings.falls_back().then(|| Arc::clone(&cpu));
    let gpus = gpus.into_iter().enumerate();
    let gpus = gpus.map(|(index, factory)| open(DeviceId::gpu(index), factory, spare.clone())).collect();
    let lines = PerDevice { cpu, gpus };

    let vitals: Latest = Arc::new(ArcSwapOption::empty());
    let metered = LatestMeters::default();
    let reader = meters.map(|meters| {
        let (latest, clock) = (Arc::clone(&metered), Arc::clone(clock));
        let mailbox = Mailbox::new(METERS_MAILBOX_LEN, Arc::clone(&clock));
        let address = mailbox.address();
        let make = move || {
            let (meters, latest, clock) = (Arc::clone(&meters), Arc::clone(&latest), Arc::clone(&clock));
            Ok(MeterReader { meters, latest, clock })
        };
        children.worker(device_spec(METERS), mailbox, make);
        address
    });
    let lag = Arc::new(LoopLag::new(clock.now()));
    let parts = HealthParts {
        latest: Arc::clone(&vitals),
        every: settings.sample_every,
        lag: Arc::clone(&lag),
        clock: Arc::clone(clock),
        memory: settings.memory,
        meters: reader,
    };
    let health_box = Mailbox::<Sample>::new(MAILBOX_LEN, Arc::clone(clock));
    children.light(ChildSpec::new(HEALTH), health_box, move || Ok(Health::new(parts.clone())?));

    let tree = Tree::start(children, Arc::clone(clock), seed)?;
    Ok(Started { tree, router, breaker, table, scores, trusts, gates, lines, vitals, meters: metered, lag })
}

fn device_spec(name: impl Into<Arc<str>>) -> ChildSpec {
    ChildSpec {
        budget: Budget { restarts_max: u32::MAX, within: Duration::from_secs(60) },
        backoff: Backoff { base: Duration::from_millis(50), max: Duration::from_secs(5), jitter: 0.2 },
        when_spent: Escalate::Parent,
        ..ChildSpec::new(name)
    }
}

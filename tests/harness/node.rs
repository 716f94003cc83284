//! A node in this process, on devices that the test can break.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peregrine::backends::Factories;
use peregrine::config::{Overrides, Resolved, Sources, resolve};
use peregrine::node::{Feed, Node, NodeError};
use peregrine_actors::{ExecutorFactory, Meters, Placement};
use peregrine_runtime::Clock;
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions, KillSwitch};
use peregrine_shaders::{ExecuteError, Executor};

use super::{Response, request};

/// Longest wait for something that must come; reaching it is a failure, never a pass.
const PATIENCE: Duration = Duration::from_secs(60);

/// A switch that takes a Vulkan device away and gives it back.
#[derive(Clone, Default)]
pub(crate) struct PowerSwitch {
    off: Arc<AtomicBool>,
    current: Arc<Mutex<Option<KillSwitch>>>,
}

impl PowerSwitch {
    /// Destroys the open device and lets none be opened.
    pub(crate) fn off(&self) {
        self.off.store(true, Ordering::SeqCst);
        let current = self.current.lock().expect("no holder panics");
        current.as_ref().expect("a device was opened").destroy_device();
    }

    /// Flips bits of the weights that the open device holds.
    pub(crate) fn damage(&self) {
        let current = self.current.lock().expect("no holder panics");
        current.as_ref().expect("a device was opened").damage_weights();
    }

    pub(crate) fn on(&self) {
        self.off.store(false, Ordering::SeqCst);
    }

    /// Opens any Vulkan adapter, as long as the power is on.
    fn factory(&self) -> ExecutorFactory {
        let switch = self.clone();
        Arc::new(move || {
            if switch.off.load(Ordering::SeqCst) {
                return Err(ExecuteError::DeviceLost("no power".to_owned()));
            }
            let options = GpuOptions {
                adapter: AdapterChoice::Any,
                timeout: Duration::from_secs(20),
                ..GpuOptions::default()
            };
            let executor =
                GpuExecutor::open(&options).map_err(|err| ExecuteError::Refused(err.to_string()))?;
            *switch.current.lock().expect("no holder panics") = Some(executor.kill_switch());
            Ok(Box::new(executor) as Box<dyn Executor>)
        })
    }
}

/// A node on a free port, stopped when dropped.
pub(crate) struct TestNode {
    pub(crate) node: Node,
}

impl TestNode {
    /// The CPU alone, with these keys set: `("BACKEND__THREADS", "1")`.
    pub(crate) fn on_cpu(keys: &[(&str, &str)]) -> Self {
        Self::start(Vec::new(), keys)
    }

    /// The CPU alone, with a configuration file besides.
    pub(crate) fn with_file(file: &std::path::Path, keys: &[(&str, &str)]) -> Self {
        let resolved = Self::resolved_with(vec![file.to_owned()], keys);
        let node = Node::start_with(resolved, Self::factories(Vec::new()), Vec::new())
            .unwrap_or_else(|err| panic!("{err}"));
        Self { node }
    }

    /// A Vulkan device (software where there is no other) that `switch` can take away.
    pub(crate) fn on_gpu(switch: &PowerSwitch, keys: &[(&str, &str)]) -> Self {
        Self::start(vec![switch.factory()], keys)
    }

    /// The same, for which nobody waits at the start.
    pub(crate) fn on_late_gpu(switch: &PowerSwitch, keys: &[(&str, &str)]) -> Self {
        let factories = Factories { cpu_first: true, ..Self::factories(vec![switch.factory()]) };
        let node = Node::start_with(Self::resolved(keys), factories, Vec::new())
            .unwrap_or_else(|err| panic!("{err}"));
        Self { node }
    }

    /// The CPU alone, beside devices of which `meters` speaks.
    pub(crate) fn metered(meters: Arc<dyn Meters>, keys: &[(&str, &str)]) -> Self {
        let factories = Factories { meters: Some(meters), ..Self::factories(Vec::new()) };
        let node = Node::start_with(Self::resolved(keys), factories, Vec::new())
            .unwrap_or_else(|err| panic!("{err}"));
        Self { node }
    }

    /// The CPU alone, with series that the test feeds.
    pub(crate) fn fed(feed: Feed, keys: &[(&str, &str)]) -> Self {
        let node = Node::start_fed(Self::resolved(keys), Self::factories(Vec::new()), feed)
            .unwrap_or_else(|err| panic!("{err}"));
        Self { node }
    }

    /// The CPU alone, by this clock; an error where it cannot start.
    pub(crate) fn clocked(clock: Arc<dyn Clock>, keys: &[(&str, &str)]) -> Result<Self, NodeError> {
        Self::clocked_with(clock, Vec::new(), keys)
    }

    /// The same, with configuration files besides.
    pub(crate) fn clocked_with(
        clock: Arc<dyn Clock>,
        files: Vec<std::path::PathBuf>,
        keys: &[(&str, &str)],
    ) -> Result<Self, NodeError> {
        let resolved = Self::resolved_with(files, keys);
        let node = Node::start_clocked(resolved, Self::factories(Vec::new()), clock)?;
        Ok(Self { node })
    }

    /// As many such devices as there are switches.
    pub(crate) fn on_gpus(switches: &[PowerSwitch], keys: &[(&str, &str)]) -> Self {
        Self::start(switches.iter().map(PowerSwitch::factory).collect(), keys)
    }

    fn start(gpus: Vec<ExecutorFactory>, keys: &[(&str, &str)]) -> Self {
        let node = Node::start_with(Self::resolved(keys), Self::factories(gpus), Vec::new())
            .unwrap_or_else(|err| panic!("{err}"));
        Self { node }
    }

    fn factories(gpus: Vec<ExecutorFactory>) -> Factories {
        let cpu: ExecutorFactory = Arc::new(|| Ok(Box::new(CpuExecutor::new(1)) as Box<dyn Executor>));
        Factories { cpu, gpus, placement: Placement::Gpu, cpu_first: false, meters: None }
    }

    fn resolved(keys: &[(&str, &str)]) -> Resolved {
        Self::resolved_with(Vec::new(), keys)
    }

    fn resolved_with(files: Vec<std::path::PathBuf>, keys: &[(&str, &str)]) -> Resolved {
        // A market that runs of its own accord is for the test that asks for it.
        let quiet = Some(&("DEMO__RATE", "0")).filter(|_| keys.iter().all(|(key, _)| *key != "DEMO__RATE"));
        let keys = keys.iter().chain(quiet);
        let environment = keys.map(|(key, value)| (format!("PEREGRINE_{key}"), (*value).to_owned()));
        let models = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/models").into()];
        let overrides = Overrides { listen: Some("127.0.0.1:0".to_owned()), models, ..Overrides::default() };
        let sources = Sources { files, environment: environment.collect(), overrides };
        resolve(&sources).unwrap_or_else(|err| panic!("{err}"))
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &str) -> Response {
        request(self.node.addr, "POST", path, &[], body.as_bytes())
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        request(self.node.addr, "GET", path, &[], b"")
    }
}

/// Asks again until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

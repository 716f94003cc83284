//! A node speaks to the scaler every second, wherever that acts, and does what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::web::Data;
use parking_lot::Mutex;
use peregrine_runtime::{Address, Cluster, Deadline, Standing};
use tracing::info;

use super::messages::{FromScaler, NodeVitals, Orders, Releases, ToScaler, pairs};
use super::vitals::VitalsMeter;
use crate::config::RoleChoice;
use crate::gateway::Shared;

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// A scaler that is silent for so long has forgotten what it ordered, and so has its successor: the node serves on.
const STANDS_FOR: Duration = Duration::from_secs(60);

/// What a node was told by the scaler.
#[derive(Debug, Default)]
pub(crate) struct Told {
    draining: AtomicBool,
    releases: Mutex<Releases>,
}

impl Told {
    /// It is to take no new requests.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Speaks until its task is aborted. `others_inside`: requests of other nodes that are worked on. `machine`: what the
/// platform calls the machine, where there is one.
pub(crate) async fn speak(
    shared: Data<Shared>,
    cluster: Cluster,
    scaler: Address<ToScaler>,
    machine: Option<String>,
    others_inside: impl Fn() -> usize,
) {
    let mut meter = VitalsMeter::new();
    let mut heard_at = shared.clock.now();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let config = shared.config();
        let now = shared.clock.now();
        let measured = meter.read(&shared, others_inside(), now);
        let computes =
            config.cluster.as_ref().is_some_and(|part| part.roles.contains(&RoleChoice::Inference));
        let is_draining = shared.told.is_draining();
        let vitals = NodeVitals {
            node: config.node.name.to_string(),
            machine: machine.clone(),
            region: config.node.region.to_string(),
            computes,
            is_ready: shared.system.health().ready && !is_draining,
            is_draining,
            measured: pairs(&measured.signals),
            asked_here: measured.asked_here,
            releases: shared.told.releases.lock().clone(),
        };
        // One that is lost is followed by the next; what was told last stands meanwhile.
        let asked = scaler.ask(ToScaler::Vitals(vitals), Deadline::after(now, EVERY)).await;
        if let Ok(FromScaler::Orders(Orders { drain, releases })) = asked {
            shared.told.releases.lock().merge(&releases);
            heard_at = now;
            obey(&shared, &cluster, drain).await;
        } else if now.saturating_duration_since(heard_at) >= STANDS_FOR {
            obey(&shared, &cluster, false).await;
        }
    }
}

async fn obey(shared: &Arc<Shared>, cluster: &Cluster, drain: bool) {
    if shared.told.draining.swap(drain, Ordering::Relaxed) == drain {
        return;
    }
    info!(drain, "told by the scaler");
    cluster.set_standing(if drain { Standing::Draining } else { Standing::Active }).await;
    if drain { shared.stream.stop() } else { shared.stream.resume() }
}

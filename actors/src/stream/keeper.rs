//! What a hub asks of the series in the background: what is wanted, and what is missing.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peregrine_runtime::{Clock, Deadline};
use tokio::time::{sleep, timeout_at};

use super::hub::{Hub, Repair};
use super::prediction::StreamEvent;
use super::source::Source;
use crate::series::Pattern;

/// Repairs that are asked for at once.
const REPAIRS_MAX: usize = 64;
/// How often channels without readers are looked at, while there are any.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl Hub {
    /// Gives the hub its source, once, and returns what must run while the hub is in use; it holds the source.
    pub fn attach(
        &self,
        source: Arc<dyn Source>,
        clock: Arc<dyn Clock>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let first = self.inner.source.set(Arc::downgrade(&source)).is_ok();
        let hub = self.clone();
        async move {
            if first {
                keep(hub, source, clock).await;
            }
        }
    }
}

impl Hub {
    /// Says what is wanted, if that is something else than last time.
    pub(super) fn tell(&self, source: &dyn Source) {
        // Held until it is said, or an earlier set could be said last.
        let mut told = self.inner.told.lock();
        let registry = self.inner.registry.read();
        if *told == Some(registry.generation) {
            return;
        }
        *told = Some(registry.generation);
        let mut wanted: Vec<(Arc<str>, Pattern)> = registry
            .channels
            .keys()
            .flat_map(|selector| {
                selector.patterns().iter().map(|one| (Arc::clone(selector.model()), one.clone()))
            })
            .collect();
        drop(registry);
        wanted.sort();
        wanted.dedup();
        source.wanted(wanted);
    }
}

async fn keep(hub: Hub, source: Arc<dyn Source>, clock: Arc<dyn Clock>) {
    let Some(mut repairs) = hub.inner.repairs_from.lock().take() else { return };
    let mut asked = FuturesUnordered::new();
    let mut lonely = HashMap::new();
    loop {
        tokio::select! {
            Some(repair) = repairs.recv(), if asked.len() < REPAIRS_MAX => {
                let within = Deadline::after(clock.now(), hub.inner.limits.repair_within);
                asked.push(ask(Arc::clone(&source), repair, within));
            }
            Some((repair, events)) = asked.next() => finish(&hub, &repair, events),
            () = hub.inner.changed.notified() => {
                sweep(&hub, clock.now(), &mut lonely);
                hub.tell(&*source);
            }
            () = sleep(SWEEP_EVERY), if !lonely.is_empty() => {
                sweep(&hub, clock.now(), &mut lonely);
                hub.tell(&*source);
            }
        }
    }
}

async fn ask(source: Arc<dyn Source>, repair: Repair, within: Deadline) -> (Repair, Vec<StreamEvent>) {
    let replay = source.replay(&repair.stream.tag.id, repair.from, within);
    let events = timeout_at(within.instant().into(), replay).await;
    // What cannot be had is told as lost.
    (repair, events.ok().and_then(Result::ok).unwrap_or_default())
}

fn finish(hub: &Hub, repair: &Repair, events: Vec<StreamEvent>) {
    let mut wake = Vec::new();
    let mut state = repair.stream.state.lock();
    let passed = state.order.repaired(events);
    hub.pass(&repair.stream.tag, &mut state, passed.events, &mut wake);
    drop(state);
    wake.into_iter().for_each(Waker::wake);
}

/// Lets go of channels that nobody has read for a while, and of streams that no channel wants.
fn sweep(hub: &Hub, now: Instant, lonely: &mut HashMap<u64, Instant>) {
    let mut registry = hub.inner.registry.write();
    let registry = &mut *registry;
    lonely.retain(|number, _| {
        registry.channels.values().any(|channel| channel.number == *number && !channel.is_read())
    });
    let grace = hub.inner.limits.grace;
    let before = registry.channels.len();
    registry.channels.retain(|_, channel| {
        if channel.is_read() {
            return true;
        }
        let since = *lonely.entry(channel.number).or_insert(now);
        let stays = now.saturating_duration_since(since) < grace;
        if !stays {
            lonely.remove(&channel.number);
        }
        stays
    });
    if registry.channels.len() == before {
        return;
    }
    registry.generation += 1;
    let channels = &registry.channels;
    registry.streams.retain(|_, stream| {
        let mut state = stream.state.lock();
        state.channels.retain(|channel| channels.contains_key(&channel.selector));
        !state.channels.is_empty()
    });
}

//! Brings models to the devices, and takes them out of service.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use peregrine_runtime::{Address, AskError, Deadline};
use peregrine_shaders::{Backend, ExecuteError, Forecaster, Precision};

use super::{Inner, System};
use crate::breaker::{Gate, GateSpec, Mend};
use crate::devices::DeviceId;
use crate::inference::{Judge, Ledger, Line, Order, Pace, Sampler, Served};
use crate::profile::{Residence, Terms};
use crate::router::{Route, Routed, RouterMail, homes};
use crate::status::{DeviceState, Guarded, ModelState, ModelStatus};

/// Why a model was not loaded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LoadRefused {
    /// A device that must serve it cannot. The operator acts.
    #[error("{device} refused the model: {error}")]
    Device {
        /// Which one.
        device: DeviceId,
        /// What it said.
        error: ExecuteError,
    },
    /// A device that must serve it is down. Come back later.
    #[error("{device} is down")]
    DeviceDown {
        /// Which one.
        device: DeviceId,
    },
    /// It took too long. Come back later.
    #[error("the devices did not take the model in time")]
    Deadline,
    /// The system is stopping.
    #[error("the system is stopping")]
    Stopping,
}

impl System {
    /// Brings a model to the devices, then serves it. What served this name and version before goes on until then,
    /// and finishes what it has accepted.
    ///
    /// # Errors
    /// When a device that must serve it refuses or is down; see [`LoadRefused`].
    pub async fn load(&self, forecaster: Arc<Forecaster>, version: u32) -> Result<(), LoadRefused> {
        self.load_together(vec![(forecaster, version)]).await.map_err(|(_, refused)| refused)
    }

    /// The same of several, which serve from one moment on: no request finds some of them as they were before and others
    /// not.
    ///
    /// # Errors
    /// Of the first that is refused, with its name; nothing has changed then.
    pub async fn load_together(
        &self,
        models: Vec<(Arc<Forecaster>, u32)>,
    ) -> Result<(), (String, LoadRefused)> {
        let deadline = self.load_deadline();
        let mut announced = Vec::with_capacity(models.len());
        let mut prepared = Vec::with_capacity(models.len());
        for (forecaster, version) in models {
            let forecaster = self.rounded(forecaster).await;
            let refused = |refused| (forecaster.spec().name.clone(), refused);
            let announcement = self.announce(&forecaster, version, deadline).await.map_err(refused)?;
            announced.push(announcement);
            self.prepare(&forecaster, deadline).await.map_err(refused)?;
            prepared.push((forecaster, version));
        }
        let name = prepared.first().map_or_else(String::new, |(first, _)| first.spec().name.clone());
        let route = |(forecaster, version): (Arc<Forecaster>, u32)| {
            let status = Arc::new(status(&forecaster, version, ModelState::Ready));
            Arc::new(self.route(&forecaster, status))
        };
        let routes = prepared.into_iter().map(route).collect();
        self.ask_router(RouterMail::Publish { routes }, deadline).await.map_err(|refused| (name, refused))?;
        Ok(())
    }

    /// Lets it be known that a version is on its way, until what comes back is dropped.
    async fn announce(
        &self,
        forecaster: &Forecaster,
        version: u32,
        deadline: Deadline,
    ) -> Result<Announcement<'_>, LoadRefused> {
        let status = Arc::new(status(forecaster, version, ModelState::Loading));
        let announcement = Announcement { inner: &self.inner, status: Arc::clone(&status) };
        self.inner.loading.lock().push(status);
        let model = forecaster.spec().name.clone();
        self.ask_router(RouterMail::Announce { model, version }, deadline).await?;
        Ok(announcement)
    }

    /// Says that no more versions of a model come for now: a release that was kept while the model was away goes on with
    /// those that are there. False: none is.
    pub async fn loaded(&self, model: &str) -> bool {
        let deadline = self.load_deadline();
        let mail = RouterMail::Loaded { model: model.to_owned() };
        self.ask_router(mail, deadline).await.unwrap_or(false)
    }

    /// Stops serving a version, or all of them, and keeps the model's release for when it comes back; requests already accepted are answered. False: there was none.
    pub async fn unload(&self, model: &str, version: Option<u32>) -> bool {
        let deadline = self.load_deadline();
        let mail = RouterMail::Remove { model: model.to_owned(), version };
        self.ask_router(mail, deadline).await.unwrap_or(false)
    }

    /// With rounded matrices, where they are wanted and can be had.
    async fn rounded(&self, forecaster: Arc<Forecaster>) -> Arc<Forecaster> {
        let name = &forecaster.spec().name;
        let wanted = match self.inner.settings.precision_of(name) {
            Some(precision) => precision,
            // On the CPU batches are a tenth slower with halves: they are asked for, or not had.
            None if forecaster.is_normalized() && !self.inner.rooms.lines.gpus.is_empty() => {
                self.terms(name).precision
            }
            None => Precision::F32,
        };
        if wanted == forecaster.precision() {
            return forecaster;
        }
        let exact = Arc::clone(&forecaster);
        // Some ten milliseconds for a million weights.
        let rounded = tokio::task::spawn_blocking(move || exact.rounded(wanted)).await.ok().flatten();
        rounded.map_or_else(
            || {
                tracing::warn!(model = %forecaster.spec().name, precision = wanted.name(), "a weight is too large for its precision: served in f32");
                Arc::clone(&forecaster)
            },
            Arc::new,
        )
    }

    /// Every device that is up must take the model, and one of those that must serve has to be up. A model that is to stay
    /// does so on one GPU.
    async fn prepare(&self, forecaster: &Arc<Forecaster>, deadline: Deadline) -> Result<(), LoadRefused> {
        let Terms { residence, fallback, .. } = self.terms(&forecaster.spec().name);
        let (lines, falls_back) = (&self.inner.rooms.lines, fallback.falls_back());
        match prepare_on(&lines.cpu, forecaster, residence, deadline).await {
            Err(LoadRefused::Device { .. } | LoadRefused::DeviceDown { .. })
                if !falls_back && !lines.gpus.is_empty() => {} // it only stands by
            result => result?,
        }
        if let Some(later) = self.inner.later.lock().as_mut() {
            later.push(Arc::downgrade(forecaster));
            return Ok(());
        }
        self.prepare_on_gpus(forecaster, deadline).await
    }

    /// Brings to the GPUs what the CPU alone has had so far, as they come up, and lets them answer then. Returns at once
    /// where they were not kept from it ([`Settings::cpu_first`](crate::Settings::cpu_first)).
    pub async fn bring_gpus(&self) {
        loop {
            let next = {
                let mut later = self.inner.later.lock();
                match later.as_mut() {
                    None => return,
                    Some(models) if !models.is_empty() => std::mem::take(models),
                    Some(_none_left) => {
                        *later = None;
                        self.inner.rooms.lines.gpus().for_each(|(_, line)| line.release());
                        return;
                    }
                }
            };
            for model in next {
                // What has been unloaded since is nobody's any more.
                let Some(forecaster) = model.upgrade() else { continue };
                let deadline = Deadline::after(
                    Instant::from(tokio::time::Instant::now()),
                    self.inner.settings.load_within,
                );
                if let Err(refused) = self.prepare_on_gpus(&forecaster, deadline).await {
                    tracing::warn!(model = %forecaster.spec().name, error = %refused, "no gpu has the model yet");
                }
            }
        }
    }

    async fn prepare_on_gpus(&self, forecaster: &Forecaster, deadline: Deadline) -> Result<(), LoadRefused> {
        let Terms { mut residence, fallback, .. } = self.terms(&forecaster.spec().name);
        let (lines, falls_back) = (&self.inner.rooms.lines, fallback.falls_back());
        let (mut home, mut refusals, mut served) = (None, Vec::new(), false);
        for at in homes(&lines.gpus.iter().map(|line| line.kept()).collect::<Vec<_>>()) {
            let line = &lines.gpus[at];
            match prepare_on(line, forecaster, residence, deadline).await {
                Ok(()) => served = true,
                Err(refused @ (LoadRefused::Stopping | LoadRefused::Deadline)) => return Err(refused),
                Err(refused) => {
                    refusals.push(refused);
                    continue;
                }
            }
            if residence != Residence::Stays {
                continue;
            }
            // Where it does not stay although it was asked to, the next one is: the first waits for room only if none has any.
            if line.keeps(forecaster) {
                residence = Residence::Loaded;
                if let Some(refused) = home.replace(line) {
                    refused.forgo(forecaster);
                }
            } else if home.is_some() {
                line.forgo(forecaster);
            } else {
                home = Some(line);
            }
        }
        if !served && !falls_back && !refusals.is_empty() {
            return Err(refusals.swap_remove(0));
        }
        for refused in refusals {
            tracing::warn!(model = %forecaster.spec().name, error = %refused, "a gpu does not serve the model");
        }
        Ok(())
    }

    fn route(&self, forecaster: &Arc<Forecaster>, status: Arc<ModelStatus>) -> Route {
        let rooms = &self.inner.rooms;
        let gates = rooms.lines.map(|device, line| {
            let guards = Guarded::Device { model: status.spec.name.clone(), version: status.version, device };
            let gate = Arc::new(Gate::new(GateSpec {
                mode: self.inner.orders.mode(&guards),
                guards,
                limits: self.inner.settings.breaker.clone(),
                clock: Arc::clone(&self.inner.clock),
                breaker: Some(rooms.breaker.clone()),
                mend: (device.backend == Backend::Gpu).then(|| mend(line.address().clone())),
            }));
            rooms.gates.add(&gate);
            gate
        });
        let key = (status.spec.name.clone(), status.version);
        let ledger =
            Arc::clone(self.inner.ledgers.lock().entry(key).or_insert_with(|| Arc::new(Ledger::new())));
        let served = Arc::new(Served {
            forecaster: Arc::clone(forecaster),
            version: status.version,
            ledger,
            judges: gates.map(|_, gate| Arc::clone(gate) as Arc<dyn Judge>),
            paces: gates.map(|_, _| Pace::new(self.inner.clock.now())),
            sampler: Sampler::new(self.inner.clock.now()),
            terms: self.terms(&status.spec.name),
            lines: rooms.lines.map(|_, line| Arc::clone(line)),
        });
        Route { served, gates, status, turns: AtomicU64::new(0) }
    }

    /// How a model is served.
    fn terms(&self, model: &str) -> Terms {
        let settings = &self.inner.settings;
        let mut terms = settings.profiles.of(model).terms(settings);
        if let Some(placement) = settings.placement_by_model.get(model) {
            terms.placement = *placement;
        }
        terms.fallback = settings.fallback_of(model);
        terms
    }

    /// Until when models, and what is decided about them, are waited for that are asked for now.
    pub(super) fn load_deadline(&self) -> Deadline {
        Deadline::after(Instant::from(tokio::time::Instant::now()), self.inner.settings.load_within)
    }

    async fn ask_router(&self, mail: RouterMail, deadline: Deadline) -> Result<bool, LoadRefused> {
        let routed = ask(&self.inner.rooms.router, mail, deadline).await?;
        Ok(matches!(routed, Routed::Was(true)))
    }
}

fn status(forecaster: &Forecaster, version: u32, state: ModelState) -> ModelStatus {
    ModelStatus {
        spec: Arc::clone(forecaster.spec()),
        version,
        digest: forecaster.digest().to_owned(),
        state,
        weight_bytes: forecaster.weight_bytes(),
    }
}

/// Builds a device anew whose answers are wrong: its memory may hold wrong weights.
fn mend(door: Address<Order>) -> Mend {
    Box::new(move |why| {
        // Full: then the actor has mail and is alive; the circuit stays open until its answers are right.
        let _ = door.tell(Order::Rebuild(why.to_owned()));
    })
}

/// A model that is on its way; dropped, it no longer is.
struct Announcement<'a> {
    inner: &'a Inner,
    status: Arc<ModelStatus>,
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        self.inner.loading.lock().retain(|loading| !Arc::ptr_eq(loading, &self.status));
        let (model, version) = (self.status.spec.name.clone(), self.status.version);
        // No effect on a version that has become ready.
        let _ = self.inner.rooms.router.tell(RouterMail::Withdraw { model, version });
    }
}

async fn prepare_on(
    line: &Line,
    forecaster: &Forecaster,
    residence: Residence,
    deadline: Deadline,
) -> Result<(), LoadRefused> {
    let device = line.id();
    let mut state = line.watch();
    let built = state.wait_for(|state| *state != DeviceState::Starting);
    match tokio::time::timeout_at(deadline.instant().into(), built).await {
        Ok(Ok(now)) if *now == DeviceState::Up => {}
        Ok(_) => return Err(LoadRefused::DeviceDown { device }),
        Err(_elapsed) => return Err(LoadRefused::Deadline),
    }
    for plan in forecaster.plans() {
        match line.address().ask(Order::Prepare { plan: Arc::clone(plan), residence }, deadline).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(LoadRefused::Device { device, error }),
            Err(AskError::Deadline) => return Err(LoadRefused::Deadline),
            Err(AskError::Closed) => return Err(LoadRefused::Stopping),
            Err(_failed) => return Err(LoadRefused::DeviceDown { device }),
        }
    }
    Ok(())
}

pub(super) async fn ask(
    router: &peregrine_runtime::Address<RouterMail>,
    mail: RouterMail,
    deadline: Deadline,
) -> Result<Routed, LoadRefused> {
    router.ask(mail, deadline).await.map_err(|error| match error {
        AskError::Deadline | AskError::Full => LoadRefused::Deadline,
        _stopped => LoadRefused::Stopping,
    })
}

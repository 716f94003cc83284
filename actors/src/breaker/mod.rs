//! The actor that owns every circuit: it alone moves them, and publishes each as a [`Gate`].
//!
//! Knows models by name only and devices by their place. Restarted, it goes on with the gates as they stand.

mod coverage;
mod gate;
mod mode;
mod state;
#[cfg(test)]
mod tests;
mod trusts;
mod window;

use std::sync::{Arc, Weak};

use actix::{Actor, Context, Handler, Message};
use parking_lot::Mutex;

pub(crate) use gate::{Gate, GateSpec, Mend};
pub(crate) use mode::Orders;
pub use mode::{BreakerMode, BreakerSelector, TooManyOrders};
pub use state::BreakerLimits;
pub(crate) use state::Event;
pub(crate) use trusts::{Looked, Probe, Trusts};

use crate::devices::DeviceId;
use crate::inference::Ticket;

/// Whether a request may go to a backend.
pub(crate) enum Permit {
    /// Nothing is wrong there.
    Pass,
    /// Something was; this request finds out whether it still is.
    Probe(Ticket),
    /// Not now.
    Refuse,
}

/// What the breaker is told.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum BreakerMail {
    /// A call or a probe has ended.
    Observed { gate: Arc<Gate>, event: Event, why: Option<String> },
    /// An operator decides.
    Mode { gates: Vec<Arc<Gate>>, mode: BreakerMode },
    /// A device went down or came back.
    Device { device: DeviceId, up: bool, why: String },
}

/// All gates of models that are still served.
#[derive(Clone, Default)]
pub(crate) struct Gates(Arc<Mutex<Vec<Weak<Gate>>>>);

impl Gates {
    pub(crate) fn add(&self, gate: &Arc<Gate>) {
        let mut gates = self.0.lock();
        gates.retain(|known| known.strong_count() > 0);
        gates.push(Arc::downgrade(gate));
    }

    pub(crate) fn all(&self) -> Vec<Arc<Gate>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

pub(crate) struct Breaker {
    gates: Gates,
}

impl Breaker {
    pub(crate) fn new(gates: Gates) -> Self {
        Self { gates }
    }
}

impl Actor for Breaker {
    type Context = Context<Self>;
}

impl Handler<BreakerMail> for Breaker {
    type Result = ();

    fn handle(&mut self, mail: BreakerMail, _: &mut Context<Self>) {
        match mail {
            BreakerMail::Observed { gate, event, why } => gate.apply(event, why.as_deref()),
            BreakerMail::Mode { gates, mode } => gates.iter().for_each(|gate| gate.set_mode(mode)),
            BreakerMail::Device { device, up, why } => {
                let event = if up { Event::DeviceUp } else { Event::DeviceDown };
                let gates = self.gates.all();
                for gate in gates.iter().filter(|gate| gate.is_of(device)) {
                    gate.apply(event, Some(&why));
                }
            }
        }
    }
}

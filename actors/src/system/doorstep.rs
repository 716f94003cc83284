//! Refuses at the door what every device would turn away, before anything is made ready for it.

use peregrine_runtime::Deadline;
use smallvec::SmallVec;

use super::{NotHere, System};
use crate::devices::DeviceId;
use crate::inference::{Line, RESIDENT_ROWS_MAX, Turned};
use crate::profile::Residence;
use crate::remote::Remote;
use crate::request::{ForecastError, Origin};
use crate::router::Route;
use crate::settings::Placement;

impl System {
    /// Refuses a request of so many rows, before its windows are put together, if it would be refused for want of room
    /// were it to come now. `Ok`: it has to ask. That is so as well wherever another node might take it, where a release
    /// chooses who answers, and where its model stays on a device, so that it waits for nobody.
    ///
    /// # Errors
    /// [`ForecastError::Overloaded`], counted like any other.
    pub fn turned_away(
        &self,
        (model, version): (&str, Option<u32>),
        rows: usize,
        origin: &Origin,
        deadline: Deadline,
    ) -> Result<(), ForecastError> {
        let now = self.inner.clock.now();
        let table = self.inner.rooms.table.load();
        let route = match table.choose(model, version, None) {
            Ok(choice) if choice.by.is_none() => choice.served,
            _ => return Ok(()),
        };
        let stays = route.served.terms.residence == Residence::Stays && rows <= RESIDENT_ROWS_MAX;
        // What could never be taken is to be told so.
        if stays || rows > self.inner.settings.batching.request_rows_max {
            return Ok(());
        }
        let waiting = route.served.waiting(rows, origin, (now, deadline));
        let asked = self.lines_for(route);
        let turned: Option<SmallVec<[Turned; 4]>> =
            asked.iter().map(|line| line.would_turn(&waiting, now)).collect();
        let Some(turned) = turned else { return Ok(()) };
        // Last, for as a rule nobody waits, and there is nothing to be refused.
        let elsewhere = |remote: &Remote| {
            remote.prospect((model, Some(route.status.version)), rows, false, deadline, now)
        };
        if self.inner.remote.get().and_then(elsewhere).is_some() {
            return Ok(());
        }
        let waits = asked.iter().zip(turned).map(|(line, turned)| line.turn_away(turned));
        let Some(retry_after_ms) = waits.min() else { return Ok(()) };
        let refused = NotHere::with(None)(ForecastError::Overloaded { retry_after_ms });
        Err(self.counted(route, *refused, now))
    }

    /// Every device that might take a request of this model; none, if it takes more than their queues to say.
    fn lines_for(&self, route: &Route) -> SmallVec<[&Line; 4]> {
        let lines = &self.inner.rooms.lines;
        let placement = route.served.terms.placement;
        let cpu = (lines.gpus.is_empty() || placement != Placement::Gpu).then_some(DeviceId::CPU);
        let gpus = lines.gpus().map(|(id, _)| id).filter(|_| placement != Placement::Cpu);
        let asked: SmallVec<[DeviceId; 4]> = gpus.chain(cpu).collect();
        let are_well = asked.iter().all(|&id| lines[id].is_up() && route.gates[id].is_closed());
        if are_well { asked.iter().map(|&id| &*lines[id]).collect() } else { SmallVec::new() }
    }
}

//! What a system says of predictions that could be made in the thread that took their tick.

use std::time::Duration;

use smallvec::SmallVec;

use super::System;
use crate::devices::{DeviceId, Devices};
use crate::router::{Prospect, Route, in_line};
use crate::settings::Placement;

impl System {
    /// How long the forecast of one window is expected to take in its caller's thread; `None`: it is not to be made there.
    /// `key`: of the release that may choose the version. `spent`: in this thread, on others of the same moment.
    pub(crate) fn in_line(&self, model: &str, key: u64, spent: Duration) -> Option<Duration> {
        let table = self.inner.rooms.table.load();
        let route = table.choose(model, None, Some(key)).ok()?.served;
        let longest = route.served.terms.in_line_max;
        if longest.is_zero() {
            return None;
        }
        let placement = route.served.terms.placement;
        let mut devices =
            if placement == Placement::Cpu { Devices::new() } else { self.candidates(route, 1) };
        if devices.is_empty() || placement == Placement::Fastest {
            devices.push(DeviceId::CPU);
        }
        let prospects: SmallVec<[_; 4]> = devices.into_iter().map(|id| self.prospect(id, route)).collect();
        in_line(&prospects, longest, spent)
    }

    fn prospect(&self, id: DeviceId, route: &Route) -> Prospect {
        let line = &self.inner.rooms.lines[id];
        let takes = route.served.paces[id].expect(1, self.inner.clock.now()).map(|expected| expected.took);
        Prospect { at_once: line.answers_at_once(&route.served), takes }
    }
}

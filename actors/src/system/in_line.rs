//! What a system says of predictions that could be made in the thread that took their tick.

use std::time::Duration;

use super::System;
use crate::inference::Line;
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
        let cpu = || self.prospect(&self.inner.rooms.lines.cpu, route);
        let mut well = self.well_gpus(route);
        let Some((_, gpu)) = well.next() else {
            return in_line(&[cpu()], longest, spent);
        };
        match route.served.terms.placement {
            Placement::Gpu => in_line(&[self.prospect(gpu, route)], longest, spent),
            Placement::Cpu => in_line(&[cpu()], longest, spent),
            Placement::Fastest => in_line(&[self.prospect(gpu, route), cpu()], longest, spent),
        }
    }

    fn prospect(&self, line: &Line, route: &Route) -> Prospect {
        let pace = &route.served.paces[line.id()];
        let takes = pace.expect(1, self.inner.clock.now()).map(|expected| expected.took);
        Prospect { at_once: line.answers_at_once(&route.served), takes }
    }
}

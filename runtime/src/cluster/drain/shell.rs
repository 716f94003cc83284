//! Carries out a drain: asks what is still here, waits for what may change it, leaves in time.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{sleep_until, timeout_at};

use super::{Drain, DrainAction, DrainReport, Rest};
use crate::cluster::{Cluster, Standing};
use crate::deadline::Deadline;

/// Of the whole time, what is kept back for saying goodbye, and how much that is at most.
const GOODBYE_SHARE: u32 = 10;
const GOODBYE_MAX: Duration = Duration::from_millis(500);

impl Cluster {
    /// Leaves in good order: says `Draining`, so that others give this node nothing new, waits for `finish`,
    /// hands over shards and singletons, and leaves. All of it ends by the deadline; what is not done by then is
    /// in the report. `finish` resolves when the work that the program has begun is done, e.g. when its requests
    /// are answered; it is dropped when time is up. A part of the time is kept back for handing over.
    pub async fn drain(&self, deadline: Deadline, finish: impl Future<Output = ()>) -> DrainReport {
        let whole = deadline.remaining(self.net.now());
        let within = whole - (whole / GOODBYE_SHARE).min(GOODBYE_MAX);
        let mut drain = Drain::Serving;
        if let Some(DrainAction::Cordon) = drain.start(within, self.net.now()) {
            tracing::info!(within_ms = within.as_millis() as u64, "drains");
            let by = drain.wake_at().unwrap_or(deadline.instant());
            // What is not cordoned yet looks as if there were nothing to hand over.
            let _ = timeout_at(by.into(), self.cordon()).await;
        }
        let (mut finish, mut finished) = (pin!(finish), false);
        let mut changes = self.duties.changes();
        loop {
            changes.mark_unchanged();
            let rest = Rest { in_flight: usize::from(!finished), ..self.duties.rest() };
            match drain.poll(rest, self.net.now()) {
                Some(DrainAction::Leave(report)) => {
                    tracing::info!(took_ms = report.took.as_millis() as u64, undone = ?report.undone, "leaves");
                    self.leave(deadline).await;
                    return report;
                }
                Some(DrainAction::HandOff | DrainAction::Cordon) => continue,
                None => {}
            }
            let wake_at = drain.wake_at().unwrap_or(deadline.instant());
            tokio::select! {
                () = &mut finish, if !finished => finished = true,
                _ = changes.changed() => {}
                () = sleep_until(wake_at.into()) => {}
            }
        }
    }

    /// Resolves when everything that this node does for others knows that it takes nothing new.
    async fn cordon(&self) {
        self.set_standing(Standing::Draining).await;
        let mut views = self.views();
        let cordoned = views
            .wait_for(|view| view.get(self.id()).is_none_or(|myself| myself.standing == Standing::Draining));
        // The sender lives as long as this cluster does.
        let revision = cordoned.await.map_or(0, |view| view.revision);
        self.duties.have_seen(revision).await;
    }
}

//! One process: a member that says on its output whom it sees and to whom it has a link.

use std::error::Error;
use std::time::Duration;

use crate::member::{Sight, input_end, join};

/// How often the links are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Until its input ends.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn run(id: &str, listen: &str, advertise: &str, seeds: &str) -> Result<(), Box<dyn Error>> {
    let cluster = join(id, listen, advertise, seeds).await?;
    let mut views = cluster.views();
    let mut looks = tokio::time::interval(LOOK);
    let (mut sight, mut input) = (Sight::default(), input_end());
    loop {
        tokio::select! {
            _ = &mut input => return Ok(()),
            _ = views.changed() => {}
            _ = looks.tick() => {}
        }
        sight.look(&cluster);
    }
}

//! What drivers say of devices: there while they say it, and nobody's trouble while they do not.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use peregrine_runtime::{Clock, Deadline, ManualClock};
use peregrine_shaders::Backend;

use super::fake::Script;
use super::until;
use crate::{DeviceMeter, Meters, Settings, System};

/// A driver that says what it is told to, and hangs when told nothing.
#[derive(Default)]
struct Driver {
    says: Mutex<Option<Vec<DeviceMeter>>>,
    changed: Condvar,
}

impl Driver {
    fn say(&self, devices: Option<Vec<DeviceMeter>>) {
        *self.says.lock() = devices;
        self.changed.notify_all();
    }
}

impl Meters for Driver {
    fn read(&self) -> Vec<DeviceMeter> {
        let mut says = self.says.lock();
        while says.is_none() {
            let timed_out = self.changed.wait_for(&mut says, Duration::from_secs(20)).timed_out();
            assert!(!timed_out, "a test forgot its hanging driver");
        }
        says.clone().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_driver_that_hangs_holds_up_nobody_and_its_last_word_grows_old() {
    let clock = Arc::new(ManualClock::new());
    let cpu = Script::new(&clock).factory(Backend::Cpu);
    let driver = Arc::new(Driver::default());
    let hot = DeviceMeter { temperature_celsius: Some(91.0), ..DeviceMeter::default() };
    driver.say(Some(vec![hot.clone()]));
    let settings = Settings { sample_every: Duration::from_millis(5), ..Settings::default() };
    let meters = Some(Arc::clone(&driver) as Arc<dyn Meters>);
    let system = System::start_metered(settings, cpu, None, meters, clock.clone(), 7).unwrap();
    until("it is read", || system.health().meters == [hot.clone()]).await;
    driver.say(None);
    let sampled = || system.health().system.map(|vitals| vitals.taken_at);
    until("its last word is old, and the machine is sampled nevertheless", || {
        clock.advance(Duration::from_secs(11));
        let now = clock.now();
        system.health().meters.is_empty() && sampled().is_some_and(|at| at + Duration::from_secs(30) > now)
    })
    .await;
    driver.say(Some(vec![hot.clone()]));
    until("it is read again", || system.health().meters == [hot.clone()]).await;
    system.stop(Deadline::after(clock.now(), Duration::from_secs(5))).await;
}

#[tokio::test]
async fn without_a_driver_nothing_is_said() {
    let clock = Arc::new(ManualClock::new());
    let cpu = Script::new(&clock).factory(Backend::Cpu);
    let system = System::start(Settings::default(), cpu, None, clock, 7).unwrap();
    until("the machine is sampled", || system.health().system.is_some()).await;
    assert_eq!(system.health().meters, []);
    assert!(system.health().actors.iter().all(|actor| &*actor.name != "meters"));
}

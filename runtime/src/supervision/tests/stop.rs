//! A stop loses nothing it has time for, and leaves nothing behind.

use std::fs;
use std::sync::mpsc::channel;

use super::*;
use crate::{AskError, Outcome, Strategy};

#[tokio::test]
async fn actors_stop_last_first() {
    let garden = Garden::new();
    let mut children = Children::new(Strategy::OneForOne);
    for (name, kind) in [("a", ActorKind::Worker), ("b", ActorKind::Light), ("c", ActorKind::Worker)] {
        garden.plant(&mut children, kind, spec(name, 5), Script::default());
    }
    let tree = grow(children);
    assert!(tree.wait_running(soon()).await);
    tree.stop(soon()).await;
    assert_eq!(garden.journal(), ["+a", "+b", "+c", "-c", "-b", "-a"]);
    assert!(matches!(tree.outcome(), Some(Outcome::Stopped(_))));
}

#[tokio::test]
async fn what_is_queued_is_served_before_the_stop() {
    for kind in KINDS {
        let garden = Garden::new();
        let mut children = Children::new(Strategy::OneForOne);
        let probe = garden.plant(&mut children, kind, spec("probe", 5), Script::default());
        let tree = grow(children);
        let (go, gate) = channel();
        let (parked, echo, report, ()) = tokio::join!(
            probe.ask(Do::Park(gate), soon()),
            probe.ask(Do::Echo(1), soon()),
            tree.stop(soon()),
            async {
                let stopping = |statuses: &[ActorStatus]| statuses[0].state == ActorState::Stopping;
                assert!(tree.wait_until(soon(), stopping).await);
                go.send(()).unwrap();
            },
        );
        assert_eq!((parked, echo, report), (Ok(0), Ok(1), crate::StopReport::default()), "{kind:?}");
        assert_eq!(probe.ask(Do::Echo(2), soon()).await, Err(AskError::Closed));
    }
}

#[tokio::test]
async fn who_does_not_stop_is_named_and_what_it_had_queued_fails() {
    for kind in KINDS {
        let garden = Garden::new();
        let mut children = Children::new(Strategy::OneForOne);
        garden.plant(&mut children, ActorKind::Worker, spec("willing", 5), Script::default());
        let probe = garden.plant(&mut children, kind, spec("blocked", 5), Script::default());
        let tree = grow(children);
        assert!(tree.wait_running(soon()).await);
        let (go, gate) = channel();
        let (parked, echo, report) =
            tokio::join!(probe.ask(Do::Park(gate), soon()), probe.ask(Do::Echo(1), soon()), async {
                queued(&probe, 1).await;
                let report = tree.stop(Deadline::after(SystemClock.now(), Duration::from_millis(10))).await;
                drop(go);
                report
            },);
        assert_eq!((parked, echo), (Ok(0), Err(AskError::Failed)), "{kind:?}");
        assert_eq!((report.stuck, report.discarded), (vec!["blocked".into()], 1), "{kind:?}");
    }
}

#[tokio::test]
async fn no_thread_and_no_actor_outlives_a_stop() {
    let garden = Garden::new();
    let mut children = Children::new(Strategy::OneForAll);
    let names = ["outlive-1", "outlive-2", "outlive-3"];
    for name in names {
        garden.plant(&mut children, ActorKind::Worker, spec(name, 5), Script::default());
    }
    garden.plant(&mut children, ActorKind::Light, spec("light", 5), Script::default());
    let tree = grow(children);
    assert!(tree.wait_running(soon()).await);
    assert_eq!(threads_named("outlive-"), names);
    tree.inject_panic("outlive-2");
    assert!(tree.wait_until(soon(), restarts_are(4)).await);
    tree.stop(soon()).await;
    assert_eq!(threads_named("outlive-"), [""; 0]);
    let count = |sign| garden.journal().iter().filter(|entry| entry.starts_with(sign)).count();
    assert_eq!((count('+'), count('-')), (8, 8));
}

#[tokio::test]
async fn a_dropped_tree_stops_by_itself() {
    let garden = Garden::new();
    let mut children = Children::new(Strategy::OneForOne);
    let probe = garden.plant(&mut children, ActorKind::Worker, spec("dropped", 5), Script::default());
    let tree = grow(children);
    assert!(tree.wait_running(soon()).await);
    let (go, gate) = channel();
    let (parked, echo, ()) =
        tokio::join!(probe.ask(Do::Park(gate), soon()), probe.ask(Do::Echo(1), soon()), async {
            queued(&probe, 1).await;
            drop(tree);
            queued(&probe, 0).await;
            go.send(()).unwrap();
        });
    assert_eq!((parked, echo), (Ok(0), Err(AskError::Failed)));
}

/// Names of the live threads of this process that begin so.
fn threads_named(prefix: &str) -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    let mut names: Vec<_> =
        names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

//! Whatever fails is noticed, named and rebuilt, until its budget is spent.

use std::sync::mpsc::channel;

use super::*;
use crate::{AskError, Escalate, Outcome, Strategy};

#[tokio::test]
async fn an_error_of_the_factory_is_met_with_a_restart() {
    check_rebuilt(&KINDS, &Script::factory(&[Fault::Error, Fault::Error]), 2, "factory failed: scripted")
        .await;
}

#[tokio::test]
async fn a_panic_of_the_factory_is_met_with_a_restart() {
    check_rebuilt(&KINDS, &Script::factory(&[Fault::Panic]), 1, "factory panicked: scripted").await;
}

#[tokio::test]
async fn a_panic_at_the_start_is_met_with_a_restart() {
    check_rebuilt(&KINDS, &Script::start(&[Fault::Panic, Fault::Panic]), 2, "panicked: scripted").await;
}

#[tokio::test]
async fn an_error_of_a_worker_is_met_with_a_restart() {
    check_rebuilt(&[ActorKind::Worker], &Script::start(&[Fault::Error]), 1, "failed: scripted").await;
}

async fn check_rebuilt(kinds: &[ActorKind], script: &Script, restarts: u64, reason: &str) {
    for &kind in kinds {
        let garden = Garden::new();
        let mut children = Children::new(Strategy::OneForOne);
        let probe = garden.plant(&mut children, kind, spec("probe", 5), script.clone());
        let tree = grow(children);
        assert_eq!(probe.ask(Do::Echo(9), soon()).await, Ok(9), "{kind:?} answers in the end");
        assert!(tree.wait_until(soon(), restarts_are(restarts)).await, "{kind:?}: {:?}", tree.snapshot());
        let last_failure = tree.snapshot()[0].last_failure.clone().unwrap().failure.to_string();
        assert!(last_failure.starts_with(reason), "{kind:?}: {last_failure}");
        assert!(tree.stop(soon()).await.stuck.is_empty());
    }
}

#[tokio::test]
async fn a_panic_fails_the_ask_in_hand_and_spares_those_queued() {
    for kind in KINDS {
        let garden = Garden::new();
        let mut children = Children::new(Strategy::OneForOne);
        let probe = garden.plant(&mut children, kind, spec("probe", 5), Script::default());
        let tree = grow(children);
        let (go, gate) = channel();
        let ended = tokio::join!(
            probe.ask(Do::Park(gate), soon()),
            probe.ask(Do::Panic, soon()),
            probe.ask(Do::Echo(1), soon()),
            probe.ask(Do::Echo(2), soon()),
            async { go.send(()).unwrap() },
        );
        assert_eq!(ended, (Ok(0), Err(AskError::Failed), Ok(1), Ok(2), ()), "{kind:?}");
        assert!(tree.wait_until(soon(), restarts_are(1)).await);
        assert_eq!(tree.snapshot()[0].last_failure.clone().unwrap().failure.to_string(), "panicked: told to");
        tree.stop(soon()).await;
    }
}

#[tokio::test]
async fn an_injected_panic_strikes_an_idle_actor() {
    for kind in KINDS {
        let garden = Garden::new();
        let mut children = Children::new(Strategy::OneForOne);
        let probe = garden.plant(&mut children, kind, spec("probe", 5), Script::default());
        let tree = grow(children);
        assert!(tree.wait_running(soon()).await);
        assert!(tree.inject_panic("probe") && !tree.inject_panic("nobody"));
        assert!(tree.wait_until(soon(), restarts_are(1)).await, "{kind:?}: {:?}", tree.snapshot());
        assert_eq!(probe.ask(Do::Echo(3), soon()).await, Ok(3));
        tree.stop(soon()).await;
    }
}

#[tokio::test]
async fn a_spent_budget_ends_the_tree() {
    for (kind, when_spent) in [(ActorKind::Light, Escalate::Parent), (ActorKind::Worker, Escalate::StopNode)]
    {
        let garden = Garden::new();
        let mut children = Children::new(Strategy::OneForOne);
        let bystander = garden.plant(&mut children, kind, spec("bystander", 5), Script::default());
        let doomed = ChildSpec { when_spent, ..spec("doomed", 2) };
        garden.plant(&mut children, kind, doomed, Script::factory(&[Fault::Error; 9]));
        let tree = grow(children);
        let Outcome::StopNode { actor, failure, report } = tree.ended().await else {
            panic!("stopped by none")
        };
        assert_eq!((&*actor, failure.to_string()), ("doomed", "factory failed: scripted error".to_owned()));
        assert!(report.stuck.is_empty());
        assert_eq!(tree.snapshot()[1].restarts, 2);
        assert_eq!(bystander.ask(Do::Echo(1), soon()).await, Err(AskError::Closed));
        assert_eq!(garden.journal(), ["+bystander", "-bystander"]);
    }
}

#[tokio::test]
async fn a_child_left_down_does_not_disturb_the_others() {
    for kind in KINDS {
        let garden = Garden::new();
        let mut children = Children::new(Strategy::OneForOne);
        let optional = ChildSpec { when_spent: Escalate::LeaveDown, ..spec("optional", 0) };
        let optional = garden.plant(&mut children, kind, optional, Script::factory(&[Fault::Error]));
        let other = garden.plant(&mut children, kind, spec("other", 5), Script::default());
        let tree = grow(children);
        assert!(tree.wait_running(soon()).await, "{:?}", tree.snapshot());
        let states: Vec<_> = tree.snapshot().iter().map(|status| status.state).collect();
        assert_eq!(states, [ActorState::Stopped, ActorState::Running]);
        assert_eq!(optional.ask(Do::Echo(1), soon()).await, Err(AskError::Closed));
        assert_eq!(other.ask(Do::Echo(1), soon()).await, Ok(1));
        tree.stop(soon()).await;
    }
}

#[tokio::test]
async fn a_failing_factory_does_not_hold_up_the_siblings() {
    let garden = Garden::new();
    let mut children = Children::new(Strategy::OneForOne);
    let slow = ChildSpec {
        backoff: Backoff { base: Duration::from_secs(600), max: Duration::from_secs(600), jitter: 0.0 },
        ..spec("slow", 5)
    };
    garden.plant(&mut children, ActorKind::Worker, slow, Script::factory(&[Fault::Error]));
    let other = garden.plant(&mut children, ActorKind::Worker, spec("other", 5), Script::default());
    let tree = grow(children);
    assert_eq!(other.ask(Do::Echo(1), soon()).await, Ok(1));
    assert_eq!(tree.snapshot()[0].state, ActorState::Waiting);
    tree.stop(soon()).await;
}

#[test]
fn a_tree_runs_beside_another_actix_system() {
    actix::System::new().block_on(async {
        let garden = Garden::new();
        let mut children = Children::new(Strategy::OneForOne);
        let probe = garden.plant(&mut children, ActorKind::Light, spec("probe", 5), Script::default());
        let tree = grow(children);
        assert_eq!(probe.ask(Do::Echo(4), soon()).await, Ok(4));
        assert!(tree.stop(soon()).await.stuck.is_empty());
    });
}

#[test]
fn names_are_unique() {
    let garden = Garden::new();
    let mut children = Children::new(Strategy::OneForOne);
    for _ in 0..2 {
        garden.plant(&mut children, ActorKind::Worker, spec("twin", 5), Script::default());
    }
    assert!(Tree::start(children, Arc::new(SystemClock), 7).is_err());
}

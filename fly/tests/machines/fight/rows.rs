//! The rows of `machines-api.json` as faults: answers that are injected, and things that happen by themselves.

use std::time::Duration;

use peregrine_scaler::fleet::MachineId;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::machines::fake::Fake;
use crate::machines::fake::faults::Fault;
use crate::machines::fake::machine::FakeMachine;
use crate::machines::fake::world::World;

/// One way to fail.
pub(super) struct Row {
    pub(super) name: &'static str,
    kind: Kind,
    /// Of the calls, or of the rounds, when it is tried alone.
    pub(super) share: f64,
}

enum Kind {
    /// These actions go wrong so.
    Answers(&'static [&'static str], fn() -> Fault),
    /// This happens to a machine that runs.
    Happens(fn(&World, &str)),
}

const CHANGES: &[&str] = &["start", "stop", "cordon", "uncordon", "destroy"];
const ALL: &[&str] = &["*"];

const fn answers(
    name: &'static str,
    actions: &'static [&'static str],
    share: f64,
    fault: fn() -> Fault,
) -> Row {
    Row { name, kind: Kind::Answers(actions, fault), share }
}

const fn happens(name: &'static str, share: f64, act: fn(&World, &str)) -> Row {
    Row { name, kind: Kind::Happens(act), share }
}

pub(super) const ROWS: [Row; 41] = [
    answers("400 EOF", &["create"], 0.3, || Fault::refused(400, "EOF")),
    answers("401", &["list", "create", "lease"], 0.2, || Fault::refused(401, "unauthenticated")),
    answers("403 unauthorized", ALL, 0.1, || Fault::refused(403, "unauthorized")),
    answers("404 machine not found", CHANGES, 0.2, || Fault::refused(404, "machine not found")),
    answers("404 app not found", &["list", "create"], 0.2, || Fault::refused(404, "app not found")),
    answers("404 lease not found", &["lease", "lease_release"], 0.3, || {
        Fault::refused(404, "lease not found")
    }),
    answers("408 create, not made", &["create"], 0.5, || Fault::Status { status: 408, happens: false }),
    answers("408 create, made", &["create"], 0.5, || Fault::Status { status: 408, happens: true }),
    answers("408 create, shown late", &["create"], 0.5, || Fault::Late(Duration::from_secs(40))),
    answers("408 of a change", CHANGES, 0.2, || Fault::Status { status: 408, happens: true }),
    answers("409 already_exists", &["create"], 0.3, || {
        Fault::refused(
            409,
            "already_exists: unique machine name violation, machine ID a already exists with name \"n\"",
        )
    }),
    answers("409 host, create", &["create"], 0.3, Fault::host_full),
    answers("409 host, start", &["start"], 0.5, Fault::host_full),
    answers("409 region", &["create", "start"], 0.3, Fault::region_full),
    answers("409 concurrent update", CHANGES, 0.3, Fault::concurrent),
    answers("412 start", &["start"], 0.4, || {
        Fault::refused(412, "unable to start machine from current state: 'created'")
    }),
    answers("412 stop and destroy", &["stop", "destroy"], 0.4, || {
        Fault::refused(412, "unable to stop machine from current state: 'replacing'")
    }),
    answers("412 min_secrets_version", &["create"], 0.3, || {
        Fault::refused(412, "min_secrets_version not met")
    }),
    answers("422 insufficient_capacity", &["create"], 0.3, Fault::no_candidate),
    answers("422 name_taken", &["create"], 0.3, || {
        Fault::Refused(422, r#"{"status":"name_taken","error":"Name has already been taken"}"#.to_owned())
    }),
    answers("429", ALL, 0.3, Fault::rate_limited),
    answers("500, done", ALL, 0.2, || Fault::Status { status: 500, happens: true }),
    answers("503, not done", ALL, 0.2, || Fault::Status { status: 503, happens: false }),
    answers("lost, done", ALL, 0.2, || Fault::Lost { happens: true }),
    answers("lost, not done", ALL, 0.2, || Fault::Lost { happens: false }),
    answers("unreached", ALL, 0.3, || Fault::Unreached),
    answers("broken JSON", ALL, 0.2, || Fault::Garbled),
    answers("slow creation", &["create"], 0.6, || Fault::Slow(30)),
    answers("slow start", &["start"], 0.6, || Fault::Slow(60)),
    answers("slow stop", &["stop"], 0.6, || Fault::Slow(60)),
    answers("launch failed", &["create"], 0.4, || Fault::LaunchFails),
    answers("start failed", &["start"], 0.4, || Fault::LaunchFails),
    answers("creation hangs", &["create"], 0.3, || Fault::Stuck),
    answers("start hangs", &["start"], 0.3, || Fault::Stuck),
    answers("stop hangs", &["stop"], 0.3, || Fault::Stuck),
    answers("destroy hangs", &["destroy"], 0.3, || Fault::Stuck),
    answers("created is not settled", &["create"], 0.8, || Fault::Unsettled(Duration::from_secs(60))),
    answers("private_ip changes", &["start"], 0.8, || Fault::Moves),
    happens("a host is out of reach", 0.02, |world, id| {
        world.with(|fake, now| fake.lose_host(now, id, Duration::from_secs(200)));
    }),
    happens("a process falls over", 0.1, |world, id| {
        world.with(|fake, now| {
            if fake.machines[id].up_since.is_some() {
                fake.crash(now, id, 1);
            }
        });
    }),
    happens("another takes leases", 0.3, |world, id| {
        // As a deployment does; it may be refused, and never gives them back.
        let _ = world.client().lease(&MachineId(id.to_owned()), 13, None);
    }),
];

impl Row {
    pub(super) fn inject(&self, fake: &mut Fake, share: f64) {
        if let Kind::Answers(actions, fault) = &self.kind {
            for action in *actions {
                fake.inject_share(action, fault(), share);
            }
        }
    }

    /// Nothing is answered wrongly; things happen.
    pub(super) const fn is_disturbance(&self) -> bool {
        matches!(self.kind, Kind::Happens(_))
    }

    /// Perhaps something happens to one machine that runs.
    pub(super) fn disturb(&self, world: &World, chance: &mut StdRng, share: f64) {
        let Kind::Happens(act) = &self.kind else { return };
        if !chance.random_bool(share) {
            return;
        }
        let runs = |machine: &&FakeMachine| machine.state == "started" && machine.is_reachable();
        let ids: Vec<String> = world.with(|fake, _| fake.live().filter(runs).map(|m| m.id.clone()).collect());
        if !ids.is_empty() {
            act(world, &ids[chance.random_range(0..ids.len())]);
        }
    }
}

//! A cloud in a folder, with a program that is as naive as a user's may be.

use std::fs;
use std::thread;

use peregrine_scaler::fleet::Slot;
use peregrine_scaler::pool::contract;
use rand::SeedableRng as _;
use tempfile::TempDir;

use super::*;

const TTL: Duration = Duration::from_secs(30);

/// Looks at no state: it makes, starts, stops and destroys whatever it is asked to. A file `fault-VERB` is run in place
/// of that verb.
const CLOUD: &str = r#"#!/bin/sh
set -eu
cd "$2"
echo "$1 ${SCALER_SLOT:-} ${SCALER_MACHINE:-}" >> calls
[ ! -e "fault-$1" ] || . "./fault-$1"
case $1 in
list)
    separator=
    printf '{"machines":['
    for slot in slots/*; do
        [ -e "$slot" ] || continue
        read -r id region release state < "$slot"
        printf '%s{"machine":"%s","slot":"%s","region":"%s","release":"%s","state":"%s","created_at":"2027-01-15T08:00:00Z"}' \
            "$separator" "$id" "${slot#slots/}" "$region" "$release" "$state"
        separator=,
    done
    echo ']}'
    ;;
create)
    id="i-$(wc -l < calls)"
    state=stopped
    [ "$SCALER_LAUNCH" = false ] || state=started
    echo "$id $SCALER_REGION $SCALER_RELEASE $state" > "slots/$SCALER_SLOT"
    echo "{\"machine\":\"$id\"}"
    ;;
start) echo "$SCALER_MACHINE $SCALER_REGION $SCALER_RELEASE started" > "slots/$SCALER_SLOT" ;;
stop)
    [ "$SCALER_DRAIN_SECONDS" = 5 ]
    echo "$SCALER_MACHINE $SCALER_REGION $SCALER_RELEASE stopped" > "slots/$SCALER_SLOT"
    ;;
destroy) rm "slots/$SCALER_SLOT" ;;
room) echo '{"regions":{"here":2}}' ;;
esac
"#;

struct Cloud(TempDir);

impl Cloud {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("cloud"), CLOUD).unwrap();
        fs::create_dir(dir.path().join("slots")).unwrap();
        Self(dir)
    }

    fn pool(&self, seed: u64) -> CommandPool {
        let dir = self.0.path();
        let argv = |verb: &str| {
            [
                "sh".to_owned(),
                dir.join("cloud").display().to_string(),
                verb.to_owned(),
                dir.display().to_string(),
            ]
            .to_vec()
        };
        let commands = Commands {
            list: argv("list"),
            create: argv("create"),
            start: argv("start"),
            stop: argv("stop"),
            destroy: argv("destroy"),
            cordon: None,
            uncordon: None,
            room: Some(argv("room")),
            timeout: Duration::from_secs(20),
            dir: dir.join("notes"),
            drains: BTreeMap::from([("contract".to_owned(), Duration::from_millis(4001))]),
        };
        CommandPool::open(commands, StdRng::seed_from_u64(seed)).unwrap()
    }

    /// From now on, this is what the verb does.
    fn fault(&self, verb: &str, script: &str) {
        fs::write(self.0.path().join(format!("fault-{verb}")), script).unwrap();
    }

    fn heal(&self, verb: &str) {
        fs::remove_file(self.0.path().join(format!("fault-{verb}"))).unwrap();
    }

    fn calls(&self, verb: &str) -> usize {
        let calls = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        calls.lines().filter(|call| call.split(' ').next() == Some(verb)).count()
    }

    fn notes(&self) -> usize {
        let notes = fs::read_dir(self.0.path().join("notes")).unwrap();
        notes.filter(|note| note.as_ref().unwrap().path().extension().is_some()).count()
    }
}

fn order(number: u32, launch: bool) -> Order {
    let slot = Slot { group: "contract".to_owned(), number };
    Order { slot, region: "here".to_owned(), release: "v1".to_owned(), launch }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

#[test]
fn the_command_pool_keeps_the_contract() {
    let cloud = Cloud::new();
    let mut at = now();
    contract::check(&mut cloud.pool(1), &contract::group("here"), "v1", &mut || {
        at = hold::later(at, Duration::from_millis(100));
        at
    });
    // Stops, starts and cordons that were so already, and a slot that was taken, have not reached the cloud.
    let calls = ["create", "start", "stop", "destroy"].map(|verb| cloud.calls(verb));
    assert_eq!(calls, [3, 2, 3, 3]);
}

#[test]
fn what_an_exit_code_says_is_what_comes_of_it() {
    let cloud = Cloud::new();
    let mut pool = cloud.pool(1);
    let id = pool.create(&order(0, true), now()).unwrap();
    let hold = pool.hold(&id, None, TTL, now()).unwrap();
    let here = "here".to_owned();
    let ended = |code: i32| format!("`stop` has ended with {code}");
    for (script, want) in [
        ("exit 65", PoolError::WrongState(ended(65))),
        ("exit 68", PoolError::Gone),
        ("exit 69", PoolError::NoCapacity { region: here.clone() }),
        ("exit 71", PoolError::HostFull),
        ("exit 73", PoolError::SlotTaken),
        ("exit 75", PoolError::RateLimited),
        ("exit 77", PoolError::Refused(ended(77))),
        ("exit 78", PoolError::Refused(ended(78))),
        ("exit 1", PoolError::Ambiguous(ended(1))),
        ("exit 127", PoolError::Ambiguous(ended(127))),
        ("kill -9 $$", PoolError::Ambiguous("`stop` was ended by a signal".to_owned())),
    ] {
        cloud.fault("stop", script);
        assert_eq!(pool.change(&id, Change::Stop, &hold, now()), Err(want), "{script}");
    }
    cloud.heal("stop");
    assert_eq!(pool.change(&id, Change::Stop, &hold, now()), Ok(()));
    for (script, is_refused) in
        [("exit 78", true), ("exit 1", false), ("exit 69", false), ("echo '{'; exit 0", false)]
    {
        cloud.fault("list", script);
        match pool.list(now()) {
            Err(PoolError::Refused(_)) => assert!(is_refused, "{script}"),
            Err(PoolError::Unavailable(_)) => assert!(!is_refused, "{script}"),
            other => panic!("{script}: {other:?}"),
        }
        let before = cloud.calls("create");
        assert!(pool.create(&order(1, true), now()).is_err(), "without a list nothing is made");
        assert_eq!(cloud.calls("create"), before);
    }
    cloud.fault("list", "exit 75");
    assert_eq!(pool.list(now()), Err(PoolError::RateLimited));
}

#[test]
fn a_program_that_is_too_slow_may_have_done_it() {
    let cloud = Cloud::new();
    let mut pool = cloud.pool(1);
    pool.commands.timeout = Duration::from_millis(1500);
    // It has done it, and does not say so.
    cloud.fault("create", "echo \"i-7 here v1 started\" > slots/$SCALER_SLOT; sleep 600");
    let made = pool.create(&order(0, true), now());
    assert_eq!(made, Err(PoolError::Ambiguous("`create` did not end within 1.5s".to_owned())));
    assert_eq!(pool.list(now()).unwrap().len(), 1);
    assert_eq!(pool.create(&order(0, true), now()), Err(PoolError::SlotTaken));
    cloud.fault("list", "sleep 600");
    assert!(matches!(pool.list(now()), Err(PoolError::Unavailable(_))));
}

#[test]
fn one_that_says_done_and_not_what_has_done_nobody_knows_what() {
    let cloud = Cloud::new();
    let mut pool = cloud.pool(1);
    for said in ["", "i-7", "{}", "{\"machine\":\"../i-7\"}", "{\"machine\":7}"] {
        cloud.fault("create", &format!("echo '{said}'; exit 0"));
        assert!(matches!(pool.create(&order(0, true), now()), Err(PoolError::Ambiguous(_))), "{said}");
    }
    pool.commands.create = vec!["/nowhere/cloud".to_owned()];
    let refused = pool.create(&order(0, true), now()).unwrap_err().to_string();
    assert!(refused.starts_with("refused: `create`: /nowhere/cloud: "), "{refused}");
}

#[test]
fn scalers_of_one_folder_fill_a_slot_once() {
    let cloud = Cloud::new();
    // Slow enough for all of them to look before the first has made it, were they let.
    cloud.fault("create", "sleep 0.2");
    let made: Vec<Result<MachineId, PoolError>> = thread::scope(|scope| {
        let cloud = &cloud;
        let scaler = |seed| scope.spawn(move || cloud.pool(seed).create(&order(0, true), now()));
        let scalers: Vec<_> = (0..4).map(scaler).collect();
        scalers.into_iter().map(|scaler| scaler.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
    assert_eq!(cloud.calls("create"), 1);
}

#[test]
fn a_hold_is_seen_by_the_next_scaler_and_forgotten_with_its_machine() {
    let cloud = Cloud::new();
    let (mut one, mut other) = (cloud.pool(1), cloud.pool(2));
    let id = one.create(&order(0, false), now()).unwrap();
    let hold = one.hold(&id, None, TTL, now()).unwrap();
    let held = PoolError::Held { until: hold.until };
    assert_eq!(other.hold(&id, None, TTL, now()), Err(held.clone()));
    let forged = Hold { nonce: "0".to_owned(), ..hold.clone() };
    assert_eq!(other.change(&id, Change::Destroy, &forged, now()), Err(held));
    other.release(&id, &forged, now()).unwrap();
    one.change(&id, Change::Cordon, &hold, now()).unwrap();
    assert!(other.list(now()).unwrap()[0].cordoned);
    one.change(&id, Change::Destroy, &hold, now()).unwrap();
    assert_eq!(one.list(now()), Ok(vec![]));
    assert_eq!(cloud.notes(), 1, "a hold is kept while it lasts: the list may have been early");
    assert_eq!(one.list(hold.until), Ok(vec![]));
    assert_eq!(cloud.notes(), 0);
}

#[test]
fn a_note_that_cannot_be_read_is_named() {
    let cloud = Cloud::new();
    let mut pool = cloud.pool(1);
    let id = pool.create(&order(0, false), now()).unwrap();
    let path = cloud.0.path().join(format!("notes/{id}.json"));
    for bytes in [
        &b"{"[..],
        b"{\"cordoned\":1}",
        b"{\"hold\":{\"nonce\":\"a\",\"until\":\"never\"}}",
        &[b' '; 1 << 16],
    ] {
        fs::write(&path, bytes).unwrap();
        let refused = pool.hold(&id, None, TTL, now()).unwrap_err().to_string();
        assert!(refused.contains(&format!("{id}.json: ")), "{refused}");
        assert!(pool.list(now()).is_err(), "whether it is cordoned is not known");
    }
    assert_eq!(pool.hold(&MachineId("../../x".to_owned()), None, TTL, now()), Err(PoolError::Gone));
}

#[test]
fn a_cloud_that_knows_cordons_is_asked_once() {
    let cloud = Cloud::new();
    let mut pool = cloud.pool(1);
    let argv = |verb: &str| {
        let mut argv = pool.commands.list.clone();
        argv[2] = verb.to_owned();
        Some(argv)
    };
    (pool.commands.cordon, pool.commands.uncordon) = (argv("cordon"), argv("uncordon"));
    let id = pool.create(&order(0, true), now()).unwrap();
    let hold = pool.hold(&id, None, TTL, now()).unwrap();
    pool.change(&id, Change::Uncordon, &hold, now()).unwrap();
    pool.change(&id, Change::Cordon, &hold, now()).unwrap();
    assert_eq!([cloud.calls("cordon"), cloud.calls("uncordon")], [1, 0]);
    assert!(!pool.list(now()).unwrap()[0].cordoned, "the list of the cloud is what counts");
    assert_eq!(pool.room(&contract::group("here"), now()), Ok(vec![("here".to_owned(), 2)]));
}

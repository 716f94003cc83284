//! Real processes: `sleep`, and shells that do what they should not.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use peregrine_scaler::pool::contract;
use rand::SeedableRng as _;
use tempfile::TempDir;

use super::*;

const DIR: &str = "PEREGRINE_TEST_LOCAL_POOL_DIR";
const TTL: Duration = Duration::from_secs(30);
/// For what the kernel takes to start or end a process.
const PATIENCE: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(5);

/// A folder whose machines do not outlive the test.
struct Place(TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.0.path()).unwrap() {
            let path = entry.unwrap().path();
            let is_note = path.extension().is_some_and(|extension| extension == "process") && path.is_file();
            if let Some(process) = is_note.then(|| Process::from_stat(&fs::read(&path).unwrap())).flatten() {
                process.signal(Signal::Kill).unwrap();
            }
        }
    }
}

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    /// A pool whose machines run this script.
    fn pool(&self, script: &str) -> LocalPool {
        open(self.dir(), script, 1)
    }

    fn log(&self, slot: &str) -> String {
        fs::read_to_string(self.dir().join(format!("{slot}.log"))).unwrap()
    }

    /// Waits until the machine has said so.
    fn until_said(&self, slot: &str, line: &str) {
        until(|| self.log(slot).lines().any(|said| said == line));
    }
}

fn open(dir: &Path, script: &str, seed: u64) -> LocalPool {
    let setting = |key: &str, setting| (key.to_owned(), setting);
    let program = Program {
        path: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![
            setting("NAME", Setting::Slot),
            setting("PLACE", Setting::Region),
            setting("IMAGE", Setting::Release),
            setting("WORD", Setting::Text("text".into())),
            setting("OWN", Setting::FolderIn(dir.join("own"))),
        ],
        drain: DRAIN,
    };
    let programs = BTreeMap::from([("contract".to_owned(), program)]);
    LocalPool::open(LocalSpec { dir: dir.to_owned(), programs, running_max: 3 }, StdRng::seed_from_u64(seed))
        .unwrap()
}

const SLEEPS: &str = "exec sleep 600";
/// Two processes that do not end when they are asked to.
const STUBBORN: &str = "trap '' TERM; sleep 600 & echo on; while :; do wait; done";

fn order(number: u32, launch: bool) -> Order {
    let slot = Slot { group: "contract".to_owned(), number };
    Order { slot, region: "here".to_owned(), release: "v1".to_owned(), launch }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn states(pool: &mut LocalPool, at: Timestamp) -> Vec<MachineState> {
    pool.list(at).unwrap().iter().map(|machine| machine.state).collect()
}

fn changed(pool: &mut LocalPool, machine: &MachineId, change: Change) -> Result<(), PoolError> {
    let hold = pool.hold(machine, None, TTL, now()).unwrap();
    let changed = pool.change(machine, change, &hold, now());
    pool.release(machine, &hold, now()).unwrap();
    changed
}

fn process(place: &Place, slot: &str) -> Process {
    Process::from_stat(&fs::read(place.dir().join(format!("{slot}.process"))).unwrap()).unwrap()
}

/// Processes of that group.
fn group_len(group: i32) -> usize {
    let stats = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let is_dead = matches!(fields.next(), Some("Z" | "X"));
        (!is_dead && fields.nth(1) == Some(group.to_string().as_str())).then_some(())
    });
    stats.count()
}

#[test]
fn the_local_pool_keeps_the_contract() {
    let place = Place::new();
    let mut pool = place.pool(SLEEPS);
    contract::check(&mut pool, &contract::group("here"), "v1", &mut || {
        thread::sleep(Duration::from_millis(2));
        Timestamp::now()
    });
    assert!(pool.list(now()).unwrap().is_empty());
}

#[test]
fn a_machine_is_told_what_it_is() {
    let place = Place::new();
    let mut pool =
        place.pool("echo $NAME $PLACE $IMAGE $WORD $OWN; test -d $OWN && echo there; exec sleep 600");
    pool.create(&order(2, true), now()).unwrap();
    let own = place.dir().join("own/contract-2");
    place.until_said("contract-2", &format!("contract-2 here v1 text {}", own.display()));
    place.until_said("contract-2", "there");
}

#[test]
fn one_that_does_not_end_is_ended_when_its_drain_is_over() {
    let place = Place::new();
    let mut pool = place.pool(STUBBORN);
    let id = pool.create(&order(0, true), now()).unwrap();
    place.until_said("contract-0", "on");
    let process = process(&place, "contract-0");
    assert_eq!(group_len(process.pid()), 2);
    changed(&mut pool, &id, Change::Stop).unwrap();
    let before = hold::later(now(), DRAIN - Duration::from_millis(1));
    assert_eq!(states(&mut pool, before), [MachineState::Stopping]);
    assert_eq!(changed(&mut pool, &id, Change::Start), Err(PoolError::WrongState("stopping".to_owned())));
    assert_eq!(changed(&mut pool, &id, Change::Destroy), Err(PoolError::WrongState("stopping".to_owned())));
    assert!(process.is_alive());
    let over = hold::later(now(), DRAIN);
    until(|| states(&mut pool, over) == [MachineState::Stopped]);
    until(|| group_len(process.pid()) == 0);
}

#[test]
fn one_that_ends_by_itself_has_failed_and_can_start_again() {
    let place = Place::new();
    let mut pool = place.pool(SLEEPS);
    let id = pool.create(&order(0, true), now()).unwrap();
    let first = process(&place, "contract-0");
    assert!(first.signal(Signal::Kill).unwrap());
    until(|| states(&mut pool, now()) == [MachineState::Failed]);
    changed(&mut pool, &id, Change::Start).unwrap();
    assert_eq!(states(&mut pool, now()), [MachineState::Started]);
    let second = process(&place, "contract-0");
    assert!(second != first && second.is_alive());
    second.signal(Signal::Kill).unwrap();
    until(|| states(&mut pool, now()) == [MachineState::Failed]);
    changed(&mut pool, &id, Change::Destroy).unwrap();
    assert_eq!(states(&mut pool, now()), []);
    let left: Vec<_> = fs::read_dir(place.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "lock" || name == "own"), "{left:?}");
}

#[test]
fn whoever_opens_the_pool_after_its_scaler_was_killed_finds_the_machines() {
    let place = Place::new();
    let mut scaler = Command::new(std::env::current_exe().unwrap())
        .args(["scaler::pools::local::tests::makes_machines_until_it_is_killed", "--exact", "--nocapture"])
        .env(DIR, place.dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(scaler.stdout.take().unwrap()).lines();
    let made = lines.map(|line| line.unwrap()).find(|line| line.starts_with("made ")).unwrap();
    scaler.kill().unwrap();
    scaler.wait().unwrap();
    let mut pool = open(place.dir(), SLEEPS, 2);
    let listed = pool.list(now()).unwrap();
    let ids: Vec<&str> = listed.iter().map(|machine| machine.id.0.as_str()).collect();
    assert_eq!(format!("made {}", ids.join(" ")), made);
    assert_eq!(states(&mut pool, now()), [MachineState::Started, MachineState::Stopped]);
    let id = listed[0].id.clone();
    assert_eq!(pool.create(&order(0, true), now()), Err(PoolError::SlotTaken));
    changed(&mut pool, &id, Change::Stop).unwrap();
    until(|| states(&mut pool, now()) == [MachineState::Stopped, MachineState::Stopped]);
}

/// Run by the test above in a process of its own; alone it does nothing.
#[test]
fn makes_machines_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut pool = open(Path::new(&dir), SLEEPS, 1);
    let ids = [order(0, true), order(1, false)].map(|order| pool.create(&order, now()).unwrap().0);
    println!("made {}", ids.join(" "));
    thread::sleep(PATIENCE * 10);
}

#[test]
fn another_process_that_has_the_number_now_is_let_alone() {
    let place = Place::new();
    let mut pool = place.pool(SLEEPS);
    let id = pool.create(&order(0, true), now()).unwrap();
    let own = process(&place, "contract-0");
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let line = fs::read_to_string(format!("/proc/{}/stat", other.id())).unwrap();
    // As if the kernel had given the number of the machine's process to this one.
    let mut fields: Vec<&str> = line.split(' ').collect();
    fields[21] = "1";
    fs::write(place.dir().join("contract-0.process"), fields.join(" ")).unwrap();
    assert_eq!(states(&mut pool, now()), [MachineState::Failed]);
    assert_eq!(changed(&mut pool, &id, Change::Stop), Err(PoolError::WrongState("failed".to_owned())));
    changed(&mut pool, &id, Change::Destroy).unwrap();
    assert_eq!(other.try_wait().unwrap(), None, "it was not the machine's");
    other.kill().unwrap();
    other.wait().unwrap();
    own.signal(Signal::Kill).unwrap();
}

#[test]
fn no_process_survives_the_boot_of_its_machine() {
    let place = Place::new();
    let mut pool = place.pool(SLEEPS);
    pool.create(&order(0, true), now()).unwrap();
    let path = place.dir().join("contract-0.json");
    let record = Record::decode(&fs::read(&path).unwrap()).unwrap();
    fs::write(&path, Record { boot: "another".to_owned(), ..record }.encode()).unwrap();
    assert_eq!(states(&mut pool, now()), [MachineState::Failed]);
}

#[test]
fn what_a_dead_scaler_had_decided_and_not_said_is_said() {
    let place = Place::new();
    let mut pool = place.pool("trap 'echo asked; exit 0' TERM; echo on; while :; do sleep 0.01; done");
    pool.create(&order(0, true), now()).unwrap();
    place.until_said("contract-0", "on");
    // As it is when the scaler dies between the record and the signal; the time of the record is long over.
    let path = place.dir().join("contract-0.json");
    let record = Record::decode(&fs::read(&path).unwrap()).unwrap();
    let aim = Aim::End { by: Timestamp::UNIX_EPOCH, asked: false };
    fs::write(&path, Record { aim, ..record }.encode()).unwrap();
    assert_eq!(states(&mut pool, now()), [MachineState::Stopping]);
    until(|| states(&mut pool, now()) == [MachineState::Stopped]);
    assert_eq!(place.log("contract-0"), "on\nasked\n", "asked once, and not killed");
}

#[test]
fn a_scaler_that_died_before_the_program_was_started_leaves_a_failed_machine() {
    let place = Place::new();
    let mut pool = place.pool(SLEEPS);
    let id = pool.create(&order(0, true), now()).unwrap();
    let own = process(&place, "contract-0");
    own.signal(Signal::Kill).unwrap();
    fs::write(place.dir().join("contract-0.process"), "").unwrap();
    assert_eq!(states(&mut pool, now()), [MachineState::Failed]);
    changed(&mut pool, &id, Change::Start).unwrap();
    assert_eq!(states(&mut pool, now()), [MachineState::Started]);
}

#[test]
fn a_slot_has_one_machine_however_many_scalers_there_are() {
    let place = Place::new();
    let made: Vec<Result<MachineId, PoolError>> = thread::scope(|scope| {
        let place = &place;
        let scaler =
            |seed| scope.spawn(move || open(place.dir(), SLEEPS, seed).create(&order(0, true), now()));
        let scalers: Vec<_> = (0..8).map(scaler).collect();
        scalers.into_iter().map(|scaler| scaler.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
    assert!(made.iter().filter(|made| made.is_err()).all(|made| *made == Err(PoolError::SlotTaken)));
    assert_eq!(states(&mut place.pool(SLEEPS), now()), [MachineState::Started]);
}

#[test]
fn this_machine_is_only_so_large() {
    let place = Place::new();
    let mut pool = place.pool(SLEEPS);
    let room = |pool: &mut LocalPool| pool.room(&contract::group("here"), now()).unwrap();
    for number in 0..3 {
        assert_eq!(room(&mut pool), [("here".to_owned(), 3 - number)]);
        pool.create(&order(number, true), now()).unwrap();
    }
    let full = PoolError::NoCapacity { region: "here".to_owned() };
    assert_eq!(pool.create(&order(3, true), now()), Err(full));
    let spare = pool.create(&order(3, false), now()).unwrap();
    assert_eq!(changed(&mut pool, &spare, Change::Start), Err(PoolError::HostFull));
    assert_eq!(room(&mut pool), [("here".to_owned(), 0)]);
}

#[test]
fn a_program_that_cannot_be_run_leaves_nothing() {
    let place = Place::new();
    let mut pool = place.pool(SLEEPS);
    let spare = pool.create(&order(1, false), now()).unwrap();
    pool.programs.get_mut("contract").unwrap().path = "/nowhere/peregrine".into();
    let refused = pool.create(&order(0, true), now()).unwrap_err().to_string();
    assert!(refused.starts_with("refused: /nowhere/peregrine: "), "{refused}");
    assert!(matches!(changed(&mut pool, &spare, Change::Start), Err(PoolError::Refused(_))));
    assert_eq!(states(&mut pool, now()), [MachineState::Stopped]);
    let other = Order { slot: "../../etc/passwd-0".parse().unwrap(), ..order(0, true) };
    assert!(matches!(pool.create(&other, now()), Err(PoolError::Refused(_))), "no such group");
    let nameless = Order { region: "a\nb".to_owned(), ..order(0, true) };
    assert!(matches!(pool.create(&nameless, now()), Err(PoolError::Refused(_))));
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_nothing_is_done_meanwhile() {
    let place = Place::new();
    let mut pool = place.pool(SLEEPS);
    let id = pool.create(&order(0, false), now()).unwrap();
    let whole = fs::read(place.dir().join("contract-0.json")).unwrap();
    let path = place.dir().join("contract-1.json");
    let refused = |pool: &mut LocalPool| {
        let refused = pool.list(now()).unwrap_err();
        assert!(
            matches!(&refused, PoolError::Refused(why) if why.contains("contract-1.json: ")),
            "{refused}"
        );
        assert_eq!(pool.create(&order(2, false), now()), Err(refused.clone()));
        assert_eq!(pool.hold(&id, None, TTL, now()), Err(refused));
    };
    // Cut short, of another slot, too large, no text, none at all.
    let large = vec![b' '; 1 << 20];
    for bytes in [&whole[..whole.len() / 2], &whole, &large, b"\xff\0\x01", b""] {
        fs::write(&path, bytes).unwrap();
        refused(&mut pool);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused(&mut pool);
    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("contract-0.json", &path).unwrap();
    refused(&mut pool);
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    refused(&mut pool);
    fs::remove_file(&path).unwrap();
    assert_eq!(pool.list(now()).unwrap().len(), 1);
}

#[test]
fn a_log_does_not_fill_the_disk() {
    let place = Place::new();
    let mut pool = place.pool("echo on; exec sleep 600");
    pool.create(&order(0, true), now()).unwrap();
    place.until_said("contract-0", "on");
    let log = OpenOptions::new().write(true).open(place.dir().join("contract-0.log")).unwrap();
    log.set_len(LOG_BYTES_MAX + 1).unwrap();
    pool.list(now()).unwrap();
    assert_eq!(place.log("contract-0"), "");
}

#[test]
fn a_folder_that_another_has_is_not_waited_for_for_ever() {
    let place = Place::new();
    let mut pool = place.pool(SLEEPS);
    let locked = Folder::open(place.dir()).unwrap().lock().unwrap();
    assert!(matches!(pool.list(now()), Err(PoolError::Unavailable(_))));
    drop(locked);
    assert_eq!(states(&mut pool, now()), []);
}

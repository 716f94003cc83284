//! Hours and money as numbers, and what a disk and a sudden death do to them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use peregrine_scaler::control::{Cause, Start};
use peregrine_scaler::fleet::{MachineId, MachineState, PlaceSpec};
use peregrine_scaler::pool::PoolError;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;

use super::*;

const DIR: &str = "PEREGRINE_TEST_LEDGER_DIR";
/// Eight in the morning of the 15th of January 2027, UTC.
const START: i64 = 1_800_000_000;
const KEEP: Duration = Duration::from_secs(90 * 24 * 3600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

fn open(dir: &Path) -> Ledger {
    let (ledger, found) = Ledger::open(dir, KEEP).unwrap();
    assert_eq!(found, Found::default());
    ledger
}

fn groups() -> Vec<GroupSpec> {
    let place = PlaceSpec {
        region: "iad".to_owned(),
        running_per_hour: 3.6,
        stopped_per_hour: 0.36,
        machines_max: 9,
    };
    vec![GroupSpec {
        places: vec![place],
        name: "g".to_owned(),
        ..peregrine_scaler::pool::contract::group("iad")
    }]
}

fn machine(state: MachineState) -> Machine {
    Machine {
        id: MachineId("m".to_owned()),
        slot: "g-0".parse().unwrap(),
        region: "iad".to_owned(),
        state,
        cordoned: false,
        release: "v".to_owned(),
        created_at: at(-1_000_000),
    }
}

/// A scaler that looks now and then.
struct Looker(Accrual);

impl Looker {
    /// The first look of a scaler at what a ledger knows.
    fn first(ledger: &mut Ledger, now: Timestamp) -> Self {
        let mut accrual = Accrual::new(Duration::from_secs(60));
        ledger.catch_up(&mut accrual, &groups(), &[machine(MachineState::Started)], now).unwrap();
        Self(accrual)
    }

    fn look(&mut self, ledger: &mut Ledger, now: Timestamp) {
        let machines = [machine(MachineState::Started)];
        let accrued = self.0.observe(now, &groups(), machines.iter()).unwrap();
        ledger.charge(&accrued, now).unwrap();
    }
}

fn predicted(ledger: &mut Ledger, made: f64, now: Timestamp) {
    let predictions = BTreeMap::from([(("g".to_owned(), "iad".to_owned()), made)]);
    ledger.predicted(&predictions, now).unwrap();
}

fn decision(group: &str, second: i64, to: u32) -> Decision {
    let cause = Cause::PoolSilent(PoolError::RateLimited);
    let facts = vec![("machines", "2".to_owned())];
    let (at, group) = (at(second), group.to_owned());
    Decision { at, group, from: 0, to, cause, findings: Vec::new(), facts, short: (1, 0) }
}

/// The costs of each hour, in cents.
fn cents(ledger: &mut Ledger) -> Vec<(i64, f64)> {
    let costs = ledger.costs(Timestamp::MIN, Timestamp::MAX).unwrap();
    costs.iter().map(|cost| (cost.hour.as_second() - START, (cost.cost * 1e6).round() / 1e4)).collect()
}

#[test]
fn each_hour_gets_its_seconds() {
    let dir = TempDir::new().unwrap();
    let mut ledger = open(dir.path());
    assert_eq!(ledger.charged_until(), None);
    let mut looker = Looker::first(&mut ledger, at(0));
    assert_eq!(cents(&mut ledger), [], "what was before is not known");
    looker.look(&mut ledger, at(1000));
    looker.look(&mut ledger, at(1015));
    assert_eq!(cents(&mut ledger), [(0, 101.5)]);
    looker.look(&mut ledger, at(3600 * 2 + 100));
    assert_eq!(cents(&mut ledger), [(0, 360.0), (3600, 360.0), (7200, 10.0)]);
    let hour = &ledger.costs(at(3600), at(7200)).unwrap()[0];
    assert_eq!((hour.running_seconds, hour.stopped_seconds), (3600.0, 0.0));
}

#[test]
fn no_second_is_charged_twice() {
    let dir = TempDir::new().unwrap();
    let mut ledger = open(dir.path());
    let mut looker = Looker::first(&mut ledger, at(0));
    let accrued = looker.0.observe(at(100), &groups(), [machine(MachineState::Stopped)].iter()).unwrap();
    ledger.charge(&accrued, at(100)).unwrap();
    ledger.charge(&accrued, at(100)).unwrap();
    assert_eq!(cents(&mut ledger), [(0, 10.0)]);
    // Half of it is new.
    let mut other = Accrual::new(Duration::from_secs(60));
    other.observe(at(0), &groups(), [machine(MachineState::Stopped)].iter()).unwrap();
    let accrued = other.observe(at(200), &groups(), [].iter()).unwrap();
    ledger.charge(&accrued, at(200)).unwrap();
    assert_eq!(cents(&mut ledger), [(0, 11.0)]);
    let hour = &ledger.costs(at(0), at(1)).unwrap()[0];
    assert_eq!((hour.running_seconds, hour.stopped_seconds), (100.0, 100.0));
    assert_eq!(ledger.charged_until(), Some(at(200)));
}

#[test]
fn machines_cost_while_no_scaler_looks() {
    let dir = TempDir::new().unwrap();
    Looker::first(&mut open(dir.path()), at(0));
    let mut ledger = open(dir.path());
    assert_eq!(ledger.charged_until(), Some(at(0)));
    let young =
        Machine { id: MachineId("n".to_owned()), created_at: at(50), ..machine(MachineState::Started) };
    let mut accrual = Accrual::new(Duration::from_secs(60));
    let machines = [machine(MachineState::Started), young];
    ledger.catch_up(&mut accrual, &groups(), &machines, at(60)).unwrap();
    assert_eq!(cents(&mut ledger), [(0, 7.0)], "a minute, and ten seconds");
    let accrued = accrual.observe(at(70), &groups(), machines.iter()).unwrap();
    ledger.charge(&accrued, at(70)).unwrap();
    assert_eq!(cents(&mut ledger), [(0, 9.0)]);
    // A clock that goes back has nothing to catch up with.
    ledger.catch_up(&mut Accrual::new(Duration::from_secs(60)), &groups(), &machines, at(5)).unwrap();
    assert_eq!((cents(&mut ledger), ledger.charged_until()), (vec![(0, 9.0)], Some(at(70))));
}

#[test]
fn a_month_is_that_of_the_calendar() {
    let dir = TempDir::new().unwrap();
    let mut ledger = open(dir.path());
    let mut looker = Looker::first(&mut ledger, at(0));
    let end = "2027-02-01T00:00:00Z".parse::<Timestamp>().unwrap();
    let hours = |hours| end.checked_add(SignedDuration::from_hours(hours)).unwrap();
    // Nothing is nothing, and not less than it.
    assert!(ledger.spent(hours(-1)).unwrap().this_month.is_sign_positive());
    looker.look(&mut ledger, hours(10));
    let spent = ledger.spent(hours(-1)).unwrap();
    assert!((spent.this_month - 3.6 * 16.0 * 24.0 - 3.6 * 16.0).abs() < 1e-6, "{spent:?}");
    assert_eq!(spent.remaining, Duration::from_secs(3600));
    let spent = ledger.spent(hours(0)).unwrap();
    assert!((spent.this_month - 36.0).abs() < 1e-9, "{spent:?}");
    assert_eq!(spent.remaining, Duration::from_secs(28 * 24 * 3600));
}

#[test]
fn predictions_have_a_price() {
    let dir = TempDir::new().unwrap();
    let mut ledger = open(dir.path());
    let mut looker = Looker::first(&mut ledger, at(0));
    assert_eq!(ledger.cost_per_1000("g", at(0), at(0)).unwrap(), None, "none were made");
    looker.look(&mut ledger, at(1000));
    for made in [3000.0, f64::NAN, -5.0, f64::INFINITY, 1000.0] {
        predicted(&mut ledger, made, at(1000));
    }
    let cost = ledger.cost_per_1000("g", at(0), at(1000)).unwrap().unwrap();
    assert!((cost - 0.25).abs() < 1e-12, "{cost}");
    assert_eq!(ledger.cost_per_1000("h", at(0), at(1000)).unwrap(), None);
    assert_eq!(ledger.cost_per_1000("g", at(3600), at(3600)).unwrap(), None);
}

#[test]
fn decisions_and_starts_are_read_back_in_order() {
    let dir = TempDir::new().unwrap();
    let mut ledger = open(dir.path());
    for to in 0..5 {
        ledger.decided(&decision("g", 7, to)).unwrap();
    }
    ledger.decided(&decision("g", 3, 9)).unwrap();
    let ready = |second, start| ReadyTime {
        at: at(second),
        group: "g".to_owned(),
        start,
        took: Duration::from_millis(1500),
    };
    let times = [ready(1, Start::Cold), ready(2, Start::Warm)];
    times.iter().for_each(|time| ledger.was_ready(time).unwrap());
    drop(ledger);
    let mut ledger = open(dir.path());
    ledger.decided(&decision("g", 7, 5)).unwrap();
    let to =
        |decisions: Vec<LoggedDecision>| decisions.iter().map(|decision| decision.to).collect::<Vec<_>>();
    assert_eq!(to(ledger.decisions(at(0), at(8), 100).unwrap()), [9, 0, 1, 2, 3, 4, 5]);
    assert_eq!(to(ledger.decisions(at(0), at(8), 2).unwrap()), [4, 5]);
    assert_eq!(to(ledger.decisions(at(0), at(7), 100).unwrap()), [9]);
    assert!(ledger.decisions(at(8), at(0), 100).unwrap().is_empty());
    let kept = &ledger.decisions(at(0), at(4), 1).unwrap()[0];
    assert_eq!((kept.at, kept.short), (at(3), (1, 0)));
    assert_eq!(kept.facts["machines"], "2");
    assert!(kept.cause.contains("the pool asks for fewer calls"), "{}", kept.cause);
    assert_eq!(ledger.ready_times(at(0), at(8), 100).unwrap(), times);
}

#[test]
fn what_is_old_or_too_much_is_dropped() {
    let dir = TempDir::new().unwrap();
    let mut ledger = open(dir.path());
    ledger.decided(&decision("g", 0, 1)).unwrap();
    let mut looker = Looker::first(&mut ledger, at(0));
    looker.look(&mut ledger, at(10));
    let later = at(0).checked_add(SignedDuration::try_from(KEEP).unwrap()).unwrap();
    let later = |seconds| later.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    looker.look(&mut ledger, later(-1));
    assert_eq!(ledger.decisions(at(0), Timestamp::MAX, 9).unwrap().len(), 1);
    assert_eq!(cents(&mut ledger).len(), 90 * 24);
    looker.look(&mut ledger, later(3600));
    assert_eq!(ledger.decisions(Timestamp::MIN, Timestamp::MAX, 9).unwrap().len(), 0);
    assert_eq!(cents(&mut ledger).len(), 90 * 24, "an hour is over, and an hour is new");
    let keys = ledger.asked(|store| store.surplus(Kind::Cost, Timestamp::MIN, 90 * 24 - 3)).unwrap();
    let oldest: Vec<i64> =
        keys.iter().map(|key| entry::read_key(key).unwrap().1.as_second() - START).collect();
    assert_eq!(oldest, [3600, 7200, 10800], "the oldest of too many");
    // However long nobody looked: what would be dropped at once is not written.
    let far = later(300 * 24 * 3600);
    looker.look(&mut ledger, far);
    let hours = cents(&mut ledger);
    assert_eq!(hours.len(), 90 * 24, "{:?}", hours.first());
    assert!(hours.iter().all(|(_, cents)| (*cents - 360.0).abs() < 1e-3), "{hours:?}");
}

#[test]
fn two_processes_cannot_have_one_ledger() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path());
    assert!(matches!(Ledger::open(dir.path(), KEEP), Err(LedgerError::Locked(_))));
    drop(first);
    open(dir.path());
}

#[test]
fn what_was_answered_survives_the_death_of_the_process() {
    let dir = TempDir::new().unwrap();
    let mut chance = SmallRng::seed_from_u64(7);
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["scaler::ledger::tests::writes_until_it_is_killed", "--exact", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let numbers = lines.filter_map(|line| line.strip_prefix("answered ")?.parse::<u32>().ok());
        let answered = numbers.take(chance.random_range(1..60)).last().expect("it answers");
        child.kill().unwrap();
        child.wait().unwrap();
        let mut ledger = open(dir.path());
        let decisions = ledger.decisions(at(0), Timestamp::MAX, usize::MAX).unwrap();
        let last = decisions.last().unwrap().to;
        assert!(last >= answered, "round {round}: {last}, and {answered} was answered");
        assert!(decisions.iter().map(|decision| decision.to).eq(0..=last), "round {round}");
        // A second was charged for each, all or nothing: the decision may be one ahead.
        let charged = ledger.charged_until().unwrap().as_second() - START;
        assert!(charged == i64::from(last) || charged == i64::from(last) - 1, "{charged} {last}");
        let costs: f64 = cents(&mut ledger).iter().map(|(_, cents)| cents).sum();
        assert!((costs - charged as f64 / 10.0).abs() < 1e-3, "round {round}: {costs} for {charged} s");
    }
}

/// Run by the test above in a process of its own; alone it does nothing.
#[test]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (mut ledger, _) = Ledger::open(Path::new(&dir), KEEP).unwrap();
    let last = ledger.decisions(at(0), Timestamp::MAX, 1).unwrap().first().map(|decision| decision.to);
    let mut looker = Looker::first(&mut ledger, at(last.map_or(0, i64::from)));
    for number in last.map_or(0, |last| last + 1).. {
        ledger.decided(&decision("g", i64::from(number), number)).unwrap();
        looker.look(&mut ledger, at(i64::from(number)));
        writeln!(std::io::stdout(), "answered {number}").unwrap();
    }
}

#[test]
fn values_that_are_none_are_removed_and_counted() {
    let dir = TempDir::new().unwrap();
    let mut ledger = open(dir.path());
    ledger.decided(&decision("g", 1, 1)).unwrap();
    let good = numbered_key(Kind::Decision, at(2), 0);
    let bad: Vec<Entry> = vec![
        (good.clone(), b"{".to_vec()),
        (cost_key(at(0), "g", "iad"), b"{\"group\":\"g\"}".to_vec()),
        (b"\xff".to_vec(), b"{}".to_vec()),
        (good[..9].to_vec(), Vec::new()),
        (numbered_key(Kind::Ready, at(2), 0), vec![b'7'; entry::VALUE_BYTES_MAX + 1]),
    ];
    let len = bad.len() as u64;
    ledger.written(bad, &[], None).unwrap();
    drop(ledger);
    let (mut ledger, found) = Ledger::open(dir.path(), KEEP).unwrap();
    assert_eq!(found, Found { skipped: len, aside: None });
    assert_eq!(ledger.decisions(Timestamp::MIN, Timestamp::MAX, 9).unwrap().len(), 1);
    assert_eq!(cents(&mut ledger), []);
    drop(ledger);
    open(dir.path());
}

#[test]
fn a_damaged_store_is_put_aside_and_never_believed() {
    let whole = TempDir::new().unwrap();
    let mut ledger = open(whole.path());
    let mut looker = Looker::first(&mut ledger, at(0));
    for number in 0..200 {
        ledger.decided(&decision("g", number, 1)).unwrap();
        looker.look(&mut ledger, at(number * 60));
    }
    let (money, hours) = (ledger.spent(at(0)).unwrap().this_month, cents(&mut ledger).len());
    drop(ledger);
    let mut aside = 0;
    for seed in 0..30 {
        let dir = TempDir::new().unwrap();
        assert!(
            Command::new("cp")
                .arg("-r")
                .arg(whole.path().join("ledger"))
                .arg(dir.path())
                .status()
                .unwrap()
                .success()
        );
        hurt(&dir.path().join("ledger"), &mut SmallRng::seed_from_u64(seed));
        match Ledger::open(dir.path(), KEEP) {
            Ok((mut ledger, found)) => {
                aside += usize::from(found.aside.is_some());
                assert!(ledger.spent(at(0)).unwrap().this_month <= money + 1e-9, "seed {seed}");
                assert!(cents(&mut ledger).len() <= hours, "seed {seed}");
                ledger.decided(&decision("g", 1000, 2)).unwrap();
            }
            // Its version cannot be told from that of a later build; it is left where it is.
            Err(LedgerError::Format { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(aside > 3, "{aside} were put aside");
}

/// Cuts, changes or removes one of its files.
fn hurt(store: &Path, chance: &mut SmallRng) {
    let mut files = Vec::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let file = files.choose(chance).unwrap();
    let mut bytes = fs::read(file).unwrap();
    match chance.random_range(0..3) {
        0 => return fs::remove_file(file).unwrap(),
        1 => bytes.truncate(bytes.len() / 2),
        // Where something is written: the store's log is mostly empty.
        _ => {
            let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            for _ in 0..8 {
                if end > 0 {
                    bytes[chance.random_range(0..end)] ^= 0x5a;
                }
            }
        }
    }
    fs::write(file, bytes).unwrap();
}

#[test]
fn of_many_that_were_put_aside_the_newest_stay() {
    let dir = TempDir::new().unwrap();
    for _ in 0..5 {
        drop(Ledger::open(dir.path(), KEEP).unwrap());
        fs::write(dir.path().join("ledger/version"), "rubbish").unwrap();
    }
    let (_, found) = Ledger::open(dir.path(), KEEP).unwrap();
    assert_eq!(found.aside.unwrap().path, dir.path().join("ledger.corrupt-5"));
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ledger", "ledger.corrupt-3", "ledger.corrupt-4", "ledger.corrupt-5", "lock"]);
}

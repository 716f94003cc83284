//! What is kept of a fleet, what programs print of one and what its nodes say, as functions of bytes; see
//! [`crate::fuzzing`].

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use peregrine_scaler::demand::{Demand, Season};
use peregrine_scaler::simulate::Forecast;

use super::book::Book;
use super::home;
use super::ledger::entry::is_entry;
use super::messages::{FromScaler, NodeVitals, ToScaler};
use super::past;
use super::pools::command::{is_note, wire};
use super::pools::local::record::Record;
use super::pools::process::Process;
use super::view::report;
use crate::fuzzing::{answer, message};

/// An entry of the ledger: a byte with the length of the key, the key, then the value.
pub fn ledger(input: &[u8]) -> bool {
    let Some((&len, rest)) = input.split_first() else { return false };
    rest.split_at_checked(usize::from(len)).is_some_and(|(key, value)| is_entry(key, value))
}

/// What a node says to the scaler, or the scaler to a node: the first byte chooses.
pub fn scaler(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    match choice % 2 {
        0 => message::<ToScaler>(bytes).is_some_and(|said| match said {
            ToScaler::Vitals(vitals) => heard(vitals),
            ToScaler::Report => true,
            ToScaler::Release { group, release } => Book::default().order(group, release, at(0)).is_ok(),
        }),
        _ => answer::<ToScaler>(bytes).is_some_and(|said| {
            if let FromScaler::Orders(orders) = said {
                Book::default().releases.merge(&orders.releases);
            }
            true
        }),
    }
}

/// What a node says stands in the book, in the report and in the way of no operator.
fn heard(vitals: NodeVitals) -> bool {
    let mut book = Book::default();
    let known = vitals.releases.stamp_ms;
    let taken = book.hear(vitals, at(0)).releases.stamp_ms == known;
    let _ = (book.reports(), book.fixed([].iter()), report(None, &book).to_string());
    let stale_after = Duration::from_secs(30);
    assert!(book.origins(at(1), stale_after).values().all(|rate| *rate >= 0.0));
    let _ = book.asked(at(1), stale_after);
    assert_eq!(book.order("g".to_owned(), "v2".to_owned(), at(1)), Ok(()));
    assert!(!taken || book.releases.stamp_ms > known, "what an operator says is later");
    book.forget(at(3600));
    assert_eq!(book.nodes().count(), 0);
    taken
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

/// Where local machines meet, what is kept of a machine of the operator's programs, a line of a process, or demand of the
/// past: the first byte chooses.
pub fn home(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    match choice % 4 {
        0 => home::read(bytes).is_ok_and(|home| {
            assert!(home.listen.ip().is_loopback());
            true
        }),
        1 => is_note(bytes),
        2 => Process::from_stat(bytes).is_some_and(|process| {
            assert!(process.pid() > 1);
            true
        }),
        _ => std::str::from_utf8(bytes).is_ok_and(|text| {
            let mut demand =
                Demand::new(Forecast::settings(), Season::Week(TimeZone::UTC), None).expect("in order");
            let newest = past::tell(text, &mut demand);
            assert!(
                demand.kept().all(|(at, rate)| rate.is_finite() && newest.is_some_and(|newest| at <= newest))
            );
            let _ = demand.outlook(newest.unwrap_or(Timestamp::UNIX_EPOCH));
            newest.is_some()
        }),
    }
}

/// What the programs of a pool print, or the file of a local machine: the first byte chooses.
pub fn pools(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    match choice % 3 {
        0 => wire::machines(bytes).is_ok_and(|machines| {
            assert!(machines.iter().all(|machine| wire::is_id(&machine.id.0)));
            true
        }),
        1 => wire::created(bytes).is_ok(),
        _ => Record::decode(bytes).is_ok_and(|record| {
            let written = record.encode();
            let again = Record::decode(&written).expect("what was written is read");
            assert_eq!(again.encode(), written);
            true
        }),
    }
}

//! Names and versions in, what serves them out.

use super::Table;
use crate::request::ForecastError;

#[test]
fn the_highest_ready_version_serves_who_names_none() {
    check(&table(), None, Ok("one"));
    check(&table().with("m", 3, "three"), None, Ok("three"));
}

#[test]
fn a_named_version_serves() {
    check(&table(), Some(1), Ok("one"));
}

#[test]
fn a_version_on_its_way_is_not_ready() {
    check(&table(), Some(2), Err(&ForecastError::NotReady("m".into())));
}

#[test]
fn an_unknown_version_is_unknown() {
    check(&table(), Some(9), Err(&ForecastError::UnknownVersion { model: "m".into(), version: 9 }));
}

#[test]
fn an_announced_replacement_does_not_interrupt() {
    check(&table().with_announced("m", 1), Some(1), Ok("one"));
    check(&table().with_announced("m", 1).without_announced("m", 1), Some(1), Ok("one"));
}

#[test]
fn a_removed_model_is_unknown() {
    let (table, removed) = table().without("m", None);
    assert!(removed);
    check(&table, None, Err(&ForecastError::UnknownModel("m".into())));
    assert!(!table.without("m", Some(1)).1, "there is none any more");
}

/// Version 1 is ready, version 2 on its way.
fn table() -> Table<&'static str> {
    Table::default().with("m", 1, "one").with_announced("m", 2)
}

#[track_caller]
fn check(table: &Table<&'static str>, version: Option<u32>, expected: Result<&str, &ForecastError>) {
    assert_eq!(
        table.find("m", version).copied().map_err(|error| error.to_string()),
        expected.map_err(ToString::to_string)
    );
}

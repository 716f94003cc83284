//! What is kept of a fleet and what programs print of one, as functions of bytes; see [`crate::fuzzing`].

use super::ledger::entry::is_entry;
use super::pools::command::wire;
use super::pools::local::record::Record;

/// An entry of the ledger: a byte with the length of the key, the key, then the value.
pub fn ledger(input: &[u8]) -> bool {
    let Some((&len, rest)) = input.split_first() else { return false };
    rest.split_at_checked(usize::from(len)).is_some_and(|(key, value)| is_entry(key, value))
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

//! What a disk may hand back of kernels, as a function of bytes; fed by the crate that is served.

use std::path::Path;

use super::choices::Choices;
use super::kept::{HEAD_BYTES, Kept};
use super::spirv;

/// A whole file, what was measured, or what was translated: the first byte chooses. What is taken writes itself back.
pub fn kernels(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    match choice % 3 {
        0 => {
            let kept = Kept::new(Path::new("."), "fuzzed", "fuzzed");
            kept.digest_in(bytes).is_some() && (choices(&bytes[HEAD_BYTES..]) || spirv(&bytes[HEAD_BYTES..]))
        }
        1 => choices(bytes),
        _ => spirv(bytes),
    }
}

fn choices(bytes: &[u8]) -> bool {
    let choices = Choices::read(bytes);
    let again = Choices::read(&choices.written());
    assert_eq!(again, choices);
    choices.len() > 0
}

fn spirv(bytes: &[u8]) -> bool {
    spirv::read(bytes).is_some_and(|all| {
        assert_eq!(spirv::write(&all), bytes);
        !all.is_empty()
    })
}

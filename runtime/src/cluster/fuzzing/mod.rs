//! What a hostile peer may send, one function a door: each takes any bytes, panics when a promise is broken, and
//! says whether anything got through.
//!
//! `cargo fuzz` feeds them without end (`runtime/fuzz`); a test of this crate feeds them the stored corpus and a
//! fixed number of mutations of it.

mod gossip;
mod greeting;
pub(crate) mod peer;
mod reader;
#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use gossip::gossip;
pub use greeting::greeting;
pub use reader::reader;

pub use crate::cluster::shard::fuzzing::shard;
use crate::wire::{self, HEADER_BYTES, Header};

/// A frame header is refused, or writes itself back as it was read.
pub fn header(input: &[u8]) -> bool {
    let Some(bytes) = input.first_chunk::<HEADER_BYTES>() else { return false };
    let Ok(header) = Header::read(bytes) else { return false };
    assert_eq!(header.to_bytes(), *bytes, "{header:?}");
    true
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point(f32, f64),
    Named { name: String, tags: Vec<Option<String>> },
    Nested(Vec<Vec<u16>>),
    Pair(Box<(u64, char)>),
}

/// A body is refused, or writes itself back as it was read; the first byte chooses the type.
///
/// What a hostile length prefix may allocate is watched by the fuzzer's own limit of memory.
pub fn codec(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    match choice % 5 {
        0 => rewrites::<Vec<u64>>(bytes),
        1 => rewrites::<Vec<String>>(bytes),
        2 => rewrites::<Vec<Shape>>(bytes),
        3 => rewrites::<(String, Option<Vec<u8>>, [u32; 3])>(bytes),
        _ => rewrites::<Vec<(u32, bool, Option<i64>)>>(bytes),
    }
}

/// As bytes, since a NaN is not equal to itself.
fn rewrites<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    const LIMIT: usize = 4096;
    let Ok(value) = wire::read_bounded::<T, LIMIT>(bytes) else { return false };
    assert!(bytes.len() <= LIMIT, "{} bytes were read", bytes.len());
    let mut written = Vec::new();
    wire::write(&value, &mut written).expect("what was read can be written");
    assert_eq!(written, bytes);
    true
}

/// Runs on a clock that jumps over every wait: a wait without an end would end the run.
fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let within = std::time::Duration::from_secs(3600);
    runtime
        .expect("a runtime of one thread needs nothing")
        .block_on(async { tokio::time::timeout(within, body).await.expect("every wait has an end") })
}

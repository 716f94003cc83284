//! What other nodes and the platform say.

use peregrine_actors::{RemoteAnswer, RemoteForecast, RemoteRefusal};
use peregrine_fly::discovery::{instances, machines};
use peregrine_fly::machines::wire::{Lease, Machine, Regions};
use peregrine_fly::machines::{ApiError, MachineConfig};
use peregrine_runtime::{CodecError, RemoteMessage};

/// A forecast that a node asks another for, its answer, or why there is none: the first byte chooses. What is read
/// writes itself down, and is read again as the same.
pub fn forecasts(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    let written = |bytes: &[u8]| {
        let mut written = Vec::new();
        let read = match choice % 3 {
            0 => RemoteForecast::read(bytes).map(|read| read.write(&mut written)),
            1 => RemoteAnswer::read(bytes).map(|read| read.write(&mut written)),
            _ => RemoteRefusal::read(bytes).map(|read| read.write(&mut written)),
        };
        read.is_ok().then_some(written)
    };
    let Some(once) = written(bytes) else { return false };
    assert_eq!(written(&once), Some(once), "what was written is read as the same");
    true
}

/// Fly's names, Machines, leases, regions and refusals: the first byte chooses.
pub fn platform(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    // A text record comes in strings.
    let strings: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    match choice % 7 {
        0 => machines(&strings).is_ok(),
        1 => instances(&strings).is_ok(),
        2 => serde_json::from_slice::<Vec<Machine>>(bytes).is_ok(),
        3 => serde_json::from_slice::<MachineConfig>(bytes).is_ok_and(|config| {
            let text = serde_json::to_vec(&config).expect("what was read can be written");
            assert_eq!(serde_json::from_slice::<MachineConfig>(&text).ok(), Some(config));
            true
        }),
        4 => serde_json::from_slice::<Lease>(bytes).is_ok(),
        5 => serde_json::from_slice::<Regions>(bytes).is_ok(),
        _ => {
            let said = [404, 409, 412, 422].map(|status| ApiError::of(status, bytes));
            said.iter().any(|error| matches!(error, ApiError::Leased { .. } | ApiError::NoCapacity))
        }
    }
}

/// A message of a node, which writes itself down as what is read again as the same.
pub(crate) fn message<M: RemoteMessage>(bytes: &[u8]) -> Option<M> {
    stays(bytes, |bytes| M::read(M::VERSION, bytes), |message, out| message.write(M::VERSION, out))
}

/// An answer, as [`message`].
pub(crate) fn answer<M: RemoteMessage>(bytes: &[u8]) -> Option<M::Result> {
    stays(
        bytes,
        |bytes| M::read_answer(M::VERSION, bytes),
        |answer, out| M::write_answer(answer, M::VERSION, out),
    )
}

fn stays<T>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<T, CodecError>,
    write: impl Fn(&T, &mut Vec<u8>) -> Result<(), CodecError>,
) -> Option<T> {
    let written = |value: &T| {
        let mut out = Vec::new();
        write(value, &mut out).expect("what was read can be written");
        out
    };
    let value = read(bytes).ok()?;
    let once = written(&value);
    let again = read(&once).expect("what was written is read");
    assert_eq!(written(&again), once, "as bytes, since a NaN is not equal to itself");
    Some(value)
}

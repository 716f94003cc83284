//! What other nodes and the platform say.

use peregrine_actors::{RemoteAnswer, RemoteForecast, RemoteRefusal};
use peregrine_fly::discovery::{instances, machines};
use peregrine_fly::machines::MachineConfig;
use peregrine_fly::machines::wire::Machine;

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

/// Fly's names and Machines: the first byte chooses.
pub fn platform(input: &[u8]) -> bool {
    let Some((choice, bytes)) = input.split_first() else { return false };
    // A text record comes in strings.
    let strings: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    match choice % 4 {
        0 => machines(&strings).is_ok(),
        1 => instances(&strings).is_ok(),
        2 => serde_json::from_slice::<Vec<Machine>>(bytes).is_ok(),
        _ => serde_json::from_slice::<MachineConfig>(bytes).is_ok_and(|config| {
            let text = serde_json::to_vec(&config).expect("what was read can be written");
            assert_eq!(serde_json::from_slice::<MachineConfig>(&text).ok(), Some(config));
            true
        }),
    }
}

//! What clients send over a websocket, as functions of bytes; see [`crate::fuzzing`].

use super::CloseReason;
use super::message_pack::to_json;
use super::ops;
use super::ws::{Event, MessageLimits, Reader};
use crate::gateway::fuzzing::is_json;

const PATTERNS_MAX: usize = 8;

/// Frames, behind a byte that says in how small pieces they come: the messages are the same as of all at once, and no
/// more is held than a message may have.
pub fn websocket(input: &[u8]) -> bool {
    let Some((&step, frames)) = input.split_first() else { return false };
    let whole = read(frames, frames.len().max(1));
    assert_eq!(whole, read(frames, usize::from(step).max(1)));
    let (events, _) = whole;
    for event in &events {
        match event {
            Event::Text(text) => {
                assert!(std::str::from_utf8(text).is_ok());
                command(text);
            }
            Event::Binary(bytes) => drop(message_pack(bytes)),
            Event::Ping(_) | Event::Pong | Event::Close(_) => {}
        }
    }
    !events.is_empty()
}

fn read(frames: &[u8], step: usize) -> (Vec<Event>, Option<CloseReason>) {
    const BYTES_MAX: usize = 4096;
    let mut reader = Reader::new(MessageLimits::of(BYTES_MAX));
    let mut events = Vec::new();
    for piece in frames.chunks(step) {
        let mut piece = piece.to_vec();
        let mut rest = piece.as_mut_slice();
        loop {
            match reader.next(&mut rest) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(reason) => return (events, Some(reason)),
            }
        }
        assert!(reader.kept() <= BYTES_MAX + 125, "{} bytes are held", reader.kept());
    }
    (events, None)
}

/// A command as JSON.
pub fn command(input: &[u8]) -> bool {
    let taken = ops::parse(input, PATTERNS_MAX).1.is_ok();
    if taken {
        is_json(input);
    }
    taken
}

/// One as `MessagePack`: whatever it says, it becomes JSON.
pub fn message_pack(input: &[u8]) -> bool {
    let Ok(json) = to_json(input) else { return false };
    is_json(&json);
    command(&json)
}

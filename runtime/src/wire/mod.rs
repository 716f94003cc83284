//! What crosses between nodes: frames, and messages inside them.
//!
//! Bytes here come from the network and are hostile until checked. Knows no link, member or actor.

mod codec;
mod frame;
mod message;
#[cfg(test)]
mod tests;

pub use codec::{CodecError, read_bounded, write};
pub use message::{RemoteMessage, TypeId};

pub(crate) use codec::{CODEC_BINCODE_2, read_hello};
pub(crate) use frame::{FRAME_BODY_BYTES_MAX, Flags, FrameError, HEADER_BYTES, Header, Kind};

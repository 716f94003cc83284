//! What a message needs before it may cross to another node: a name, a version, a limit, and a form in bytes.

use bytes::Bytes;

use crate::cluster::Fnv;
use crate::fabric::Lane;
use crate::mailbox::Mail;
use crate::trace::TraceContext;
use crate::wire::codec::CodecError;

/// Which message a frame carries: a hash of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub(crate) u32);

impl TypeId {
    /// The id of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let hash = Fnv::of(name.as_bytes());
        Self((hash >> 32) as u32 ^ hash as u32)
    }
}

/// A message that may be sent to an actor on another node.
///
/// [`remote_message!`](crate::remote_message) implements it for types with serde; those that carry tensors write
/// themselves.
pub trait RemoteMessage: Mail + Sized {
    /// Unique in the cluster and never given to another message.
    const NAME: &'static str;
    /// The layout this program writes. Rises with every change.
    const VERSION: u16;
    /// The oldest layout that it still reads, and writes for peers that know no newer.
    const OLDEST: u16;
    /// Longest form of the message, and of its answer, in bytes.
    const BYTES_MAX: usize;
    /// Which lane it takes. Messages of one lane, from one node to another, arrive in the order they were sent.
    const LANE: Lane;

    /// The piece of work that it is sent by, if that is recorded. Frames carry it beside the message.
    fn trace(&self) -> Option<TraceContext> {
        None
    }

    /// The oldest layout in which nothing of this message is lost. Peers that read no newer one are sent an older all the
    /// same.
    fn layout(&self) -> u16 {
        Self::VERSION
    }

    /// The piece of work that it was sent by; called on messages that have just been read.
    fn traced(&mut self, context: TraceContext) {
        let _ = context;
    }

    /// Appends the message in a layout from `OLDEST` to `VERSION`.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&self, version: u16, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads a message of that layout; must neither panic nor allocate much more than the bytes given.
    ///
    /// # Errors
    /// When the bytes are no such message.
    fn read(version: u16, bytes: &[u8]) -> Result<Self, CodecError>;

    /// Reads a large message, which may keep the bytes; as [`RemoteMessage::read`], which small ones come by.
    ///
    /// # Errors
    /// When the bytes are no such message.
    fn read_owned(version: u16, bytes: Bytes) -> Result<Self, CodecError> {
        Self::read(version, &bytes)
    }

    /// Appends an answer.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write_answer(answer: &Self::Result, version: u16, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads an answer; as [`RemoteMessage::read`].
    ///
    /// # Errors
    /// When the bytes are no such answer.
    fn read_answer(version: u16, bytes: &[u8]) -> Result<Self::Result, CodecError>;
}

/// Implements [`RemoteMessage`] for a serde type with a single layout:
/// `remote_message!(Tick, "series.tick", version 1, up to 4096 bytes, lane Stream)`.
#[macro_export]
macro_rules! remote_message {
    ($message:ty, $name:literal, version $version:literal, up to $bytes_max:literal bytes, lane $lane:ident) => {
        impl $crate::RemoteMessage for $message {
            const NAME: &'static str = $name;
            const VERSION: u16 = $version;
            const OLDEST: u16 = $version;
            const BYTES_MAX: usize = $bytes_max;
            const LANE: $crate::Lane = $crate::Lane::$lane;

            fn write(&self, _version: u16, out: &mut Vec<u8>) -> Result<(), $crate::CodecError> {
                $crate::codec_write(self, out)
            }

            fn read(_version: u16, bytes: &[u8]) -> Result<Self, $crate::CodecError> {
                $crate::codec_read::<Self, $bytes_max>(bytes)
            }

            fn write_answer(
                answer: &Self::Result,
                _version: u16,
                out: &mut Vec<u8>,
            ) -> Result<(), $crate::CodecError> {
                $crate::codec_write(answer, out)
            }

            fn read_answer(_version: u16, bytes: &[u8]) -> Result<Self::Result, $crate::CodecError> {
                $crate::codec_read::<Self::Result, $bytes_max>(bytes)
            }
        }
    };
}

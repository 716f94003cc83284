//! The frame around every message: a header of fixed length, read by hand, then a body.
//!
//! Little-endian throughout. A header that is not understood ends its link; a *message* that is not understood is
//! answered with a refusal, so that programs of different versions live together.

use crate::fabric::Lane;

/// Length of a header.
pub(crate) const HEADER_BYTES: usize = 104;
/// No body is longer, whatever its type allows.
pub(crate) const FRAME_BODY_BYTES_MAX: u32 = 64 << 20;

const MAGIC: u16 = 0x4750;
const VERSION: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The first frame of the end that dialled, on the control lane: who it is.
    Hello = 1,
    /// The answer to a hello.
    Welcome = 2,
    /// A message nobody waits for.
    Tell = 3,
    /// A message somebody waits for.
    Ask = 4,
    /// The answer to an ask.
    Answer = 5,
    /// Why there is no answer; the body is one byte.
    Refusal = 6,
    /// Nobody waits for the answer any more.
    Cancel = 7,
    /// A gossip message too long for a datagram.
    Gossip = 8,
    /// This life of the sender is over, on purpose.
    Goodbye = 9,
}

/// How a frame travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    /// The receiver is asked to pass it on to its destination: one hop.
    pub(crate) const VIA: Self = Self(1);
    /// It has been passed on and must not be again.
    pub(crate) const RELAYED: Self = Self(2);

    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) flags: Flags,
    pub(crate) lane: Lane,
    /// How the body is encoded.
    pub(crate) codec: u8,
    /// Version of the message's layout.
    pub(crate) schema: u16,
    /// Which message; 0 where the kind says it all.
    pub(crate) type_id: u32,
    pub(crate) body_bytes: u32,
    /// Pairs an answer with its ask.
    pub(crate) correlation: u64,
    /// The service it is for.
    pub(crate) target: u64,
    /// Time left to the asker when the frame was written, in microseconds; 0: nobody waits. A duration, since
    /// the clocks of two machines do not agree.
    pub(crate) budget_us: u32,
    /// Which life of the origin.
    pub(crate) incarnation: u64,
    /// Rises with every frame from an origin to a destination on a lane; what does not rise is late or a copy.
    pub(crate) sequence: u64,
    /// W3C trace id; zero: not traced.
    pub(crate) trace: [u8; 16],
    /// W3C span id of the sender.
    pub(crate) span: [u8; 8],
    /// Hash of the origin's name.
    pub(crate) origin: u64,
    /// Hash of the destination's name.
    pub(crate) destination: u64,
    /// Which life of the destination; 0: not known yet.
    pub(crate) destination_incarnation: u64,
}

/// A header that ends its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("not a frame")]
    Magic,
    #[error("frame version {0} is not spoken here")]
    Version(u8),
    #[error("frame kind {0} is not known")]
    Kind(u8),
    #[error("lane {0} is not known")]
    Lane(u8),
    #[error("flags {0:#x} are not known")]
    Flags(u8),
    #[error("reserved bytes are set")]
    Reserved,
    #[error("a body of {0} bytes is longer than any may be")]
    Length(u32),
}

impl Header {
    /// A header with nothing but its kind and lane.
    pub(crate) fn new(kind: Kind, lane: Lane) -> Self {
        Self {
            kind,
            flags: Flags::default(),
            lane,
            codec: 0,
            schema: 0,
            type_id: 0,
            body_bytes: 0,
            correlation: 0,
            target: 0,
            budget_us: 0,
            incarnation: 0,
            sequence: 0,
            trace: [0; 16],
            span: [0; 8],
            origin: 0,
            destination: 0,
            destination_incarnation: 0,
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(2, &[VERSION, self.kind as u8, self.codec, self.flags.0]);
        put(6, &self.schema.to_le_bytes());
        put(8, &self.type_id.to_le_bytes());
        put(12, &self.body_bytes.to_le_bytes());
        put(16, &self.correlation.to_le_bytes());
        put(24, &self.target.to_le_bytes());
        put(32, &self.budget_us.to_le_bytes());
        put(36, &[self.lane as u8]);
        put(40, &self.incarnation.to_le_bytes());
        put(48, &self.sequence.to_le_bytes());
        put(56, &self.trace);
        put(72, &self.span);
        put(80, &self.origin.to_le_bytes());
        put(88, &self.destination.to_le_bytes());
        put(96, &self.destination_incarnation.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// When any field has a value that this program would not write; see [`FrameError`].
    pub(crate) fn read(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        if u16::from_le_bytes(part(bytes, 0)) != MAGIC {
            return Err(FrameError::Magic);
        }
        if bytes[2] != VERSION {
            return Err(FrameError::Version(bytes[2]));
        }
        let kind = match bytes[3] {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Tell,
            4 => Kind::Ask,
            5 => Kind::Answer,
            6 => Kind::Refusal,
            7 => Kind::Cancel,
            8 => Kind::Gossip,
            9 => Kind::Goodbye,
            unknown => return Err(FrameError::Kind(unknown)),
        };
        if bytes[5] > Flags::VIA.0 | Flags::RELAYED.0 {
            return Err(FrameError::Flags(bytes[5]));
        }
        let lane = *Lane::ALL.get(usize::from(bytes[36])).ok_or(FrameError::Lane(bytes[36]))?;
        if bytes[37..40] != [0; 3] {
            return Err(FrameError::Reserved);
        }
        let body_bytes = u32::from_le_bytes(part(bytes, 12));
        if body_bytes > FRAME_BODY_BYTES_MAX {
            return Err(FrameError::Length(body_bytes));
        }
        Ok(Self {
            kind,
            flags: Flags(bytes[5]),
            lane,
            codec: bytes[4],
            schema: u16::from_le_bytes(part(bytes, 6)),
            type_id: u32::from_le_bytes(part(bytes, 8)),
            body_bytes,
            correlation: u64::from_le_bytes(part(bytes, 16)),
            target: u64::from_le_bytes(part(bytes, 24)),
            budget_us: u32::from_le_bytes(part(bytes, 32)),
            incarnation: u64::from_le_bytes(part(bytes, 40)),
            sequence: u64::from_le_bytes(part(bytes, 48)),
            trace: part(bytes, 56),
            span: part(bytes, 72),
            origin: u64::from_le_bytes(part(bytes, 80)),
            destination: u64::from_le_bytes(part(bytes, 88)),
            destination_incarnation: u64::from_le_bytes(part(bytes, 96)),
        })
    }
}

fn part<const LEN: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; LEN] {
    let mut part = [0; LEN];
    part.copy_from_slice(&bytes[at..at + LEN]);
    part
}

//! Frames: heads are checked as soon as their bytes are there, payloads are unmasked where they lie.

use bytes::{BufMut, Bytes, BytesMut};

use super::{CloseReason, PROTOCOL};

/// Longest payload of a control frame.
pub(super) const CONTROL_BYTES_MAX: usize = 125;
/// Longest head: two bytes, a length of eight, a mask of four.
const HEAD_BYTES_MAX: usize = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte & 0x0F {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    pub(super) fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    /// Of the payload, as promised.
    pub(super) len: u64,
}

/// A part of a frame.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// A new frame begins.
    Head(Head),
    /// Some of its payload, unmasked; never empty.
    Payload(&'a [u8]),
}

/// Takes frames of a client apart, however their bytes arrive.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    mask: [u8; 4],
    /// Where in the mask the next byte is.
    turn: u8,
    /// Payload bytes of the present frame that have not come yet.
    left: u64,
}

impl Decoder {
    /// The next piece of `input`, which moves on behind it; `None` when more bytes are needed.
    pub(super) fn next<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Piece<'a>>, CloseReason> {
        if self.left > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
            let (payload, rest) = std::mem::take(input).split_at_mut(len);
            *input = rest;
            unmask(payload, self.mask, usize::from(self.turn));
            self.turn = (self.turn + (len % 4) as u8) % 4;
            self.left -= len as u64;
            return Ok(Some(Piece::Payload(payload)));
        }
        while let Some((&mut byte, rest)) = std::mem::take(input).split_first_mut() {
            *input = rest;
            self.head[usize::from(self.head_len)] = byte;
            self.head_len += 1;
            if let Some(head) = self.whole_head()? {
                self.head_len = 0;
                return Ok(Some(Piece::Head(head)));
            }
        }
        Ok(None)
    }

    /// Checks what is there of a head.
    fn whole_head(&mut self) -> Result<Option<Head>, CloseReason> {
        const fn broken(text: &'static str) -> CloseReason {
            CloseReason::new(PROTOCOL, text)
        }
        let len = usize::from(self.head_len);
        let [first, second, ..] = self.head;
        if first & 0x70 != 0 {
            return Err(broken("reserved bits are set"));
        }
        let opcode = Opcode::of(first).ok_or(broken("reserved opcode"))?;
        let fin = first & 0x80 != 0;
        if opcode.is_control() && !fin {
            return Err(broken("a control frame is fragmented"));
        }
        if len < 2 {
            return Ok(None);
        }
        if second & 0x80 == 0 {
            return Err(broken("a frame is not masked"));
        }
        let short = second & 0x7F;
        if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(broken("a control frame is too long"));
        }
        let extra = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if len < 2 + extra + 4 {
            return Ok(None);
        }
        let payload = match extra {
            0 => u64::from(short),
            _ => self.head[2..2 + extra].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        let least = [0, 126, 65_536][extra.div_ceil(4)];
        if payload < least || payload > i64::MAX as u64 {
            return Err(broken("a length is not written as it must be"));
        }
        self.mask.copy_from_slice(&self.head[2 + extra..2 + extra + 4]);
        self.turn = 0;
        self.left = payload;
        Ok(Some(Head { fin, opcode, len: payload }))
    }
}

/// Takes the mask off, from its `turn`-th byte on.
fn unmask(payload: &mut [u8], mask: [u8; 4], turn: usize) {
    let mask: [u8; 8] = std::array::from_fn(|at| mask[(at + turn) % 4]);
    let word = u64::from_ne_bytes(mask);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for eight in words {
        *eight = (u64::from_ne_bytes(*eight) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// A whole message of a server as one frame.
pub(crate) fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    out.put_u8(0x80 | opcode as u8);
    match payload.len() {
        len @ 0..126 => out.put_u8(len as u8),
        len @ 126..65_536 => {
            out.put_u8(126);
            out.put_u16(len as u16);
        }
        len => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
    out.extend_from_slice(payload);
    out.freeze()
}

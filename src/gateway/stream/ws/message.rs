//! Messages from frames: fragments are joined, text is checked as it comes, and nothing is kept that was only promised.

use super::frame::{CONTROL_BYTES_MAX, Decoder, Head, Opcode, Piece};
use super::{CloseReason, NORMAL, NOT_UTF8, POLICY, PROTOCOL, TOO_BIG};

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageLimits {
    /// Of a message, all fragments together.
    pub(crate) bytes_max: usize,
    /// Of a message.
    pub(crate) fragments_max: usize,
}

impl MessageLimits {
    /// Fragments may be small, but not without end.
    pub(crate) fn of(bytes_max: usize) -> Self {
        Self { bytes_max, fragments_max: 64 + bytes_max / 32 }
    }
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// UTF-8 throughout.
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// At most 125 bytes.
    Ping(Vec<u8>),
    Pong,
    /// The code of the client's close frame, or the one to answer with when it gave none.
    Close(u16),
}

/// Reads what one client sends.
#[derive(Debug)]
pub(crate) struct Reader {
    limits: MessageLimits,
    decoder: Decoder,
    frame: Option<Frame>,
    /// Text or binary, while a message is incomplete.
    kind: Option<Opcode>,
    fragments: usize,
    message: Vec<u8>,
    /// How much of the message is whole UTF-8.
    checked: usize,
    control: Vec<u8>,
}

/// The frame whose payload is coming.
#[derive(Clone, Copy, Debug)]
struct Frame {
    head: Head,
    left: u64,
}

impl Reader {
    pub(crate) fn new(limits: MessageLimits) -> Self {
        Self {
            limits,
            decoder: Decoder::default(),
            frame: None,
            kind: None,
            fragments: 0,
            message: Vec::new(),
            checked: 0,
            control: Vec::new(),
        }
    }

    /// The next event of `input`, which moves on behind it; `None` when more bytes are needed. After an error nothing
    /// more may be read.
    pub(crate) fn next(&mut self, input: &mut &mut [u8]) -> Result<Option<Event>, CloseReason> {
        while let Some(piece) = self.decoder.next(input)? {
            let frame = match piece {
                Piece::Head(head) => {
                    self.begin(head)?;
                    Frame { head, left: head.len }
                }
                Piece::Payload(payload) => {
                    let Some(mut frame) = self.frame.take() else { continue };
                    frame.left = frame.left.saturating_sub(payload.len() as u64);
                    self.add(frame.head.opcode, payload)?;
                    frame
                }
            };
            if frame.left > 0 {
                self.frame = Some(frame);
                continue;
            }
            if let Some(event) = self.finish(frame.head)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Bytes that are held.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::gateway::stream) fn kept(&self) -> usize {
        self.message.len() + self.control.len()
    }

    fn begin(&mut self, head: Head) -> Result<(), CloseReason> {
        match head.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => return Ok(()),
            Opcode::Text | Opcode::Binary if self.kind.is_some() => {
                return Err(CloseReason::new(PROTOCOL, "a message begins within another"));
            }
            Opcode::Continuation if self.kind.is_none() => {
                return Err(CloseReason::new(PROTOCOL, "nothing is to be continued"));
            }
            Opcode::Continuation => {}
            Opcode::Text | Opcode::Binary => self.kind = Some(head.opcode),
        }
        // Before a byte of it is kept.
        if head.len > (self.limits.bytes_max - self.message.len()) as u64 {
            return Err(CloseReason::new(TOO_BIG, "the message is too large"));
        }
        self.fragments += 1;
        if self.fragments > self.limits.fragments_max {
            return Err(CloseReason::new(POLICY, "the message has too many fragments"));
        }
        Ok(())
    }

    fn add(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), CloseReason> {
        if opcode.is_control() {
            debug_assert!(self.control.len() + payload.len() <= CONTROL_BYTES_MAX);
            self.control.extend_from_slice(payload);
            return Ok(());
        }
        self.message.extend_from_slice(payload);
        if self.kind == Some(Opcode::Text) {
            match std::str::from_utf8(&self.message[self.checked..]) {
                Ok(_) => self.checked = self.message.len(),
                Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
                Err(_) => return Err(CloseReason::new(NOT_UTF8, "text is not UTF-8")),
            }
        }
        Ok(())
    }

    fn finish(&mut self, head: Head) -> Result<Option<Event>, CloseReason> {
        let control = std::mem::take(&mut self.control);
        match head.opcode {
            Opcode::Ping => return Ok(Some(Event::Ping(control))),
            Opcode::Pong => return Ok(Some(Event::Pong)),
            Opcode::Close => return close(&control).map(Some),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => self.control = control,
        }
        if !head.fin {
            return Ok(None);
        }
        let (kind, message) = (self.kind.take(), std::mem::take(&mut self.message));
        let checked = std::mem::take(&mut self.checked);
        self.fragments = 0;
        if kind != Some(Opcode::Text) {
            return Ok(Some(Event::Binary(message)));
        }
        if checked != message.len() {
            return Err(CloseReason::new(NOT_UTF8, "text ends within a character"));
        }
        Ok(Some(Event::Text(message)))
    }
}

fn close(payload: &[u8]) -> Result<Event, CloseReason> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(Event::Close(NORMAL))
        } else {
            Err(CloseReason::new(PROTOCOL, "half a close code"))
        };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseReason::new(PROTOCOL, "no close code"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(CloseReason::new(NOT_UTF8, "the reason is not UTF-8"));
    }
    Ok(Event::Close(code))
}

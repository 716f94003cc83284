//! Says what it hears, through the code that the stream goes through.

use super::connection::{Message, Outbox, Session};
use super::ws::{CloseReason, Opcode, frame};

pub(super) struct Echo;

impl Session for Echo {
    fn message(&mut self, message: Message, out: &mut Outbox) -> Result<(), CloseReason> {
        out.push(match message {
            Message::Text(text) => frame(Opcode::Text, &text),
            Message::Binary(bytes) => frame(Opcode::Binary, &bytes),
        });
        Ok(())
    }
}

//! Says what it hears, through the code that the stream goes through.

use actix_web::web::Data;

use super::super::Shared;
use super::super::guard::Pass;
use super::port::{Message, Outbox, Session};
use super::ws::{CloseReason, Opcode, frame};

pub(super) struct Echo {
    pub(super) shared: Data<Shared>,
    pub(super) pass: Pass,
}

impl Session for Echo {
    fn message(&mut self, message: Message, out: &mut Outbox) -> Result<(), CloseReason> {
        out.push(match message {
            Message::Text(text) => frame(Opcode::Text, &text),
            Message::Binary(bytes) => frame(Opcode::Binary, &bytes),
        });
        Ok(())
    }

    fn tick(&mut self, _out: &mut Outbox) -> Result<(), CloseReason> {
        self.pass.renew(&*self.shared.clock).map_err(super::denied)
    }
}

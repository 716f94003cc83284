//! One websocket that watches a node: the whole overview once, then the newest every second. Who reads slowly misses
//! some of them and is never behind.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use actix_web::web::Data;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{self, StreamExt as _};

use super::board::Seat;
use super::{Whose, relay};
use crate::gateway::Shared;
use crate::gateway::guard::Pass;
use crate::gateway::stream::{CloseReason, Message, Outbox, Session, denied, text_frame};

/// Largest message of a viewer, which has nothing to say.
pub(in crate::gateway) const MESSAGE_BYTES_MAX: usize = 1 << 10;

type Frames = Pin<Box<dyn Stream<Item = Bytes>>>;

pub(in crate::gateway) struct Viewer {
    shared: Data<Shared>,
    pass: Pass,
    newest: Newest,
    _seat: Seat,
}

impl Viewer {
    pub(in crate::gateway) fn new(shared: Data<Shared>, pass: Pass, whose: Whose, seat: Seat) -> Self {
        let inner = Arc::clone(&shared);
        let frames: Frames = match whose.other(&shared) {
            None => Box::pin(of_this_node(inner)),
            Some(node) => Box::pin(of_another(inner, node)),
        };
        Self { shared, pass, newest: Newest { frames, next: None }, _seat: seat }
    }
}

/// Of all that came, what came last.
struct Newest {
    frames: Frames,
    /// Not taken yet.
    next: Option<Bytes>,
}

impl Newest {
    /// Looks for newer ones; what was not taken meanwhile is skipped.
    fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(frame)) = self.frames.as_mut().poll_next(cx) {
            self.next = Some(frame);
        }
    }

    /// Hands it over, if it is taken; whether it is still to be.
    fn hand(&mut self, take: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        if self.next.as_ref().is_some_and(take) {
            self.next = None;
        }
        self.next.is_some()
    }
}

fn of_this_node(shared: Arc<Shared>) -> impl Stream<Item = Bytes> {
    let newest = shared.overviews.watch();
    stream::unfold((newest, false), |(mut newest, has_all)| async move {
        // The board lives as long as the node: this only ever waits.
        let shown = if has_all {
            newest.changed().await.ok()?;
            newest.borrow_and_update().clone()
        } else {
            newest.wait_for(Option::is_some).await.ok()?;
            newest.borrow_and_update().clone()
        }?;
        let frame = if has_all { shown.frame() } else { text_frame(&shown.whole()) };
        Some((frame, (newest, true)))
    })
}

fn of_another(shared: Arc<Shared>, node: String) -> impl Stream<Item = Bytes> {
    let following = relay::follow(&shared, &node);
    let (first_of, first_node) = (Arc::clone(&shared), node.clone());
    let first = stream::once(async move { relay::frame(&first_of, &first_node, true).await });
    let rest = stream::unfold((shared, node, following), |(shared, node, mut following)| async move {
        while following.changed().await.is_err() {
            // It ended with the thread that ran it.
            following = relay::follow(&shared, &node);
        }
        let frame = following.borrow_and_update().clone()?;
        Some((frame, (shared, node, following)))
    });
    first.chain(rest)
}

impl Session for Viewer {
    fn message(&mut self, _message: Message, _out: &mut Outbox) -> Result<(), CloseReason> {
        Ok(()) // it is looked at, not spoken to
    }

    fn poll(&mut self, cx: &mut Context<'_>, _out: &mut Outbox) -> Result<(), CloseReason> {
        self.newest.poll(cx);
        Ok(())
    }

    fn frames(
        &mut self,
        _waker: &Waker,
        take: &mut dyn FnMut(&Bytes) -> bool,
        _out: &mut Outbox,
    ) -> Result<bool, CloseReason> {
        Ok(self.newest.hand(take))
    }

    fn tick(&mut self, _out: &mut Outbox) -> Result<(), CloseReason> {
        self.pass.renew(&*self.shared.clock).map_err(denied)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::pending;

    use super::*;

    #[test]
    fn who_does_not_take_a_frame_is_handed_the_newest_later() {
        let (to, mut from) = tokio::sync::mpsc::channel::<Bytes>(8);
        let frames = stream::poll_fn(move |cx| from.poll_recv(cx)).chain(stream::once(pending()));
        let mut newest = Newest { frames: Box::pin(frames), next: None };
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = Vec::new();
        let mut send = |text: &'static str| to.try_send(Bytes::from_static(text.as_bytes())).unwrap();
        newest.poll(&mut cx);
        assert!(!newest.hand(&mut |_| unreachable!("nothing came")));
        for (sent, takes, waits) in [
            (&["1"][..], true, false),
            (&["2", "3"], false, true),
            (&[], false, true),
            (&["4"], true, false),
            (&[], true, false),
        ] {
            sent.iter().copied().for_each(&mut send);
            newest.poll(&mut cx);
            let still = newest.hand(&mut |frame| {
                if takes {
                    taken.push(frame.clone());
                }
                takes
            });
            assert_eq!(still, waits, "{sent:?}");
        }
        assert_eq!(taken, ["1", "4"]);
    }
}

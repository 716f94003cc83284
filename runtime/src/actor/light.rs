//! Actix actors: fed from their mailbox one message at a time, and outlived by it when they panic.
//!
//! The actor's context runs here rather than through `Actor::start`, so that a panic in any of its turns is
//! caught with its reason.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use actix::dev::{ContextFut, MessageResponse};
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler};

use crate::actor::{Arbiter, Failure, Launch, Report, contain, make};
use crate::mailbox::{Core, Inbox, Mail};
use crate::supervision::ActorFailure;

type Factory<A> = dyn Fn() -> Result<A, Failure> + Send + Sync;

/// Messages handled before other actors of the arbiter get their turn.
const TURN_MESSAGES_MAX: usize = 64;

struct LightLaunch<M: Mail, A> {
    core: Arc<Core<M>>,
    factory: Arc<Factory<A>>,
}

pub(crate) fn light<M, A>(core: Arc<Core<M>>, factory: Arc<Factory<A>>) -> Box<dyn Launch>
where
    M: Mail,
    A: Actor<Context = Context<A>> + Handler<M>,
{
    Box::new(LightLaunch { core, factory })
}

impl<M, A> Launch for LightLaunch<M, A>
where
    M: Mail,
    A: Actor<Context = Context<A>> + Handler<M>,
{
    fn launch(&mut self, arbiter: &mut Arbiter, report: Report) {
        let inbox = self.core.open_inbox();
        let factory = Arc::clone(&self.factory);
        // A job that is never run drops the report, and that reports the incarnation as vanished.
        let queued = arbiter.run(Box::new(move || match make(factory.as_ref()) {
            Ok(actor) => drop(actix::spawn(Life::begin(actor, inbox, report))),
            Err(failure) => report.ended(failure),
        }));
        if let Err(error) = queued {
            tracing::error!(%error, "no thread for the arbiter");
        }
    }
}

/// One incarnation: polls the context of the actor and reports its end.
struct Life<A: Actor<Context = Context<A>>> {
    context: Option<ContextFut<A, Context<A>>>,
    report: Option<Report>,
    started: bool,
}

impl<A: Actor<Context = Context<A>>> Life<A> {
    fn begin<M: Mail>(actor: A, inbox: Inbox<M>, report: Report) -> Self
    where
        A: Handler<M>,
    {
        let mut context = Context::new();
        context.spawn(Pump { inbox, actor: PhantomData });
        Self { context: Some(context.into_future(actor)), report: Some(report), started: false }
    }

    fn end(&mut self, mut how: ActorFailure) {
        let dropped = contain(|| {
            if let Some(context) = &mut self.context {
                // An actor that panicked is in no state for its `stopping` and `stopped`; one that has
                // ended has had them.
                context.ctx().terminate();
            }
            self.context = None;
        });
        if let (Err(message), ActorFailure::Returned) = (dropped, &how) {
            how = ActorFailure::Panicked(message);
        }
        if let Some(report) = self.report.take() {
            report.ended(how);
        }
    }
}

impl<A: Actor<Context = Context<A>>> Future for Life<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(context) = &mut this.context else {
            return Poll::Ready(());
        };
        match contain(|| Pin::new(context).poll(cx)) {
            Ok(Poll::Pending) => {
                if let (false, Some(report)) = (this.started, &this.report) {
                    report.started();
                    this.started = true;
                }
                return Poll::Pending;
            }
            Ok(Poll::Ready(())) => this.end(ActorFailure::Returned),
            Err(message) => this.end(ActorFailure::Panicked(message)),
        }
        Poll::Ready(())
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Life<A> {
    fn drop(&mut self) {
        // Only when the arbiter goes down with the actor alive.
        if self.context.is_some() {
            self.end(ActorFailure::Vanished);
        }
    }
}

/// Carries messages from the mailbox to the handler, as long as the context is not waiting for something.
struct Pump<M: Mail, A> {
    inbox: Inbox<M>,
    actor: PhantomData<fn(A)>,
}

impl<M, A> ActorFuture<A> for Pump<M, A>
where
    M: Mail,
    A: Actor<Context = Context<A>> + Handler<M>,
{
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut Context<A>,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        let this = self.get_mut();
        for _ in 0..TURN_MESSAGES_MAX {
            if context.waiting() {
                break;
            }
            match this.inbox.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(envelope)) => {
                    actor.handle(envelope.message, context).handle(context, envelope.slot.into_sender());
                }
                Poll::Ready(None) => {
                    context.stop();
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

//! From any node to whoever acts as a singleton now.
//!
//! Nodes that may hold it hear of the holder from its claims; the others read it in what members say of
//! themselves. The higher epoch is believed. An ask that nobody has taken waits for the next holder.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout_at};

use crate::address::{Address, AskError, Far, Refusal, TellError};
use crate::cluster::exports::{ExportError, service_key};
use crate::cluster::lease::{Holder, LeaseLimitsError};
use crate::cluster::net::Net;
use crate::cluster::talk::{to_service, view_of};
use crate::cluster::{NodeId, View};
use crate::deadline::Deadline;
use crate::wire::RemoteMessage;

/// Asks of one node to one singleton that wait for a holder.
const WAITING_MAX: usize = 4096;
/// When an ask that was not taken tries again though no other holder is known: a link may be back.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A singleton cannot be hosted or reached. The program or its operator acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SingletonError {
    /// Its lease would promise nothing.
    #[error(transparent)]
    Limits(#[from] LeaseLimitsError),
    /// It is hosted here already, or this node leaves.
    #[error("singleton `{0}` is hosted here already, or this node leaves")]
    Taken(String),
    /// Its name was used on this node for another type of message.
    #[error("singleton `{0}` takes another message")]
    OtherMessage(String),
    /// The name of its service is taken.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Name of the service under which the holder takes messages.
pub(super) fn service_of(name: &str) -> String {
    format!("singleton/{name}")
}

/// What the holder says of itself, with its epoch.
pub(super) fn offer_of(name: &str) -> String {
    format!("@singleton/{name}")
}

/// The ways of one node to singletons, by name.
#[derive(Default)]
pub(crate) struct Routes {
    by_name: Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>,
}

impl Routes {
    pub(crate) fn get<M: RemoteMessage + Clone + Sync>(
        &self,
        net: &Arc<Net>,
        name: &str,
    ) -> Result<Arc<Route<M>>, SingletonError> {
        let mut by_name = self.by_name.lock();
        let known = by_name.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Route::<M>::new(Arc::clone(net), name)) as Arc<dyn Any + Send + Sync>
        });
        Arc::clone(known).downcast().map_err(|_| SingletonError::OtherMessage(name.to_owned()))
    }
}

/// The way to one of them.
pub(crate) struct Route<M: RemoteMessage> {
    net: Arc<Net>,
    offer: String,
    target: u64,
    told: watch::Sender<Option<Holder>>,
    /// What acts here.
    here: Mutex<Option<Address<M>>>,
    waiting: AtomicUsize,
}

impl<M: RemoteMessage + Clone + Sync> Route<M> {
    fn new(net: Arc<Net>, name: &str) -> Self {
        Self {
            net,
            offer: offer_of(name),
            target: service_key(&service_of(name)),
            told: watch::Sender::new(None),
            here: Mutex::new(None),
            waiting: AtomicUsize::new(0),
        }
    }

    pub(super) fn tell_holder(&self, holder: Holder) {
        self.told.send_replace(Some(holder));
    }

    pub(super) fn set_here(&self, address: Option<Address<M>>) {
        *self.here.lock() = address;
        // Whoever waits looks again.
        self.told.send_modify(|_| {});
    }

    pub(super) fn address(self: &Arc<Self>) -> Address<M> {
        Address::far(Arc::new(Routed(Arc::clone(self))))
    }

    /// Who acts, as far as is known here.
    pub(super) fn holder(&self) -> Option<Holder> {
        let view = view_of(&self.net);
        latest(&view, &self.offer, self.told.borrow().as_ref())
    }

    fn present(&self) -> Option<Address<M>> {
        let holder = self.holder()?;
        if holder.node == self.net.me.id {
            return self.here.lock().clone();
        }
        to_service(&self.net, &holder.node, self.target)
    }

    async fn ask(self: Arc<Self>, message: M, deadline: Deadline) -> Result<M::Result, AskError> {
        let (mut views, mut told) = (self.net.view.subscribe(), self.told.subscribe());
        let mut waiting = None;
        loop {
            views.mark_unchanged();
            told.mark_unchanged();
            if let Some(address) = self.present() {
                let ended = address.ask(message.clone(), deadline).await;
                if !ended.as_ref().is_err_and(|why| was_not_taken(*why)) {
                    return ended;
                }
            }
            if waiting.is_none() {
                waiting = Some(Waiting::enter(&self.waiting).ok_or(AskError::Full)?);
            }
            let another_way = async {
                tokio::select! {
                    _ = views.changed() => {}
                    _ = told.changed() => {}
                    () = sleep(RETRY_PAUSE) => {}
                }
            };
            if timeout_at(deadline.instant().into(), another_way).await.is_err() {
                return Err(AskError::Unreachable);
            }
        }
    }
}

/// Of what members say and what was heard, the higher epoch, if that life is still a member.
fn latest(view: &View, offer: &str, told: Option<&Holder>) -> Option<Holder> {
    let offers = view.members.values().filter_map(|member| {
        let epoch = member.services.get(offer)?.parse().ok()?;
        Some(Holder { epoch, node: member.id.clone(), incarnation: member.incarnation })
    });
    let lives = |holder: &&Holder| {
        view.get(&holder.node).is_some_and(|member| member.incarnation == holder.incarnation)
    };
    offers.chain(told.filter(lives).cloned()).max_by_key(|holder| holder.epoch)
}

/// Whether it is certain that nothing came of an ask, and another way or holder may take it.
fn was_not_taken(why: AskError) -> bool {
    use Refusal::{NoRoute, OtherLife, Overtaken, UnknownService};
    match why {
        AskError::Closed | AskError::Unreachable => true,
        AskError::Refused(refusal) => matches!(refusal, UnknownService | OtherLife | NoRoute | Overtaken),
        AskError::Full | AskError::Failed | AskError::Deadline | AskError::Lost => false,
    }
}

/// One place among those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let place = Self(count);
        (count.fetch_add(1, Ordering::AcqRel) < WAITING_MAX).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Routed<M: RemoteMessage>(Arc<Route<M>>);

impl<M: RemoteMessage + Clone + Sync> Far<M> for Routed<M> {
    /// Does not wait for a holder: without one it is not sent.
    fn tell(&self, message: M) -> Result<(), TellError<M>> {
        match self.0.present() {
            Some(address) => address.tell(message),
            None => Err(TellError::Unreachable(message)),
        }
    }

    fn ask(&self, message: M, deadline: Deadline) -> BoxFuture<'static, Result<M::Result, AskError>> {
        Box::pin(Arc::clone(&self.0).ask(message, deadline))
    }

    fn node(&self) -> Option<&NodeId> {
        None
    }

    fn window(&self) -> (usize, usize) {
        (self.0.waiting.load(Ordering::Acquire), WAITING_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Incarnation;
    use crate::cluster::testing::{id, member, view_of};

    #[test]
    fn nobody_is_known_before_anybody_says_so() {
        check(&["a", "b"], None, None);
    }

    #[test]
    fn of_two_offers_the_later_epoch_is_believed() {
        check(&["a=3", "b=4"], None, Some("b"));
        check(&["a=30", "b=4", "c=x"], None, Some("a"));
    }

    #[test]
    fn what_was_heard_counts_while_that_life_is_a_member() {
        check(&["a=3", "b"], Some(("b", 1, 4)), Some("b"));
        check(&["a=3", "b"], Some(("b", 1, 2)), Some("a"));
        check(&["a=3", "b"], Some(("b", 0, 9)), Some("a"));
        check(&["a", "b"], Some(("c", 1, 9)), None);
    }

    /// Members with what each offers, and who was heard of: name, life and epoch.
    #[track_caller]
    fn check(said: &[&str], told: Option<(&str, u64, u64)>, expected: Option<&str>) {
        let members = said.iter().map(|said| {
            let (name, epoch) = said.split_once('=').unwrap_or((said, ""));
            let mut member = member(name);
            if !epoch.is_empty() {
                member.services.insert("@singleton/x".into(), epoch.into());
            }
            member
        });
        let told =
            told.map(|(node, life, epoch)| Holder { epoch, node: id(node), incarnation: Incarnation(life) });
        let found = latest(&view_of(members), "@singleton/x", told.as_ref());
        assert_eq!(found.as_ref().map(|holder| holder.node.as_str()), expected);
    }
}

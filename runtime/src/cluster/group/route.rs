//! One address that stands for all members who offer a service: chosen anew for every message.

use std::fmt;
use std::sync::Arc;

use futures_util::future::{BoxFuture, select_ok};
use parking_lot::Mutex;

use super::{Choice, Router};
use crate::address::{Address, AskError, Far, TellError};
use crate::cluster::exports::service_key;
use crate::cluster::net::Net;
use crate::cluster::receptionist::{Query, find};
use crate::cluster::talk::{to_service, view_of};
use crate::cluster::{Cluster, Member, NodeId};
use crate::deadline::Deadline;
use crate::wire::RemoteMessage;

/// What an address of a group stands for.
pub struct GroupSpec<M: RemoteMessage> {
    /// Members that say of themselves that they offer the service; each exports its actor under the same name.
    pub query: Query,
    /// How one of them is chosen.
    pub choice: Choice,
    /// For the choices that chance makes.
    pub seed: u64,
    /// This node's own actor. Without it this node is left out, even when it offers the service.
    pub here: Option<Address<M>>,
    /// What keeps messages together when the choice is [`Choice::Consistent`].
    pub key: fn(&M) -> Vec<u8>,
}

impl<M: RemoteMessage> fmt::Debug for GroupSpec<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupSpec").field("query", &self.query).field("choice", &self.choice).finish()
    }
}

impl Cluster {
    /// An address for all who offer a service. A message goes to the one that is chosen, and to the next if that
    /// one certainly has not taken it; with [`Choice::Broadcast`] a tell goes to all, and an ask is answered by
    /// whoever is first. Nobody there: [`AskError::Unreachable`].
    #[must_use]
    pub fn group<M: RemoteMessage + Clone + Sync>(&self, spec: GroupSpec<M>) -> Address<M> {
        let router = Mutex::new(Router::new(spec.choice, spec.seed));
        Address::far(Arc::new(Group(Arc::new(Inner { net: Arc::clone(&self.net), spec, router }))))
    }
}

struct Group<M: RemoteMessage>(Arc<Inner<M>>);

struct Inner<M: RemoteMessage> {
    net: Arc<Net>,
    spec: GroupSpec<M>,
    router: Mutex<Router>,
}

impl<M: RemoteMessage> Inner<M> {
    /// Whom a message goes to now, without those that have been tried.
    fn choose(&self, message: &M, tried: &[NodeId]) -> Vec<(NodeId, Address<M>)> {
        let view = view_of(&self.net);
        let me = &self.net.me.id;
        let can =
            |member: &&Member| (member.id != *me || self.spec.here.is_some()) && !tried.contains(&member.id);
        let found = find(&view, &self.spec.query);
        let members: Vec<&Member> = found.iter().map(|provider| provider.member).filter(can).collect();
        let key = (self.spec.key)(message);
        let rtts = self.net.rtts.lock();
        let chosen = self.router.lock().route(&members, &key, |node| rtts.class(&view, me, node));
        drop(rtts);
        let target = service_key(&self.spec.query.service);
        let address = |id: &NodeId| match id == me {
            true => self.spec.here.clone(),
            false => to_service(&self.net, id, target),
        };
        chosen.into_iter().filter_map(|id| Some((id.clone(), address(id)?))).collect()
    }
}

impl<M: RemoteMessage + Clone> Far<M> for Group<M> {
    fn tell(&self, message: M) -> Result<(), TellError<M>> {
        let mut tried = Vec::new();
        loop {
            let chosen = self.0.choose(&message, &tried);
            if chosen.is_empty() {
                return Err(TellError::Unreachable(message));
            }
            let mut last = None;
            let mut taken = false;
            for (node, address) in chosen {
                tried.push(node);
                match address.tell(message.clone()) {
                    Ok(()) => taken = true,
                    Err(refused) => last = Some(refused),
                }
            }
            match last {
                _ if taken => return Ok(()),
                // Another may have room or be reached.
                Some(TellError::Closed(_) | TellError::Unreachable(_) | TellError::Full(_)) | None => {}
                Some(unsendable) => return Err(unsendable),
            }
        }
    }

    fn ask(&self, message: M, deadline: Deadline) -> BoxFuture<'static, Result<M::Result, AskError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let mut tried = Vec::new();
            let mut ended = Err(AskError::Unreachable);
            loop {
                let chosen = inner.choose(&message, &tried);
                if chosen.is_empty() {
                    return ended;
                }
                let asks = chosen.into_iter().map(|(node, address)| {
                    tried.push(node);
                    let message = message.clone();
                    Box::pin(async move { address.ask(message, deadline).await })
                });
                ended = select_ok(asks).await.map(|(answer, _later)| answer);
                // Only what nobody has begun is asked of another.
                let again = matches!(ended, Err(AskError::Closed | AskError::Unreachable | AskError::Full));
                if !again {
                    return ended;
                }
            }
        })
    }

    fn node(&self) -> Option<&NodeId> {
        None
    }

    fn window(&self) -> (usize, usize) {
        let count = find(&view_of(&self.0.net), &self.0.spec.query).len();
        (0, count * self.0.net.limits.asks_per_peer)
    }
}

//! How the shells of one name talk to each other across nodes: one service on each, messages told and maybe lost.
//!
//! Members vouch for themselves: what a message says of its sender is believed, as everything that a member says.

use std::future::poll_fn;
use std::sync::Arc;

use crate::address::Address;
use crate::cluster::exports::{ExportError, service_key};
use crate::cluster::net::Net;
use crate::cluster::remote::RemoteActor;
use crate::cluster::{NodeId, View};
use crate::mailbox::{Inbox, Mailbox};
use crate::wire::RemoteMessage;

/// This node's end of it; closed when dropped.
pub(crate) struct Talk<M: RemoteMessage> {
    net: Arc<Net>,
    service: String,
    myself: Address<M>,
    inbox: Inbox<M>,
}

/// A part that sends.
pub(crate) struct Voice<M: RemoteMessage> {
    net: Arc<Net>,
    target: u64,
    myself: Address<M>,
}

impl<M: RemoteMessage> Talk<M> {
    /// At most `waiting_max` messages wait to be received; more are refused and counted where they came from.
    pub(crate) fn open(net: &Arc<Net>, service: &str, waiting_max: usize) -> Result<Self, ExportError> {
        let mailbox = Mailbox::new(waiting_max, Arc::clone(&net.clock));
        let myself = mailbox.address();
        net.exports.add(service, &myself)?;
        let inbox = mailbox.core.open_inbox();
        Ok(Self { net: Arc::clone(net), service: service.to_owned(), myself, inbox })
    }

    pub(crate) fn voice(&self) -> Voice<M> {
        Voice { net: Arc::clone(&self.net), target: service_key(&self.service), myself: self.myself.clone() }
    }

    /// The next message; pending for ever when nobody speaks.
    pub(crate) async fn recv(&mut self) -> M {
        loop {
            if let Some(envelope) = poll_fn(|cx| self.inbox.poll_recv(cx)).await {
                return envelope.message;
            }
            // A mailbox says stop only to the inbox that another has replaced, and there is one.
            std::future::pending::<()>().await;
        }
    }
}

impl<M: RemoteMessage> Drop for Talk<M> {
    fn drop(&mut self) {
        self.net.exports.remove(&self.service);
    }
}

impl<M: RemoteMessage> Voice<M> {
    /// Sends and forgets. False: it has not left.
    pub(crate) fn tell(&self, to: &NodeId, message: M) -> bool {
        match to_service::<M>(&self.net, to, self.target) {
            _ if *to == self.net.me.id => self.myself.tell(message).is_ok(),
            Some(address) => address.tell(message).is_ok(),
            None => false,
        }
    }
}

/// A service on another member.
pub(crate) fn to_service<M: RemoteMessage>(net: &Arc<Net>, to: &NodeId, target: u64) -> Option<Address<M>> {
    let peer = net.peer(to)?;
    Some(Address::far(Arc::new(RemoteActor::new(Arc::clone(net), peer, target))))
}

/// The present view.
pub(crate) fn view_of(net: &Net) -> Arc<View> {
    Arc::clone(&net.view.borrow())
}

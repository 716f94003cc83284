//! Groups on real nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::*;
use crate::actor::Failure;
use crate::cluster::Cluster;
use crate::cluster::receptionist::{Query, find};
use crate::cluster::testbed::{Testbed, after, mailbox, seconds, sees, soon};
use crate::{
    Address, AskError, ChildSpec, Children, Inbox, Strategy, SystemClock, TellError, Tree, Worker,
    remote_message,
};

#[derive(Clone, Debug, Serialize, Deserialize, actix::Message)]
#[rtype(result = "String")]
struct Where(u64);
remote_message!(Where, "test.group.where", version 1, up to 256 bytes, lane Ask);

struct Echo(String);

impl Worker<Where> for Echo {
    fn run(&mut self, inbox: &mut Inbox<Where>) -> Result<(), Failure> {
        while let Some(envelope) = inbox.recv() {
            envelope.slot.send(self.0.clone());
        }
        Ok(())
    }
}

async fn offer(cluster: &Cluster) -> (Address<Where>, Tree) {
    let (mailbox, name) = (mailbox(64), cluster.id().to_string());
    let address = mailbox.address();
    cluster.export("echo", &address).unwrap();
    cluster.set_services(BTreeMap::from([("echo".to_owned(), String::new())])).await;
    let mut children = Children::new(Strategy::OneForOne);
    children.worker(ChildSpec::new("echo"), mailbox, move || Ok(Echo(name.clone())));
    (address, Tree::start(children, std::sync::Arc::new(SystemClock), 1).unwrap())
}

fn group(cluster: &Cluster, choice: Choice, here: Option<&Address<Where>>) -> Address<Where> {
    let key = |message: &Where| message.0.to_le_bytes().to_vec();
    cluster.group(GroupSpec { query: Query::service("echo"), choice, seed: 1, here: here.cloned(), key })
}

async fn asked(group: &Address<Where>, count: u64) -> Vec<String> {
    let mut nodes = Vec::new();
    for number in 0..count {
        nodes.push(group.ask(Where(number), seconds(5)).await.unwrap());
    }
    nodes
}

async fn world(bed: &Testbed) -> BTreeMap<String, (Address<Where>, Tree)> {
    let mut offers = BTreeMap::new();
    for node in bed.nodes() {
        offers.insert(node.id().to_string(), offer(node).await);
    }
    for node in bed.nodes() {
        sees(node, |view| find(view, &Query::service("echo")).len() == bed.nodes().count()).await;
    }
    offers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_stands_for_all_who_offer_it() {
    let bed = Testbed::sim(41, "a b c").await;
    let offers = world(&bed).await;
    let (a, here) = (bed.node("a"), Some(&offers["a"].0));
    assert_eq!(asked(&group(a, Choice::RoundRobin, here), 6).await, ["a", "b", "c", "a", "b", "c"]);
    assert_eq!(asked(&group(a, Choice::RoundRobin, None), 4).await, ["b", "c", "b", "c"]);
    let consistent = asked(&group(a, Choice::Consistent, here), 20).await;
    assert_eq!(consistent, asked(&group(bed.node("b"), Choice::Consistent, Some(&offers["b"].0)), 20).await);
    assert_eq!(consistent.iter().collect::<BTreeSet<_>>().len(), 3);
    let first = group(a, Choice::Broadcast, here).ask(Where(1), seconds(5)).await.unwrap();
    assert!(["a", "b", "c"].contains(&first.as_str()));
    assert!(group(a, Choice::Broadcast, here).tell(Where(1)).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_quic_a_group_goes_on_without_one_that_crashed() {
    let mut bed = Testbed::quic("a b c").await;
    let _offers = world(&bed).await;
    let group = group(bed.node("a"), Choice::RoundRobin, None);
    let _runs_on = bed.kill("b");
    let goes_on = async {
        loop {
            let ask = group.ask(Where(1), after(Duration::from_millis(500))).await;
            let next = group.ask(Where(2), after(Duration::from_millis(500))).await;
            if ask.as_deref() == Ok("c") && next.as_deref() == Ok("c") {
                return;
            }
        }
    };
    soon("only c is left", goes_on).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_nobody_says_so() {
    let bed = Testbed::sim(43, "a").await;
    let group = group(bed.node("a"), Choice::LeastLoaded, None);
    assert_eq!(group.ask(Where(1), seconds(5)).await, Err(AskError::Unreachable));
    assert!(matches!(group.tell(Where(1)), Err(TellError::Unreachable(_))));
}

//! Topics on real nodes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::*;
use crate::cluster::testbed::{Testbed, sees, soon};
use crate::cluster::testing::id;
use crate::remote_message;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, actix::Message)]
#[rtype(result = "()")]
struct Quote(u64);
remote_message!(Quote, "test.topic.quote", version 1, up to 64 bytes, lane Stream);

fn hub(bed: &Testbed, node: &str, waiting_max: usize) -> TopicHub<Quote> {
    let limits = HubLimits { waiting_max, ..HubLimits::default() };
    bed.node(node).topics("quotes", limits).unwrap()
}

/// Until a node has heard that so many others want a topic.
async fn wanted(bed: &Testbed, node: &str, hub: &TopicHub<Quote>, topic: &str, count: usize) {
    let mut views = bed.node(node).views();
    let heard = async {
        while hub.wanted_by(topic).len() != count {
            // The hub looks at the same view in a task of its own, perhaps a moment later.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), views.changed()).await;
        }
    };
    soon("interest is heard", heard).await;
}

async fn next(subscription: &mut TopicSubscription<Quote>) -> (Arc<str>, Quote) {
    soon("a message comes", subscription.recv()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_reaches_every_subscriber_once_and_in_order() {
    reaches(Testbed::sim(31, "a b c").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_quic_what_is_published_reaches_every_subscriber_once_and_in_order() {
    reaches(Testbed::quic("a b c").await).await;
}

async fn reaches(mut bed: Testbed) {
    let (a, b, c) = (hub(&bed, "a", 2_000), hub(&bed, "b", 2_000), hub(&bed, "c", 2_000));
    let (mut here, mut there) = (a.subscribe("fx/*/bid").unwrap(), b.subscribe("fx/eurusd/**").unwrap());
    let _other = c.subscribe("rates/#").unwrap();
    wanted(&bed, "a", &a, "fx/eurusd/bid", 1).await;
    for number in 0..1_000 {
        let published = a.publish("fx/eurusd/bid", &Quote(number)).unwrap();
        assert_eq!(published, Published { here: 1, nodes: 1, ..Published::default() });
    }
    for subscription in [&mut here, &mut there] {
        for number in 0..1_000 {
            assert_eq!(next(subscription).await, ("fx/eurusd/bid".into(), Quote(number)));
        }
    }
    // `c` crashes, and nothing is sent to it any more; a subscription that ends is heard to have ended.
    wanted(&bed, "a", &a, "rates/ecb", 1).await;
    let _runs_on = bed.kill("c");
    sees(bed.node("a"), |view| view.get(&id("c")).is_none()).await;
    wanted(&bed, "a", &a, "rates/ecb", 0).await;
    drop(there);
    wanted(&bed, "a", &a, "fx/eurusd/bid", 0).await;
    let published = a.publish("fx/eurusd/bid", &Quote(1)).unwrap();
    assert_eq!(published, Published { here: 1, ..Published::default() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_misses_and_can_see_how_many() {
    let bed = Testbed::sim(32, "a b").await;
    let (a, b) = (hub(&bed, "a", 4), hub(&bed, "b", 4));
    let (mut slow, mut far) = (a.subscribe("**").unwrap(), b.subscribe("**").unwrap());
    wanted(&bed, "a", &a, "x", 1).await;
    for number in 0..10 {
        a.publish("x", &Quote(number)).unwrap();
    }
    assert_eq!(slow.missed(), 6);
    for number in 0..4 {
        assert_eq!(next(&mut slow).await.1, Quote(number));
        assert_eq!(next(&mut far).await.1, Quote(number));
    }
    assert_eq!(a.publish("x", &Quote(10)).unwrap().here, 1, "it takes part again");
    assert_eq!(next(&mut slow).await.1, Quote(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_is_refused() {
    let bed = Testbed::sim(33, "a").await;
    let a = hub(&bed, "a", 4);
    assert!(matches!(bed.node("a").topics::<Quote>("quotes", HubLimits::default()), Err(HubError::Taken(_))));
    assert_eq!(a.subscribe("a*").err(), Some(TopicError::Wildcard));
    assert_eq!(a.subscribe("a\nb").err(), Some(TopicError::LineBreak));
    assert_eq!(a.publish("a/*", &Quote(1)), Err(PublishError::Topic(TopicError::Wildcard)));
}

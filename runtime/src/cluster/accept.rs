//! Links that others open: greeted, then read until they end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cluster::conn::serve;
use crate::cluster::greeting::{self, Greeted};
use crate::cluster::link::{Outboxes, Path};
use crate::cluster::net::Net;
use crate::cluster::reader::Reader;
use crate::fabric::Link;

/// Links whose greeting is not over. Their credentials were accepted, so they are members, but not yet known ones.
const UNGREETED_MAX: usize = 64;

/// Takes links until the fabric closes.
pub(crate) async fn accept(net: Arc<Net>) {
    let ungreeted = Arc::new(Semaphore::new(UNGREETED_MAX));
    while let Some(link) = net.fabric.accept().await {
        let Ok(permit) = Arc::clone(&ungreeted).try_acquire_owned() else {
            net.stats.links_refused.fetch_add(1, Ordering::Relaxed);
            link.wire.close("too many greetings at once");
            continue;
        };
        let net = Arc::clone(&net);
        tokio::spawn(async move {
            if let Some((reader, lanes, rest)) = open(&net, link).await {
                drop(permit);
                let path = Arc::clone(&reader.path);
                net.enter_caller(&path);
                let mut stopping = net.stopping.subscribe();
                tokio::select! {
                    reason = serve(reader, lanes, rest) => {
                        tracing::debug!(node = %path.peer.id, reason, "caller's link ended");
                    }
                    _ = stopping.wait_for(|&stop| stop) => path.wire.close("the node stopped"),
                }
                path.outboxes.close();
                path.askings.leave_all();
                net.leave_caller(&path);
            }
        });
    }
}

type Opened = (Arc<Reader>, [(crate::fabric::LaneReader, crate::fabric::LaneWriter); 4], bytes::BytesMut);

async fn open(net: &Arc<Net>, link: Link) -> Option<Opened> {
    let Link { peer, lanes, wire, remote_addr } = link;
    let [(mut control_in, mut control_out), ask, stream, bulk] = lanes;
    let greeting = greeting::welcome(net, &peer, &mut control_in, &mut control_out);
    let greeted = match timeout(net.limits.greeting, greeting).await {
        Ok(Ok(greeted)) => greeted,
        refused => {
            net.stats.links_refused.fetch_add(1, Ordering::Relaxed);
            let error = refused.map_or_else(
                |_| "no greeting in time".to_owned(),
                |greeted| greeted.err().map(|error| error.to_string()).unwrap_or_default(),
            );
            match net.turned_away.lock().happened(net.now()) {
                Some(unsaid) => {
                    tracing::warn!(%remote_addr, node = %peer, error, unsaid, "caller turned away");
                }
                None => tracing::debug!(%remote_addr, node = %peer, error, "caller turned away"),
            }
            wire.close("greeting refused");
            return None;
        }
    };
    let Greeted { identity, advertise, layouts, rest } = greeted;
    net.learn(&identity, layouts);
    let outboxes = Arc::new(Outboxes::new(net.limits.lane_bytes));
    outboxes.open();
    let path = Arc::new(Path {
        me: net.me.clone(),
        peer: identity,
        wire,
        outboxes,
        askings: Default::default(),
        answers_lost: Arc::clone(&net.stats.answers_lost),
    });
    let reader = Arc::new(Reader::accepted(net, &path, advertise));
    Some((reader, [(control_in, control_out), ask, stream, bulk], rest))
}

//! What a member may send once it has greeted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::peer::{Chunks, GOSSIP_QUEUE, LANE_BYTES, name, net, path};
use super::run;
use crate::cluster::exports::service_key;
use crate::cluster::net::node_key;
use crate::cluster::outbox::Outbox;
use crate::cluster::reader::{Reader, read_lane};
use crate::fabric::Lane;
use crate::mailbox::{Mailbox, Received};
use crate::wire::{self, HEADER_BYTES, Header, Kind, TypeId};
use crate::{RemoteMessage, SystemClock, remote_message};

/// A message with room for what a sender may get wrong.
#[derive(Debug, Serialize, Deserialize, actix::Message)]
#[rtype(result = "Vec<u32>")]
struct Probe {
    words: Vec<String>,
}
remote_message!(Probe, "fuzz.probe", version 3, up to 256 bytes, lane Ask);

const MAILBOX: usize = 8;
/// Whatever comes on a lane, in whatever pieces: the reader ends with it, and no queue has outgrown its bound. The
/// first byte chooses the lane, the second how the bytes come, the third whether they are bytes as they are or
/// recipes of frames.
pub fn reader(input: &[u8]) -> bool {
    let [lane, chunk_bytes, form, bytes @ ..] = input else { return false };
    let lane = Lane::ALL[usize::from(lane % 4)];
    let bytes = if form % 2 == 0 { bytes.to_vec() } else { cook(bytes, lane) };
    run(async {
        let (net, mut heard) = net();
        let mailbox = Mailbox::<Probe>::new(MAILBOX, Arc::new(SystemClock));
        net.exports.add("probe", &mailbox.address()).expect("the first of its name");
        let link = path(&net, "peer");
        // Somebody for whom frames may be passed on.
        let third = path(&net, "third");
        net.enter_caller(&third);
        let reader = Arc::new(Reader::accepted(&net, &link, ([10, 0, 0, 2], 1).into()));
        let chunks = Chunks { bytes: bytes.into(), chunk_bytes: usize::from(*chunk_bytes).max(1) };
        let ended = read_lane(reader, lane, Box::new(chunks), BytesMut::new()).await;
        let violations = net.stats.violations.load(Ordering::Relaxed);
        assert_eq!(u64::from(ended.is_some()), violations, "a broken rule is counted, and nothing else is");
        let probes = take_probes(&mailbox);
        assert!(probes <= MAILBOX, "{probes} messages waited");
        let gossip = std::iter::from_fn(|| heard.try_recv().ok()).count();
        assert!(gossip <= GOSSIP_QUEUE, "{gossip} gossip messages waited");
        for outboxes in [&link.outboxes, &third.outboxes] {
            check_outbox(outboxes.lane(lane)).await;
        }
        probes > 0
    })
}

/// Empties the mailbox; each message given up is answered with a refusal.
fn take_probes(mailbox: &Mailbox<Probe>) -> usize {
    let address = mailbox.address();
    let mut inbox = address.core().expect("it is of this process").open_inbox();
    let mut count = 0;
    while let Received::Mail(envelope) = inbox.try_recv() {
        let bytes: usize = envelope.message.words.iter().map(|word| word.len() + 8).sum();
        assert!(bytes <= Probe::BYTES_MAX, "{bytes} bytes of words");
        count += 1;
    }
    count
}

/// What the node sends for all that: whole frames of its own making, within the bound.
async fn check_outbox(outbox: &Outbox) {
    if outbox.is_empty() {
        return;
    }
    let mut frames = Vec::new();
    assert!(outbox.take(&mut frames).await, "it is open");
    assert!(frames.len() <= LANE_BYTES, "{} bytes wait", frames.len());
    let mut rest = &frames[..];
    while let Some(bytes) = rest.first_chunk::<HEADER_BYTES>() {
        let header = Header::read(bytes).expect("a frame of our own");
        rest = &rest[HEADER_BYTES + header.body_bytes as usize..];
    }
    assert!(rest.is_empty(), "the last frame is whole");
}

/// Frames from recipes of eight bytes each, with bodies between: most of what a fuzzer makes of them is well
/// formed and wrong in one place.
fn cook(mut recipes: &[u8], lane: Lane) -> Vec<u8> {
    let keys = ["me", "peer", "third", "nobody"].map(|id| node_key(&name(id)));
    let pick = |choice: u8| keys[usize::from(choice) % keys.len()];
    let mut frames = Vec::new();
    while let Some((recipe, behind)) = recipes.split_first_chunk::<8>() {
        let [kind, travel, origin, service, schema, number, body, count] = *recipe;
        recipes = behind;
        let count = usize::from(count);
        let body = match body % 3 {
            0 => {
                let (body, behind) = recipes.split_at(count.min(recipes.len()));
                recipes = behind;
                body.to_vec()
            }
            1 => {
                let mut body = Vec::new();
                let words = vec!["word".to_owned(); count];
                wire::write(&Probe { words }, &mut body).expect("plain data");
                body
            }
            _ => vec![body; count * 128],
        };
        let mut header = Header {
            schema: 3 + u16::from(schema % 8 == 7),
            type_id: if service % 8 == 7 { 1 } else { TypeId::of(Probe::NAME).0 },
            target: if service / 8 % 8 == 7 { 1 } else { service_key("probe") },
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            correlation: u64::from(number / 16),
            budget_us: u32::from(schema) * 1000,
            incarnation: 1 + u64::from(origin / 4 % 8 == 7),
            sequence: u64::from(number),
            origin: pick(origin),
            destination: pick(travel / 4),
            destination_incarnation: 1 + u64::from(travel / 16 % 8 == 7),
            ..Header::new(Kind::Tell, lane)
        }
        .to_bytes();
        // By hand: a recipe may ask for what no program writes.
        header[3] = kind;
        header[5] = travel % 4;
        frames.extend_from_slice(&header);
        frames.extend_from_slice(&body);
    }
    frames
}

//! What the nodes of one sharded type may say to each other, as a function of bytes; see [`crate::fuzzing`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::packet::{Packet, Parcel, What};
use super::{Owner, Sender, SenderLimits, Sending, ShardId, ShardSpec};
use crate::cluster::body::Body;
use crate::cluster::lease::LeaseLimits;
use crate::cluster::{Incarnation, Member, NodeId, Region, Standing, View};
use crate::wire::RemoteMessage;

const QUEUE_MAX: usize = 4;
const SHARDS: u16 = 2;
const SENDING: SenderLimits =
    SenderLimits { window: 2, waiting_max: 4, answer_max: Duration::from_millis(500) };

/// Packets are refused, or write themselves back and are taken by owner and sender without harm: what waits stays within
/// its bounds. They lie one behind the other, each with a byte for the time that has passed and its length before it.
pub fn shard(input: &[u8]) -> bool {
    let mut now = Instant::now();
    let me = node("me");
    let mut owner = Owner::<Parcel>::new(spec(), me.clone(), Incarnation(1), 0, now);
    let mut sender = Sender::<Parcel>::new(spec(), SENDING);
    drop(owner.on_view(&view(), now));
    drop(sender.on_view(&view(), now));
    for shard in 0..SHARDS {
        let due = now + Duration::from_secs(1);
        let (_, sendings) = sender.send(ShardId(shard), parcel(&me), due, now);
        assert!(sendings.iter().all(|sending| matches!(sending, Sending::Send(..))));
    }
    let mut taken = false;
    let mut rest = input;
    while let Some((&[passed, low, high], behind)) = rest.split_first_chunk::<3>() {
        let (bytes, behind) = behind.split_at(behind.len().min(u16::from_le_bytes([low, high]).into()));
        rest = behind;
        now += Duration::from_millis(10 * u64::from(passed));
        drop(owner.tick(now));
        drop(sender.tick(now));
        let Ok(packet) = Packet::read(Packet::VERSION, bytes) else { continue };
        let mut written = Vec::new();
        packet.write(Packet::VERSION, &mut written).expect("what was read can be written");
        assert_eq!(written, bytes);
        taken = true;
        heard(&mut owner, &mut sender, packet, now);
        let left = owner.unfinished();
        // Each shard holds, works and has under way no more than it may.
        assert!(left.messages <= usize::from(SHARDS) * (1 + 6 * 2 * QUEUE_MAX), "{left:?}");
        assert!(sender.open() <= usize::from(SHARDS));
        if let Some(work) = owner.next(now) {
            assert_eq!(owner.holds(work.shard, now), Some(work.epoch));
            let _ = owner.done(work.shard, now);
        }
    }
    drop(owner.leave(now));
    assert_eq!(owner.unfinished().messages, 0, "what nobody took is reported");
    taken
}

fn heard(owner: &mut Owner<Parcel>, sender: &mut Sender<Parcel>, packet: Packet, now: Instant) {
    let from = packet.from;
    match packet.what {
        What::Shard(message) => drop(owner.on_message(&from, message, now)),
        What::Deliver(delivery) => drop(owner.deliver(delivery, now)),
        What::Answer { shard, id, answer } => drop(sender.on_answer(&from, shard, id, answer, now)),
        What::Reply { .. } => {}
    }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a valid name")
}

fn parcel(origin: &NodeId) -> Parcel {
    Parcel {
        origin: origin.clone(),
        life: Incarnation(1),
        ask: 0,
        budget_us: 1_000_000,
        due: None,
        key: Body(b"k".to_vec()),
        schema: 1,
        body: Body(b"b".to_vec()),
    }
}

fn spec() -> ShardSpec {
    let ms = Duration::from_millis;
    ShardSpec {
        name: "fuzzed".to_owned(),
        home: None,
        role: None,
        shard_count: SHARDS,
        queue_max: QUEUE_MAX,
        grace: ms(0),
        acquire_max: ms(3_000),
        transfer_retry: ms(100),
        transfer_max: ms(1_000),
        // This node is its own majority.
        lease: LeaseLimits { electorate: 1, lease: ms(800), promise: ms(1_000), renew: ms(200) },
    }
}

/// This node alone: one that leaves would hand over.
fn view() -> View {
    let member = Member {
        id: node("me"),
        incarnation: Incarnation(1),
        addr: ([10, 0, 0, 1], 1).into(),
        region: Region::new("here").expect("a valid name"),
        roles: Vec::new(),
        version: "1".to_owned(),
        load: 0.0,
        standing: Standing::Active,
        services: BTreeMap::new(),
        cut_from: Vec::new(),
    };
    View { members: [(member.id.clone(), member)].into(), revision: 1 }
}

//! What becomes of large bodies on their way in.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt as _, duplex};

use super::{Coming, KEPT_BYTES_MAX, LARGE_BYTES, LARGE_BYTES_FIRST, READ_BYTES, Reader, read_lane};
use crate::cluster::exports::service_key;
use crate::cluster::fuzzing::peer::{Chunks, net, path};
use crate::cluster::net::{Net, node_key};
use crate::fabric::{Lane, LaneReader};
use crate::mailbox::{Mailbox, Received};
use crate::wire::{CodecError, FRAME_BODY_BYTES_MAX, Header, Kind, RemoteMessage, TypeId};
use crate::{NodeId, SystemClock};

/// A body, and whether it came as bytes of its own.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Load(Bytes, bool);

impl RemoteMessage for Load {
    const NAME: &'static str = "test.load";
    const VERSION: u16 = 1;
    const OLDEST: u16 = 1;
    const BYTES_MAX: usize = 4 << 20;
    const LANE: Lane = Lane::Bulk;

    fn write(&self, _version: u16, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&self.0);
        Ok(())
    }

    fn read(_version: u16, bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(Self(Bytes::copy_from_slice(bytes), false))
    }

    fn read_owned(_version: u16, bytes: Bytes) -> Result<Self, CodecError> {
        Ok(Self(bytes, true))
    }

    fn write_answer(_answer: &(), _version: u16, _out: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn read_answer(_version: u16, _bytes: &[u8]) -> Result<(), CodecError> {
        Ok(())
    }
}

/// A node with an actor that loads are for, and a lane from its peer.
struct Bed {
    net: Arc<Net>,
    loads: Mailbox<Load>,
    reader: Arc<Reader>,
}

fn bed() -> Bed {
    let (net, _gossip) = net();
    let loads = Mailbox::new(64, Arc::new(SystemClock));
    net.exports.add("loads", &loads.address()).unwrap();
    let reader = Arc::new(Reader::accepted(&net, &path(&net, "peer"), ([10, 0, 0, 2], 1).into()));
    Bed { net, loads, reader }
}

fn header(number: u64, body_bytes: usize) -> Header {
    let key = |name| node_key(&NodeId::new(name).unwrap());
    Header {
        schema: 1,
        type_id: TypeId::of(Load::NAME).0,
        target: service_key("loads"),
        body_bytes: body_bytes.try_into().unwrap(),
        incarnation: 1,
        sequence: number,
        origin: key("peer"),
        destination: key("me"),
        destination_incarnation: 1,
        ..Header::new(Kind::Tell, Lane::Bulk)
    }
}

fn body(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at * 31 + number + (at >> 8)) as u8).collect()
}

fn frame(number: u64, bytes: usize) -> Vec<u8> {
    [&header(number, bytes).to_bytes()[..], &body(number, bytes)].concat()
}

fn taken(mailbox: &Mailbox<Load>) -> Vec<Load> {
    let address = mailbox.address();
    let mut inbox = address.core().unwrap().open_inbox();
    std::iter::from_fn(|| match inbox.try_recv() {
        Received::Mail(envelope) => Some(envelope.message),
        _ => None,
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn a_body_is_the_same_whatever_pieces_it_comes_in() {
    const SIZES: [usize; 9] = [0, 100, LARGE_BYTES - 1, LARGE_BYTES, 70_000, 1 << 20, 3, 3 << 20, 1];
    let sent: Vec<u8> = (1..).zip(SIZES).flat_map(|(number, bytes)| frame(number, bytes)).collect();
    for chunk_bytes in [977, READ_BYTES, 4 << 20] {
        let Bed { reader, loads, .. } = bed();
        let chunks = Chunks { bytes: sent.clone().into(), chunk_bytes };
        assert_eq!(read_lane(reader, Lane::Bulk, Box::new(chunks), BytesMut::new()).await, None);
        let taken = taken(&loads);
        assert_eq!(taken.len(), SIZES.len(), "{chunk_bytes} at a time");
        for (number, (Load(bytes, owned), wanted)) in (1..).zip(taken.into_iter().zip(SIZES)) {
            assert!(bytes == body(number, wanted), "load {number}, {chunk_bytes} at a time");
            match wanted {
                ..LARGE_BYTES => assert!(!owned, "{wanted} bytes, {chunk_bytes} at a time"),
                READ_BYTES.. => assert!(owned, "{wanted} bytes, {chunk_bytes} at a time"),
                // Owned if it did not come whole.
                _ => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_body_that_is_not_wanted_any_more_is_thrown_away() {
    let Bed { net, reader, loads } = bed();
    let others = Mailbox::<Load>::new(4, Arc::new(SystemClock));
    net.exports.add("others", &others.address()).unwrap();
    let (mut to, from) = duplex(1 << 20);
    let reading = tokio::spawn(read_lane(reader, Lane::Bulk, Box::new(from), BytesMut::new()));
    let large = frame(1, 1 << 20);
    to.write_all(&large[..300_000]).await.unwrap();
    // Time passes once everybody waits: the reader for more.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    net.exports.remove("loads");
    to.write_all(&large[300_000..]).await.unwrap();
    let header = Header { target: service_key("others"), ..header(2, 5) };
    to.write_all(&[&header.to_bytes()[..], b"still"].concat()).await.unwrap();
    drop(to);
    assert_eq!(reading.await.unwrap(), None);
    assert_eq!(taken(&others).first().map(|load| load.0.clone()), Some(Bytes::from_static(b"still")));
    assert!(taken(&loads).is_empty());
}

#[test]
fn what_is_announced_gets_no_memory_before_it_comes() {
    let mut coming = coming(b"first");
    coming.begin(header(1, FRAME_BODY_BYTES_MAX as usize));
    let large = coming.large.as_mut().unwrap();
    assert_eq!(large.body, b"first");
    while large.body.len() < 10_000_000 {
        let have = large.body.len();
        large.room();
        let memory = large.body.capacity();
        assert!(memory <= LARGE_BYTES_FIRST.max(have * 2), "{memory} bytes for {have}");
        let more = body(0, (memory - have).min(READ_BYTES));
        large.body.extend_from_slice(&more);
        assert_eq!(large.body.capacity(), memory, "there was room for it");
    }
}

#[tokio::test(start_paused = true)]
async fn memory_of_large_bodies_is_used_again_and_goes_back_at_rest() {
    let mut coming = coming(b"");
    coming.spare.put(Vec::with_capacity(1 << 20));
    coming.begin(header(1, 1 << 20));
    let large = coming.large.take().unwrap();
    assert_eq!((large.body.capacity(), coming.spare.bytes()), (1 << 20, 0));
    drop(coming.spare.lend(large.body));
    assert_eq!(coming.spare.bytes(), 1 << 20);
    let (mut to, from) = duplex(64);
    let mut from: LaneReader = Box::new(from);
    let later = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        to.write_all(b"more").await.unwrap();
    };
    let (read, ()) = tokio::join!(coming.read(&mut from), later);
    assert_eq!((read.unwrap(), coming.spare.bytes()), (4, 0));
    coming.spare.put(Vec::with_capacity(1 << 20));
    assert_eq!(coming.spare.bytes(), 1 << 20, "it is kept again");
}

/// What a lane has after a header that somebody has taken note of.
fn coming(behind: &[u8]) -> Coming {
    let buffer = BytesMut::from(&[&[0; crate::wire::HEADER_BYTES][..], behind].concat()[..]);
    let coming = Coming { buffer, skip: 0, large: None, spare: Arc::default() };
    coming.spare.keep(KEPT_BYTES_MAX);
    coming
}

//! The contract of a fabric, through every implementation, and what each has beyond it.

mod quic;
mod sim;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout};

use super::*;

/// No test takes nearly as long; one that does hangs.
const TEST_MAX: Duration = Duration::from_secs(60);

/// Two nodes in one network.
struct World {
    a: Arc<dyn Fabric>,
    b: Arc<dyn Fabric>,
    /// An address where nobody is.
    nobody: SocketAddr,
    idle_max: Duration,
    handshake_max: Duration,
    /// Ends `a` as kill -9 would.
    kill_a: Box<dyn FnOnce()>,
}

impl World {
    /// A link that `b` has opened, as `b` and `a` hold it.
    async fn link(&self) -> (Link, Link) {
        let opened = self.b.connect(self.a.local_addr()).await.unwrap();
        (opened, self.a.accept().await.unwrap())
    }
}

fn runtime(paused: bool) -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap()
}

#[track_caller]
fn check(claim: impl AsyncFn(World)) {
    eprintln!("simulated");
    runtime(true).block_on(async { timeout(TEST_MAX, claim(sim::world())).await.unwrap() });
    eprintln!("over quic");
    runtime(false).block_on(async { timeout(TEST_MAX, claim(quic::world())).await.unwrap() });
}

#[test]
fn a_link_tells_who_and_where_the_peer_is() {
    check(async |world| {
        let (b, a) = world.link().await;
        assert_eq!((b.peer.as_str(), a.peer.as_str()), ("a", "b"));
        assert_eq!((b.remote_addr, a.remote_addr), (world.a.local_addr(), world.b.local_addr()));
    });
}

#[test]
fn lanes_carry_bytes_in_order_both_ways() {
    check(async |world| {
        let (b, a) = world.link().await;
        let streams = b.lanes.into_iter().zip(a.lanes).enumerate().flat_map(
            |(lane, ((b_reads, b_writes), (a_reads, a_writes)))| {
                [pour(b_writes, a_reads, lane), pour(a_writes, b_reads, lane + 4)]
            },
        );
        join_all(streams).await;
        drop((b.wire, a.wire));
    });
}

/// Sends two megabytes, odd sizes at a time, copied and handed over in turn, and checks that the same come out at the other end.
async fn pour(mut to: LaneWriter, mut from: LaneReader, salt: usize) {
    let sent: Vec<u8> = (0..2_000_000).map(|i: usize| (i.wrapping_mul(31) ^ (i >> 9) ^ salt) as u8).collect();
    let writing = async {
        for (round, piece) in sent.chunks(40_009).enumerate() {
            let (head, tail) = piece.split_at(piece.len().min(round * 7));
            to.write_all(head).await.unwrap();
            let mut tail = Bytes::copy_from_slice(tail);
            while !tail.is_empty() {
                poll_fn(|cx| Pin::new(&mut to).poll_hand_over(cx, &mut tail)).await.unwrap();
            }
        }
        to.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let reading = async { from.read_to_end(&mut got).await.unwrap() };
    tokio::join!(writing, reading);
    assert!(got == sent, "lane {salt} changed what it carried");
}

#[test]
fn lanes_that_nobody_reads_hold_up_no_other() {
    check(async |world| {
        let (mut b, mut a) = world.link().await;
        for lane in [Lane::Control, Lane::Stream, Lane::Bulk] {
            let piece = vec![0; 64 * 1024];
            // Ends when the lane is full: then not even one byte more goes in.
            while let Ok(written) =
                timeout(Duration::from_millis(300), b.lanes[lane as usize].1.write_all(&piece)).await
            {
                written.unwrap();
            }
        }
        for round in 0..100 {
            b.lanes[Lane::Ask as usize].1.write_all(&[round]).await.unwrap();
            assert_eq!(a.lanes[Lane::Ask as usize].0.read_u8().await.unwrap(), round);
            a.lanes[Lane::Control as usize].1.write_all(&[round]).await.unwrap();
            assert_eq!(b.lanes[Lane::Control as usize].0.read_u8().await.unwrap(), round);
        }
    });
}

#[test]
fn datagrams_arrive_up_to_the_size_that_is_promised() {
    check(async |world| {
        let (b, a) = world.link().await;
        let max = b.wire.datagram_bytes_max();
        assert!(max >= 1200, "{max}");
        for bytes in [0, 1, max] {
            b.wire.send_datagram(Bytes::from(vec![7; bytes])).unwrap();
            assert_eq!(a.wire.recv_datagram().await.unwrap(), vec![7; bytes]);
        }
        let refused = b.wire.send_datagram(Bytes::from(vec![7; max + 1]));
        assert_eq!(refused, Err(DatagramError::TooLarge { max }));
        a.wire.send_datagram(Bytes::from_static(b"back")).unwrap();
        assert_eq!(b.wire.recv_datagram().await.unwrap(), "back");
    });
}

#[test]
fn closing_ends_every_lane_on_both_ends() {
    check(async |world| {
        let (b, a) = world.link().await;
        b.wire.close("had enough");
        assert_eq!(b.wire.closed().await, "had enough");
        assert_eq!(a.wire.closed().await, "had enough");
        for link in [b, a] {
            assert_eq!(link.wire.send_datagram(Bytes::new()), Err(DatagramError::Closed));
            assert_eq!(link.wire.recv_datagram().await, None);
            for (mut reads, mut writes) in link.lanes {
                reads.read_u8().await.unwrap_err();
                writes.write_all(&[0]).await.unwrap_err();
            }
        }
    });
}

#[test]
fn whoever_waits_on_a_link_is_woken_when_it_closes() {
    check(async |world| {
        let (b, a) = world.link().await;
        let [(control, _), (_, mut ask), ..] = a.lanes;
        let mut control = control;
        let reading = async { control.read_u8().await.unwrap_err() };
        let writing = async {
            let piece = vec![0; 64 * 1024];
            while ask.write_all(&piece).await.is_ok() {}
        };
        let datagram = async { assert_eq!(a.wire.recv_datagram().await, None) };
        let closing = async { b.wire.close("done") };
        tokio::join!(reading, writing, datagram, a.wire.closed(), closing);
    });
}

#[test]
fn a_link_that_is_let_go_is_closed() {
    check(async |world| {
        let (b, a) = world.link().await;
        drop(b);
        a.wire.closed().await;
    });
}

#[test]
fn a_finished_lane_ends_after_its_last_byte() {
    check(async |world| {
        let (b, mut a) = world.link().await;
        let [(_, mut control), ..] = b.lanes;
        control.write_all(b"last words").await.unwrap();
        control.shutdown().await.unwrap();
        let mut heard = String::new();
        a.lanes[0].0.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        drop(b.wire);
    });
}

#[test]
fn a_call_to_nobody_ends_in_time() {
    check(async |world| {
        let started = Instant::now();
        let refused = world.b.connect(world.nobody).await.map(drop).unwrap_err();
        assert!(matches!(refused, ConnectError::Timeout { .. }), "{refused}");
        assert!(started.elapsed() < world.handshake_max * 2, "{:?}", started.elapsed());
    });
}

#[test]
fn hundreds_of_links_can_be_opened_at_once() {
    check(async |world| {
        for _ in 0..4 {
            let opening = join_all((0..100).map(|_| world.b.connect(world.a.local_addr())));
            let accepting = async {
                let mut accepted = Vec::new();
                while accepted.len() < 100 {
                    accepted.push(world.a.accept().await.unwrap());
                }
                accepted
            };
            let (opened, mut accepted) = tokio::join!(opening, accepting);
            for (nth, link) in accepted.iter_mut().enumerate() {
                link.lanes[1].1.write_u64(nth as u64).await.unwrap();
            }
            let mut heard = Vec::new();
            for link in opened {
                heard.push(link.unwrap().lanes[1].0.read_u64().await.unwrap());
            }
            heard.sort_unstable();
            assert!(heard.into_iter().eq(0..100));
        }
    });
}

#[test]
fn a_peer_that_dies_silently_is_noticed() {
    check(async |world| {
        let (mut b, a) = world.link().await;
        let started = Instant::now();
        (world.kill_a)();
        b.wire.closed().await;
        assert!(started.elapsed() < world.idle_max + Duration::from_secs(1), "{:?}", started.elapsed());
        b.lanes[0].0.read_u8().await.unwrap_err();
        drop(a);
    });
}

#[test]
fn a_quiet_link_stays_open() {
    check(async |world| {
        let (mut b, mut a) = world.link().await;
        let quiet = timeout(world.idle_max * 2, b.wire.closed()).await;
        assert!(quiet.is_err(), "closed: {quiet:?}");
        b.lanes[0].1.write_all(&[5]).await.unwrap();
        assert_eq!(a.lanes[0].0.read_u8().await.unwrap(), 5);
    });
}

#[test]
fn a_closed_fabric_has_no_links_and_accepts_none() {
    check(async |world| {
        let (b, a) = world.link().await;
        world.a.close();
        assert!(world.a.accept().await.is_none());
        a.wire.closed().await;
        b.wire.closed().await;
        let refused = world.a.connect(world.b.local_addr()).await.map(drop).unwrap_err();
        assert!(matches!(refused, ConnectError::Unreachable { .. }), "{refused}");
        world.b.connect(world.a.local_addr()).await.map(drop).unwrap_err();
    });
}

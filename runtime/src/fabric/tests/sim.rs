//! The simulated network alone: it is as bad as it is told to be, and the same again from the same seed.

use super::*;

const MS: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(1100);

fn addr(host: u8) -> SocketAddr {
    ([10, 0, 0, host], 7000).into()
}

fn node(network: &SimNetwork, name: &str, host: u8) -> SimFabric {
    network.fabric(&NodeId::new(name).unwrap(), addr(host))
}

pub(super) fn world() -> World {
    let options = SimOptions { backlog_max: 128, ..SimOptions::default() };
    let network = SimNetwork::with_options(4, options);
    World {
        a: Arc::new(node(&network, "a", 1)),
        b: Arc::new(node(&network, "b", 2)),
        nobody: addr(9),
        idle_max: options.idle_max,
        handshake_max: options.handshake_max,
        kill_a: Box::new(move || network.kill(addr(1))),
    }
}

/// A network, two nodes, and a link that the second has opened, its end first.
struct Two {
    network: SimNetwork,
    a: SimFabric,
    b: SimFabric,
    at_b: Link,
    at_a: Link,
}

#[track_caller]
fn run(test: impl AsyncFn(Two)) {
    runtime(true).block_on(async {
        let network = SimNetwork::new(4);
        let (a, b) = (node(&network, "a", 1), node(&network, "b", 2));
        let at_b = b.connect(addr(1)).await.unwrap();
        let at_a = a.accept().await.unwrap();
        timeout(TEST_MAX, test(Two { network, a, b, at_b, at_a })).await.unwrap();
    });
}

#[test]
fn bytes_take_as_long_as_the_path() {
    run(async |mut two| {
        two.network.set_path(addr(1), addr(2), SimPath { latency: 80 * MS, ..SimPath::default() });
        two.network.set_path(addr(2), addr(1), SimPath { latency: 20 * MS, ..SimPath::default() });
        assert_eq!(two.at_b.wire.rtt(), 100 * MS);
        let started = Instant::now();
        two.at_b.lanes[1].1.write_all(b"x").await.unwrap();
        two.at_a.lanes[1].0.read_u8().await.unwrap();
        assert_eq!(started.elapsed().as_millis(), 20);
        two.at_a.lanes[1].1.write_all(b"x").await.unwrap();
        two.at_b.lanes[1].0.read_u8().await.unwrap();
        assert_eq!(started.elapsed().as_millis(), 100);
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(arrivals(1), arrivals(1));
    assert_ne!(arrivals(1), arrivals(2));
}

#[test]
fn datagrams_are_lost_and_overtaken_as_often_as_told() {
    let arrived = arrivals(3);
    let overtaken = arrived.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
    assert!((600..800).contains(&arrived.len()), "{} of 1000 with 30 % lost", arrived.len());
    assert!(overtaken > 50, "{overtaken}");
}

/// Which of a thousand datagrams arrive over a bad path, and after how many microseconds.
fn arrivals(seed: u64) -> Vec<(u32, u128)> {
    runtime(true).block_on(async {
        let network = SimNetwork::new(seed);
        let (a, b) = (node(&network, "a", 1), node(&network, "b", 2));
        let opened = b.connect(addr(1)).await.unwrap();
        let accepted = a.accept().await.unwrap();
        let path = SimPath { latency: 30 * MS, jitter: 5 * MS, datagram_loss: 0.3, datagram_reorder: 0.2 };
        network.set_path(addr(2), addr(1), path);
        let started = Instant::now();
        for number in 0..1000_u32 {
            opened.wire.send_datagram(Bytes::copy_from_slice(&number.to_be_bytes())).unwrap();
            tokio::time::advance(MS / 4).await;
        }
        let mut arrived = Vec::new();
        while let Ok(Some(datagram)) = timeout(200 * MS, accepted.wire.recv_datagram()).await {
            let number = u32::from_be_bytes(datagram[..].try_into().unwrap());
            arrived.push((number, started.elapsed().as_micros()));
        }
        arrived
    })
}

#[test]
fn what_lanes_carry_outlives_a_short_cut() {
    run(async |mut two| {
        two.at_b.lanes[1].1.write_all(b"before").await.unwrap();
        two.network.cut(addr(2), addr(1));
        two.at_b.lanes[1].1.write_all(b"during").await.unwrap();
        two.at_b.wire.send_datagram(Bytes::from_static(b"lost")).unwrap();
        let mut heard = [0; 12];
        assert!(timeout(IDLE - 10 * MS, two.at_a.lanes[1].0.read_exact(&mut heard)).await.is_err());
        two.network.heal(addr(2), addr(1));
        two.at_b.wire.send_datagram(Bytes::from_static(b"after")).unwrap();
        two.at_a.lanes[1].0.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"beforeduring");
        assert_eq!(two.at_a.wire.recv_datagram().await.unwrap(), "after");
    });
}

#[test]
fn what_has_arrived_before_a_cut_can_be_read_in_it() {
    run(async |mut two| {
        two.at_b.lanes[1].1.write_all(b"x").await.unwrap();
        two.at_b.wire.send_datagram(Bytes::from_static(b"y")).unwrap();
        tokio::time::sleep(2 * MS).await;
        two.network.cut(addr(2), addr(1));
        tokio::time::sleep(2 * MS).await;
        assert_eq!(two.at_a.lanes[1].0.read_u8().await.unwrap(), b'x');
        assert_eq!(two.at_a.wire.recv_datagram().await.unwrap(), "y");
    });
}

#[test]
fn a_cut_in_one_direction_is_noticed_there_first_and_then_on_the_other_side() {
    run(async |two| {
        two.network.cut(addr(2), addr(1));
        let started = Instant::now();
        assert_eq!(two.at_a.wire.closed().await, "silent for too long");
        assert_eq!(started.elapsed().as_millis(), IDLE.as_millis());
        assert_eq!(two.at_b.wire.closed().await, "silent for too long");
        assert_eq!(started.elapsed().as_millis(), 2 * IDLE.as_millis());
    });
}

#[test]
fn a_call_through_a_cut_arrives_once_it_is_healed() {
    run(async |two| {
        two.network.cut(addr(1), addr(2));
        let healing = async {
            tokio::time::sleep(500 * MS).await;
            two.network.heal(addr(1), addr(2));
        };
        let (opened, ()) = tokio::join!(two.b.connect(addr(1)), healing);
        opened.unwrap();
        two.network.cut(addr(1), addr(2));
        let refused = two.b.connect(addr(1)).await.map(drop).unwrap_err();
        assert!(matches!(refused, ConnectError::Timeout { .. }), "{refused}");
    });
}

#[test]
fn a_frozen_process_that_thaws_in_time_has_lost_nothing() {
    run(async |mut two| {
        two.network.freeze(addr(1));
        two.at_b.lanes[1].1.write_all(b"x").await.unwrap();
        two.at_a.lanes[1].1.write_all(b"y").await.unwrap();
        tokio::time::sleep(IDLE - MS).await;
        two.network.thaw(addr(1));
        assert_eq!(two.at_a.lanes[1].0.read_u8().await.unwrap(), b'x');
        assert_eq!(two.at_b.lanes[1].0.read_u8().await.unwrap(), b'y');
    });
}

#[test]
fn a_frozen_process_learns_on_thawing_that_it_was_given_up() {
    run(async |two| {
        two.network.freeze(addr(1));
        assert_eq!(two.at_b.wire.closed().await, "silent for too long");
        assert!(timeout(10 * IDLE, two.at_a.wire.closed()).await.is_err(), "a frozen process closed a link");
        two.network.thaw(addr(1));
        let thawed = Instant::now();
        two.at_a.wire.closed().await;
        assert!(thawed.elapsed() <= MS, "{:?}", thawed.elapsed());
    });
}

#[test]
fn a_killed_process_is_closed_within_and_silent_without() {
    run(async |two| {
        two.network.kill(addr(1));
        assert_eq!(two.at_a.wire.closed().await, "the process was killed");
        assert!(two.a.accept().await.is_none());
        two.a.connect(addr(2)).await.map(drop).unwrap_err();
        let again = node(&two.network, "a", 1);
        let (opened, accepted) = tokio::join!(two.b.connect(addr(1)), again.accept());
        let (_opened, accepted) = (opened.unwrap(), accepted.unwrap());
        drop(two.a);
        assert_eq!(two.at_b.wire.closed().await, "silent for too long");
        assert!(timeout(2 * IDLE, accepted.wire.closed()).await.is_err(), "the next life lost its link");
    });
}

#[test]
fn the_network_forgets_links_that_nobody_holds() {
    run(async |two| {
        assert_eq!(two.network.links_held(), 1);
        drop(two.at_a);
        assert_eq!(two.network.links_held(), 1);
        drop(two.at_b);
        assert_eq!(two.network.links_held(), 0);
    });
}

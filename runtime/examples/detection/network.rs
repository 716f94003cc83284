//! What lies between the processes: passes packets on, unless the two are cut from each other.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Pairs of nodes between whom nothing passes, the smaller first.
#[derive(Clone, Default)]
pub(crate) struct Cuts(Arc<Mutex<HashSet<(usize, usize)>>>);

impl Cuts {
    pub(crate) fn cut(&self, a: usize, b: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((a.min(b), a.max(b)));
    }

    pub(crate) fn heal(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn between(&self, a: usize, b: usize) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&(a.min(b), a.max(b)))
    }
}

/// A free port of loopback.
pub(crate) fn free_addr() -> io::Result<SocketAddr> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Opens the address under which the others reach one node. `nodes` are where all of them listen, and send from.
pub(crate) fn open(node: usize, nodes: Vec<SocketAddr>, cuts: Cuts) -> io::Result<SocketAddr> {
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = front.local_addr()?;
    thread::spawn(move || pass(node, &nodes, &front, &cuts));
    Ok(addr)
}

fn pass(node: usize, nodes: &[SocketAddr], front: &UdpSocket, cuts: &Cuts) -> io::Result<()> {
    let mut backs: HashMap<usize, UdpSocket> = HashMap::new();
    let mut packet = vec![0; 65_536];
    loop {
        let (packet_bytes, from) = front.recv_from(&mut packet)?;
        let Some(sender) = nodes.iter().position(|addr| *addr == from) else { continue };
        if cuts.between(sender, node) {
            continue;
        }
        let back = match backs.entry(sender) {
            Entry::Occupied(back) => back.into_mut(),
            Entry::Vacant(place) => {
                let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                back.connect(nodes[node])?;
                let (answers, front, cuts) = (back.try_clone()?, front.try_clone()?, cuts.clone());
                thread::spawn(move || pass_back(&answers, &front, from, || cuts.between(sender, node)));
                place.insert(back)
            }
        };
        // Nobody may listen: the process was killed.
        let _refused = back.send(&packet[..packet_bytes]);
    }
}

fn pass_back(answers: &UdpSocket, front: &UdpSocket, to: SocketAddr, cut: impl Fn() -> bool) {
    let mut packet = vec![0; 65_536];
    loop {
        // As above.
        let Ok(packet_bytes) = answers.recv(&mut packet) else { continue };
        if !cut() {
            let _refused = front.send_to(&packet[..packet_bytes], to);
        }
    }
}

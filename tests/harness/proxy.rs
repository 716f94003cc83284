//! A stretch of network before one node: what is sent to the node, and what it answers, comes later or not at all.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A UDP address that stands for a node's own. Its threads end with the process.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    weather: Arc<Weather>,
}

#[derive(Default)]
struct Weather {
    delay_us: AtomicU64,
    lost_per_mille: AtomicU32,
    drawn: AtomicU64,
}

/// A packet that is on its way, and the socket that sends it on.
struct Packet {
    due: Instant,
    bytes: Vec<u8>,
    by: UdpSocket,
    /// `None`: whoever `by` is connected to.
    to: Option<SocketAddr>,
}

impl Proxy {
    pub(crate) fn before(node: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let addr = front.local_addr().expect("it is bound");
        let weather = Arc::<Weather>::default();
        let (sending, waiting) = channel();
        thread::spawn(move || deliver(&waiting));
        let seen = Arc::clone(&weather);
        thread::spawn(move || inwards(node, &front, &seen, &sending));
        Self { addr, weather }
    }

    /// From now on each packet takes `delay` more, each way, and so many of a thousand are lost.
    pub(crate) fn set(&self, delay: Duration, lost_per_mille: u32) {
        self.weather.delay_us.store(delay.as_micros() as u64, Ordering::Relaxed);
        self.weather.lost_per_mille.store(lost_per_mille, Ordering::Relaxed);
    }
}

impl Weather {
    /// When a packet arrives that is sent now; `None`: never. Which ones are lost is the same in every run.
    fn due(&self) -> Option<Instant> {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let draw = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32; // Knuth's multiplicative hash
        let lost = draw % 1000 < u64::from(self.lost_per_mille.load(Ordering::Relaxed));
        (!lost).then(|| Instant::now() + Duration::from_micros(self.delay_us.load(Ordering::Relaxed)))
    }
}

fn inwards(node: SocketAddr, front: &UdpSocket, weather: &Arc<Weather>, sending: &Sender<Packet>) {
    let mut backs: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        // A port of a node that is gone refuses; the next packet may be for its successor.
        let Ok((len, from)) = front.recv_from(&mut buffer) else { continue };
        let back = backs.entry(from).or_insert_with(|| {
            let back = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            back.connect(node).expect("an address");
            let (answers, front) =
                (back.try_clone().expect("a handle"), front.try_clone().expect("a handle"));
            let (weather, sending) = (Arc::clone(weather), sending.clone());
            thread::spawn(move || outwards(&answers, &front, from, &weather, &sending));
            back
        });
        if let Some(due) = weather.due() {
            let by = back.try_clone().expect("a handle");
            sending.send(Packet { due, bytes: buffer[..len].to_vec(), by, to: None }).expect("it delivers");
        }
    }
}

fn outwards(
    answers: &UdpSocket,
    front: &UdpSocket,
    to: SocketAddr,
    weather: &Weather,
    sending: &Sender<Packet>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(len) = answers.recv(&mut buffer) else { continue };
        if let Some(due) = weather.due() {
            let by = front.try_clone().expect("a handle");
            sending
                .send(Packet { due, bytes: buffer[..len].to_vec(), by, to: Some(to) })
                .expect("it delivers");
        }
    }
}

fn deliver(waiting: &Receiver<Packet>) {
    while let Ok(packet) = waiting.recv() {
        thread::sleep(packet.due.saturating_duration_since(Instant::now()));
        // Whoever it is for may be gone.
        let _ = match packet.to {
            Some(to) => packet.by.send_to(&packet.bytes, to),
            None => packet.by.send(&packet.bytes),
        };
    }
}

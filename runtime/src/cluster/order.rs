//! Keeps the messages of one origin in order, and single, when they come by more than one way.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::cluster::View;
use crate::cluster::net::node_key;
use crate::fabric::Lane;

/// The highest number seen, by lane, of one life of one origin.
#[derive(Default)]
pub(crate) struct Order([Mutex<u64>; 4]);

/// Those of all origins.
#[derive(Default)]
pub(crate) struct Orders {
    by_origin: Mutex<HashMap<(u64, u64), Arc<Order>>>,
}

impl Orders {
    pub(crate) fn of(&self, origin: u64, incarnation: u64) -> Arc<Order> {
        Arc::clone(self.by_origin.lock().entry((origin, incarnation)).or_default())
    }

    /// Forgets lives that are over, unless a link still holds theirs.
    pub(crate) fn retain(&self, view: &View) {
        let lives: Vec<(u64, u64)> =
            view.members.values().map(|member| (node_key(&member.id), member.incarnation.0)).collect();
        self.by_origin.lock().retain(|life, order| lives.contains(life) || Arc::strong_count(order) > 1);
    }
}

impl Order {
    /// The turn of a message, if none that was sent later has come before. Held while the message is handed over.
    pub(crate) fn turn(&self, lane: Lane, sequence: u64) -> Option<MutexGuard<'_, u64>> {
        let mut highest = self.0[lane as usize].lock();
        if sequence <= *highest {
            return None;
        }
        *highest = sequence;
        Some(highest)
    }
}

//! What of a node has to agree to another configuration, and is not a room of its own elsewhere.

use std::sync::Arc;

use peregrine_actors::System;

use crate::cluster;
use crate::config::{Config, Holding};
use crate::reload::{Current, Room, Staged};

/// What requests are read by: limits, deadlines, the default model and the columns of the data.
pub(super) struct GatewayRoom {
    pub(super) system: System,
    /// Of the data; empty without data.
    pub(super) columns: Vec<String>,
    pub(super) current: Current,
}

impl Room for GatewayRoom {
    fn name(&self) -> &'static str {
        "gateway"
    }

    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
        let now = self.current.get();
        if next.models.default != now.models.default
            && let Some(default) = &next.models.default
            && next.holding(default) != Holding::No
            && self.system.find(default, None).is_err()
        {
            return Err(format!("model `{default}` is not served"));
        }
        let known = |column: &&String| self.columns.is_empty() || self.columns.contains(*column);
        let new = [&next.data.column].into_iter().chain(next.data.columns.values());
        let was = |column: &&String| {
            now.data.column == **column || now.data.columns.values().any(|known| known == *column)
        };
        if let Some(column) = new.into_iter().find(|column| !known(column) && !was(column)) {
            return Err(format!("the data have no column `{column}`"));
        }
        Ok(self.current.stage(next))
    }
}

/// How other nodes are asked.
pub(super) struct RoutingRoom {
    pub(super) system: System,
}

impl Room for RoutingRoom {
    fn name(&self) -> &'static str {
        "routing"
    }

    fn prepare(&self, next: &Arc<Config>) -> Result<Staged, String> {
        let (system, routing) = (self.system.clone(), cluster::routing(next));
        // A node that is alone asks nobody.
        Ok(Box::new(move || {
            system.set_routing(routing);
        }))
    }
}

//! What of a node has to agree to another configuration, and is not a room of its own elsewhere.

use std::sync::Arc;

use peregrine_actors::System;

use crate::cluster;
use crate::config::{Config, Holding, key_of};
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
            return Err(format!("models.default: model `{default}` is not served"));
        }
        let known = |column: &&String| self.columns.is_empty() || self.columns.contains(*column);
        let key = |model: &String| key_of(&["data", "columns", model]);
        let of_models = next.data.columns.iter().map(|(model, column)| (key(model), column));
        let mut new = [("data.column".to_owned(), &next.data.column)].into_iter().chain(of_models);
        let was = |column: &&String| {
            now.data.column == **column || now.data.columns.values().any(|known| known == *column)
        };
        if let Some((key, column)) = new.find(|(_, column)| !known(column) && !was(column)) {
            return Err(format!("{key}: the data have no column `{column}`"));
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
            false
        }))
    }
}

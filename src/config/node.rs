//! `[node]`, as used.

use peregrine_runtime::{NodeId, Region};

use super::checker::Checker;
use super::file::NodeFile;

/// What Fly calls a Machine, and where it runs that.
const FLY_MACHINE_ID: &str = "FLY_MACHINE_ID";
const FLY_REGION: &str = "FLY_REGION";

/// Who this node is.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// In answers, logs and metrics.
    pub name: NodeId,
    /// In answers, logs and metrics.
    pub region: Region,
}

impl Checker<'_> {
    /// On a Fly Machine a node that nobody has named is called as the platform calls it.
    pub(super) fn node(&mut self, written: NodeFile, environment: &[(String, String)]) -> Option<NodeConfig> {
        let name = self.told_by(FLY_MACHINE_ID, "node.name", written.name, environment);
        let name = self.present("node.name", name);
        let name = name.and_then(|name| self.named(NodeId::new(&name), "node.name"));
        let region = self.told_by(FLY_REGION, "node.region", written.region, environment);
        let region = self.present("node.region", region);
        let region = region.and_then(|region| self.named(Region::new(&region), "node.region"));
        Some(NodeConfig { name: name?, region: region? })
    }
}

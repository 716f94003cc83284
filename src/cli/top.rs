//! `peregrine top`: a node and its cluster, live in the terminal or once as text.

use std::io;
use std::time::Duration;

use clap::Args;
use peregrine_runtime::{Clock as _, SystemClock};

use super::CliError;
use super::trust::NodeArgs;
use crate::top::{self, Demo, Feed};

/// For an answer; a node that asks another waits two seconds itself.
const WITHIN: Duration = Duration::from_secs(4);
/// Of the cluster that does not exist.
const DEMO_SEED: u64 = 8;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    asked: NodeArgs,
    /// Look at this node first, through the one that is asked
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Print one view and end; needs no terminal
    #[arg(long)]
    once: bool,
    /// As JSON
    #[arg(long, requires = "once")]
    json: bool,
    /// A cluster of three regions that does not exist
    #[arg(long, conflicts_with_all = ["url", "key"])]
    demo: bool,
}

pub(super) fn run(args: TopArgs) -> Result<(), CliError> {
    let clock = SystemClock;
    let mut feed = if args.demo {
        let now = clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Feed::Demo(Box::new(Demo::new(DEMO_SEED, now)))
    } else {
        Feed::Server(args.asked.node(WITHIN)?)
    };
    if args.once {
        return Ok(top::once(&mut feed, args.node.as_deref(), args.json, &mut io::stdout().lock())??);
    }
    top::run(feed, args.node, &clock).map_err(|error| match error {
        top::TopError::NoTerminal | top::TopError::Dumb => CliError::Usage(error.to_string()),
        other => CliError::Top(other),
    })
}

//! Policies that ours is compared with: a fixed fleet, target tracking as Kubernetes has it, and Knative's pod
//! autoscaler. Each is as its own documentation says, with its own defaults, and does what that says without data.

mod fixed;
mod kpa;
mod target;

pub use fixed::Fixed;
pub use kpa::Kpa;
pub use target::TargetTracking;

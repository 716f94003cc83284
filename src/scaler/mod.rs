//! The scaler's shell: pools of real machines, and what is kept of its decisions. What to do is decided elsewhere.

pub mod home;
pub mod ledger;
pub mod pools;

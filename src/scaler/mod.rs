//! The scaler's shell: pools of real machines, and what is kept of its decisions. What to do is decided elsewhere.

mod book;
mod desk;
mod fly;
mod forecaster;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod home;
mod host;
mod keeper;
pub mod ledger;
mod messages;
pub(crate) mod once;
mod open;
mod pace;
mod past;
pub mod pools;
mod rounds;
mod speak;
mod view;
mod vitals;

pub(crate) use host::{Host, home_of, host};
pub(crate) use messages::{FromScaler, NAME, ToScaler};
pub(crate) use open::{OpenError, bad_pools, meeting};
pub(crate) use rounds::{LatestPicture, Picture};
pub(crate) use speak::{Told, speak};

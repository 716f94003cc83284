//! The pools that need more than a platform's API: processes on this machine, and programs of the user's own.

pub(super) mod command;
mod folder;
mod hold;
pub(super) mod local;
mod open;
pub(super) mod process;

pub use command::{CommandPool, Commands};
pub(super) use folder::Folder;
pub use folder::FolderError;
pub use local::{LocalPool, LocalSpec, Program, Setting};
pub use open::{Meeting, OpenError, open};

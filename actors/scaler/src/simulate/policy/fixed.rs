//! Always as many.

use crate::control::{Policy, Sight};

/// A fleet of a fixed number.
#[derive(Clone, Debug)]
pub struct Fixed {
    name: String,
    machines: u32,
}

impl Fixed {
    /// Of so many machines.
    #[must_use]
    pub fn new(machines: u32) -> Self {
        Self { name: format!("fixed {machines}"), machines }
    }
}

impl Policy for Fixed {
    fn name(&self) -> &str {
        &self.name
    }

    fn wanted(&mut self, _: &Sight<'_>) -> u32 {
        self.machines
    }
}

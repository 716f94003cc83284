//! What will be asked.

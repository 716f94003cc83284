//! Sessions of markets.

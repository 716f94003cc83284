//! The Machines API and the pool on it, against a faithful fake.

mod machines {
    mod contract;
    mod fake;
    mod fight;
    mod mapping;
    mod over_http;
    mod platform;
}

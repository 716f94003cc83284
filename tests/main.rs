//! One integration binary: real nodes, driven from outside.

mod alerts;
mod architecture;
mod audit;
mod bench;
mod breakers;
mod cluster;
mod dashboard;
mod failover;
mod faults;
mod grafana;
mod harness;
mod hostile;
mod hosts;
mod overview;
mod releases;
mod reload;
mod request_path;
mod scaler;
mod scaling;
mod score;
mod security;
mod series;
mod stream;
mod tls;
mod top;
mod websocket;

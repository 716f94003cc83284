//! What the tests share: a raw HTTP client, the real binary, nodes in this process, and the models' cases.

mod browser;
mod cases;
mod collector;
mod edge;
mod fleet;
mod hosts;
mod http;
mod node;
mod process;
mod proxy;
mod receiver;
mod websocket;

pub(crate) use browser::Browser;
pub(crate) use cases::Cases;
pub(crate) use collector::{Collector, Reply, Seen, hex};
pub(crate) use edge::{Edge, Hop};
pub(crate) use fleet::{Fleet, Load, Post, took};
pub(crate) use hosts::Hosts;
pub(crate) use http::{Client, Response, request};
pub(crate) use node::{PowerSwitch, TestNode, eventually};
pub(crate) use process::{NodeProcess, drawn_key};
pub(crate) use proxy::Proxy;
pub(crate) use receiver::{Answer, Receiver};
pub(crate) use websocket::{CLOSE, PING, PONG, TEXT, WebSocket, masked};

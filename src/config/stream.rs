//! `[stream]`, as used.

use std::time::Duration;

use super::checker::{Checker, DAY, SECOND};
use super::file::StreamFile;
use super::units::WrittenSize;

/// Websockets, and what is kept for them.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamConfig {
    /// Open websockets; more get 503.
    pub connections_max: usize,
    /// Largest message of a client.
    pub message_bytes_max: usize,
    /// Of one connection.
    pub subscriptions_max: usize,
    /// Of one subscription.
    pub patterns_max: usize,
    /// Messages with ticks of one connection that wait for their answer; it is not read from meanwhile.
    pub ticks_in_flight_max: usize,
    /// Different subscriptions on this node; equal ones count once.
    pub channels_max: usize,
    /// Of them, those of one caller: of a key, or of an address without one.
    pub channels_per_caller_max: usize,
    /// Streams (a model's predictions of a series) that are followed at once.
    pub streams_max: usize,
    /// Frames that a reader may be behind.
    pub log_frames_max: usize,
    /// Bytes that a reader may be behind.
    pub log_bytes_max: usize,
    /// Newest predictions of each stream that can be resumed from here.
    pub retention: usize,
    /// Longest silence of this node.
    pub heartbeat: Duration,
    /// Longest silence of a client, which is pinged at half of it.
    pub idle_max: Duration,
    /// How long a client may take nothing of what is sent, and has to take the rest once it is to be closed.
    pub stuck_max: Duration,
    /// For the closing handshake, once the client's socket has taken the rest.
    pub close_timeout: Duration,
}

impl Checker<'_> {
    pub(super) fn stream(&mut self, written: StreamFile) -> Option<StreamConfig> {
        let size = |written: Option<WrittenSize>| written.map(|WrittenSize(bytes)| bytes);
        let connections = self.within("stream.connections_max", written.connections_max, 1..=1_000_000);
        let message = self.within("stream.message_max", size(written.message_max), 1024..=16 << 20);
        let subscriptions = self.within("stream.subscriptions_max", written.subscriptions_max, 1..=10_000);
        let patterns = self.within("stream.patterns_max", written.patterns_max, 1..=10_000);
        let ticks = self.within("stream.ticks_in_flight_max", written.ticks_in_flight_max, 1..=10_000);
        let channels = self.within("stream.channels_max", written.channels_max, 1..=1_000_000);
        let share =
            self.within("stream.channels_per_caller_max", written.channels_per_caller_max, 1..=1_000_000);
        let streams = self.within("stream.streams_max", written.streams_max, 1..=10_000_000);
        let log_frames = self.within("stream.log_messages_max", written.log_messages_max, 4..=1_000_000);
        let log_bytes = self.within("stream.log_max", size(written.log_max), 64 << 10..=1 << 30);
        let retention = self.within("stream.retention", written.retention, 1..=100_000);
        let heartbeat = self.time("stream.heartbeat", written.heartbeat, SECOND / 20..=SECOND * 15);
        let idle = self.time("stream.idle_max", written.idle_max, SECOND / 10..=DAY);
        let stuck = self.time("stream.stuck_max", written.stuck_max, SECOND / 10..=DAY);
        let close = self.time("stream.close_timeout", written.close_timeout, SECOND / 100..=SECOND * 60);
        Some(StreamConfig {
            connections_max: connections?,
            message_bytes_max: message?,
            subscriptions_max: subscriptions?,
            patterns_max: patterns?,
            ticks_in_flight_max: ticks?,
            channels_max: channels?,
            channels_per_caller_max: share?,
            streams_max: streams?,
            log_frames_max: log_frames?,
            log_bytes_max: log_bytes?,
            retention: retention?,
            heartbeat: heartbeat?,
            idle_max: idle?,
            stuck_max: stuck?,
            close_timeout: close?,
        })
    }
}

//! How QUIC is tuned: for a private network whose packets have a known size, and for loopback.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::BindError;
use super::socket::MESSAGE_BYTES_MAX;
use crate::fabric::Lane;

/// What can be chosen; the defaults are for machines in one private network over WireGuard.
#[derive(Clone, Debug)]
pub struct QuicOptions {
    /// Longest a handshake may take, lanes included, on either side.
    pub handshake_max: Duration,
    /// A peer that is silent for longer is gone, and so is one that acknowledges nothing for as long.
    pub idle_max: Duration,
    /// How often a link without traffic says that it is there. Well below `idle_max`.
    pub keep_alive_every: Duration,
    /// Largest UDP payload. Links begin with the 1200 bytes that every path of QUIC carries, and probe for this.
    pub packet_bytes: u16,
    /// The same between two processes of one machine. Where loopback does not carry it, packets become smaller
    /// with the first that are lost.
    pub packet_bytes_loopback: u16,
    /// Whether the kernel cuts large sends into packets. Not every network device of a virtual machine
    /// does it right; on loopback, where one packet is as long as what can be cut, it is always off.
    pub segmentation_offload: bool,
    /// What a peer may send on one lane ahead of its reader, in bytes. A link holds up to four times this
    /// in either direction.
    pub lane_window_bytes: u32,
    /// Datagrams that may wait to be sent or read, in bytes; the oldest make room.
    pub datagram_buffer_bytes: usize,
    /// Handshakes of callers under way at once.
    pub handshakes_max: usize,
    /// Links that may wait to be accepted.
    pub backlog_max: usize,
    /// Asked of the system for the socket; what it grants is good enough.
    pub socket_buffer_bytes: usize,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            handshake_max: Duration::from_secs(1),
            // The first packet that is not answered starts the time anew: both together are the longest.
            idle_max: Duration::from_millis(1100),
            keep_alive_every: Duration::from_millis(250),
            packet_bytes: 1372, // 1420 of WireGuard less the headers of IPv6 and UDP
            packet_bytes_loopback: 65_480, // 65,536 of Linux less the headers of IPv6 and UDP, and a little
            segmentation_offload: false,
            lane_window_bytes: 4 * 1024 * 1024,
            datagram_buffer_bytes: 256 * 1024,
            handshakes_max: 256,
            backlog_max: 64,
            socket_buffer_bytes: 4 * 1024 * 1024,
        }
    }
}

/// Which of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Opens the lanes; nothing may be opened towards it.
    Caller,
    /// Lets the lanes be opened, and no stream more.
    Called,
}

/// Assumed until measured: with the specification's third of a second, a first packet lost inside one
/// region would cost the whole handshake its time.
const RTT_ASSUMED: Duration = Duration::from_millis(50);

/// Ten packets are handed to the kernel at once, and a device that is given 65,536 bytes or more with the headers has them
/// cut up before it.
const PACKET_BYTES_MAX: u16 = 6540;
/// The smallest a path of QUIC may carry (RFC 9000): handshakes fill their packets to it, so that they come about in any
/// tunnel, and packets become so small again where larger ones vanish.
const PACKET_BYTES_MIN: u16 = 1200;
/// What may be under way before anything is acknowledged, in packets. A handshake fills two to the brim on either
/// side, so that a window of fewer would hold it up.
const FIRST_WINDOW_PACKETS: u64 = 10;
/// When packets on loopback grow again that were made small because many were lost, and by which steps at the least.
const GROW_AFTER: Duration = Duration::from_secs(1);
const GROW_BYTES_MIN: u16 = 1000;
/// The same between machines, where a path that has become narrow stays so for longer.
const NETWORK_GROW_AFTER: Duration = Duration::from_secs(60);
const NETWORK_GROW_BYTES_MIN: u16 = 20;

impl QuicOptions {
    pub(super) fn checked(&self) -> Result<(), BindError> {
        if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&self.packet_bytes) {
            return Err(BindError::Options("a packet has 1200 to 6540 bytes"));
        }
        if !(self.packet_bytes..=MESSAGE_BYTES_MAX).contains(&self.packet_bytes_loopback) {
            return Err(BindError::Options(
                "on loopback a packet is no shorter, and has at most 65507 bytes",
            ));
        }
        if self.keep_alive_every * 2 > self.idle_max {
            return Err(BindError::Options("keep-alive has to be at most half of the idle time"));
        }
        if IdleTimeout::try_from(self.idle_max).is_err() || self.handshake_max.is_zero() {
            return Err(BindError::Options("a time is out of range"));
        }
        if self.handshakes_max == 0 || self.backlog_max == 0 || self.lane_window_bytes == 0 {
            return Err(BindError::Options("a limit of zero lets nobody in"));
        }
        Ok(())
    }

    pub(super) fn transport(&self, role: Role, loopback: bool) -> Arc<TransportConfig> {
        let lanes = u32::try_from(Lane::ALL.len()).unwrap_or(u32::MAX);
        let link_window_bytes = u64::from(self.lane_window_bytes) * u64::from(lanes);
        let packet_bytes = if loopback { self.packet_bytes_loopback } else { self.packet_bytes };
        let mut congestion = CubicConfig::default();
        congestion.initial_window(FIRST_WINDOW_PACKETS * u64::from(packet_bytes));
        // Loopback carries large packets from the first one on: growing there would make a first ask wait for a probe.
        let (begins_with, step, again_after) = if loopback {
            (packet_bytes, GROW_BYTES_MIN, GROW_AFTER)
        } else {
            (PACKET_BYTES_MIN, NETWORK_GROW_BYTES_MIN, NETWORK_GROW_AFTER)
        };
        let mut growing = MtuDiscoveryConfig::default();
        growing.upper_bound(packet_bytes).minimum_change(step).black_hole_cooldown(again_after);
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_concurrent_bidi_streams(match role {
                Role::Caller => VarInt::from_u32(0),
                Role::Called => VarInt::from_u32(lanes),
            })
            .max_idle_timeout(IdleTimeout::try_from(self.idle_max).ok())
            .keep_alive_interval(Some(self.keep_alive_every))
            .initial_rtt(RTT_ASSUMED)
            .congestion_controller_factory(Arc::new(congestion))
            .mtu_discovery_config(Some(growing))
            // The first packet is filled up to it, and until a caller's address is proven no more than three
            // times what it sent may be answered.
            .min_mtu(PACKET_BYTES_MIN)
            .initial_mtu(begins_with)
            .enable_segmentation_offload(self.segmentation_offload && !loopback)
            .stream_receive_window(VarInt::from_u32(self.lane_window_bytes))
            // The sum of the lanes, so that lanes nobody reads cannot stop one that is read.
            .receive_window(VarInt::from_u64(link_window_bytes).unwrap_or(VarInt::MAX))
            .send_window(link_window_bytes)
            .datagram_receive_buffer_size(Some(self.datagram_buffer_bytes))
            .datagram_send_buffer_size(self.datagram_buffer_bytes)
            .ack_frequency_config(Some(AckFrequencyConfig::default()))
            .allow_spin(false); // would show the round trip to whoever watches
        Arc::new(transport)
    }
}

//! The ends of a simulated link, as tasks hold them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::Shared;
use super::state::{Due, EndId, GONE, Progress};
use crate::cluster::NodeId;
use crate::fabric::{DatagramError, Lane, LaneReader, LaneWrite, LaneWriter, Link, Wire};

/// What fits in a datagram: a little less than over QUIC.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1300;

/// One end of a link; the link is let go when its last part is dropped.
struct Held {
    net: Arc<Shared>,
    end: EndId,
}

struct Reader {
    held: Arc<Held>,
    lane: usize,
    sleep: Option<Pin<Box<Sleep>>>,
}

struct Writer {
    held: Arc<Held>,
    lane: usize,
}

struct SimWire {
    held: Arc<Held>,
}

/// Has to be called inside a tokio runtime: a task watches over the end until it is closed.
pub(super) fn link(net: &Arc<Shared>, end: EndId, remote_addr: SocketAddr, peer: NodeId) -> Link {
    tokio::spawn(keep(Arc::clone(net), end));
    let held = Arc::new(Held { net: Arc::clone(net), end });
    let lanes = Lane::ALL.map(|lane| -> (LaneReader, LaneWriter) {
        let lane = lane as usize;
        let reader = Reader { held: Arc::clone(&held), lane, sleep: None };
        (Box::new(reader), Box::new(Writer { held: Arc::clone(&held), lane }))
    });
    Link { remote_addr, peer, lanes, wire: Arc::new(SimWire { held }) }
}

/// Closes an end when its peer says goodbye, or nothing for too long.
async fn keep(net: Arc<Shared>, end: EndId) {
    let Some(changed) = net.state.lock().changed(end) else { return };
    loop {
        let due = net.state.lock().due(end);
        match due {
            Due::Gone => return,
            Due::Nothing => changed.notified().await,
            Due::At(at) => {
                let _elapsed = timeout_at(at, changed.notified()).await;
                net.state.lock().ripen(end, Instant::now());
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.net.state.lock().release(self.end, Instant::now());
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let (end, now) = (this.held.end, Instant::now());
            let progress = this.held.net.state.lock().read(end, this.lane, into, now, cx.waker());
            let until = match progress {
                Progress::Done(read) => return Poll::Ready(read),
                Progress::Wait => return Poll::Pending,
                Progress::Until(at) => at,
            };
            let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            sleep.as_mut().reset(until);
            ready!(sleep.as_mut().poll(cx));
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (end, now) = (self.held.end, Instant::now());
        match self.held.net.state.lock().write(end, self.lane, bytes, now, cx.waker()) {
            Progress::Done(written) => Poll::Ready(written),
            Progress::Wait | Progress::Until(_) => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.net.state.lock().finish(self.held.end, self.lane, Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl LaneWrite for Writer {
    fn poll_hand_over(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        let written = ready!(self.poll_write(cx, bytes))?;
        bytes.advance(written);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.held.net.state.lock().stop(self.held.end, self.lane);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.held.net.state.lock().finish(self.held.end, self.lane, Instant::now());
    }
}

#[async_trait]
impl Wire for SimWire {
    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(DatagramError::TooLarge { max: DATAGRAM_BYTES_MAX });
        }
        let sent = self.held.net.state.lock().send_datagram(self.held.end, datagram, Instant::now());
        if sent { Ok(()) } else { Err(DatagramError::Closed) }
    }

    async fn recv_datagram(&self) -> Option<Bytes> {
        let came = self.held.net.state.lock().datagram_came(self.held.end)?;
        loop {
            let progress = self.held.net.state.lock().take_datagram(self.held.end, Instant::now());
            match progress {
                Progress::Done(datagram) => return datagram,
                Progress::Wait => came.notified().await,
                Progress::Until(at) => {
                    let _elapsed = timeout_at(at, came.notified()).await;
                }
            }
        }
    }

    fn datagram_bytes_max(&self) -> usize {
        DATAGRAM_BYTES_MAX
    }

    fn rtt(&self) -> Duration {
        self.held.net.state.lock().rtt(self.held.end)
    }

    fn close(&self, reason: &str) {
        self.held.net.state.lock().close(self.held.end, reason, true, Instant::now());
    }

    async fn closed(&self) -> String {
        let (net, end) = (&self.held.net, self.held.end);
        loop {
            let Some(ended) = net.state.lock().ended(end) else { return GONE.to_owned() };
            let mut waiting = std::pin::pin!(ended.notified());
            waiting.as_mut().enable();
            let reason = net.state.lock().closed(end);
            match reason {
                Some(reason) => return reason,
                None => waiting.await,
            }
        }
    }
}

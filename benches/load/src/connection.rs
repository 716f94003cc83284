//! One socket, plain or through TLS: opened with deadlines, then read and written without waiting.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use crate::LoadError;
use crate::target::Target;

/// A socket that is connected, its handshake done.
pub(crate) struct Connection {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Who waits for bytes stays awake, for so long.
    awake: Option<Duration>,
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Connection {
    /// Connects and shakes hands, waiting for at most the target's timeout each. Still blocking, with that timeout.
    pub(crate) fn open(target: &Target) -> Result<Self, LoadError> {
        let connect = |source| LoadError::Connect { address: target.address, source };
        let mut socket = TcpStream::connect_timeout(&target.address, target.timeout).map_err(connect)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(target.timeout))?;
        socket.set_write_timeout(Some(target.timeout))?;
        let mut tls = None;
        if let Some((config, name)) = &target.tls {
            let mut session = Box::new(ClientConnection::new(Arc::clone(config), name.clone())?);
            let until = Instant::now() + target.timeout;
            while session.is_handshaking() {
                if Instant::now() > until {
                    return Err(connect(ErrorKind::TimedOut.into()));
                }
                session.complete_io(&mut socket).map_err(connect)?;
            }
            tls = Some(session);
        }
        Ok(Self { socket, tls, awake: target.busy_poll.then_some(target.timeout) })
    }

    /// From now on nothing waits.
    pub(crate) fn unblock(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// While it still blocks: how long one read may.
    pub(crate) fn wait_at_most(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(timeout))
    }

    /// Sends as much as goes; `Ok(0)` where nothing goes now.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.tls else {
            return patient(self.socket.write(bytes));
        };
        // Records that are sealed go out first, so that no more than one buffer of them waits.
        if session.wants_write() {
            flush(session, &mut self.socket)?;
        }
        if session.wants_write() {
            return Ok(0);
        }
        let count = session.writer().write(bytes)?;
        flush(session, &mut self.socket)?;
        Ok(count)
    }

    /// Sends what TLS has sealed; true when nothing is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        let Some(session) = &mut self.tls else { return Ok(true) };
        flush(session, &mut self.socket)?;
        Ok(!session.wants_write())
    }

    /// Reads what has come. `Ok(None)` where nothing has, `Ok(Some(0))` at the end.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(session) = &mut self.tls else {
            return match self.socket.read(into) {
                Ok(count) => Ok(Some(count)),
                Err(error) if is_patience(&error) => Ok(None),
                Err(error) => Err(error),
            };
        };
        loop {
            match session.reader().read(into) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match session.read_tls(&mut self.socket) {
                Ok(0) => return Ok(Some(0)),
                Ok(_) => {}
                Err(error) if is_patience(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            session.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }

    /// While it still blocks: all of `bytes`.
    pub(crate) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write(bytes)?;
            if count == 0 {
                return Err(ErrorKind::TimedOut.into());
            }
            bytes = &bytes[count..];
        }
        if self.flush()? { Ok(()) } else { Err(ErrorKind::TimedOut.into()) }
    }

    /// While it still blocks: more bytes onto `into`.
    pub(crate) fn read_more(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let read = match self.awake {
            Some(timeout) => self.read_awake(&mut buffer, timeout)?,
            None => self.read(&mut buffer)?,
        };
        match read {
            None => Err(ErrorKind::TimedOut.into()),
            Some(0) => Err(ErrorKind::UnexpectedEof.into()),
            Some(count) => {
                into.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    /// As [`Self::read`] of a socket that blocks, without sleeping.
    fn read_awake(&mut self, into: &mut [u8], timeout: Duration) -> io::Result<Option<usize>> {
        self.socket.set_nonblocking(true)?;
        let until = Instant::now() + timeout;
        let read = loop {
            match self.read(into) {
                Ok(None) if Instant::now() < until => std::hint::spin_loop(),
                read => break read,
            }
        };
        self.socket.set_nonblocking(false)?;
        read
    }
}

fn flush(session: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    while session.wants_write() {
        if patient(session.write_tls(socket))? == 0 {
            break;
        }
    }
    Ok(())
}

fn patient(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if is_patience(&error) => Ok(0),
        other => other,
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

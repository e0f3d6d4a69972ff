//! The octets of one connection: TCP, TLS over it, DEFLATE over either.

use super::settings::ServerSettings;
use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How much is read at once: also the size of the pieces in which memory for bodies is taken.
pub(super) const READ_STEP: usize = 128 * 1024;
/// Compressed octets that may wait to be written.
const MOST_COMPRESSED: usize = 256 * 1024;

/// A connection's octets.
pub(super) struct Transport {
    line: Line,
    deflate: Option<Box<Deflate>>,
    loopback: bool,
}

enum Line {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Both directions of COMPRESS=DEFLATE (RFC 4978): raw deflate streams.
struct Deflate {
    inflate: Decompress,
    deflate: Compress,
    /// As read, not inflated yet.
    arrived: BytesMut,
    /// Deflated, not written yet.
    leaving: BytesMut,
    /// Octets were deflated since the last flush.
    unflushed: bool,
    /// Where both directions put their output first.
    scratch: Vec<u8>,
}

impl Transport {
    /// Connects to the first address that answers.
    pub(super) async fn connect(settings: &ServerSettings) -> io::Result<Self> {
        let (host, port) = settings.endpoint();
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let loopback = stream.peer_addr().as_ref().is_ok_and(is_loopback);
        Ok(Self {
            line: Line::Tcp(stream),
            deflate: None,
            loopback,
        })
    }

    /// Whether the other end is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.loopback
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.line, Line::Tls(_))
    }

    /// Puts TLS over the line; the certificate must be `host`'s.
    pub(super) async fn into_tls(self, host: &str, config: &Arc<rustls::ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let line = match self.line {
            Line::Tcp(stream) => {
                let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
                Line::Tls(Box::new(stream))
            }
            tls @ Line::Tls(_) => tls,
        };
        Ok(Self { line, ..self })
    }

    /// Everything from here on is compressed, `arrived` (read already) too.
    pub(super) fn compress(&mut self, arrived: &[u8]) {
        self.deflate = Some(Box::new(Deflate {
            inflate: Decompress::new(false),
            deflate: Compress::new(Compression::fast(), false),
            arrived: BytesMut::from(arrived),
            leaving: BytesMut::new(),
            unflushed: false,
            scratch: vec![0; READ_STEP / 2],
        }));
    }

    /// Reads what is there, at least one octet, into the spare room of `buffer`; 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        if buffer.capacity() - buffer.len() < READ_STEP / 4 {
            buffer.reserve(READ_STEP);
        }
        match &mut self.deflate {
            None => self.line.poll_read(cx, buffer),
            Some(deflate) => deflate.poll_read(&mut self.line, cx, buffer),
        }
    }

    /// Writes some of the octets.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.deflate {
            None => self.line.poll_write(cx, slices),
            Some(deflate) => deflate.poll_write(&mut self.line, cx, slices),
        }
    }

    /// Everything written is on its way.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(deflate) = &mut self.deflate {
            ready!(deflate.poll_flush(&mut self.line, cx))?;
        }
        self.line.poll_flush(cx)
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

impl Line {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut room = buffer.limit(READ_STEP);
        match self {
            Self::Tcp(stream) => std::pin::pin!(stream.read_buf(&mut room)).poll(cx),
            Self::Tls(stream) => std::pin::pin!(stream.read_buf(&mut room)).poll(cx),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }
}

impl Deflate {
    /// Inflates what arrived; reads more where that gives nothing.
    fn poll_read(&mut self, line: &mut Line, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            let given = self.inflate(buffer)?;
            if given > 0 {
                return Poll::Ready(Ok(given));
            }
            self.arrived.reserve(READ_STEP / 4);
            if ready!(line.poll_read(cx, &mut self.arrived))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Inflates one step; the rest waits in the inflater and in `arrived`.
    fn inflate(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(&self.arrived, &mut self.scratch, FlushDecompress::Sync)
            .map_err(io::Error::other)?;
        let taken = usize::try_from(self.inflate.total_in() - taken).map_err(io::Error::other)?;
        let given = usize::try_from(self.inflate.total_out() - given).map_err(io::Error::other)?;
        self.arrived.advance(taken);
        buffer.extend_from_slice(&self.scratch[..given]);
        match status {
            Status::StreamEnd if given == 0 => Err(io::Error::other("the server ended the compressed stream")),
            Status::Ok | Status::BufError | Status::StreamEnd => Ok(given),
        }
    }

    fn poll_write(&mut self, line: &mut Line, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.leaving.len() >= MOST_COMPRESSED {
            ready!(self.poll_leave(line, cx))?;
        }
        let Some(octets) = slices.iter().find(|slice| !slice.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        let octets = &octets[..octets.len().min(READ_STEP)];
        let taken = self.run(octets, FlushCompress::None)?;
        self.unflushed = true;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, line: &mut Line, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            self.run(&[], FlushCompress::Sync)?;
            self.unflushed = false;
        }
        self.poll_leave(line, cx)
    }

    /// Deflates `octets` until the compressor has taken and given all it can; returns how many were taken.
    fn run(&mut self, octets: &[u8], flush: FlushCompress) -> io::Result<usize> {
        let mut done = 0;
        loop {
            let (taken, given) = (self.deflate.total_in(), self.deflate.total_out());
            self.deflate
                .compress(&octets[done..], &mut self.scratch, flush)
                .map_err(io::Error::other)?;
            done += usize::try_from(self.deflate.total_in() - taken).map_err(io::Error::other)?;
            let given = usize::try_from(self.deflate.total_out() - given).map_err(io::Error::other)?;
            self.leaving.extend_from_slice(&self.scratch[..given]);
            if given < self.scratch.len() && done == octets.len() {
                return Ok(done);
            }
        }
    }

    fn poll_leave(&mut self, line: &mut Line, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.leaving.is_empty() {
            let written = ready!(line.poll_write(cx, &[IoSlice::new(&self.leaving)]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.leaving.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

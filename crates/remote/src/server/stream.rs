//! Streamed answers: back-pressure from the network to the source of the octets, and an end to streams that stall.

use crate::pace::OnLink;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// A stream whose reader takes nothing for so long is cancelled and what feeds it released.
pub(crate) const STALL: Duration = Duration::from_secs(60);
/// Pieces on their way between the stream and the connection.
const PIECES: usize = 4;

/// A body that passes on `octets`. The stream is polled only as the connection takes what it gave; it is dropped at
/// its end, at its first error (the answer is then reset, never ended as if whole), when the reader goes away, and
/// when the reader takes nothing for `stall`. `link` learns how long it waited for the connection.
pub(crate) fn body<E>(
    octets: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    stall: Duration,
    mut link: OnLink,
) -> Body
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (sender, receiver) = mpsc::channel::<Bytes>(PIECES);
    // The channel is full when a stalled reader is given up, so the verdict travels beside it.
    let (verdict, outcome) = oneshot::channel::<Cut>();
    let pump = async move {
        if let Err(cut) = pump(octets, sender, stall, &mut link).await {
            // No one is left to tell when the reader has gone.
            let _ = verdict.send(cut);
        }
    };
    tokio::spawn(tracing::Instrument::in_current_span(pump));
    Body::from_stream(futures_util::stream::try_unfold(
        (receiver, outcome),
        |(mut receiver, mut outcome)| async move {
            if let Some(piece) = receiver.recv().await {
                return Ok(Some((piece, (receiver, outcome))));
            }
            match (&mut outcome).await {
                Ok(cut) => Err(cut),
                Err(_) => Ok(None),
            }
        },
    ))
}

/// Says that the answer is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
struct Cut(&'static str);

async fn pump<E>(
    octets: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    sender: mpsc::Sender<Bytes>,
    stall: Duration,
    link: &mut OnLink,
) -> Result<(), Cut>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut octets = std::pin::pin!(octets);
    loop {
        // Room first: nothing is read from the mailbox before the connection can take it.
        let asked = Instant::now();
        let room = match timeout(stall, sender.reserve()).await {
            Ok(Ok(room)) => {
                link.waited += asked.elapsed();
                room
            }
            Ok(Err(_)) => return Ok(()),
            Err(_) => {
                tracing::info!(seconds = stall.as_secs(), "a stream without progress is cancelled");
                return Err(Cut("its reader took nothing"));
            }
        };
        let next = tokio::select! {
            next = octets.next() => next,
            () = sender.closed() => return Ok(()),
        };
        match next {
            None => return Ok(()),
            Some(Ok(piece)) => {
                link.octets += piece.len() as u64;
                room.send(piece);
            }
            Some(Err(error)) => {
                tracing::info!(%error, "a stream ends early");
                return Err(Cut("its source failed"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Link;
    use http_body_util::BodyExt;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn counted(made: Arc<AtomicUsize>, total: usize) -> impl Stream<Item = Result<Bytes, io::Error>> {
        futures_util::stream::iter(0..total).map(move |_| {
            made.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from_static(b"piece"))
        })
    }

    #[tokio::test]
    async fn a_whole_stream_ends_without_error() {
        let whole = body(counted(Arc::default(), 100), STALL, Arc::<Link>::default().begin())
            .collect()
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(whole.len(), 500);
    }

    #[tokio::test]
    async fn an_error_of_the_source_is_an_error_of_the_body() {
        let failing = counted(Arc::default(), 1).chain(futures_util::stream::iter([Err(io::Error::other("disk"))]));
        let mut body = body(failing, STALL, Arc::<Link>::default().begin());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "piece");
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stalls_is_cut_off_and_the_source_not_read_ahead() {
        let made = Arc::new(AtomicUsize::new(0));
        let mut body = body(counted(Arc::clone(&made), 1000), STALL, Arc::<Link>::default().begin());
        tokio::time::sleep(STALL * 2).await;
        assert_eq!(made.load(Ordering::SeqCst), PIECES);
        for _ in 0..PIECES {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.unwrap().is_err());
    }
}

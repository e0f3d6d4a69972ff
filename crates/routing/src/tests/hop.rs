//! A next hop that says yes to every recipient and asks the test what to answer at DATA and at a message's end.

use crate::{Route, TlsPolicy};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};

/// When the test is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// DATA was said.
    Data,
    /// A message has ended.
    End,
    /// The connection ended inside a message.
    Lost,
}

/// A question to the test.
pub(super) struct Asked {
    moment: Moment,
    answer: oneshot::Sender<&'static str>,
}

impl Asked {
    pub(super) fn answer(self, reply: &'static str) {
        self.answer.send(reply).unwrap();
    }
}

pub(super) struct Hop {
    port: u16,
    asked: mpsc::UnboundedReceiver<Asked>,
}

impl Hop {
    pub(super) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ask, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, ask.clone()));
            }
        });
        Self { port, asked }
    }

    pub(super) fn route(&self) -> Route {
        Route {
            host: "127.0.0.1".into(),
            port: self.port,
            tls: TlsPolicy::None,
        }
    }

    /// The next question, which must be this one.
    pub(super) async fn expect(&mut self, moment: Moment) -> Asked {
        let asked = self.asked.recv().await.unwrap();
        assert_eq!(asked.moment, moment);
        asked
    }
}

async fn ask(of: &mpsc::UnboundedSender<Asked>, moment: Moment) -> &'static str {
    let (answer, answered) = oneshot::channel();
    // A test that has ended wants to know nothing.
    let _ = of.send(Asked { moment, answer });
    answered.await.unwrap_or("421 4.3.2 bye")
}

async fn serve(stream: TcpStream, test: mpsc::UnboundedSender<Asked>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut reply = "220 hop.example";
    let mut in_message = false;
    loop {
        if !reply.is_empty() {
            stream.get_mut().write_all(reply.as_bytes()).await.ok()?;
            stream.get_mut().write_all(b"\r\n").await.ok()?;
        }
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
            if in_message {
                ask(&test, Moment::Lost).await;
            }
            return None;
        }
        reply = match (in_message, &line[..]) {
            (true, b".\r\n") => {
                in_message = false;
                ask(&test, Moment::End).await
            }
            (true, _) => "",
            (false, b"DATA\r\n") => {
                let reply = ask(&test, Moment::Data).await;
                in_message = reply.starts_with('3');
                reply
            }
            (false, _) => "250 2.0.0 fine",
        };
    }
}

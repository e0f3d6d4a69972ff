//! A server that answers commands from a table.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Between two octets of a slow answer.
pub const SLOW: std::time::Duration = std::time::Duration::from_millis(20);

/// What is said to a command that begins so; each row serves once unless it is for ever.
struct Row {
    command: &'static str,
    answer: String,
    forever: bool,
}

/// A table of answers. In them `{tag}` is the command's tag, `{close}` closes the connection there, `{stall}` keeps it
/// open without another octet, and what is behind `{slow}` comes octet by octet.
pub struct Script {
    greeting: String,
    capabilities: String,
    rows: Vec<Row>,
}

/// A running server.
pub struct Scripted {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    script: Mutex<Script>,
    /// Commands as they came, without tags; a literal is shown as its length in braces.
    heard: Mutex<Vec<String>>,
    connections: Mutex<usize>,
}

impl Script {
    /// A server that signs anybody in and has what `capabilities` names.
    pub fn new(capabilities: &str) -> Self {
        let capabilities = format!("IMAP4rev1 AUTH=PLAIN SASL-IR NAMESPACE {capabilities}");
        Self {
            greeting: format!("* OK [CAPABILITY {capabilities}] ready\r\n"),
            capabilities,
            rows: Vec::new(),
        }
    }

    pub fn greeting(mut self, greeting: &str) -> Self {
        greeting.clone_into(&mut self.greeting);
        self
    }

    /// Answers the next such command so.
    pub fn once(mut self, command: &'static str, answer: &str) -> Self {
        let answer = answer.to_owned();
        self.rows.push(Row {
            command,
            answer,
            forever: false,
        });
        self
    }

    /// Answers all such commands so, after those that are answered once.
    pub fn always(mut self, command: &'static str, answer: &str) -> Self {
        let answer = answer.to_owned();
        self.rows.push(Row {
            command,
            answer,
            forever: true,
        });
        self
    }

    /// A folder of these numbers.
    pub fn folder(self, exists: u32, more: &str) -> Self {
        let answer = format!(
            "* {exists} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 100] x\r\n\
             * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] x\r\n{more}"
        );
        let examine = format!("{answer}{{tag}} OK [READ-ONLY] x\r\n");
        let select = format!("{answer}{{tag}} OK [READ-WRITE] x\r\n");
        self.always("EXAMINE ", &examine).always("SELECT ", &select)
    }

    pub async fn start(self) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            script: Mutex::new(self),
            heard: Mutex::default(),
            connections: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *shared.connections.lock().unwrap() += 1;
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Scripted { port, state }
    }

    fn answer(&mut self, command: &str) -> String {
        let row = self
            .rows
            .iter()
            .position(|row| !row.forever && command.starts_with(row.command));
        if let Some(at) = row {
            return self.rows.remove(at).answer;
        }
        if let Some(row) = self.rows.iter().find(|row| command.starts_with(row.command)) {
            return row.answer.clone();
        }
        let capabilities = &self.capabilities;
        match command.split(' ').next().unwrap_or_default() {
            "CAPABILITY" => format!("* CAPABILITY {capabilities}\r\n{{tag}} OK x\r\n"),
            "AUTHENTICATE" | "LOGIN" => format!("{{tag}} OK [CAPABILITY {capabilities}] x\r\n"),
            "NAMESPACE" => "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n{tag} OK x\r\n".to_owned(),
            "ENABLE" => format!(
                "* ENABLED {}\r\n{{tag}} OK x\r\n",
                command.trim_start_matches("ENABLE ")
            ),
            "LOGOUT" => "* BYE x\r\n{tag} OK x\r\n{close}".to_owned(),
            "NOOP" | "ID" | "SUBSCRIBE" | "UNSUBSCRIBE" | "CREATE" => "{tag} OK x\r\n".to_owned(),
            _ => "{tag} BAD not in the table\r\n".to_owned(),
        }
    }
}

impl Scripted {
    /// The commands heard that begin so.
    pub fn heard(&self, command: &str) -> Vec<String> {
        let heard = self.state.heard.lock().unwrap();
        heard
            .iter()
            .filter(|heard| heard.starts_with(command))
            .cloned()
            .collect()
    }

    pub fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let mut stream = BufReader::new(stream);
    let greeting = state.script.lock().unwrap().greeting.clone();
    if !say(&mut stream, &greeting).await {
        return;
    }
    while let Some((tag, command)) = hear(&mut stream, &state).await {
        state.heard.lock().unwrap().push(command.clone());
        let answer = state.script.lock().unwrap().answer(&command).replace("{tag}", &tag);
        if !say(&mut stream, &answer).await {
            return;
        }
    }
}

/// False when the connection is to be closed.
async fn say(stream: &mut BufReader<TcpStream>, answer: &str) -> bool {
    // Answers hold octets as characters up to U+00FF.
    let octets: Vec<u8> = answer
        .chars()
        .map(|character| u8::try_from(u32::from(character)).unwrap())
        .collect();
    if let Some(at) = octets.windows(6).position(|window| window == b"{slow}") {
        let stream = stream.get_mut();
        if stream.write_all(&octets[..at]).await.is_err() {
            return false;
        }
        for octet in &octets[at + 6..] {
            tokio::time::sleep(SLOW).await;
            if stream.write_all(&[*octet]).await.is_err() {
                return false;
            }
        }
        return true;
    }
    for (marker, goes_on) in [(&b"{close}"[..], false), (b"{stall}", true)] {
        if let Some(at) = octets.windows(marker.len()).position(|window| window == marker) {
            let written = stream.get_mut().write_all(&octets[..at]).await;
            if goes_on {
                std::future::pending::<()>().await;
            }
            let _ = stream.get_mut().shutdown().await;
            return written.is_ok() && goes_on;
        }
    }
    stream.get_mut().write_all(&octets).await.is_ok()
}

/// A command with its literals, which are let go where they wait, unless the table refuses the command by `EARLY`.
async fn hear(stream: &mut BufReader<TcpStream>, state: &State) -> Option<(String, String)> {
    let mut command = String::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.strip_suffix("\r\n")?;
        command.push_str(line);
        let Some((_, literal)) = line.strip_suffix('}').and_then(|line| line.rsplit_once('{')) else {
            break;
        };
        let waits = !literal.ends_with('+');
        let length: usize = literal.trim_end_matches('+').parse().ok()?;
        if waits {
            if state.script.lock().unwrap().refuses_early() {
                break;
            }
            stream.get_mut().write_all(b"+ go on\r\n").await.ok()?;
        }
        let refusal = state.script.lock().unwrap().refuses_at_once();
        if let Some(refusal) = refusal {
            let tag = command.split(' ').next()?;
            let refusal = refusal.replace("{tag}", tag);
            stream.get_mut().write_all(refusal.as_bytes()).await.ok()?;
            // The client is to hear of it before it has said all.
            tokio::task::yield_now().await;
        }
        let mut octets = vec![0; length];
        stream.read_exact(&mut octets).await.ok()?;
    }
    let (tag, command) = command.split_once(' ')?;
    Some((tag.to_owned(), command.to_owned()))
}

impl Script {
    /// A row for the words AT ONCE: so is said before the octets of a literal that does not wait are read.
    fn refuses_at_once(&mut self) -> Option<String> {
        let row = self.rows.iter().position(|row| row.command == "AT ONCE")?;
        Some(self.rows.remove(row).answer)
    }

    /// A row for the word EARLY: commands are answered before their literals.
    fn refuses_early(&mut self) -> bool {
        let row = self.rows.iter().position(|row| row.command == "EARLY");
        row.map(|at| self.rows.remove(at)).is_some()
    }
}

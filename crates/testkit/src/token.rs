//! Access tokens as an identity provider gives them: JWT (RFC 7519) with ES256 (RFC 7518 §3.4), for client credentials
//! (RFC 6749 §4.4).

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Characters of a line of PEM.
const LINE: usize = 64;

/// How long a token of an endpoint is good.
const VALIDITY: Duration = Duration::from_secs(3600);
/// The longest request.
const REQUEST: usize = 16 * 1024;
/// How long a client may take for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who signs tokens.
pub struct Signer {
    key: EcdsaKeyPair,
    issuer: String,
}

impl Signer {
    /// A signer with a new key. `issuer` becomes the claim `iss`.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new(issuer: &str) -> Self {
        Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key is made"),
            issuer: issuer.to_owned(),
        }
    }

    /// The claim `iss` of its tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key as PEM (SubjectPublicKeyInfo).
    ///
    /// # Panics
    /// When the key cannot be written down.
    #[must_use]
    pub fn public_key(&self) -> String {
        let der: PublicKeyX509Der = self.key.public_key().as_der().expect("a public key has a form");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(LINE)
            .map(|line| str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }

    /// A token about `subject` that is good for `validity` from now.
    #[must_use]
    pub fn token(&self, subject: &str, validity: Duration) -> String {
        self.token_until(subject, now() + validity)
    }

    /// A token about `subject` that has ended a minute ago.
    #[must_use]
    pub fn ended_token(&self, subject: &str) -> String {
        self.token_until(subject, now().saturating_sub(Duration::from_secs(60)))
    }

    fn token_until(&self, subject: &str, end: Duration) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "alg": "ES256", "typ": "JWT" });
        let claims = json!({ "iss": self.issuer, "sub": subject, "exp": end.as_secs() });
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .expect("a key signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is after 1970")
}

/// Who gives tokens to an application that shows its secret: HTTP on loopback. Ended on drop.
pub struct Endpoint {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    signer: Arc<Signer>,
    client: String,
    secret: String,
    given: AtomicU32,
    is_ending: AtomicBool,
}

impl Endpoint {
    /// Starts one that gives tokens about the application `client` to whoever knows `secret`.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(signer: Arc<Signer>, client: &str, secret: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let state = Arc::new(State {
            signer,
            client: client.to_owned(),
            secret: secret.to_owned(),
            given: AtomicU32::new(0),
            is_ending: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.is_ending.load(Ordering::SeqCst) {
                    break;
                }
                // A client that goes away is no failure of the test.
                let _ = shared.answer(&stream);
            }
        });
        Self {
            address,
            state,
            thread: Some(thread),
        }
    }

    /// Where requests go.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// How many tokens it has given.
    #[must_use]
    pub fn given(&self) -> u32 {
        self.state.given.load(Ordering::SeqCst)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.state.is_ending.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream.take(REQUEST as u64));
        let (mut line, mut length, mut authorization) = (String::new(), 0, String::new());
        reader.read_line(&mut line)?;
        loop {
            line.clear();
            if reader.read_line(&mut line)? <= 2 {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap_or(0).min(REQUEST),
                "authorization" => value.trim().clone_into(&mut authorization),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let (status, answer) = if self.knows(&authorization, &body) {
            self.given.fetch_add(1, Ordering::SeqCst);
            let token = self.signer.token(&self.client, VALIDITY);
            let answer = json!({ "access_token": token, "token_type": "Bearer", "expires_in": VALIDITY.as_secs() });
            ("200 OK", answer)
        } else {
            ("401 Unauthorized", json!({ "error": "invalid_client" }))
        };
        let answer = answer.to_string();
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        )
    }

    /// Whether the request has the client's secret, in the header or in the form (RFC 6749 §2.3.1).
    fn knows(&self, authorization: &str, body: &str) -> bool {
        let fields: Vec<&str> = body.split('&').collect();
        let has = |name: &str, value: &str| fields.contains(&format!("{name}={value}").as_str());
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", self.client, self.secret)));
        has("grant_type", "client_credentials")
            && (authorization == basic || has("client_id", &self.client) && has("client_secret", &self.secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(endpoint: &Endpoint, body: &str) -> String {
        let mut stream = TcpStream::connect(endpoint.address).unwrap();
        write!(
            stream,
            "POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn an_endpoint_gives_tokens_to_its_client_only() {
        let endpoint = Endpoint::start(Arc::new(Signer::new("https://login.example/")), "mover", "secret");
        let right = "grant_type=client_credentials&client_id=mover&client_secret=secret";
        assert!(asks(&endpoint, right).contains("\"access_token\""));
        for wrong in ["", "grant_type=client_credentials", &right.replace("=secret", "=other")] {
            assert!(asks(&endpoint, wrong).starts_with("HTTP/1.1 401"));
        }
        assert_eq!(endpoint.given(), 1);
    }
}

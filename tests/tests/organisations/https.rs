//! HTTPS as anyone can speak it: one request a connection, HTTP/1.1, the certificate checked.

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a request may take.
const BOUND: Duration = Duration::from_secs(150);

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The error id that it names; empty if none.
    pub fn error_id(&self) -> String {
        self.json()["error"]["id"].as_str().unwrap_or_default().to_owned()
    }
}

/// A client of one server, known as localhost.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    address: SocketAddr,
}

/// TLS settings that believe one authority.
pub fn client_config(authority: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).expect("the authority's file is there") {
        roots.add(certificate.expect("it is PEM")).expect("it is a certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3 are there")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Client {
    /// A client of the server at `address`, whose certificate comes from `authority`.
    pub fn new(authority: &Path, address: SocketAddr) -> Self {
        Self {
            config: Arc::new(client_config(authority)),
            address,
        }
    }

    /// One request; the answer whole.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::clone(&self.config), name).expect("TLS begins");
        let socket = TcpStream::connect_timeout(&self.address, BOUND)
            .unwrap_or_else(|error| panic!("{}: {error}", self.address));
        socket.set_read_timeout(Some(BOUND)).expect("a limit is set");
        let mut stream = StreamOwned::new(tls, socket);
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n",
            self.address.port()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .expect("the request is sent");
        let mut octets = Vec::new();
        let mut buffer = [0; 16 * 1024];
        // A server may close without TLS's own farewell; what came is judged by its framing.
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            octets.extend_from_slice(&buffer[..count]);
        }
        parse(&octets).unwrap_or_else(|| {
            panic!(
                "{method} {path}: not an HTTP answer: {:?}",
                String::from_utf8_lossy(&octets)
            )
        })
    }

    /// GET.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers, b"")
    }

    /// POST of JSON.
    pub fn post_json(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        let headers: Vec<(&str, &str)> = [("content-type", "application/json")]
            .into_iter()
            .chain(headers.iter().copied())
            .collect();
        self.request("POST", path, &headers, body.to_string().as_bytes())
    }

    /// POST of a form.
    pub fn post_form(&self, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Response {
        let form: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", percent(value)))
            .collect();
        let headers: Vec<(&str, &str)> = [("content-type", "application/x-www-form-urlencoded")]
            .into_iter()
            .chain(headers.iter().copied())
            .collect();
        self.request("POST", path, &headers, form.join("&").as_bytes())
    }
}

/// Percent-encoding of everything that is not plain.
pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|octet| {
            if octet.is_ascii_alphanumeric() || b"-._".contains(&octet) {
                char::from(octet).to_string()
            } else {
                format!("%{octet:02X}")
            }
        })
        .collect()
}

/// The reverse of [`percent`].
pub fn from_percent(text: &str) -> String {
    let text = text.replace('+', " ");
    let mut parts = text.split('%');
    let mut octets = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        octets.push(
            part.get(..2)
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .unwrap_or(b'?'),
        );
        octets.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
    }
    String::from_utf8_lossy(&octets).into_owned()
}

fn parse(octets: &[u8]) -> Option<Response> {
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&octets[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let rest = &octets[end + 4..];
    Some(Response {
        status,
        body: if chunked { unchunked(rest) } else { rest.to_vec() },
    })
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let digits = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size = usize::from_str_radix(digits.split(';').next().unwrap_or_default().trim(), 16).unwrap_or(0);
        let chunk = rest.get(end + 2..end + 2 + size).unwrap_or_default();
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2 + size + 2..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    body
}

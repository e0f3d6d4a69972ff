//! Signing in by SASL (RFC 4422), without I/O.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::MAX_TEXT;
use super::scram::{Hash, Scram};

/// How to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// PLAIN (RFC 4616): the password as it is, so only under TLS. Can act for another user.
    Plain,
    /// LOGIN: as PLAIN in two steps, without acting for another user. The command LOGIN is another thing.
    Login,
    /// SCRAM-SHA-1 (RFC 5802). Can act for another user.
    ScramSha1,
    /// SCRAM-SHA-256 (RFC 7677). Can act for another user.
    ScramSha256,
    /// XOAUTH2: a bearer token; the user is whose mailbox is opened.
    XOAuth2,
    /// OAUTHBEARER (RFC 7628): a bearer token; the user is whose mailbox is opened.
    OAuthBearer,
}

impl Mechanism {
    /// The registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// Who signs in. Names and passwords outside ASCII are sent as they are given, without the preparation of RFC 4013:
/// what a person typed is in the common form already, and servers that prepare do it on their side too.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Whose password or token it is (for a token: whose mailbox).
    pub user: String,
    /// Whom to act for, if not the user: PLAIN's and SCRAM's authorization identity.
    pub acting_for: Option<String>,
    /// The password, or the bearer token.
    pub secret: SecretString,
    /// The server's name and port, which OAUTHBEARER repeats (RFC 7628 §3.1).
    pub server: Option<(String, u16)>,
}

/// Octets for the server; they may hold a secret, do not show in `Debug` and are wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Response(Zeroizing<Vec<u8>>);

impl Response {
    pub(super) fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// Whether there is nothing in it; it is sent all the same.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The octets, before base64.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn to_base64(&self) -> SecretString {
        SecretString::from(STANDARD.encode(&*self.0))
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Response([…])")
    }
}

/// Why signing in cannot go on. None of the texts holds a secret.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SaslError {
    /// A name or a secret has a character that the mechanism cannot carry.
    #[error("{mechanism} cannot carry {what}, because it contains a control character")]
    Forbidden {
        /// The mechanism's name.
        mechanism: &'static str,
        /// The user name, the password or whom to act for.
        what: &'static str,
    },
    /// The mechanism cannot act for another user.
    #[error("{0} cannot act for another user")]
    CannotActForOthers(&'static str),
    /// The server's message is not what the mechanism has at this point.
    #[error("the server's {mechanism} message is not one: {why}")]
    Challenge {
        /// The mechanism's name.
        mechanism: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The server asks again after the last step.
    #[error("the server asks for more than {0} has")]
    TooManySteps(&'static str),
    /// The server told why it refuses (OAuth's JSON, SCRAM's `e=`).
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server could not prove that it knows the password: it may be another one.
    #[error("the server did not prove that it knows the password")]
    ServerNotProven,
}

/// One signing in.
///
/// Send [`initial`](Self::initial) with AUTHENTICATE where the server takes it, answer each challenge by
/// [`challenge`](Self::challenge), and after the server's OK ask [`finish`](Self::finish), without which SCRAM has not
/// shown that the server is the right one.
pub struct Sasl {
    mechanism: Mechanism,
    /// The initial response, until it is sent.
    initial: Option<Response>,
    state: State,
}

enum State {
    /// Answers that do not depend on the challenges.
    Fixed(VecDeque<Response>),
    Scram(Box<Scram>),
    /// A bearer token: a challenge is the reason for a refusal.
    Bearer {
        refusal: Option<String>,
    },
}

impl std::fmt::Debug for Sasl {
    /// The mechanism only.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sasl({})", self.mechanism.name())
    }
}

impl Sasl {
    /// Prepares a signing in. `nonce` is used by SCRAM only: at least 24 random characters, printable ASCII without
    /// comma, never used before. NUL in names and secrets is refused, and with tokens every control character.
    pub fn new(mechanism: Mechanism, credentials: &Credentials, nonce: &str) -> Result<Self, SaslError> {
        let name = mechanism.name();
        let acting_for = credentials.acting_for.as_deref();
        let is_bearer = matches!(mechanism, Mechanism::XOAuth2 | Mechanism::OAuthBearer);
        let parts = [
            ("the user name", credentials.user.as_str()),
            ("whom to act for", acting_for.unwrap_or_default()),
            ("the secret", credentials.secret.expose_secret()),
        ];
        let forbidden = |character: char| character == '\0' || (is_bearer && character.is_control());
        if let Some((what, _)) = parts.into_iter().find(|(_, part)| part.contains(forbidden)) {
            return Err(SaslError::Forbidden { mechanism: name, what });
        }
        if acting_for.is_some() && (is_bearer || mechanism == Mechanism::Login) {
            return Err(SaslError::CannotActForOthers(name));
        }
        let (initial, state) = match mechanism {
            Mechanism::Plain => (Some(plain(credentials)), State::Fixed(VecDeque::new())),
            Mechanism::Login => (None, State::Fixed(login(credentials))),
            Mechanism::ScramSha1 | Mechanism::ScramSha256 => {
                let hash = match mechanism == Mechanism::ScramSha1 {
                    true => Hash::Sha1,
                    false => Hash::Sha256,
                };
                let scram = Scram::new(hash, name, credentials, nonce)?;
                (Some(scram.first()), State::Scram(Box::new(scram)))
            }
            Mechanism::XOAuth2 => (Some(xoauth2(credentials)), State::Bearer { refusal: None }),
            Mechanism::OAuthBearer => (Some(oauth_bearer(credentials)), State::Bearer { refusal: None }),
        };
        Ok(Self {
            mechanism,
            initial,
            state,
        })
    }

    /// The mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes the initial response, to be sent with AUTHENTICATE where the server has SASL-IR. Where it has not, leave
    /// it: it is then the answer to the first challenge. None where the mechanism has none.
    pub fn initial(&mut self) -> Option<Response> {
        self.initial.take()
    }

    /// The answer to a challenge. After an error give up by [`Client::cancel`](super::Client::cancel).
    pub fn challenge(&mut self, octets: &[u8]) -> Result<Response, SaslError> {
        if let Some(initial) = self.initial.take() {
            return Ok(initial);
        }
        let name = self.mechanism.name();
        match &mut self.state {
            State::Fixed(answers) => answers.pop_front().ok_or(SaslError::TooManySteps(name)),
            State::Scram(scram) => scram.challenge(octets),
            State::Bearer { refusal: Some(_) } => Err(SaslError::TooManySteps(name)),
            State::Bearer { refusal } => {
                let shown = &octets[..octets.len().min(MAX_TEXT)];
                *refusal = Some(String::from_utf8_lossy(shown).into_owned());
                // RFC 7628 §3.2.3: the refusal is answered by one octet; XOAUTH2 has an empty answer.
                let answer: &[u8] = if self.mechanism == Mechanism::OAuthBearer {
                    b"\x01"
                } else {
                    b""
                };
                Ok(Response::new(answer.to_vec()))
            }
        }
    }

    /// Why the server refuses a token, as it said in a challenge (JSON, at most [`MAX_TEXT`] octets).
    pub fn refusal(&self) -> Option<&str> {
        match &self.state {
            State::Bearer { refusal } => refusal.as_deref(),
            State::Fixed(_) | State::Scram(_) => None,
        }
    }

    /// After the server's OK: whether all that the mechanism asks for took place.
    pub fn finish(&self) -> Result<(), SaslError> {
        match &self.state {
            State::Scram(scram) if !scram.is_proven() => Err(SaslError::ServerNotProven),
            State::Bearer { refusal: Some(refusal) } => Err(SaslError::Refused(refusal.clone())),
            State::Scram(_) | State::Fixed(_) | State::Bearer { refusal: None } => Ok(()),
        }
    }
}

fn plain(credentials: &Credentials) -> Response {
    let parts = [
        credentials.acting_for.as_deref().unwrap_or_default(),
        &credentials.user,
        credentials.secret.expose_secret(),
    ];
    // The room is made first: growing would leave copies of the secret behind.
    let mut octets = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            octets.push(0);
        }
        octets.extend_from_slice(part.as_bytes());
    }
    Response::new(octets)
}

fn login(credentials: &Credentials) -> VecDeque<Response> {
    [credentials.user.as_str(), credentials.secret.expose_secret()]
        .into_iter()
        .map(|part| Response::new(part.as_bytes().to_vec()))
        .collect()
}

fn xoauth2(credentials: &Credentials) -> Response {
    let token = credentials.secret.expose_secret();
    bearer(&format!("user={}\x01", credentials.user), token)
}

fn oauth_bearer(credentials: &Credentials) -> Response {
    let mut head = format!("n,a={},\x01", sasl_name(&credentials.user));
    if let Some((host, port)) = &credentials.server {
        head.push_str(&format!("host={host}\x01port={port}\x01"));
    }
    bearer(&head, credentials.secret.expose_secret())
}

fn bearer(head: &str, token: &str) -> Response {
    let parts = [head, "auth=Bearer ", token, "\x01\x01"];
    let mut octets = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| octets.extend_from_slice(part.as_bytes()));
    Response::new(octets)
}

/// A name as RFC 5801 §4 writes it.
pub(super) fn sasl_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(acting_for: Option<&str>) -> Credentials {
        Credentials {
            user: "reception".to_owned(),
            acting_for: acting_for.map(str::to_owned),
            secret: SecretString::from("s3cret"),
            server: Some(("imap.contoso.example".to_owned(), 993)),
        }
    }

    fn start(mechanism: Mechanism, acting_for: Option<&str>) -> Sasl {
        Sasl::new(mechanism, &credentials(acting_for), "0123456789abcdefghijklmn").unwrap()
    }

    #[test]
    fn mechanisms_with_fixed_answers() {
        let mut sasl = start(Mechanism::Plain, None);
        assert_eq!(sasl.initial().unwrap().octets(), b"\0reception\0s3cret");
        assert_eq!(sasl.challenge(b""), Err(SaslError::TooManySteps("PLAIN")));
        assert_eq!(sasl.finish(), Ok(()));

        let mut sasl = start(Mechanism::Plain, Some("press"));
        let answer = sasl.challenge(b"").unwrap();
        assert_eq!(
            answer.octets(),
            b"press\0reception\0s3cret",
            "without an initial response it is the first answer"
        );
        assert_eq!(sasl.initial(), None);

        let mut sasl = start(Mechanism::Login, None);
        assert_eq!(sasl.initial(), None);
        assert_eq!(sasl.challenge(b"Username:").unwrap().octets(), b"reception");
        assert_eq!(sasl.challenge(b"Password:").unwrap().octets(), b"s3cret");
        assert_eq!(sasl.challenge(b"Again:"), Err(SaslError::TooManySteps("LOGIN")));
    }

    #[test]
    fn tokens_and_their_refusal() {
        let mut sasl = start(Mechanism::XOAuth2, None);
        let initial = sasl.initial().unwrap();
        assert_eq!(initial.octets(), b"user=reception\x01auth=Bearer s3cret\x01\x01");
        assert_eq!(sasl.finish(), Ok(()));
        assert!(sasl.challenge(br#"{"status":"401"}"#).unwrap().is_empty());
        assert_eq!(sasl.refusal(), Some(r#"{"status":"401"}"#));
        assert_eq!(sasl.finish(), Err(SaslError::Refused(r#"{"status":"401"}"#.to_owned())));
        assert_eq!(sasl.challenge(b""), Err(SaslError::TooManySteps("XOAUTH2")));

        let mut sasl = start(Mechanism::OAuthBearer, None);
        assert_eq!(
            sasl.initial().unwrap().octets(),
            b"n,a=reception,\x01host=imap.contoso.example\x01port=993\x01auth=Bearer s3cret\x01\x01"
        );
        assert_eq!(sasl.challenge(b"{}").unwrap().octets(), b"\x01");
    }

    #[test]
    fn what_a_mechanism_cannot_carry() {
        let nonce = "0123456789abcdefghijklmn";
        for mechanism in [Mechanism::Login, Mechanism::XOAuth2, Mechanism::OAuthBearer] {
            let refused = Sasl::new(mechanism, &credentials(Some("press")), nonce);
            assert_eq!(refused.err(), Some(SaslError::CannotActForOthers(mechanism.name())));
        }
        let mut bad = credentials(None);
        bad.user = "a\0b".to_owned();
        assert!(Sasl::new(Mechanism::Plain, &bad, nonce).is_err());
        bad.user = "a\x01auth=Bearer x".to_owned();
        assert!(Sasl::new(Mechanism::XOAuth2, &bad, nonce).is_err());
        assert!(Sasl::new(Mechanism::ScramSha1, &credentials(None), "short").is_err());
    }

    #[test]
    fn secrets_do_not_show() {
        let mut sasl = start(Mechanism::Plain, None);
        let shown = format!("{sasl:?} {:?} {:?}", sasl.initial(), credentials(None));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

//! Opening a connection: TLS, greeting, capabilities, sign-in, what is switched on for good.

use super::connection::Connection;
use super::error::{Failure, Kind, Outcome, refused};
use super::pool::Who;
use super::quirks::Quirks;
use super::settings::{AccessTokens, OAuthMechanism, Security, ServerSettings, SignIn};
use super::transport::Transport;
use crate::{ErrorScope, Retry};
use rehome_wire::imap::{
    Answer, Command, Condition, Credentials, Event, ListOptions, Literals, MailboxName, Mechanism, NameEncoding, Sasl,
    SaslError,
};
use secrecy::SecretString;
use std::io;
use uuid::Uuid;

/// Seconds after which a server that cannot be reached is worth another try.
const UNREACHABLE: u32 = 30;
/// Most steps of one sign-in dialogue.
const MOST_STEPS: usize = 8;

/// How many times as long as one octet all of a sign-in may take.
const MOST_PATIENCE: u32 = 5;

/// A connection that is signed in for the account.
pub(super) async fn open(settings: &ServerSettings, who: &Who) -> Outcome<Connection> {
    let what = format!("signing in to {} for {}", settings.host, who.account);
    bounded(settings, &what, signed_in(settings, who, &what)).await
}

/// A connection that has greeted and said what it can do; nothing secret was sent.
pub(super) async fn greet(settings: &ServerSettings) -> Outcome<Connection> {
    let what = format!("connecting to {}", settings.host);
    bounded(settings, &what, greeted(settings, &what)).await
}

/// A server that always says something, and never what was asked for, is not waited for without end.
async fn bounded(
    settings: &ServerSettings,
    what: &str,
    opening: impl Future<Output = Outcome<Connection>>,
) -> Outcome<Connection> {
    tokio::time::timeout(settings.progress_timeout * MOST_PATIENCE, opening)
        .await
        .unwrap_or_else(|_| Err(unreachable(what, &io::ErrorKind::TimedOut.into())))
}

async fn signed_in(settings: &ServerSettings, who: &Who, what: &str) -> Outcome<Connection> {
    let mut connection = greet(settings).await?;
    if !connection.transport.is_tls() && !connection.transport.is_loopback() {
        let cause = "the connection is not protected, and the server is another machine";
        return Err(Failure::ours(what, cause, ErrorScope::Endpoint, Retry::Never));
    }
    connection.doubt_capabilities();
    sign_in(&mut connection, settings, who, what).await?;
    set_up(&mut connection, settings).await?;
    Ok(connection)
}

async fn greeted(settings: &ServerSettings, what: &str) -> Outcome<Connection> {
    let patience = settings.progress_timeout;
    let bounded = async {
        let transport = Transport::connect(settings).await?;
        match settings.security {
            Security::Tls => transport.into_tls(&settings.host, &settings.tls).await,
            Security::StartTls | Security::Plain => Ok(transport),
        }
    };
    let transport = tokio::time::timeout(patience, bounded)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| unreachable(what, &error))?;
    let mut connection = Connection::new(transport, patience, settings.without.clone());
    greeting(&mut connection, settings, what)
        .await
        .map_err(|failure| at_endpoint(failure, what))?;
    if settings.security == Security::StartTls {
        connection = start_tls(connection, settings, what).await?;
    }
    if connection.capabilities.names.is_empty() {
        let scope = ErrorScope::Endpoint;
        connection.demand(what, scope, Command::capability(), |_| {}).await?;
    }
    Ok(connection)
}

/// A connection that breaks before it is of use is the server's trouble, not one mailbox's.
fn at_endpoint(mut failure: Failure, what: &str) -> Failure {
    if failure.kind == Kind::Lost {
        failure.error.scope = ErrorScope::Endpoint;
        failure.error.retry = Retry::After(UNREACHABLE);
    }
    failure.during(what)
}

async fn greeting(connection: &mut Connection, settings: &ServerSettings, what: &str) -> Outcome<()> {
    loop {
        let Event::Greeting(answer) = connection.event().await? else {
            continue;
        };
        connection.greeting.clone_from(&answer.text);
        return match answer.condition {
            Condition::Ok => Ok(()),
            Condition::Bye => {
                let failure = refused(what, &answer, ErrorScope::Endpoint);
                let retry = match failure.error.retry {
                    Retry::Now => Retry::After(UNREACHABLE),
                    retry @ (Retry::After(_) | Retry::Never) => retry,
                };
                let error = crate::MailboxError { retry, ..failure.error };
                Err(Failure { error, ..failure })
            }
            Condition::PreAuth => Err(Failure::ours(
                what,
                match settings.security {
                    Security::StartTls => "the server signed us in before TLS, so that TLS cannot be started",
                    Security::Tls | Security::Plain => "the server signed us in as somebody without being asked",
                },
                ErrorScope::Endpoint,
                Retry::Never,
            )),
            Condition::No | Condition::Bad => Err(refused(what, &answer, ErrorScope::Endpoint)),
        };
    }
}

async fn start_tls(mut connection: Connection, settings: &ServerSettings, what: &str) -> Outcome<Connection> {
    let scope = ErrorScope::Endpoint;
    if connection.capabilities.names.is_empty() {
        connection.demand(what, scope, Command::capability(), |_| {}).await?;
    }
    if !connection.capabilities.start_tls {
        let cause = "the server does not offer STARTTLS";
        return Err(Failure::ours(what, cause, scope, Retry::Never));
    }
    connection.demand(what, scope, Command::start_tls(), |_| {}).await?;
    // Octets behind the agreement are an error of the client already.
    if let Err(error) = connection.client.event() {
        return Err(Failure::ours(what, error.to_string(), scope, Retry::Never));
    }
    let patience = settings.progress_timeout;
    let handshake = connection.transport.into_tls(&settings.host, &settings.tls);
    connection.transport = tokio::time::timeout(patience, handshake)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| unreachable(what, &error))?;
    connection.client.tls_started();
    connection.forget_plain_text();
    connection.demand(what, scope, Command::capability(), |_| {}).await?;
    Ok(connection)
}

/// No connection, or no TLS over it. A certificate that is refused will be refused again.
fn unreachable(what: &str, error: &io::Error) -> Failure {
    let (cause, retry) = match error.kind() {
        io::ErrorKind::TimedOut => ("no answer in time".to_owned(), Retry::After(UNREACHABLE)),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => (error.to_string(), Retry::Never),
        _ => (error.to_string(), Retry::After(UNREACHABLE)),
    };
    Failure {
        kind: Kind::Lost,
        ..Failure::ours(what, super::error::shown(&cause), ErrorScope::Endpoint, retry)
    }
}

async fn sign_in(connection: &mut Connection, settings: &ServerSettings, who: &Who, what: &str) -> Outcome<()> {
    let account = who.account.to_string();
    let server = Some((settings.host.clone(), settings.port));
    let credentials = |user: String, acting_for: Option<String>, secret: SecretString| Credentials {
        user,
        acting_for,
        secret,
        server: server.clone(),
    };
    match &settings.sign_in {
        SignIn::Master {
            user,
            password,
            separator,
        } => {
            let name = format!("{account}{separator}{user}");
            by_password(connection, &credentials(name, None, password.clone()), what).await
        }
        SignIn::Authzid { user, password } => {
            let credentials = credentials(user.clone(), Some(account), password.clone());
            by_password(connection, &credentials, what).await
        }
        SignIn::Password => match &who.password {
            Some(password) => by_password(connection, &credentials(account, None, password.clone()), what).await,
            None => Err(Failure::ours(
                what,
                "no password is known",
                ErrorScope::Mailbox,
                Retry::Never,
            )),
        },
        SignIn::OAuth { tokens, mechanism } => {
            let mechanism = bearer(connection, *mechanism);
            by_token(connection, tokens.as_ref(), mechanism, what, |token| {
                credentials(account.clone(), None, token)
            })
            .await
        }
    }
}

fn bearer(connection: &Connection, mechanism: OAuthMechanism) -> Mechanism {
    match mechanism {
        OAuthMechanism::XOAuth2 => Mechanism::XOAuth2,
        OAuthMechanism::OAuthBearer => Mechanism::OAuthBearer,
        OAuthMechanism::Offered if connection.capabilities.has_mechanism("OAUTHBEARER") => Mechanism::OAuthBearer,
        OAuthMechanism::Offered => Mechanism::XOAuth2,
    }
}

/// By the best mechanism that both sides have.
async fn by_password(connection: &mut Connection, credentials: &Credentials, what: &str) -> Outcome<()> {
    const BEST_FIRST: [Mechanism; 4] = [
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
        Mechanism::Login,
    ];
    let acts = credentials.acting_for.is_some();
    let offered = BEST_FIRST
        .into_iter()
        .filter(|mechanism| !acts || *mechanism != Mechanism::Login)
        .find(|mechanism| connection.capabilities.has_mechanism(mechanism.name()));
    match offered {
        Some(mechanism) => authenticate(connection, mechanism, credentials, what).await,
        None if acts => Err(Failure::ours(
            what,
            "the server offers no way to sign in for another user (AUTH=PLAIN or SCRAM)",
            ErrorScope::Endpoint,
            Retry::Never,
        )),
        None if connection.capabilities.login_disabled => Err(Failure::ours(
            what,
            "the server allows no sign-in by password here (LOGINDISABLED)",
            ErrorScope::Endpoint,
            Retry::Never,
        )),
        None => {
            let command = Command::login(&credentials.user, &credentials.secret);
            let answer = connection.ask(command, |_| {}).await?;
            if answer.is_ok() {
                Ok(())
            } else {
                Err(not_let_in(what, &answer))
            }
        }
    }
}

/// With a token; with a new one when the first is refused, since it may just have run out.
async fn by_token(
    connection: &mut Connection,
    tokens: &dyn AccessTokens,
    mechanism: Mechanism,
    what: &str,
    credentials: impl Fn(SecretString) -> Credentials,
) -> Outcome<()> {
    let token = async || {
        tokens.token().await.map_err(|error| Failure {
            error,
            kind: Kind::Ours,
        })
    };
    let first = authenticate(connection, mechanism, &credentials(token().await?), what).await;
    match first {
        Err(failure) if failure.kind == Kind::SignIn && connection.is_sound() => {
            tokens.forget();
            authenticate(connection, mechanism, &credentials(token().await?), what).await
        }
        other => other,
    }
}

async fn authenticate(
    connection: &mut Connection,
    mechanism: Mechanism,
    credentials: &Credentials,
    what: &str,
) -> Outcome<()> {
    let wrong = |error: SaslError| Failure {
        kind: Kind::SignIn,
        ..Failure::ours(what, error.to_string(), ErrorScope::Mailbox, Retry::Never)
    };
    let nonce = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let mut sasl = Sasl::new(mechanism, credentials, &nonce).map_err(wrong)?;
    let initial = if connection.capabilities.sasl_ir {
        sasl.initial()
    } else {
        None
    };
    let tag = connection.send(Command::authenticate(mechanism.name(), initial.as_ref()));
    let mut refusal = None;
    for _ in 0..MOST_STEPS {
        let answer = loop {
            match connection.event().await? {
                Event::Challenge { octets, .. } => break Err(octets),
                Event::Tagged(answered, answer) if answered == tag => break Ok(answer),
                _ => {}
            }
        };
        match answer {
            Ok(answer) if answer.is_ok() => return sasl.finish().map_err(wrong),
            Ok(answer) => {
                let mut failure = not_let_in(what, &answer);
                if let Some(why) = refusal {
                    failure.error.cause = format!("{} ({why})", failure.error.cause);
                }
                return Err(failure);
            }
            Err(challenge) => match sasl.challenge(&challenge) {
                Ok(response) => connection.client.respond(tag, &response),
                Err(error) => {
                    refusal = Some(super::error::shown(&error.to_string()));
                    connection.client.cancel(tag);
                }
            },
        }
    }
    Err(connection.give_up("the sign-in has no end"))
}

/// A sign-in that was refused without saying that the server is at fault was refused for what we sent.
fn not_let_in(what: &str, answer: &Answer) -> Failure {
    let mut failure = refused(what, answer, ErrorScope::Mailbox);
    if failure.kind == Kind::Refused && answer.code.is_none() {
        failure.kind = Kind::SignIn;
        failure.error.retry = Retry::Never;
    }
    failure
}

/// What is told and switched on once: capabilities after sign-in, ID, namespaces, mod-sequences, UTF-8, compression.
async fn set_up(connection: &mut Connection, settings: &ServerSettings) -> Outcome<()> {
    let what = format!("preparing the connection to {}", settings.host);
    if connection.capabilities_are_old() {
        let scope = ErrorScope::Endpoint;
        connection.demand(&what, scope, Command::capability(), |_| {}).await?;
    }
    let capabilities = connection.capabilities.clone();
    connection
        .client
        .set_literals(match (capabilities.literal_plus, capabilities.literal_minus) {
            (true, _) => Literals::Plus,
            (false, true) => Literals::Minus,
            (false, false) => Literals::Synchronizing,
        });
    let mut tags = Vec::new();
    if capabilities.id {
        tags.push(connection.send(Command::id(&[
            ("name", "Rehome"),
            ("version", env!("CARGO_PKG_VERSION")),
        ])));
    }
    if capabilities.namespace {
        tags.push(connection.send(Command::namespace()));
    }
    let mut names = Vec::new();
    match (capabilities.qresync, capabilities.condstore) {
        (true, _) => names.push("QRESYNC"),
        (false, true) => names.push("CONDSTORE"),
        (false, false) => {}
    }
    if capabilities.utf8_accept {
        names.push("UTF8=ACCEPT");
    }
    if capabilities.imap4_rev2 && !capabilities.imap4_rev1 {
        // Without the older version there is nothing to enable, and names are UTF-8.
        connection.client.set_names(NameEncoding::Utf8);
    }
    if capabilities.enable && !names.is_empty() {
        tags.push(connection.send(Command::enable(&names)));
    }
    // A server that refuses one of these goes on without it.
    connection.finish(&tags, |_| {}).await?;
    let personal = connection
        .namespaces
        .as_ref()
        .and_then(|namespaces| namespaces.personal.first());
    if personal.is_none_or(|namespace| namespace.delimiter.is_none()) {
        let command = Command::list(&MailboxName::new(""), &[""], &ListOptions::default());
        connection.ask(command, |_| {}).await?;
    }
    connection.quirks = Quirks::of(connection);
    if settings.compress && capabilities.compress_deflate {
        let answer = connection.ask(Command::compress(), |_| {}).await?;
        if answer.is_ok() {
            let arrived = connection.client.compression_started();
            connection.transport.compress(&arrived);
        }
    }
    Ok(())
}

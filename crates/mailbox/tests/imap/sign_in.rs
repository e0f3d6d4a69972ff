//! Ways to sign in, and ways that must not work.

use super::{no_tls, plain, tls_trusting};
use async_trait::async_trait;
use rehome_mailbox::imap::{AccessTokens, ImapServer, OAuthMechanism, Security, ServerSettings, SignIn};
use rehome_mailbox::{ErrorScope, FolderPath, Mailbox, MailboxError, Retry};
use rehome_testkit::cyrus::Cyrus;
use rehome_testkit::dovecot::{Dovecot, PASSWORD, Subject};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::SecretString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const MASTER_PASSWORD: &str = "battery-staple";

fn trusting(authority: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    tls_trusting(roots)
}

fn password(password: &str) -> Option<SecretString> {
    Some(SecretString::from(password))
}

fn master() -> SignIn {
    SignIn::Master {
        user: "mover".to_owned(),
        password: SecretString::from(MASTER_PASSWORD),
        separator: '*',
    }
}

fn authzid() -> SignIn {
    SignIn::Authzid {
        user: "mover".to_owned(),
        password: SecretString::from(MASTER_PASSWORD),
    }
}

/// Tokens in order; the last one again and again.
struct Tokens {
    tokens: Vec<String>,
    at: AtomicUsize,
}

impl Tokens {
    fn sign_in(tokens: Vec<String>, mechanism: OAuthMechanism) -> SignIn {
        let at = AtomicUsize::new(0);
        let tokens = Arc::new(Self { tokens, at });
        SignIn::OAuth { tokens, mechanism }
    }
}

#[async_trait]
impl AccessTokens for Tokens {
    async fn token(&self) -> Result<SecretString, MailboxError> {
        let at = self.at.load(Ordering::SeqCst).min(self.tokens.len() - 1);
        Ok(SecretString::from(self.tokens[at].clone()))
    }

    fn forget(&self) {
        self.at.fetch_add(1, Ordering::SeqCst);
    }
}

/// Signs in and looks at the folders.
async fn works(settings: ServerSettings, account: &str, secret: Option<SecretString>) {
    let mailbox = ImapServer::new(settings).mailbox(account, secret);
    mailbox.connect().await.unwrap();
    let folders = mailbox.folders().await.unwrap();
    assert!(folders.iter().any(|folder| folder.path == FolderPath::inbox()));
}

async fn fails(settings: ServerSettings, account: &str, secret: Option<SecretString>) -> MailboxError {
    let server = ImapServer::new(settings);
    let mailbox = server.mailbox(account, secret);
    mailbox.connect().await.expect_err("this must not work")
}

#[tokio::test]
async fn every_way_into_dovecot() {
    if rehome_testkit::is_left_out("dovecot") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dovecot = Dovecot::builder(folder.path())
        .users([("reception", PASSWORD)])
        .master("mover", MASTER_PASSWORD)
        .bearer_tokens(Subject::User)
        .compress()
        .tls()
        .start();
    let port = dovecot.port();
    let reception = || password(PASSWORD);
    works(plain(port, SignIn::Password), "reception", reception()).await;
    works(plain(port, master()), "reception", None).await;
    works(plain(port, authzid()), "reception", None).await;
    for mechanism in [
        OAuthMechanism::XOAuth2,
        OAuthMechanism::OAuthBearer,
        OAuthMechanism::Offered,
    ] {
        let tokens = vec!["expired".to_owned(), dovecot.token("reception")];
        works(plain(port, Tokens::sign_in(tokens, mechanism)), "reception", None).await;
    }
    for mechanism in ["AUTH=SCRAM-SHA-256", "AUTH=SCRAM-SHA-1", "AUTH=PLAIN", "AUTH=LOGIN"]
        .into_iter()
        .enumerate()
    {
        // Each time the best that is left, at last the command LOGIN.
        let all = ["AUTH=SCRAM-SHA-256", "AUTH=SCRAM-SHA-1", "AUTH=PLAIN", "AUTH=LOGIN"];
        let mut settings = plain(port, SignIn::Password);
        settings.without = all[..=mechanism.0].iter().map(|name| (*name).to_owned()).collect();
        works(settings, "reception", reception()).await;
    }
    let trusting = trusting(&dovecot.authority());
    for (security, port) in [(Security::Tls, dovecot.tls_port()), (Security::StartTls, port)] {
        let settings = |host, tls| ServerSettings::new(host, port, security, tls, master());
        let mut compressed = settings("localhost", Arc::clone(&trusting));
        compressed.compress = true;
        works(compressed, "reception", None).await;
        let error = fails(settings("localhost", no_tls()), "reception", None).await;
        assert_eq!(
            (error.scope, error.retry),
            (ErrorScope::Endpoint, Retry::Never),
            "{error}"
        );
        let mut elsewhere = settings("mail.contoso.example", Arc::clone(&trusting));
        elsewhere.connect_to = Some(("localhost".to_owned(), port));
        let error = fails(elsewhere, "reception", None).await;
        assert_eq!(
            (error.scope, error.retry),
            (ErrorScope::Endpoint, Retry::Never),
            "{error}"
        );
    }
    let facts = ImapServer::new(plain(port, master())).check().await.unwrap();
    assert_eq!(facts.kind, "Dovecot");
    assert!(facts.capabilities.iter().any(|name| name == "AUTH=PLAIN"), "{facts:?}");
}

#[tokio::test]
async fn wrong_credentials_are_tried_once() {
    if rehome_testkit::is_left_out("dovecot") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dovecot = Dovecot::builder(folder.path()).users([("reception", PASSWORD)]).start();
    let server = ImapServer::new(plain(dovecot.port(), SignIn::Password));
    let wrong = server.mailbox("reception", password("wrong-wrong"));
    let first = wrong.folders().await.unwrap_err();
    assert_eq!(
        (first.scope, first.retry),
        (ErrorScope::Mailbox, Retry::Never),
        "{first}"
    );
    let second = wrong.folders().await.unwrap_err();
    assert!(second.cause.contains("not tried again"), "{second}");
    assert!(!format!("{first:?} {second:?} {:?}", server.settings()).contains("wrong-wrong"));
    let log = dovecot.log();
    let failures = log.lines().filter(|line| line.contains("auth failed")).count();
    assert!(failures <= 1, "one refused sign-in: {log}");

    // The mover's own credentials are in doubt after three accounts, and the server is left alone.
    let server = ImapServer::new(plain(dovecot.port(), authzid()));
    for account in ["a", "b", "c"] {
        server.mailbox(account, None).folders().await.unwrap_err();
    }
    let error = server.mailbox("d", None).folders().await.unwrap_err();
    assert_eq!(error.scope, ErrorScope::Endpoint, "{error}");
}

#[tokio::test]
async fn every_way_into_cyrus() {
    if rehome_testkit::is_left_out("cyrus") {
        return;
    }
    let cyrus = Cyrus::builder()
        .users([("reception", PASSWORD)])
        .proxy("mover", MASTER_PASSWORD)
        .tls()
        .start();
    works(plain(cyrus.port(), SignIn::Password), "reception", password(PASSWORD)).await;
    works(plain(cyrus.port(), authzid()), "reception", None).await;
    let trusting = trusting(&cyrus.authority());
    for (security, port) in [(Security::Tls, cyrus.tls_port()), (Security::StartTls, cyrus.port())] {
        let mut settings = ServerSettings::new("localhost", port, security, Arc::clone(&trusting), authzid());
        settings.compress = true;
        works(settings, "reception", None).await;
    }
    cyrus.set_quota_kib("reception", 2048);
    let mailbox = ImapServer::new(plain(cyrus.port(), authzid())).mailbox("reception", None);
    let quota = mailbox.quota().await.unwrap().unwrap();
    assert_eq!(quota.limit, 2048 * 1024);
}

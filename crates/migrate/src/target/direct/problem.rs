//! What an administrator reads when an IMAP server is not reached or does not let us in.

use rehome_domain::{
    endpoint::{ImapSecurity, ImapServer, ImapSignIn, MigrationEndpoint},
    error_id::{ErrorId, Problem},
};
use rehome_mailbox::{ErrorScope, MailboxError, Retry};
use rehome_replicate::{ExportError, LinkError};

/// What went wrong at the source, as far as more than one folder is concerned.
pub(super) fn told(error: &MailboxError, endpoint: &MigrationEndpoint, imap: &ImapServer) -> Problem {
    let cause = Cause::of(error);
    let id = match cause {
        Cause::Throttled | Cause::Other if error.retry != Retry::Never => ErrorId::CommunicationErrorTransient,
        Cause::SignIn => ErrorId::ImapAuthentication,
        Cause::Throttled
        | Cause::Other
        | Cause::WrongName
        | Cause::NotBelieved
        | Cause::NoTls
        | Cause::NoStartTls
        | Cause::NotProtected
        | Cause::NoPasswords
        | Cause::NotReached => ErrorId::MigrationServerConnectionFailed,
    };
    Problem::new(id, format!("{error}."), cause.advice(endpoint, imap))
}

/// The same of a sign-in.
pub(super) fn told_at_sign_in(error: &MailboxError, endpoint: &MigrationEndpoint, imap: &ImapServer) -> Problem {
    let mut problem = told(error, endpoint, imap);
    if problem.advice.is_empty() {
        problem.advice = "It broke off at the sign-in; some servers do so where there is no such account. The server's log says more.".into();
    }
    problem
}

/// The same for the importer, which passes it on.
pub(super) fn link_error(error: &ExportError, endpoint: &MigrationEndpoint, imap: &ImapServer) -> LinkError {
    match error {
        ExportError::Mailbox(error) if error.scope >= ErrorScope::Mailbox => {
            let problem = told(error, endpoint, imap);
            LinkError {
                id: problem.id.as_str().to_owned(),
                message: error.to_string(),
                scope: error.scope,
                retry: error.retry,
            }
        }
        other => other.link_error(),
    }
}

/// What is behind an error, as far as advice depends on it. The texts are the driver's, the TLS library's and servers'
/// own: one that is not recognised costs the advice and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    SignIn,
    WrongName,
    NotBelieved,
    NoTls,
    NoStartTls,
    NotProtected,
    NoPasswords,
    Throttled,
    NotReached,
    Other,
}

impl Cause {
    fn of(error: &MailboxError) -> Self {
        let text = error.cause.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if error.scope == ErrorScope::Endpoint && says(&["throttl", "too many"]) {
            return Self::Throttled;
        }
        if says(&["not valid for name", "notvalidforname"]) {
            return Self::WrongName;
        }
        if says(&["certificate"]) {
            return Self::NotBelieved;
        }
        if says(&["logindisabled"]) {
            return Self::NoPasswords;
        }
        if says(&["starttls"]) {
            return Self::NoStartTls;
        }
        if says(&["not protected"]) {
            return Self::NotProtected;
        }
        if error.what.starts_with("connecting")
            && says(&["corrupt message", "invalid content type", "handshake", "alert"])
        {
            return Self::NoTls;
        }
        match (error.scope, error.retry) {
            (ErrorScope::Item | ErrorScope::Folder, _) => Self::Other,
            (ErrorScope::Mailbox, Retry::Never) if error.what.starts_with("signing in") => Self::SignIn,
            (ErrorScope::Mailbox, _) => Self::Other,
            (ErrorScope::Endpoint, _) if error.what.starts_with("connecting") => Self::NotReached,
            (ErrorScope::Endpoint, _) => Self::Other,
        }
    }

    fn advice(self, endpoint: &MigrationEndpoint, imap: &ImapServer) -> String {
        let name = &endpoint.name;
        match self {
            Self::SignIn => match &imap.sign_in {
                ImapSignIn::Users => "Compare UserName and Password of the row with an account of the server; Remove-MigrationUser and a new batch give another password. Some servers want a password of its own for programs, or sign-in with TLS only.".into(),
                ImapSignIn::Master { .. } | ImapSignIn::Authorization { .. } => format!("Look whether the server has the account, and whether the endpoint's user may sign in for others there; Set-MigrationEndpoint '{name}' -Credentials gives another password."),
                ImapSignIn::OAuth { .. } => "Look whether the server has the account, and whether it was opened for the OAuth client there.".into(),
            },
            Self::WrongName => "-RemoteServer must be a name that stands in the server's certificate.".into(),
            Self::NotBelieved => "Have the server's certificate renewed; or, where it comes from a private authority, have the operator of this deployment add that to [tls] extra_roots.".into(),
            Self::NoTls => format!("Compare -Port {} and -Security {} with what the server offers: mostly 993 with Ssl, and 143 with Tls.", imap.port, imap.security.as_str()),
            Self::NoStartTls => "Use -Security Ssl, mostly with -Port 993.".into(),
            Self::NotProtected => "-Security None is for a server on this machine alone: use Ssl or Tls.".into(),
            Self::NoPasswords => match imap.security {
                ImapSecurity::None => "The server takes passwords over TLS only: use -Security Ssl or Tls.".into(),
                ImapSecurity::Ssl | ImapSecurity::Tls => "The server takes no passwords: use -SignIn OAuth.".into(),
            },
            Self::Throttled => format!("It goes on by itself. Set-MigrationEndpoint '{name}' -MaxConcurrentMigrations with a smaller number asks the server for less at once."),
            Self::NotReached => "Compare -RemoteServer and -Port with the server; look at DNS and firewall.".into(),
            Self::Other => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rehome_domain::{
        endpoint::EndpointKind,
        id::{EndpointId, TenantId},
    };

    fn endpoint(sign_in: ImapSignIn) -> (MigrationEndpoint, ImapServer) {
        let imap = ImapServer {
            port: 993,
            security: ImapSecurity::Ssl,
            sign_in,
        };
        let endpoint = MigrationEndpoint {
            id: EndpointId::from_u128(1),
            tenant: TenantId::from_u128(2),
            name: "Old".into(),
            kind: EndpointKind::Imap(imap.clone()),
            remote_server: "imap.contoso.example".into(),
            sealed_secret: None,
            max_concurrent_migrations: None,
            max_concurrent_incremental_syncs: None,
        };
        (endpoint, imap)
    }

    #[test]
    fn every_failure_has_its_next_step() {
        use ErrorScope::{Endpoint, Mailbox};
        let (connecting, signing) = (
            "connecting to imap.contoso.example",
            "signing in to imap.contoso.example for press",
        );
        let (failed, passing, refused) = (
            ErrorId::MigrationServerConnectionFailed,
            ErrorId::CommunicationErrorTransient,
            ErrorId::ImapAuthentication,
        );
        for (what, cause, scope, retry, id, advice) in [
            (
                signing,
                "NO [AUTHENTICATIONFAILED] Authentication failed.",
                Mailbox,
                Retry::Never,
                refused,
                "UserName and Password",
            ),
            (
                signing,
                "no password is known",
                Mailbox,
                Retry::Never,
                refused,
                "UserName and Password",
            ),
            (
                connecting,
                "invalid peer certificate: certificate not valid for name \"localhost\"",
                Endpoint,
                Retry::Never,
                failed,
                "stands in the server's certificate",
            ),
            (
                connecting,
                "invalid peer certificate: UnknownIssuer",
                Endpoint,
                Retry::Never,
                failed,
                "extra_roots",
            ),
            (
                connecting,
                "received corrupt message of type InvalidContentType",
                Endpoint,
                Retry::Never,
                failed,
                "-Port 993 and -Security Ssl",
            ),
            (
                connecting,
                "the server does not offer STARTTLS",
                Endpoint,
                Retry::Never,
                failed,
                "-Security Ssl",
            ),
            (
                signing,
                "the connection is not protected, and the server is another machine",
                Endpoint,
                Retry::Never,
                failed,
                "this machine alone",
            ),
            (
                signing,
                "the server allows no sign-in by password here (LOGINDISABLED)",
                Endpoint,
                Retry::Never,
                failed,
                "-SignIn OAuth",
            ),
            (
                signing,
                "NO Request is throttled. Suggested Backoff Time: 300 milliseconds",
                Endpoint,
                Retry::After(1),
                passing,
                "-MaxConcurrentMigrations",
            ),
            (
                connecting,
                "BYE Too many connections from your IP",
                Endpoint,
                Retry::After(30),
                passing,
                "-MaxConcurrentMigrations",
            ),
            (
                connecting,
                "Connection refused (os error 111)",
                Endpoint,
                Retry::After(30),
                failed,
                "firewall",
            ),
            (
                connecting,
                "no answer in time",
                Endpoint,
                Retry::After(30),
                failed,
                "firewall",
            ),
            (
                "listing folder a",
                "the connection broke",
                Mailbox,
                Retry::Now,
                passing,
                "",
            ),
        ] {
            let error = MailboxError {
                what: what.into(),
                cause: cause.into(),
                scope,
                retry,
            };
            let (endpoint, imap) = endpoint(ImapSignIn::Users);
            let problem = told(&error, &endpoint, &imap);
            assert_eq!(problem.id, id, "{problem}");
            assert!(
                problem.advice.contains(advice) && problem.advice.is_empty() == advice.is_empty(),
                "{problem}"
            );
            assert!(problem.message.contains(cause), "{problem}");
            assert!(!told_at_sign_in(&error, &endpoint, &imap).advice.is_empty());
            let link = link_error(&ExportError::Mailbox(error), &endpoint, &imap);
            assert_eq!((link.id.as_str(), link.scope, link.retry), (id.as_str(), scope, retry));
        }
    }

    #[test]
    fn a_refused_sign_in_names_who_signs_in() {
        let error = MailboxError {
            what: "signing in to imap.contoso.example for press".into(),
            cause: "NO [AUTHENTICATIONFAILED] no".into(),
            scope: ErrorScope::Mailbox,
            retry: Retry::Never,
        };
        let master = ImapSignIn::Master {
            user: "mover".into(),
            separator: '*',
        };
        let client = ImapSignIn::OAuth {
            token_url: "https://login.contoso.example/token".into(),
            client_id: "mover".into(),
            scope: None,
        };
        for (sign_in, advice) in [
            (master, "Set-MigrationEndpoint 'Old' -Credentials"),
            (
                ImapSignIn::Authorization { user: "mover".into() },
                "Set-MigrationEndpoint 'Old' -Credentials",
            ),
            (client, "OAuth client"),
        ] {
            let (endpoint, imap) = endpoint(sign_in);
            let problem = told(&error, &endpoint, &imap);
            assert!(problem.advice.contains(advice), "{problem}");
        }
    }
}

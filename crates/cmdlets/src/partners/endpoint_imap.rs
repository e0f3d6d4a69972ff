//! Migration endpoints that are IMAP servers: their parameters, what they mean, and the try that comes before.

use crate::{context::Call, error::CommandError};
use rehome_command::{Credential, Parameter, ParameterType as T, Parameters, Property};
use rehome_domain::{
    endpoint::{EndpointKind, ImapSecurity, ImapServer, ImapSignIn, MigrationEndpoint, imap_host, is_this_machine},
    error_id::ErrorId,
    id::EndpointId,
    naming::checked_text,
};
use rehome_migrate::target::direct::ImapAccount;
use uuid::Uuid;

/// Longest name of an account or user at a server, in characters.
pub(crate) const MAX_ACCOUNT: usize = 256;
/// Longest URL of a token endpoint, and longest scope.
const MAX_URL: usize = 2048;
/// What stands between account and master user unless given.
const SEPARATOR: char = '*';

/// What only IMAP endpoints have.
const OWN: [&str; 7] = [
    "Port",
    "Security",
    "SignIn",
    "MasterUserSeparator",
    "OAuthTokenUrl",
    "OAuthScope",
    "TestMailbox",
];

pub(super) fn server_parameters() -> Vec<Parameter> {
    vec![
        Parameter::new("Port", T::Integer, "The server's port; 993 unless given, or 143 with -Security Tls or None."),
        Parameter::new(
            "Security",
            T::Text,
            "Ssl (TLS from the start) unless given; Tls (STARTTLS, always), or None, which is taken for this machine alone.",
        )
        .allowed(&ImapSecurity::ALL.map(ImapSecurity::as_str)),
    ]
}

/// Parameters of New-MigrationEndpoint and Set-MigrationEndpoint.
pub(super) fn parameters() -> Vec<Parameter> {
    let mut all = server_parameters();
    all.extend([
        Parameter::new(
            "SignIn",
            T::Text,
            "For IMAP, and Rehome's own: how the user of -Credentials opens the accounts of others. Master (as account*user, as Dovecot knows it) unless given; Authorization (SASL with an authorization identity), or OAuth (client credentials).",
        )
        .allowed(&["Master", "Authorization", "OAuth"]),
        Parameter::new(
            "MasterUserSeparator",
            T::Text,
            "For IMAP with -SignIn Master, and Rehome's own: the character between account and user; * unless given.",
        ),
        Parameter::new(
            "OAuthTokenUrl",
            T::Text,
            "For IMAP with -SignIn OAuth, and Rehome's own: where tokens are asked for.",
        ),
        Parameter::new(
            "OAuthScope",
            T::Text,
            "For IMAP with -SignIn OAuth, and Rehome's own: the scope that is asked for.",
        ),
        Parameter::new(
            "TestMailbox",
            T::Text,
            "For IMAP: the name of an account at the server that is signed in to for a test. Without it nobody is signed in.",
        ),
    ]);
    all
}

pub(super) fn properties() -> Vec<Property> {
    vec![
        Property::new("Port", "The port of an IMAP server."),
        Property::new("Security", "Ssl, Tls or None, for an IMAP server."),
        Property::new("SignIn", "Users, Master, Authorization or OAuth, for an IMAP server."),
        Property::new("MasterUserSeparator", "What stands between account and master user."),
        Property::new("OAuthTokenUrl", "Where tokens are asked for."),
        Property::new("OAuthScope", "The scope that is asked for."),
    ]
}

/// How it is printed who signs in.
pub(super) fn sign_in_word(sign_in: &ImapSignIn) -> &'static str {
    match sign_in {
        ImapSignIn::Users => "Users",
        ImapSignIn::Master { .. } => "Master",
        ImapSignIn::Authorization { .. } => "Authorization",
        ImapSignIn::OAuth { .. } => "OAuth",
    }
}

/// Refuses what only IMAP endpoints have.
pub(super) fn refuse_own(p: &Parameters) -> Result<(), CommandError> {
    match OWN.into_iter().find(|name| p.given(name)) {
        None => Ok(()),
        Some(name) => Err(CommandError::parameter(
            name,
            format!("-{name} belongs to an endpoint of type IMAP."),
            "Leave it out.",
        )),
    }
}

pub(super) fn host(p: &Parameters) -> Result<String, CommandError> {
    imap_host(p.text("RemoteServer").unwrap_or_default()).ok_or_else(|| {
        CommandError::parameter(
            "RemoteServer",
            "The server is given as its host name alone.",
            "For example imap.contoso.example; another port goes into -Port.",
        )
    })
}

fn security_given(p: &Parameters) -> Option<ImapSecurity> {
    let text = p.text("Security")?;
    ImapSecurity::ALL.into_iter().find(|security| security.as_str() == text)
}

fn port_given(p: &Parameters) -> Result<Option<u16>, CommandError> {
    let Some(number) = p.int("Port") else { return Ok(None) };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(Some(port)),
        Ok(_) | Err(_) => Err(CommandError::parameter(
            "Port",
            "A port is a number from 1 to 65535.",
            "",
        )),
    }
}

/// Port and security of a new server at `host`.
pub(super) fn port_and_security(p: &Parameters, host: &str) -> Result<(u16, ImapSecurity), CommandError> {
    let security = security_given(p).unwrap_or(ImapSecurity::Ssl);
    check_security(host, security)?;
    Ok((port_given(p)?.unwrap_or(security.usual_port()), security))
}

fn check_security(host: &str, security: ImapSecurity) -> Result<(), CommandError> {
    match security {
        ImapSecurity::None if !is_this_machine(host) => Err(CommandError::parameter(
            "Security",
            "Without TLS everyone on the way could read mail and passwords: None is taken for localhost and loopback addresses alone.",
            "Use -Security Ssl, or Tls for STARTTLS.",
        )),
        ImapSecurity::None | ImapSecurity::Ssl | ImapSecurity::Tls => Ok(()),
    }
}

/// What `-IMAP` describes.
pub(super) fn new_kind(p: &Parameters, host: &str) -> Result<ImapServer, CommandError> {
    let (port, security) = port_and_security(p, host)?;
    Ok(ImapServer {
        port,
        security,
        sign_in: sign_in(p, &ImapSignIn::Users)?,
    })
}

/// Who signs in, from what is given and what was.
fn sign_in(p: &Parameters, before: &ImapSignIn) -> Result<ImapSignIn, CommandError> {
    let given = p.credential("Credentials");
    let user = match given {
        Some(credential) => Some(user_name(credential)?),
        None => before.user_name().map(str::to_owned),
    };
    let Some(user) = user else {
        let lonely = ["SignIn", "MasterUserSeparator", "OAuthTokenUrl", "OAuthScope"];
        return match lonely.into_iter().find(|name| p.given(name)) {
            None => Ok(ImapSignIn::Users),
            Some(name) => Err(CommandError::parameter(
                "Credentials",
                format!("-{name} says how a user signs in for others, and none is given."),
                "Give -Credentials; or leave it out, and each row of a batch brings its own password.",
            )),
        };
    };
    let word = match (p.text("SignIn"), before) {
        (Some(word), _) => word,
        (None, ImapSignIn::Users) => "Master",
        (None, known) => sign_in_word(known),
    };
    let alone = |name: &str, wanted: &str| match p.given(name) && word != wanted {
        false => Ok(()),
        true => Err(CommandError::parameter(
            name,
            format!("-{name} belongs to -SignIn {wanted}."),
            "Leave it out, or change -SignIn.",
        )),
    };
    alone("MasterUserSeparator", "Master")?;
    alone("OAuthTokenUrl", "OAuth")?;
    alone("OAuthScope", "OAuth")?;
    Ok(match word {
        "Authorization" => ImapSignIn::Authorization { user },
        "OAuth" => {
            let (known_url, known_scope) = match before {
                ImapSignIn::OAuth { token_url, scope, .. } => (Some(token_url.clone()), scope.clone()),
                ImapSignIn::Users | ImapSignIn::Master { .. } | ImapSignIn::Authorization { .. } => (None, None),
            };
            ImapSignIn::OAuth {
                token_url: token_url(p)?.or(known_url).ok_or_else(no_token_url)?,
                client_id: user,
                scope: scope(p)?.or(known_scope),
            }
        }
        _ => {
            let known = match before {
                ImapSignIn::Master { separator, .. } => *separator,
                ImapSignIn::Users | ImapSignIn::Authorization { .. } | ImapSignIn::OAuth { .. } => SEPARATOR,
            };
            ImapSignIn::Master {
                user,
                separator: separator(p)?.unwrap_or(known),
            }
        }
    })
}

fn user_name(credential: &Credential) -> Result<String, CommandError> {
    checked_text("Credentials", &credential.user_name, MAX_ACCOUNT).map_err(|_| {
        CommandError::parameter(
            "Credentials",
            format!("The user name of -Credentials is empty, longer than {MAX_ACCOUNT} characters, or has a control character."),
            "",
        )
    })
}

fn separator(p: &Parameters) -> Result<Option<char>, CommandError> {
    let Some(text) = p.text("MasterUserSeparator") else {
        return Ok(None);
    };
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(one), None) if one.is_ascii_punctuation() => Ok(Some(one)),
        _ => Err(CommandError::parameter(
            "MasterUserSeparator",
            "It is one character such as *, as auth_master_user_separator has it in Dovecot.",
            "",
        )),
    }
}

fn no_token_url() -> CommandError {
    CommandError::parameter(
        "OAuthTokenUrl",
        "-SignIn OAuth needs to know where tokens are asked for.",
        "For example -OAuthTokenUrl https://login.microsoftonline.com/TENANT/oauth2/v2.0/token",
    )
}

fn token_url(p: &Parameters) -> Result<Option<String>, CommandError> {
    let Some(text) = p.text("OAuthTokenUrl").map(str::trim) else {
        return Ok(None);
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '#' | '\\');
    let host = |rest: &str| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default().to_ascii_lowercase();
        let host = authority
            .rsplit_once(':')
            .map_or(authority.as_str(), |(host, _)| host)
            .to_owned();
        host.trim_matches(['[', ']']).to_owned()
    };
    let sound = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => imap_host(&host(rest)).is_some(),
        (None, Some(rest)) => is_this_machine(&host(rest)),
        (None, None) => false,
    };
    if sound && !text.contains(odd) && text.len() <= MAX_URL {
        return Ok(Some(text.to_owned()));
    }
    Err(CommandError::parameter(
        "OAuthTokenUrl",
        "This is no URL of a token endpoint: it begins with https:// (http:// for this machine alone) and has no user name or fragment.",
        "For example https://login.microsoftonline.com/TENANT/oauth2/v2.0/token",
    ))
}

fn scope(p: &Parameters) -> Result<Option<String>, CommandError> {
    let Some(text) = p.text("OAuthScope") else {
        return Ok(None);
    };
    Ok(Some(checked_text("OAuthScope", text, MAX_URL)?))
}

/// Changes an endpoint as Set-MigrationEndpoint says, its secret apart; says whether the connection is another one.
pub(super) fn change(p: &Parameters, endpoint: &mut MigrationEndpoint, is_used: bool) -> Result<bool, CommandError> {
    for name in ["ApplicationId", "AppSecretKeyVaultUrl"] {
        if p.given(name) {
            return Err(CommandError::parameter(
                name,
                format!("-{name} belongs to an endpoint of type ExchangeRemoteMove."),
                "Leave it out.",
            ));
        }
    }
    let before = endpoint.clone();
    let EndpointKind::Imap(imap) = &mut endpoint.kind else {
        return Ok(false);
    };
    if p.given("RemoteServer") {
        endpoint.remote_server = host(p)?;
    }
    if let Some(security) = security_given(p) {
        if imap.port == imap.security.usual_port() {
            imap.port = security.usual_port();
        }
        imap.security = security;
    }
    check_security(&endpoint.remote_server, imap.security)?;
    if let Some(port) = port_given(p)? {
        imap.port = port;
    }
    imap.sign_in = sign_in(p, &imap.sign_in)?;
    check_secrets_stay(p, &before, endpoint, is_used)?;
    Ok(before.kind != endpoint.kind || before.remote_server != endpoint.remote_server || p.given("Credentials"))
}

/// A secret that was given for one server is not shown to another one by a change of the server's name.
fn check_secrets_stay(
    p: &Parameters,
    before: &MigrationEndpoint,
    after: &MigrationEndpoint,
    is_used: bool,
) -> Result<(), CommandError> {
    let place = |endpoint: &MigrationEndpoint| {
        let token_url = match &endpoint.kind {
            EndpointKind::Imap(ImapServer {
                sign_in: ImapSignIn::OAuth { token_url, .. },
                ..
            }) => Some(token_url.clone()),
            EndpointKind::Imap(_) | EndpointKind::ExchangeRemoteMove(_) => None,
        };
        (endpoint.remote_server.clone(), token_url)
    };
    if place(before) == place(after) {
        return Ok(());
    }
    let (has_secret, signs_in) = (
        before.sealed_secret.is_some(),
        matches!(&after.kind, EndpointKind::Imap(imap) if imap.sign_in != ImapSignIn::Users),
    );
    if has_secret && !p.given("Credentials") {
        return Err(CommandError::parameter(
            "Credentials",
            "The password was given for another server, and is not sent to this one unasked.",
            "Give -Credentials again.",
        ));
    }
    if !has_secret && !signs_in && is_used {
        return Err(CommandError::invalid_operation(
            &before.name,
            "A batch uses this endpoint, and the passwords of its rows were given for the server as it is now.",
            "Make another endpoint and another batch.",
        ));
    }
    Ok(())
}

/// Tries the connection, with a sign-in where `-TestMailbox` is given; returns warnings.
pub(super) async fn verify(call: &Call<'_>, endpoint: &MigrationEndpoint) -> Result<Vec<String>, CommandError> {
    let account = match call.parameters.text("TestMailbox") {
        None => None,
        Some(_) if endpoint.sealed_secret.is_none() => {
            return Err(CommandError::parameter(
                "TestMailbox",
                "Nobody could sign in: the endpoint has no credentials.",
                "Test-MigrationServerAvailability -Endpoint … -Credentials tries the password of one account.",
            ));
        }
        Some(name) => Some(ImapAccount {
            name: checked_text("TestMailbox", name, MAX_ACCOUNT)?,
            password: None,
        }),
    };
    let tried = call.ctx.target.test_imap(endpoint, account.as_ref()).await;
    tried.map_err(|problem| CommandError::from(problem).about(&endpoint.name))
}

/// The server that Test-MigrationServerAvailability names without an endpoint.
pub(super) fn unnamed(call: &Call<'_>) -> Result<MigrationEndpoint, CommandError> {
    let host = host(call.parameters)?;
    let (port, security) = port_and_security(call.parameters, &host)?;
    Ok(MigrationEndpoint {
        id: EndpointId(Uuid::nil()),
        tenant: call.tenant(),
        name: host.clone(),
        kind: EndpointKind::Imap(ImapServer {
            port,
            security,
            sign_in: ImapSignIn::Users,
        }),
        remote_server: host,
        sealed_secret: None,
        max_concurrent_migrations: None,
        max_concurrent_incremental_syncs: None,
    })
}

/// Whom Test-MigrationServerAvailability signs in to.
pub(super) fn account_to_test(
    p: &Parameters,
    endpoint: &MigrationEndpoint,
) -> Result<Option<ImapAccount>, CommandError> {
    let named = match p.text("TestMailbox") {
        Some(name) => Some(checked_text("TestMailbox", name, MAX_ACCOUNT)?),
        None => None,
    };
    match (p.credential("Credentials"), endpoint.sealed_secret.is_some()) {
        (Some(_), true) => Err(CommandError::new(
            ErrorId::ParameterBinding,
            "Credentials",
            "The endpoint has credentials of its own.",
            "Name an account with -TestMailbox, or leave -Credentials out.",
        )),
        (Some(credential), false) => Ok(Some(ImapAccount {
            name: match named {
                Some(name) => name,
                None => user_name(credential)?,
            },
            password: Some(credential.password.clone()),
        })),
        (None, true) => Ok(named.map(|name| ImapAccount { name, password: None })),
        (None, false) if named.is_some() => Err(CommandError::parameter(
            "TestMailbox",
            "The endpoint has no credentials, so that the password of the account is needed.",
            "Give -Credentials with the account's name and password.",
        )),
        (None, false) => Ok(None),
    }
}

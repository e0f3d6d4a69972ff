//! `rehome login`, `logout`, `whoami` and `consent`.

use crate::{
    ask,
    failure::Failure,
    output::{self, Form},
    print,
    profile::{self, Profile, Profiles},
    text::harmless,
};
use jiff::{SignedDuration, Timestamp};
use rehome_command::Property;
use rehome_remote::client::{AdminClient, AdminError, ConsentAnswer, ConsentQuestion, Session};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use url::Url;

/// Where and how to sign in.
pub(crate) struct Login {
    /// `host[:port]`.
    pub(crate) server: String,
    /// Domain or GUID.
    pub(crate) tenant: String,
    /// Name of the profile; none: the tenant's name.
    pub(crate) profile: Option<String>,
    /// PEM file of a private authority.
    pub(crate) authority: Option<PathBuf>,
    /// JSON file instead of questions.
    pub(crate) credentials_file: Option<String>,
}

/// A sign-in file. `NewPassword` is for the first sign-in, whose password is the one-time code.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct SignInFile {
    user_name: String,
    password: SecretText,
    new_password: Option<SecretText>,
}

struct SecretText(SecretString);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// Signs in and keeps the session in a profile.
///
/// # Errors
/// When the server refuses, or there is no one to ask.
pub(crate) async fn login(login: Login) -> Result<(), Failure> {
    let authority = login.authority.as_deref().map(std::path::absolute).transpose();
    let authority = authority.map_err(|error| Failure::while_doing("--ca", &error))?;
    let client = profile::client(&login.server, &login.tenant, authority.as_deref())?;
    let session = match &login.credentials_file {
        Some(file) => sign_in_from_file(&client, file).await?,
        None => sign_in_by_asking(&client, &login.tenant).await?,
    };
    let name = login
        .profile
        .or_else(|| std::env::var("REHOME_PROFILE").ok().filter(|n| !n.is_empty()));
    let profile = Profile {
        name: name.unwrap_or_else(|| login.tenant.clone()),
        server: login.server,
        tenant: login.tenant,
        tenant_id: session.tenant_id,
        account: session.name,
        authority,
        token: session.access_token,
        expires: Timestamp::now()
            .saturating_add(SignedDuration::from_secs(session.expires_in))
            .unwrap_or(Timestamp::MAX),
    };
    Profiles::of_environment()?.save(&profile)?;
    let (account, server, name) = (harmless(&profile.account), harmless(&profile.server), &profile.name);
    print::say(&format!(
        "Signed in to {server} as {account}, tenant {}; profile {name}.\n",
        harmless(&profile.tenant_id)
    ));
    Ok(())
}

async fn sign_in_from_file(client: &AdminClient, file: &str) -> Result<Session, Failure> {
    let text = ask::credentials_text(file).map_err(Failure::usage)?;
    // The parser's error is not told: it may quote what it read.
    let file: SignInFile = serde_json::from_str(text.expose_secret()).map_err(|_| {
        Failure::usage(format!("'{file}' is not a sign-in file"))
            .advice(r#"Expected JSON: {"UserName": "…", "Password": "…", "NewPassword": "…"}; NewPassword with a one-time code only."#)
    })?;
    Ok(client
        .sign_in(
            &file.user_name,
            &file.password.0,
            file.new_password.as_ref().map(|p| &p.0),
        )
        .await?)
}

async fn sign_in_by_asking(client: &AdminClient, tenant: &str) -> Result<Session, Failure> {
    let without = |why: String| {
        Failure::usage(why).advice("Without a terminal use --credentials-file FILE (- for standard input).")
    };
    let name = ask::line(&format!("Administrator of {tenant} (name@domain)")).map_err(without)?;
    let password = ask::secret("Password or one-time code").map_err(without)?;
    match client.sign_in(&name, &password, None).await {
        Err(AdminError::Refused(refusal) | AdminError::NotSignedIn(refusal))
            if needs_new_password(&refusal.message) =>
        {
            print::say("This is the first sign-in: choose the password that holds from now on.\n");
            let new = ask::secret("New password").map_err(without)?;
            let again = ask::secret("New password again").map_err(without)?;
            if new.expose_secret() != again.expose_secret() {
                return Err(Failure::failed("the two new passwords differ; nothing was changed"));
            }
            Ok(client.sign_in(&name, &password, Some(&new)).await?)
        }
        signed_in => Ok(signed_in?),
    }
}

/// Whether a refused sign-in only lacks the new password that a one-time code needs.
fn needs_new_password(message: &str) -> bool {
    message.contains(&rehome_identity::error::SignInError::NewPasswordRequired.to_string())
}

/// Forgets a profile. The session itself ends by its time, or when the password is changed.
///
/// # Errors
/// When there is no such profile.
pub(crate) fn logout(named: Option<&str>) -> Result<(), Failure> {
    let profiles = Profiles::of_environment()?;
    let profile = profiles.choose(named)?;
    profiles.remove(&profile.name)?;
    print::say(&format!("The session of profile {} is forgotten.\n", profile.name));
    Ok(())
}

/// Shows who is signed in, after asking the server.
///
/// # Errors
/// When the session has ended or the server cannot be asked.
pub(crate) async fn whoami(named: Option<&str>, form: Form) -> Result<(), Failure> {
    let profile = Profiles::of_environment()?.choose(named)?;
    let commands = profile
        .client()?
        .commands(&profile.token)
        .await
        .map_err(|error| answered(error, &profile))?;
    let object = json!({
        "Profile": profile.name, "Server": profile.server, "Tenant": profile.tenant, "TenantId": profile.tenant_id,
        "Account": profile.account, "SessionEnds": profile.expires.to_string(), "Commands": commands.len(),
    });
    let order = [
        "Profile",
        "Account",
        "Tenant",
        "TenantId",
        "Server",
        "SessionEnds",
        "Commands",
    ]
    .map(|n| Property::new(n, ""));
    print::out(&output::render(&[object], &order, form));
    Ok(())
}

/// What the server answered; after an ended session the next step is told in the profile's own words.
pub(crate) fn answered(error: AdminError, profile: &Profile) -> Failure {
    let ended = matches!(error, AdminError::NotSignedIn(_));
    let failure = Failure::from(error);
    if !ended {
        return failure;
    }
    let (server, tenant, name) = (&profile.server, &profile.tenant, &profile.name);
    let ca = profile
        .authority
        .as_ref()
        .map(|path| format!(" --ca {}", path.display()))
        .unwrap_or_default();
    failure.advice(format!(
        "Sign in again: rehome login --server {server} --tenant {tenant} --profile {name}{ca}"
    ))
}

/// How a consent question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// By asking.
    Ask,
    /// Yes.
    Accept,
    /// No.
    Cancel,
}

/// Opens a consent link as the signed-in administrator, shows what is asked, answers it.
///
/// # Errors
/// When the server refuses, or there is no one to ask.
pub(crate) async fn consent(named: Option<&str>, link: &str, answer: Answer, form: Form) -> Result<(), Failure> {
    let profile = Profiles::of_environment()?.choose(named)?;
    let url = Url::parse(link).map_err(|_| Failure::usage(format!("'{}' is not a link", harmless(link))))?;
    let client = profile.client()?;
    let failed = |error: AdminError| answered(error, &profile);
    let question = client.consent_question(&profile.token, &url).await.map_err(failed)?;
    print::say(&shown(&question));
    let answer = match answer {
        Answer::Accept => ConsentAnswer::Accept,
        Answer::Cancel => ConsentAnswer::Cancel,
        Answer::Ask if ask::yes("Accept?")? => ConsentAnswer::Accept,
        Answer::Ask => ConsentAnswer::Cancel,
    };
    let redirect = client
        .consent_answer(&profile.token, &url, &question.csrf, answer)
        .await
        .map_err(failed)?;
    let result = match answer {
        ConsentAnswer::Accept => "Accepted",
        ConsentAnswer::Cancel => "Cancelled",
    };
    let object = json!({
        "Result": result, "AppId": question.app_id, "DisplayName": question.display_name,
        "Tenant": question.tenant, "RedirectUri": redirect,
    });
    let order = ["Result", "DisplayName", "AppId", "Tenant", "RedirectUri"].map(|n| Property::new(n, ""));
    print::out(&output::render(&[object], &order, form));
    Ok(())
}

/// The question in plain words. What comes from outside is quoted.
fn shown(question: &ConsentQuestion) -> String {
    let ConsentQuestion {
        csrf: _,
        notice,
        display_name,
        app_id,
        home_tenant,
        home_domains,
        issuer,
        permissions,
        return_right,
        ends,
        tenant,
        account,
        redirect_uri,
    } = question;
    let quoted = |text: &str| format!("\"{}\"", harmless(text));
    let mut page = format!("Consent asked of {} (you are {})\n\n", quoted(tenant), quoted(account));
    if !notice.is_empty() {
        page.push_str(&crate::text::wrap(&harmless(notice), 2));
        page.push('\n');
    }
    page.push_str(&format!("  Application   {}\n", quoted(display_name)));
    page.push_str(&format!("  App id        {}\n", harmless(app_id)));
    page.push_str(&format!(
        "  Belongs to    {}\n",
        home_domains.iter().map(|d| quoted(d)).collect::<Vec<_>>().join(", ")
    ));
    page.push_str(&format!("  Tenant        {}\n", harmless(home_tenant)));
    page.push_str(&format!("  Authority     {}\n", harmless(issuer)));
    page.push_str(&format!("  Holds until   {}\n", harmless(ends)));
    page.push_str(&format!("  Leads on to   {}\n\n", harmless(redirect_uri)));
    for permission in permissions {
        page.push_str(&format!(
            "  It may: {}\n{}",
            harmless(&permission.name),
            crate::text::wrap(&harmless(&permission.meaning), 10)
        ));
    }
    if !return_right.is_empty() {
        page.push('\n');
        page.push_str(&crate::text::wrap(&harmless(return_right), 2));
    }
    page.push('\n');
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use rehome_remote::client::ConsentPermission;

    #[test]
    fn what_comes_from_outside_is_quoted_and_harmless() {
        let question = ConsentQuestion {
            csrf: "csrf-token".into(),
            notice: "This application was consented to here before.".into(),
            display_name: "Mail\u{1b}[2J\" trusted".into(),
            app_id: "11111111-1111-1111-1111-111111111111".into(),
            home_tenant: "22222222-2222-2222-2222-222222222222".into(),
            home_domains: vec!["fabrikam.example".into()],
            issuer: "https://fabrikam.example/t/v2.0".into(),
            permissions: vec![ConsentPermission {
                name: "Mailbox.Migration".into(),
                meaning: "Read mailboxes.".into(),
            }],
            return_right: "Until retention ends, mailboxes that moved may be taken back.".into(),
            ends: "2030-01-01".into(),
            tenant: "contoso.example".into(),
            account: "admin@contoso.example".into(),
            redirect_uri: "https://office.com".into(),
        };
        let page = shown(&question);
        assert!(!page.contains('\u{1b}') && !page.contains("csrf-token"));
        for part in ["\"fabrikam.example\"", "Mailbox.Migration", "taken back", "2030-01-01"] {
            assert!(page.contains(part), "{part}");
        }
    }
}

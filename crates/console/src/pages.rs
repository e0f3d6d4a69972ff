//! The pages of consent.

use crate::page::{Form, json, page};
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};
use rehome_identity::consent::ConsentEffect;
use serde::Serialize;

/// What the sign-in page needs.
pub(crate) struct SignInView<'a> {
    /// The tenant as its domain or GUID.
    pub(crate) tenant: &'a str,
    /// The form's token.
    pub(crate) csrf: &'a str,
    /// Why the last try failed.
    pub(crate) failure: Option<&'a str>,
    /// Name typed at the last try.
    pub(crate) name: &'a str,
}

/// The page that asks who is there. It is the same for every link: nothing about the application is known or fetched
/// before sign-in.
pub(crate) fn sign_in(status: StatusCode, view: &SignInView<'_>) -> Response {
    let content = html! {
        p { "Sign in as an administrator of " strong { (view.tenant) } " to see who asks for access to its mailboxes." }
        @if let Some(failure) = view.failure { div.error { p { (failure) } } }
        form method="post" autocomplete="off" {
            (hidden("csrf", view.csrf))
            label for="name" { "Name" }
            input type="text" id="name" name="name" value=(view.name) required maxlength="256" autofocus;
            label for="password" { "Password, or the one-time code at the first sign-in" }
            input type="password" id="password" name="password" required maxlength="1024";
            label for="new_password" { "New password (first sign-in only)" }
            input type="password" id="new_password" name="new_password" maxlength="1024";
            button type="submit" name="action" value="signin" { "Sign in" }
        }
    };
    page(status, "Sign in", &content, None)
}

/// Everything that consent is about, as shown; also the JSON that the command line reads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConsentView {
    /// The form's token.
    pub(crate) csrf: String,
    /// What is not as at a first consent to a partner's application; empty there.
    pub(crate) notice: String,
    /// The application's name as its owner gave it; from outside.
    pub(crate) display_name: String,
    /// The application.
    pub(crate) app_id: String,
    /// GUID of the tenant that owns it.
    pub(crate) home_tenant: String,
    /// That tenant's domains, in ASCII.
    pub(crate) home_domains: Vec<String>,
    /// Its issuer.
    pub(crate) issuer: String,
    /// What is asked for.
    pub(crate) permissions: Vec<PermissionView>,
    /// The return right in plain words.
    pub(crate) return_right: String,
    /// When consent ends unless renewed.
    pub(crate) ends: String,
    /// The tenant that consents.
    pub(crate) tenant: String,
    /// Who is signed in.
    pub(crate) account: String,
    /// Where Accept and Cancel lead.
    pub(crate) redirect_uri: String,
}

/// One permission.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PermissionView {
    /// Its name.
    pub(crate) name: String,
    /// What it lets the application do.
    pub(crate) meaning: String,
}

/// The page that asks for consent. `lead_to` is the origin of the redirect URI.
pub(crate) fn consent(form: Form, view: &ConsentView, lead_to: &str) -> Response {
    match form {
        Form::Json => json(StatusCode::OK, view),
        Form::Page => page(
            StatusCode::OK,
            "Permission requested",
            &consent_content(view),
            Some(lead_to),
        ),
    }
}

fn consent_content(view: &ConsentView) -> Markup {
    html! {
        @if !view.notice.is_empty() {
            div.note { p { strong { (view.notice) } } }
        }
        p {
            "The application " strong { "“" (view.display_name) "”" } " of another organisation asks " strong { (view.tenant) }
            " for the following. Its name was chosen by its owner; judge by the domains and the GUID."
        }
        table {
            tr { th { "Application id" } td.code { (view.app_id) } }
            tr { th { "Organisation (tenant GUID)" } td.code { (view.home_tenant) } }
            tr { th { "Its domains" } td { ul { @for domain in &view.home_domains { li.code { (domain) } } } } }
            tr { th { "Issuer" } td.code { (view.issuer) } }
            tr {
                th { "Permissions" }
                td { ul { @for permission in &view.permissions { li { span.code { (permission.name) } ": " (permission.meaning) } } } }
            }
            tr { th { "Ends" } td { (view.ends) " unless renewed; you can revoke it at any time with Remove-MgServicePrincipal." } }
            tr { th { "Leads back to" } td.code { (view.redirect_uri) } }
        }
        div.note { p { strong { "Way back. " } (view.return_right) } }
        form method="post" autocomplete="off" {
            (hidden("csrf", &view.csrf))
            button type="submit" name="action" value="accept" { "Accept" }
            button type="submit" name="action" value="cancel" { "Cancel" }
        }
        p.small { "Signed in as " (view.account) "." }
    }
}

fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

/// What a permission lets an application do, in plain words.
pub(crate) fn permission_meaning(name: &str) -> &'static str {
    match name {
        rehome_domain::consent::ROLE_MAILBOX_MIGRATION => {
            "copy the contents of mailboxes that you put in scope, and take over those mailboxes at the end of a migration. \
             It reaches no mailbox until an organization relationship and a scope group name it."
        }
        "User.Read" => "read the profile of the administrator who signs in. Not needed for migrations.",
        _ => "not known to this server; nothing is granted for it.",
    }
}

/// What accepting does where it is not a first consent to a partner's application.
pub(crate) fn notice(effect: &ConsentEffect) -> &'static str {
    match effect {
        ConsentEffect::Create => "",
        ConsentEffect::Renew(_) => {
            "This application was consented to here before. Accepting takes its present name, domains and keys and a new end; \
             organization relationships that are bound to it apply at once."
        }
        ConsentEffect::GrantAtHome => {
            "This application is your own organisation's. Accepting gives its own consent, without an end; no partner and no way \
             back come with it."
        }
    }
}

/// The return right in plain words.
pub(crate) const RETURN_RIGHT: &str = "Accepting also agrees on the way back: for every mailbox whose move was completed, \
    until the retention time of the old content ends, this organisation's server may fetch exactly that mailbox back from the other \
    one. It covers no other mailbox and ends by itself.";

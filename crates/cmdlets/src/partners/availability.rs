//! Test-MigrationServerAvailability: would a move of this mailbox work, and if not, why?

use super::{
    endpoint::{ROLES, Verified, find, verdict},
    endpoint_imap,
};
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::parse_smtp,
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property};
use rehome_domain::{
    address::SmtpAddress,
    endpoint::{EndpointKind, MigrationEndpoint},
    error_id::Problem,
    readiness::{TargetFacts, target_problems},
    recipient::Recipient,
};
use rehome_store::Tx;

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    let servers = endpoint_imap::server_parameters().into_iter();
    vec![Cmdlet::new(
        Declaration::new("Test", "MigrationServerAvailability", Effect::Read, ROLES, "Tests an endpoint, and whether one mailbox would be let go.")
            .description(
                "Of a partner, without -TestMailbox it tests the server, the tenant, both consents and the secret. With it, also whether the mail user is ready here and whether the source lets the mailbox go; the source answers by the same rules as for a move. Of an IMAP server it tests the connection and the certificate, and with an account the sign-in to it. All that is wrong is named at once. The command itself succeeds: Result says whether the test did.",
            )
            .parameters([
                Parameter::new("Endpoint", T::Identity, "The migration endpoint: Name or Guid.").mandatory().sets(&["TestEndpoint"]),
                Parameter::new(
                    "TestMailbox",
                    T::Identity,
                    "The mail user here, by his primary address, or by the source address that is his ExternalEmailAddress. With an endpoint of type IMAP, the name of an account at the server.",
                )
                .sets(&["TestEndpoint"]),
                Parameter::new("IMAP", T::Switch, "Tests an IMAP server without an endpoint.").mandatory().sets(&["IMAP"]),
                Parameter::new("RemoteServer", T::Text, "The host of the IMAP server.").mandatory().sets(&["IMAP"]),
            ])
            .parameters(servers.map(|p| p.sets(&["IMAP"])))
            .parameters([Parameter::new(
                "Credentials",
                T::Credential,
                "For IMAP where the endpoint has no credentials: the name and password of one account, as a row of a batch has them.",
            )])
            .default_set("TestEndpoint")
            .output([
                Property::column("Result", "Success or Failed."),
                Property::column("Message", "What is wrong first, with its error id; empty on success."),
                Property::new("ErrorDetail", "All that is wrong, each with what mends it."),
                Property::new("ErrorIds", "The error ids."),
                Property::new("ConnectionSettings", "Server, tenant and application that were used."),
                Property::new("SupportsCutover", "Always false: that is another kind of migration."),
                Property::column("TestedEndpoint", "The endpoint."),
                Property::new("ConsentLink", "Where the source's administrator consents, when that is what is missing."),
                Property::new("Warnings", "What does not keep the move from working and should be known, such as a platform that cannot keep users out during the cutover."),
                Property::new("CorrelationId", "Stands in the source's log and in its Get-OutboundMigration."),
            ])
            .example("Test-MigrationServerAvailability -Endpoint Contoso -TestMailbox reception@fabrikam.example", "Tests one move before it is begun.")
            .example("Test-MigrationServerAvailability -IMAP -RemoteServer imap.contoso.example", "Tests whether an IMAP server is reached and its certificate believed."),
        handler!(test_availability),
    )]
}

/// The mail user that `-TestMailbox` names, in one of its two forms.
async fn mail_user(call: &Call<'_>, tx: &mut Tx, text: &str) -> Result<Recipient, CommandError> {
    let address: SmtpAddress = parse_smtp("TestMailbox", text)?;
    let own = tx
        .recipient_by_proxy(call.tenant(), &format!("smtp:{}", address.key()))
        .await?;
    if let Some(own) = own.filter(|r| r.primary_smtp_address() == Some(&address)) {
        return Ok(own);
    }
    let mut pointing = tx.mail_users_by_external_address(call.tenant(), &address).await?;
    match (pointing.pop(), pointing.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) | (None, _) => {
            let organisation = call.organisation(tx).await?;
            Err(CommandError::not_found(
                text,
                &organisation,
                "Give the primary address of the mail user in this organisation, or the address in the source that is the ExternalEmailAddress of exactly one mail user here.",
            ))
        }
    }
}

async fn test_availability(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    if p.set() == "IMAP" {
        return test_imap(call, &endpoint_imap::unnamed(call)?).await;
    }
    let mut tx = call.ctx.store.read().await?;
    let endpoint = find(call, &mut tx, p.text("Endpoint").unwrap_or_default()).await?;
    match endpoint.kind {
        EndpointKind::Imap(_) => return test_imap(call, &endpoint).await,
        EndpointKind::ExchangeRemoteMove(_) if p.given("Credentials") => {
            return Err(CommandError::parameter(
                "Credentials",
                "-Credentials are for an endpoint of type IMAP.",
                "Leave it out: the endpoint has its secret.",
            ));
        }
        EndpointKind::ExchangeRemoteMove(_) => {}
    }
    let mailbox = match p.text("TestMailbox") {
        Some(text) => Some((text, mail_user(call, &mut tx, text).await?)),
        None => None,
    };
    let accepted: Vec<_> = tx
        .accepted_domain_list(call.tenant())
        .await?
        .into_iter()
        .map(|d| d.name)
        .collect();
    drop(tx);

    let mut problems: Vec<Problem> = match &mailbox {
        None => Vec::new(),
        Some((address, recipient)) => target_problems(&TargetFacts {
            address,
            recipient: Some(recipient),
            target_delivery_domain: None,
            accepted_domains: &accepted,
            other_batch: None,
        }),
    };
    let address = call.ctx.target.address_of(&endpoint)?;
    let found = call
        .ctx
        .target
        .test_availability(&address, mailbox.as_ref().map(|(_, r)| r), call.ctx.correlation)
        .await;
    let mut link = String::new();
    if let Ok(Verified::NotConsented(_, consent)) = verdict(call, &address, &found).await {
        link = consent;
    }
    for problem in found.problems {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    let object = shown(&endpoint, &problems, link, &found.correlation.to_string()).with(
        "Warnings",
        found.warnings.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    Ok(Output::one(object).warning(found.warnings))
}

async fn test_imap(call: &Call<'_>, endpoint: &MigrationEndpoint) -> Result<Output, CommandError> {
    let account = endpoint_imap::account_to_test(call.parameters, endpoint)?;
    let (problems, warnings) = match call.ctx.target.test_imap(endpoint, account.as_ref()).await {
        Ok(warnings) => (Vec::new(), warnings),
        Err(problem) => (vec![problem], Vec::new()),
    };
    let correlation = call.ctx.correlation.to_string();
    let object = shown(endpoint, &problems, String::new(), &correlation)
        .with("Warnings", warnings.iter().map(String::as_str).collect::<Vec<_>>());
    Ok(Output::one(object).warning(warnings))
}

fn shown(endpoint: &MigrationEndpoint, problems: &[Problem], consent_link: String, correlation: &str) -> Object {
    let settings = match &endpoint.kind {
        EndpointKind::ExchangeRemoteMove(remote) => format!(
            "RemoteServer={};RemoteTenant={};ApplicationId={}",
            endpoint.remote_server, remote.remote_tenant, remote.application_id
        ),
        EndpointKind::Imap(imap) => format!(
            "RemoteServer={};Port={};Security={};Username={}",
            endpoint.remote_server,
            imap.port,
            imap.security.as_str(),
            imap.sign_in.user_name().unwrap_or_default()
        ),
    };
    let mut detail: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if !consent_link.is_empty() {
        detail.push(format!("The source's administrator consents at {consent_link}"));
    }
    Object::new()
        .with("Result", if problems.is_empty() { "Success" } else { "Failed" })
        .with(
            "Message",
            problems
                .first()
                .map(|p| format!("{}: {}", p.id, p.message))
                .unwrap_or_default(),
        )
        .with("ErrorDetail", detail.join("\n"))
        .with("ErrorIds", problems.iter().map(|p| p.id.as_str()).collect::<Vec<_>>())
        .with("ConnectionSettings", settings)
        .with("SupportsCutover", false)
        .with("TestedEndpoint", endpoint.name.as_str())
        .with("ConsentLink", consent_link)
        .with("CorrelationId", correlation)
}

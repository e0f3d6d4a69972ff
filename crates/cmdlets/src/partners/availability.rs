//! Test-MigrationServerAvailability: would a move of this mailbox work, and if not, why?

use super::endpoint::{ROLES, Verified, find, verdict};
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
    endpoint::MigrationEndpoint,
    error_id::Problem,
    readiness::{TargetFacts, target_problems},
    recipient::Recipient,
};
use rehome_store::Tx;

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![Cmdlet::new(
        Declaration::new("Test", "MigrationServerAvailability", Effect::Read, ROLES, "Tests an endpoint, and whether one mailbox would be let go.")
            .description(
                "Without -TestMailbox it tests the server, the tenant, both consents and the secret. With it, also whether the mail user is ready here and whether the source lets the mailbox go; the source answers by the same rules as for a move. All that is wrong is named at once. The command itself succeeds: Result says whether the test did.",
            )
            .parameters([
                Parameter::new("Endpoint", T::Identity, "The migration endpoint: Name or Guid.").mandatory(),
                Parameter::new(
                    "TestMailbox",
                    T::Identity,
                    "The mail user here, by his primary address, or by the source address that is his ExternalEmailAddress.",
                ),
            ])
            .output([
                Property::column("Result", "Success or Failed."),
                Property::column("Message", "What is wrong first, with its error id; empty on success."),
                Property::new("ErrorDetail", "All that is wrong, each with what mends it."),
                Property::new("ErrorIds", "The error ids."),
                Property::new("ConnectionSettings", "Server, tenant and application that were used."),
                Property::new("SupportsCutover", "Always false: that is another kind of migration."),
                Property::column("TestedEndpoint", "The endpoint."),
                Property::new("ConsentLink", "Where the source's administrator consents, when that is what is missing."),
                Property::new("CorrelationId", "Stands in the source's log and in its Get-OutboundMigration."),
            ])
            .example("Test-MigrationServerAvailability -Endpoint Contoso -TestMailbox reception@fabrikam.example", "Tests one move before it is begun."),
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
    let mut tx = call.ctx.store.read().await?;
    let endpoint = find(call, &mut tx, p.text("Endpoint").unwrap_or_default()).await?;
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
    Ok(Output::one(shown(
        &endpoint,
        &problems,
        link,
        &found.correlation.to_string(),
    )))
}

fn shown(endpoint: &MigrationEndpoint, problems: &[Problem], consent_link: String, correlation: &str) -> Object {
    let settings = format!(
        "RemoteServer={};RemoteTenant={};ApplicationId={}",
        endpoint.remote_server, endpoint.remote_tenant, endpoint.application_id
    );
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

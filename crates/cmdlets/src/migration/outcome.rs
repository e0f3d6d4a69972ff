//! By hand, when a cutover's outcome does not come by itself: the source resolves, the target states.

use super::user;
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::{Wanted, recipient},
    roles::{MIGRATION, MOVE_MAILBOXES},
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property, Value};
use rehome_domain::{
    cutover::{Ground, Outcome, Resolution},
    endpoint::EndpointKind,
    id::{AttemptId, ExchangeGuid},
    recipient::Recipient,
};
use rehome_identity::statement::{OutcomeStatement, StatedOutcome};
use rehome_migrate::source::ByHand;
use rehome_store::{TargetAttempt, Tx};

const ROLES: &[&str] = &[MIGRATION, MOVE_MAILBOXES];

/// Most octets of a statement's file.
const MOST_STATEMENT: usize = 64 * 1024;

fn mailbox() -> Parameter {
    Parameter::new(
        "Identity",
        T::Identity,
        "The mailbox: Name, Alias, any address, Guid or ExchangeGuid.",
    )
    .mandatory()
    .position(1)
    .pipeline()
}

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![
        Cmdlet::new(
            Declaration::new("Resolve", "OutboundMigration", Effect::Change, ROLES, "Ends, by hand, a cutover that this organisation has promised to wait for.")
                .description(
                    "For a mailbox whose State is Prepared and whose mail is deferred because its outcome does not come. The target is asked first; what it answers stands, and another outcome is refused. If it cannot be asked, or has not decided, its signed statement is taken (Export-MigrationOutcome, run there). \
                     Without either, only Aborted can be had, with -Force: the mailbox is opened again here without the target's word. If the target has decided, there are two mailboxes from then on, until the target is reached: it then adds what came to this one, and this one becomes a mail user. Nothing that came is lost, but what is deleted or changed here meanwhile is not carried over.\n\
                     Committed cannot be forced: if the target has not decided, nobody would take the mailbox's mail.",
                )
                .parameters([
                    mailbox(),
                    Parameter::new("Outcome", T::Text, "Committed: the mailbox is the target's and becomes a mail user here. Aborted: it stays here and is opened again.")
                        .mandatory()
                        .allowed(&["Committed", "Aborted"]),
                    Parameter::new("Statement", T::Octets, "The file with the target's statement, as Export-MigrationOutcome gave it: the text alone, or the command's JSON."),
                    Parameter::new("Force", T::Switch, "Opens the mailbox again without the target's word; needs -ConfirmMailbox."),
                    Parameter::new("ConfirmMailbox", T::Text, "With -Force: the mailbox's primary address, typed to say that the warning was read."),
                ])
                .output(resolved_properties())
                .example("Resolve-OutboundMigration reception -Outcome Aborted -Statement outcome.txt", "Opens the mailbox again, because the target states that it gave up.")
                .example("Resolve-OutboundMigration reception -Outcome Aborted -Force -ConfirmMailbox reception@contoso.example", "Opens it again although the target cannot be reached."),
            handler!(resolve),
        ),
        Cmdlet::new(
            Declaration::new("Set", "OutboundMigration", Effect::Change, ROLES, "Keeps the old content of a mailbox that has moved beyond its retention, or lets it go.")
                .description("Content that was on hold when its mailbox moved is kept so by itself.")
                .parameters([
                    mailbox(),
                    Parameter::new("KeepContent", T::Boolean, "Whether the old content is kept also when RetentionUntil has passed. With false it is removed then, or soon if that has passed already.").mandatory(),
                ])
                .example("Set-OutboundMigration reception -KeepContent $true", "Keeps what a lawyer may ask for."),
            handler!(set_outbound),
        ),
        Cmdlet::new(
            Declaration::new("Export", "MigrationOutcome", Effect::Change, ROLES, "States, signed by this organisation, what became of a user's cutover.")
                .description(
                    "For the source's administrator, whose server cannot reach this one: he gives it to Resolve-OutboundMigration. An outcome that is decided or aborted stands for ever; a statement that says Undecided allows nothing, and Start-MigrationUser or Stop-MigrationUser here brings an outcome about.",
                )
                .parameters([
                    user::identity().mandatory(),
                    Parameter::new("AttemptId", T::Guid, "The attempt that Get-OutboundMigration shows at the source; the user's newest unless given."),
                ])
                .output(outcome_properties())
                .example("Export-MigrationOutcome reception@fabrikam.example --out outcome.txt", "Writes the statement into a file to send."),
            handler!(export),
        ),
    ]
}

fn resolved_properties() -> Vec<Property> {
    vec![
        Property::column("Identity", "The recipient's Name."),
        Property::column("AttemptId", "The attempt that was ended."),
        Property::column("Outcome", "Committed or Aborted."),
        Property::column(
            "Ground",
            "Asked: the target answered. Stated: by its statement. Forced: without its word.",
        ),
    ]
}

fn outcome_properties() -> Vec<Property> {
    vec![
        Property::column("Identity", "The migration user."),
        Property::column("AttemptId", "The attempt."),
        Property::column("Outcome", "Decided, Aborted or Undecided."),
        Property::new("RequestGuid", "The move."),
        Property::new("ExchangeGuid", "The mailbox."),
        Property::new("SourceTenantId", "For whom it is."),
        Property::new("At", "When the outcome was recorded; while undecided, now."),
        Property::new("Statement", "The signed statement."),
        Property::new("FileData", "The same as a file, for --out."),
    ]
}

/// The mailbox of an attempt, which may be a mail user by now.
async fn moving(call: &Call<'_>, tx: &mut Tx) -> Result<(Recipient, ExchangeGuid), CommandError> {
    let identity = call.parameters.text("Identity").unwrap_or_default();
    let found = recipient(call, tx, identity, Wanted::Any).await?;
    match found.exchange_guid() {
        Some(guid) => Ok((found, guid)),
        None => Err(CommandError::invalid_operation(
            &found.name,
            format!(
                "'{}' is of type {} and has no mailbox.",
                found.name,
                found.recipient_type()
            ),
            "Get-OutboundMigration lists what partners are pulling.",
        )),
    }
}

/// The statement in a file: its text alone, or the JSON of the command that made it.
fn statement(octets: &[u8]) -> Result<String, CommandError> {
    let bad = |why: &str| {
        CommandError::parameter(
            "Statement",
            format!("The file holds no statement: {why}."),
            "Give the file with the output of Export-MigrationOutcome, unchanged.",
        )
    };
    if octets.len() > MOST_STATEMENT {
        return Err(bad("it is too large"));
    }
    let text = std::str::from_utf8(octets).map_err(|_| bad("it is not text"))?.trim();
    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else {
        return Ok(text.to_owned());
    };
    let object = match &json {
        serde_json::Value::Array(all) if all.len() == 1 => &all[0],
        other => other,
    };
    let found = object.get("Statement").and_then(serde_json::Value::as_str);
    found.map(str::to_owned).ok_or_else(|| bad("its JSON has no Statement"))
}

async fn resolve(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let wanted = match p.text("Outcome") {
        Some("Committed") => Resolution::Committed,
        _ => Resolution::Aborted,
    };
    let text = match p.get("Statement") {
        Some(Value::Octets(octets)) => Some(statement(octets)?),
        Some(_) | None => None,
    };
    let mut tx = call.ctx.store.read().await?;
    let (mailbox, guid) = moving(call, &mut tx).await?;
    drop(tx);
    let source = &call.ctx.source;
    // Asked before the writer's turn: the target may be slow to answer.
    let about = |problem: rehome_domain::error_id::Problem| CommandError::from(problem).about(&mailbox.name);
    let promised = source.promised(call.tenant(), &mailbox, guid).await.map_err(about)?;
    let by_hand = ByHand {
        wanted,
        statement: text.as_deref(),
        force: p.switch("Force"),
        confirmed: p.text("ConfirmMailbox"),
    };
    let ground = promised.ground(&by_hand, &mailbox, call.ctx.now).map_err(about)?;
    let mut tx = call.ctx.store.write().await?;
    let facts = source
        .resolve(&mut tx, &promised, wanted, ground)
        .await
        .map_err(about)?;
    let attempt = facts["attempt"].as_str().unwrap_or_default().to_owned();
    call.save_with(tx, &mailbox.name, facts).await?;
    let warning = (ground == Ground::Forced).then(|| {
        format!(
            "'{}' is opened again without the target's word. If the target has decided, there are two mailboxes now: tell its administrator, so that it is reached and catches up.",
            mailbox.name
        )
    });
    let shown = Object::new()
        .with("Identity", mailbox.name.as_str())
        .with("AttemptId", attempt)
        .with(
            "Outcome",
            match wanted {
                Resolution::Committed => "Committed",
                Resolution::Aborted => "Aborted",
            },
        )
        .with(
            "Ground",
            match ground {
                Ground::Asked => "Asked",
                Ground::Stated => "Stated",
                Ground::Forced => "Forced",
            },
        );
    Ok(Output::one(shown).warning(warning))
}

async fn set_outbound(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let (mailbox, guid) = moving(call, &mut tx).await?;
    let keep = call.parameters.bool("KeepContent").unwrap_or(true);
    call.ctx
        .source
        .keep_content(&mut tx, call.tenant(), guid, keep)
        .await
        .map_err(|problem| CommandError::from(problem).about(&mailbox.name))?;
    call.save(tx, &mailbox.name).await?;
    Ok(Output::none())
}

async fn export(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let user = user::named(call, &mut tx).await?;
    let refused = |text: String, advice: &str| Err(CommandError::invalid_operation(&user.email_address, text, advice));
    let attempt: Option<TargetAttempt> = match call.parameters.guid("AttemptId") {
        Some(id) => tx
            .attempt_get(call.tenant(), AttemptId(id))
            .await?
            .filter(|a| a.move_id == user.id),
        None => tx.attempt_newest(call.tenant(), user.id).await?,
    };
    let Some(attempt) = attempt else {
        return refused(
            format!("There is no such attempt to complete {}.", user.email_address),
            "An attempt begins with Complete-MigrationBatch or CompleteAfter; Get-OutboundMigration shows its id at the source.",
        );
    };
    let endpoint = match tx.batch_get(call.tenant(), user.batch).await? {
        Some(batch) => tx.endpoint_get(call.tenant(), batch.endpoint).await?,
        None => None,
    };
    let source = endpoint.and_then(|endpoint| match endpoint.kind {
        EndpointKind::ExchangeRemoteMove(remote) => remote.remote_tenant_id,
        EndpointKind::Imap(_) => None,
    });
    let (Some(source_tenant), Some(exchange_guid)) = (source, user.exchange_guid) else {
        return refused(
            format!(
                "{} is not moved from a partner's tenant that is known.",
                user.email_address
            ),
            "",
        );
    };
    let outcome = match attempt.phase.outcome() {
        Outcome::Decided => StatedOutcome::Decided,
        Outcome::Aborted => StatedOutcome::Aborted,
        Outcome::Undecided => StatedOutcome::Undecided,
    };
    let statement = OutcomeStatement {
        attempt: attempt.id,
        outcome,
        move_id: user.id,
        exchange_guid,
        target_tenant: call.tenant(),
        source_tenant,
        at: attempt.decided.unwrap_or(call.ctx.now),
    };
    let signed = call
        .ctx
        .identity
        .sign_outcome(call.tenant(), &statement, call.ctx.now)
        .await;
    let text = signed.map_err(|error| CommandError::unexpected("signing the statement", &error))?;
    let word = match outcome {
        StatedOutcome::Decided => "Decided",
        StatedOutcome::Aborted => "Aborted",
        StatedOutcome::Undecided => "Undecided",
    };
    let facts = serde_json::json!({"attempt": attempt.id.to_string(), "outcome": word});
    call.save_with(tx, &user.email_address, facts).await?;
    let warning = (outcome == StatedOutcome::Undecided).then(|| {
        "Nothing is decided yet, so this statement allows nothing. Start-MigrationUser takes the cutover up again; Stop-MigrationUser aborts it."
            .to_owned()
    });
    let shown = Object::new()
        .with("Identity", user.email_address.as_str())
        .with("AttemptId", attempt.id.0)
        .with("Outcome", word)
        .with("RequestGuid", user.id.0)
        .with("ExchangeGuid", exchange_guid.0)
        .with("SourceTenantId", source_tenant.0)
        .with("At", statement.at)
        .with("Statement", text.as_str())
        .with("FileData", Value::Octets(text.into_bytes()));
    Ok(Output::one(shown).warning(warning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rehome_domain::error_id::ErrorId;

    #[test]
    fn a_statement_is_read_from_text_and_from_json() {
        for (file, expected) in [
            ("a.b.c\n", Some("a.b.c")),
            (r#"{"Statement": "a.b.c"}"#, Some("a.b.c")),
            (
                "[{\"Outcome\": \"Decided\", \"Statement\": \"a.b.c\"}]\n",
                Some("a.b.c"),
            ),
            (r#"[{"Statement": "a"}, {"Statement": "b"}]"#, None),
            (r#"{"Outcome": "Decided"}"#, None),
            ("7", None),
        ] {
            assert_eq!(statement(file.as_bytes()).ok().as_deref(), expected, "{file}");
        }
        assert_eq!(statement(&[0xff, 0xfe]).unwrap_err().id, ErrorId::ParameterBinding);
        assert!(statement(&vec![b'a'; MOST_STATEMENT + 1]).is_err());
    }
}

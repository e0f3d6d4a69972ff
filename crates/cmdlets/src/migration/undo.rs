//! The way back: a mailbox that moved is taken back by its old organisation.

use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::{Wanted, recipient},
    roles::{MIGRATION, MOVE_MAILBOXES},
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property};
use rehome_domain::recipient::{Recipient, RecipientKind};
use rehome_migrate::target::returning::{NewReturn, return_approve, return_begin};

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![Cmdlet::new(
        Declaration::new(
            "Undo",
            "MigrationUser",
            Effect::Change,
            &[MIGRATION, MOVE_MAILBOXES],
            "Brings a mailbox back to the organisation that it left, with what arrived or changed since.",
        )
        .description(
            "Run it at either organisation before the retention of the old content ends. Where the mailbox is now it approves that it leaves again (nothing is published for that) and asks the other organisation to begin. Where it was it begins the move back, from the content that was kept there: what is unchanged since is not copied again. That move waits for the approval of the other side, unless that side's relationship has MailboxReturnWithoutApproval, and is then carried out as any other. It is a migration user of MoveType Return in a batch of its own.",
        )
        .parameters([
            Parameter::new("Identity", T::Identity, "The recipient: Name, Alias, any address, Guid or ExchangeGuid.")
                .mandatory()
                .position(1)
                .pipeline(),
            Parameter::new(
                "CompleteAfter",
                T::DateTime,
                "Where the mailbox was: complete the move back from this time on; as soon as it is synced without it.",
            ),
            Parameter::new(
                "AcceptUnlocked",
                T::Switch,
                "Where the mailbox was: complete it also where a mail platform cannot keep its user out during the cutover.",
            ),
        ])
        .output([
            Property::column("Identity", "The recipient's Name."),
            Property::column("State", "Begun; Approved where the other organisation could not be asked to begin."),
            Property::column("MigrationUser", "The migration user of the move back, where it was begun."),
            Property::column("BatchId", "His batch."),
            Property::new("ExchangeGuid", "The mailbox."),
            Property::column("ReturnableUntil", "Until when it can be taken back, where it was approved."),
        ])
        .example("Undo-MigrationUser reception@contoso.example", "Takes one mailbox back."),
        handler!(undo),
    )]
}

async fn undo(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let identity = call.parameters.text("Identity").unwrap_or_default();
    let found = recipient(call, &mut tx, identity, Wanted::Any).await?;
    match &found.kind {
        RecipientKind::Mailbox(_) => approve(call, tx, &found).await,
        RecipientKind::MailUser(_) | RecipientKind::Group(_) => begin(call, tx, &found).await,
    }
}

async fn approve(call: &Call<'_>, mut tx: rehome_store::Tx, found: &Recipient) -> Result<Output, CommandError> {
    for name in ["CompleteAfter", "AcceptUnlocked"] {
        if call.parameters.given(name) {
            return Err(CommandError::parameter(
                name,
                format!(
                    "'{}' is a mailbox of this organisation, which only approves that it leaves again.",
                    found.name
                ),
                "Give it where the mailbox was.",
            ));
        }
    }
    let by = &call.ctx.caller.name;
    let record = return_approve(&mut tx, call.tenant(), found, by, call.ctx.now).await?;
    call.save(tx, &found.name).await?;
    // Approved is what this organisation can say; that the other one begins is its to carry out.
    let asked = call.ctx.target.ask_to_take_back(&record).await;
    let object = Object::new()
        .with("Identity", found.name.as_str())
        .with("State", if asked.is_ok() { "Begun" } else { "Approved" })
        .with("ExchangeGuid", record.exchange_guid.0)
        .with("ReturnableUntil", record.retention_until);
    let next = asked.err().map(|problem| {
        format!("{problem} The old organisation's administrator runs Undo-MigrationUser there; a move back that waits goes on within a minute.")
    });
    Ok(Output::one(object).warning(next))
}

async fn begin(call: &Call<'_>, mut tx: rehome_store::Tx, found: &Recipient) -> Result<Output, CommandError> {
    let new = NewReturn {
        tenant: call.tenant(),
        complete_after: call.parameters.date_time("CompleteAfter"),
        accept_unlocked: call.parameters.switch("AcceptUnlocked"),
        submitted_by: call.ctx.caller.name.clone(),
    };
    let user = return_begin(&mut tx, &new, found, call.ctx.now).await?;
    let batch = tx.batch_get(call.tenant(), user.batch).await?;
    let object = Object::new()
        .with("Identity", found.name.as_str())
        .with("State", "Begun")
        .with("MigrationUser", user.email_address.as_str())
        .with("BatchId", batch.map(|batch| batch.name))
        .with("ExchangeGuid", found.exchange_guid().map(|guid| guid.0));
    call.save(tx, &found.name).await?;
    Ok(Output::one(object))
}

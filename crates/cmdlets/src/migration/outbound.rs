//! The source's view: what partners have open here, and what the gate would say of a mailbox.

use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::{Wanted, recipient},
    roles::{MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION},
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property};
use rehome_migrate::source::{OutboundTest, OutboundView};

const ROLES: &[&str] = &[MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION];

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![
        Cmdlet::new(
            Declaration::new("Get", "OutboundMigration", Effect::Read, ROLES, "Shows what partners are pulling or have pulled from this organisation.")
                .description("The CorrelationId of the last request stands in the partner's error messages too. LastRefusal is the exact reason, which the partner does not always learn.")
                .parameters([Parameter::new("Identity", T::Identity, "Only this mailbox: Name, Alias, any address, Guid or ExchangeGuid.").position(1).pipeline()])
                .output(view_properties())
                .example("Get-OutboundMigration", "Shows all."),
            handler!(get_outbound),
        ),
        Cmdlet::new(
            Declaration::new("Test", "OutboundMigration", Effect::Read, ROLES, "Says whether a mailbox would be let go to each partner, and if not, exactly why.")
                .description("The same rules are asked as for a partner's request; nothing is recorded.")
                .parameters([Parameter::new("Identity", T::Identity, "The mailbox: Name, Alias, any address, Guid or ExchangeGuid.")
                    .mandatory()
                    .position(1)
                    .pipeline()])
                .output([
                    Property::column("Identity", "The mailbox."),
                    Property::column("Partner", "The application's name."),
                    Property::new("AppId", "The application."),
                    Property::column("Result", "Success or Failed."),
                    Property::column("ErrorId", "What the partner would get."),
                    Property::new("Message", "The text that the partner would get."),
                    Property::column("Reason", "The exact reason."),
                ])
                .example("Test-OutboundMigration reception", "Checks consent, relationship, scope and holds for one mailbox."),
            handler!(test_outbound),
        ),
    ]
}

fn view_properties() -> Vec<Property> {
    let columns = ["Identity", "Partner", "State", "ItemsServed", "LastSeen", "LastRefusal"];
    [
        ("Identity", "The recipient's Name; the ExchangeGuid when it is gone."),
        ("ExchangeGuid", "The mailbox."),
        ("Partner", "The application's name as consented to."),
        ("State", "Open, Locked, Prepared, Reopened (by hand) or Moved."),
        ("RequestGuid", "The partner's move."),
        ("AttemptId", "The newest attempt to complete it."),
        ("Opened", "First seen."),
        ("LastSeen", "Last seen."),
        ("CorrelationId", "Of the last request; stands in the partner's log too."),
        ("LastRefusal", "Why the last request was refused, exactly."),
        ("ItemsServed", "Items, all syncs."),
        ("BytesServed", "Octets, all syncs."),
        ("LockMilliseconds", "How long the mailbox was locked."),
        ("RetentionUntil", "Until when the old content is kept."),
        (
            "KeepContent",
            "Whether it is kept beyond that: because it was on hold, or by Set-OutboundMigration.",
        ),
        ("ContentRemoved", "When the old content was removed."),
        (
            "Sweeps",
            "Of what has moved: Allowed while the target may look for what came late; else why it may not.",
        ),
        ("Ended", "When it ended."),
    ]
    .map(|(name, help)| Property::among(&columns, name, help))
    .into()
}

fn view(v: &OutboundView) -> Object {
    let o = &v.outbound;
    Object::new()
        .with(
            "Identity",
            v.recipient
                .as_ref()
                .map_or_else(|| o.exchange_guid.to_string(), |r| r.name.clone()),
        )
        .with("ExchangeGuid", o.exchange_guid.0)
        .with("Partner", v.partner.clone())
        .with("State", v.state)
        .with("RequestGuid", o.move_id.0)
        .with("AttemptId", v.attempt.map(|a| a.0))
        .with("Opened", o.opened)
        .with("LastSeen", o.last_seen)
        .with("CorrelationId", o.last_correlation.as_str())
        .with("LastRefusal", o.last_refusal.clone())
        .with("ItemsServed", o.items_served)
        .with("BytesServed", o.bytes_served)
        .with("LockMilliseconds", v.lock_milliseconds)
        .with("RetentionUntil", v.retention_until)
        .with("KeepContent", v.content_held)
        .with("ContentRemoved", v.content_removed)
        .with("Sweeps", v.sweeps.clone())
        .with("Ended", o.ended)
}

async fn get_outbound(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut views = call.ctx.source.outbound_list(call.tenant()).await?;
    if let Some(identity) = call.parameters.text("Identity") {
        let mut tx = call.ctx.store.read().await?;
        // A moved mailbox is a mail user now.
        let wanted = recipient(call, &mut tx, identity, Wanted::Any).await?.exchange_guid();
        views.retain(|v| Some(v.outbound.exchange_guid) == wanted);
    }
    Ok(Output::many(views.iter().map(view)))
}

async fn test_outbound(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.read().await?;
    let identity = call.parameters.text("Identity").unwrap_or_default();
    let mailbox = recipient(call, &mut tx, identity, Wanted::Any).await?;
    drop(tx);
    let Some(guid) = mailbox.exchange_guid() else {
        return Err(CommandError::invalid_operation(
            &mailbox.name,
            format!(
                "'{}' is of type {} and has no mailbox.",
                mailbox.name,
                mailbox.recipient_type()
            ),
            "Get-Mailbox lists the mailboxes.",
        ));
    };
    let tests = call.ctx.source.outbound_test(call.tenant(), guid).await?;
    let none = tests.is_empty().then(|| {
        "This organisation has not consented to any partner's application, so no mailbox may leave. The consent link comes from the partner.".to_owned()
    });
    Ok(Output::many(tests.iter().map(|t| tested(&mailbox.name, t))).warning(none))
}

fn tested(mailbox: &str, t: &OutboundTest) -> Object {
    let refusal = t.refusal.as_ref();
    Object::new()
        .with("Identity", mailbox)
        .with("Partner", t.partner.as_str())
        .with("AppId", t.app_id.as_str())
        .with("Result", if refusal.is_none() { "Success" } else { "Failed" })
        .with("ErrorId", refusal.map(|r| r.id.as_str()))
        .with("Message", refusal.map(|r| r.partner_text))
        .with("Reason", refusal.map(|r| r.reason.clone()))
}

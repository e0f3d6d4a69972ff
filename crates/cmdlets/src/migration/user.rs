//! Migration users: one mailbox each.

use super::batch;
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::ResultSize,
    roles::{MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION},
};
use jiff::Timestamp;
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property, Value};
use rehome_domain::{
    batch::MigrationBatch,
    consistency::thresholds,
    error_id::ErrorId,
    id::{ExchangeGuid, MoveId},
    moves::{Move, MoveFigures, UserStatus},
    recipient::Recipient,
};
use rehome_migrate::{
    ReportSide as Side,
    target::{
        control,
        reports::{approval_of, approved_until, class_of, user_retry_skipped},
    },
};
use rehome_store::Tx;
use uuid::Uuid;

const ROLES: &[&str] = &[MIGRATION, MOVE_MAILBOXES];
const READERS: &[&str] = &[MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION];

pub(super) fn identity() -> Parameter {
    Parameter::new(
        "Identity",
        T::Identity,
        "The user: the address in the CSV file, or the Guid when the address is in several batches.",
    )
    .position(1)
    .pipeline()
}

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    [reading(), changing()].concat()
}

fn reading() -> Vec<Cmdlet> {
    let statuses: Vec<&str> = UserStatus::ALL.iter().map(|s| s.as_str()).collect();
    vec![
        Cmdlet::new(
            Declaration::new("Get", "MigrationUser", Effect::Read, READERS, "Shows migration users: where each stands, what he waits for, what stopped him.")
                .parameters([
                    identity().sets(&["Identity"]),
                    Parameter::new("MailboxGuid", T::Guid, "The ExchangeGuid of the mailbox.").mandatory().sets(&["MailboxGuid"]),
                    Parameter::new("EmailAddress", T::Text, "The address in the CSV file.").mandatory().sets(&["EmailAddress"]),
                    Parameter::new("BatchId", T::Identity, "Only users of this batch.").sets(&["StatusAndBatchId"]),
                    Parameter::new("Status", T::Text, "Only users in this status.").allowed(&statuses).sets(&["StatusAndBatchId"]),
                    Parameter::new("StatusSummary", T::Text, "Only users whose status is of this kind.")
                        .allowed(&["Active", "Completed", "Failed", "Stopped", "Synced"])
                        .sets(&["StatusAndBatchId"]),
                    Parameter::new("ResultSize", T::Unlimited, "Most objects to return; 1000 unless given."),
                ])
                .default_set("Identity")
                .output(user_properties())
                .example("Get-MigrationUser -BatchId 'Wave 1' -StatusSummary Failed", "Shows who failed, and why."),
            handler!(get_user),
        ),
        Cmdlet::new(
            Declaration::new("Get", "MigrationUserStatistics", Effect::Read, READERS, "Shows how much of one migration user has been copied.")
                .parameters([
                    identity().mandatory(),
                    Parameter::new(
                        "IncludeSkippedItems",
                        T::Switch,
                        "Fills SkippedItems: what is not in the target as it is in the source, and why. Look at it before -ApproveSkippedItems.",
                    ),
                    Parameter::new(
                        "LimitSkippedItemsTo",
                        T::Integer,
                        "With -IncludeSkippedItems, no more than so many, from the first folder on; a warning says how many there are.",
                    ),
                ])
                .description(&thresholds())
                .output(statistics_properties())
                .example("Get-MigrationUserStatistics reception@fabrikam.example", "Shows one user's figures."),
            handler!(get_statistics),
        ),
    ]
}

fn changing() -> Vec<Cmdlet> {
    let on_one = |verb, effect, synopsis, description, example: (&str, &str), handler| {
        let declaration = Declaration::new(verb, "MigrationUser", effect, ROLES, synopsis)
            .description(description)
            .parameters([identity().mandatory()])
            .example(example.0, example.1);
        Cmdlet::new(declaration, handler)
    };
    vec![
        Cmdlet::new(
            Declaration::new(
                "Set",
                "MigrationUser",
                Effect::Change,
                ROLES,
                "Asks for one user's sync, sets his time of completion, approves what was skipped, or has it tried again.",
            )
            .description(&format!("{}\n{}", thresholds(), "There is no support line to call for a user who is Poor: who has looked at his report approves him, one user at a time."))
            .parameters([
                identity().mandatory(),
                Parameter::new("SyncNow", T::Switch, "Copies what is new now."),
                Parameter::new(
                    "CompleteAfter",
                    T::DateTime,
                    "Completes him from this time on; it goes before the batch's value.",
                ),
                Parameter::new(
                    "ApproveSkippedItems",
                    T::Switch,
                    "Approves all items skipped up to now, so that he can be completed; whatever his score. What is found later needs a new approval.",
                ),
                Parameter::new(
                    "RetrySkippedItems",
                    T::Switch,
                    "Tries the reported items again now, and no others: what is not there is asked for again, what is altered or has another date is removed from the hidden copy and brought again, flags are set again. In a mailbox in use, only what is not there.",
                ),
                Parameter::new(
                    "AcceptUnlocked",
                    T::Switch,
                    "Completes him also where a mail platform cannot keep him out during the cutover. Keep him and delivery away from his mailbox yourself.",
                ),
            ])
            .example(
                "Set-MigrationUser reception@fabrikam.example -CompleteAfter 2026-05-31T18:00Z",
                "Completes one user that evening.",
            )
            .example(
                "Set-MigrationUser reception@fabrikam.example -RetrySkippedItems",
                "Tries again what was reported, after its cause was mended.",
            ),
            handler!(set_user),
        ),
        on_one(
            "Start",
            Effect::Change,
            "Resumes a user, or tries him again after a failure.",
            "He is taken up where he stood.",
            (
                "Start-MigrationUser reception@fabrikam.example",
                "Tries again after something was mended.",
            ),
            handler!(start_user),
        ),
        on_one(
            "Stop",
            Effect::Change,
            "Stops a user.",
            "A completion that is decided is first brought to its end; one that is not is aborted, and the mailbox stays in the source.",
            (
                "Stop-MigrationUser reception@fabrikam.example",
                "Stops one user; the others go on.",
            ),
            handler!(stop_user),
        ),
        on_one(
            "Remove",
            Effect::Destroy,
            "Removes a user from his batch.",
            "What was copied for him is removed as well, unless he is completed or it came from an IMAP server and lies in his mailbox.",
            ("Remove-MigrationUser reception@fabrikam.example", "Removes one user."),
            handler!(remove_user),
        ),
    ]
}

/// The one migration user that an identity names.
pub(super) async fn find(call: &Call<'_>, tx: &mut Tx, identity: &str) -> Result<Move, CommandError> {
    let wanted = identity.trim();
    let found = match wanted.parse::<MoveId>() {
        Ok(id) => tx.move_get(call.tenant(), id).await?.into_iter().collect(),
        Err(_) => tx.move_by_address(call.tenant(), wanted).await?,
    };
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(CommandError::new(
            ErrorId::ManagementObjectNotFound,
            identity,
            format!("The migration user '{identity}' couldn't be found."),
            "Get-MigrationUser lists them.",
        )),
        several => {
            let guids: Vec<String> = several.iter().map(|m| m.id.to_string()).collect();
            Err(CommandError::new(
                ErrorId::ManagementObjectAmbiguous,
                identity,
                format!(
                    "The identity '{identity}' matches multiple entries, one in each of several batches: {}.",
                    guids.join(", ")
                ),
                "Give the Guid of the one that is meant.",
            ))
        }
    }
}

pub(super) async fn named(call: &Call<'_>, tx: &mut Tx) -> Result<Move, CommandError> {
    find(call, tx, call.parameters.text("Identity").unwrap_or_default()).await
}

fn user_properties() -> Vec<Property> {
    let columns = ["Identity", "BatchId", "Status", "LastSuccessfulSyncTime", "WaitingFor"];
    [
        ("Identity", "The address in the CSV file."),
        ("Guid", "The migration user."),
        (
            "MoveType",
            "ExchangeRemoteMove, IMAP, or Return where a mailbox comes back.",
        ),
        ("BatchId", "Name of the batch."),
        ("Status", "Where he stands."),
        ("StatusSummary", "Active, Synced, Completed, Failed or Stopped."),
        ("LastSuccessfulSyncTime", "End of the last successful sync."),
        ("WaitingFor", "What he waits for; empty when he runs or is done."),
        (
            "ErrorSummary",
            "What stopped him: every reason, with its error id and what mends it.",
        ),
        ("ErrorIds", "The error ids."),
        (
            "CorrelationId",
            "Under which the last problem stands in both sides' logs.",
        ),
        ("MailboxGuid", "The ExchangeGuid of the mailbox that moves."),
        ("MailboxEmailAddress", "Primary address of the recipient here."),
        ("RecipientType", "MailUser before completion, UserMailbox after it."),
        ("RequestGuid", "The move, as the source knows it."),
        ("SyncedItemCount", "Items copied, all syncs."),
        ("SkippedItemCount", "Items that were not copied and are reported."),
        (
            "DataConsistencyScore",
            "Perfect, Good, Investigate or Poor; empty before the first sync.",
        ),
        ("CompleteAfter", "His own time of completion."),
    ]
    .map(|(name, help)| Property::among(&columns, name, help))
    .into()
}

fn user(m: &Move, (batch, kind): (&str, &str), recipient: Option<&Recipient>) -> Object {
    Object::new()
        .with("Identity", m.email_address.as_str())
        .with("Guid", m.id.0)
        .with("MoveType", kind)
        .with("BatchId", batch)
        .with("Status", m.status.as_str())
        .with("StatusSummary", m.status.summary())
        .with("LastSuccessfulSyncTime", m.last_sync)
        .with("WaitingFor", m.waiting_for.as_str())
        .with(
            "ErrorSummary",
            m.problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        )
        .with("ErrorIds", m.problems.iter().map(|p| p.id.as_str()).collect::<Vec<_>>())
        .with("CorrelationId", m.problem_correlation.clone())
        .with("MailboxGuid", m.exchange_guid.map_or(Uuid::nil(), |g| g.0))
        .with(
            "MailboxEmailAddress",
            recipient
                .and_then(Recipient::primary_smtp_address)
                .map(ToString::to_string),
        )
        .with("RecipientType", recipient.map(Recipient::recipient_type))
        .with("RequestGuid", m.id.0)
        .with("SyncedItemCount", m.figures.items_synced)
        .with("SkippedItemCount", m.figures.items_skipped)
        .with("DataConsistencyScore", score(m))
        .with("CompleteAfter", m.complete_after)
}

async fn shown(call: &Call<'_>, tx: &mut Tx, m: &Move) -> Result<Object, CommandError> {
    let (batch, kind) = match tx.batch_get(call.tenant(), m.batch).await? {
        Some(found) => {
            let kind = batch::origin(call, tx, &found).await?.kind;
            (found.name, kind)
        }
        None => (m.batch.to_string(), ""),
    };
    let recipient = match m.recipient {
        Some(id) => tx.recipient_get(call.tenant(), id).await?,
        None => None,
    };
    Ok(user(m, (&batch, kind), recipient.as_ref()))
}

async fn get_user(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let mut tx = call.ctx.store.read().await?;
    let mut found = if let Some(identity) = p.text("Identity") {
        vec![find(call, &mut tx, identity).await?]
    } else if let Some(address) = p.text("EmailAddress") {
        vec![find(call, &mut tx, address).await?]
    } else {
        let batch = match p.text("BatchId") {
            Some(identity) => Some(batch::find(call, &mut tx, identity).await?.id),
            None => None,
        };
        tx.move_list(call.tenant(), batch).await?
    };
    if let Some(guid) = p.guid("MailboxGuid") {
        found.retain(|m| m.exchange_guid == Some(ExchangeGuid(guid)));
        if found.is_empty() {
            return Err(CommandError::new(
                ErrorId::ManagementObjectNotFound,
                guid.to_string(),
                format!("No migration user moves the mailbox {guid}."),
                "Get-MigrationUser lists them.",
            ));
        }
    }
    found.retain(|m| {
        p.text("Status").is_none_or(|s| s == m.status.as_str())
            && p.text("StatusSummary").is_none_or(|s| s == m.status.summary())
    });
    let cut = ResultSize::of(p).cut(&mut found);
    let mut objects = Vec::with_capacity(found.len());
    for m in &found {
        objects.push(shown(call, &mut tx, m).await?);
    }
    Ok(Output::many(objects).warning(cut))
}

/// The data consistency score, as the cmdlets print it.
pub(super) fn score(m: &Move) -> Option<&'static str> {
    m.assessment().map(|found| found.score.as_str())
}

/// How far along: 10 when begun, 20 to 95 in proportion while copying, 95 when synced, 100 when completed.
fn percentage(m: &Move) -> u64 {
    match m.status {
        UserStatus::Starting | UserStatus::Validating | UserStatus::Queued => 0,
        UserStatus::Synced
        | UserStatus::IncrementalSyncing
        | UserStatus::IncrementalFailed
        | UserStatus::IncrementalStopped
        | UserStatus::Completing
        | UserStatus::CompletionFailed => 95,
        UserStatus::Completed | UserStatus::CompletedWithWarnings => 100,
        UserStatus::Syncing | UserStatus::Failed | UserStatus::Stopped | UserStatus::Removing => {
            let f = &m.figures;
            let (done, all) = if f.bytes_total > 0 {
                (f.bytes_synced, f.bytes_total)
            } else {
                (f.items_synced, f.items_total)
            };
            done.min(all)
                .saturating_mul(75)
                .checked_div(all)
                .map_or(10, |part| 20 + part)
        }
    }
}

fn statistics_properties() -> Vec<Property> {
    let columns = [
        "Identity",
        "BatchId",
        "Status",
        "SyncedItemCount",
        "SkippedItemCount",
        "PercentageComplete",
    ];
    [
        ("Identity", "The address in the CSV file."),
        ("BatchId", "Name of the batch."),
        ("Status", "Where he stands."),
        ("ErrorSummary", "What stopped him."),
        ("SyncedItemCount", "Items copied, all syncs."),
        ("SkippedItemCount", "Items that were not copied and are reported."),
        ("DataConsistencyScore", "Perfect, Good, Investigate or Poor; empty before the first sync."),
        (
            "DataConsistencyScoringFactors",
            "The counts and thresholds that led to the score.",
        ),
        (
            "EstimatedTotalTransferCount",
            "Items in the source at the last listing.",
        ),
        (
            "EstimatedTotalTransferSize",
            "Octets in the source at the last listing, as far as known.",
        ),
        ("FolderCount", "Folders at the last listing."),
        ("BytesTransferred", "Octets copied."),
        (
            "BytesOnWire",
            "Octets received from the source, with framing and repetitions.",
        ),
        ("AverageBytesTransferredPerMinute", "Octets copied, for each minute that syncs took; empty before one has ended."),
        ("TotalInProgressMilliseconds", "How long his syncs took, all together."),
        ("PercentageComplete", "95 when synced, 100 when completed."),
        ("LastSuccessfulSyncTime", "End of the last successful sync."),
        ("LockMilliseconds", "How long the mailbox was locked in the source."),
        (
            "LockRoundTrips",
            "Round trips between the organisations under the lock.",
        ),
        (
            "SweptItemCount",
            "Items found by the sweeps after completion; 0 is expected.",
        ),
        (
            "SweepCount",
            "Sweeps made: with the completion, an hour later, then daily until the source's retention ends.",
        ),
        ("LastSweep", "When the last one was made."),
        ("NextSweep", "When the next one is due; empty when there will be none."),
        ("SweepProblem", "Why the last one failed, or why there are no more."),
        (
            "SkippedItems",
            "With -IncludeSkippedItems: Kind, ScoringClassifications, FolderName, Uid, Subject, Sender, DateSent (as the header has it), DateReceived, Size, Reason, Side, Found, Approval.",
        ),
    ]
    .map(|(name, help)| Property::among(&columns, name, help))
    .into()
}

async fn get_statistics(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.read().await?;
    let m = named(call, &mut tx).await?;
    let found_batch = tx.batch_get(call.tenant(), m.batch).await?;
    let batch = found_batch
        .as_ref()
        .map_or_else(|| m.batch.to_string(), |b| b.name.clone());
    let f = &m.figures;
    let sweeps = tx.sweeps_get(call.tenant(), m.id).await?;
    drop(tx);
    let (skipped, cut) = if call.parameters.switch("IncludeSkippedItems") {
        skipped_items(call, &m, found_batch.as_ref()).await?
    } else {
        (Value::Null, None)
    };
    let assessment = m.assessment();
    Ok(Output::one(
        Object::new()
            .with("Identity", m.email_address.as_str())
            .with("BatchId", batch)
            .with("Status", m.status.as_str())
            .with(
                "ErrorSummary",
                m.problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n"),
            )
            .with("SyncedItemCount", f.items_synced)
            .with("SkippedItemCount", f.items_skipped)
            .with("DataConsistencyScore", score(&m))
            .with("DataConsistencyScoringFactors", assessment.map(|found| found.factors))
            .with("EstimatedTotalTransferCount", f.items_total)
            .with("EstimatedTotalTransferSize", f.bytes_total)
            .with("FolderCount", f.folders_total)
            .with("BytesTransferred", f.bytes_synced)
            .with("BytesOnWire", f.bytes_on_wire)
            .with("AverageBytesTransferredPerMinute", bytes_per_minute(f))
            .with("TotalInProgressMilliseconds", f.pass_milliseconds)
            .with("PercentageComplete", percentage(&m))
            .with("LastSuccessfulSyncTime", m.last_sync)
            .with("LockMilliseconds", f.lock_milliseconds)
            .with("LockRoundTrips", f.lock_round_trips)
            .with("SweptItemCount", f.swept_items)
            .with("SweepCount", sweeps.as_ref().map(|s| s.done))
            .with("LastSweep", sweeps.as_ref().and_then(|s| s.last))
            .with("NextSweep", sweeps.as_ref().and_then(|s| s.next))
            .with("SweepProblem", sweeps.and_then(|s| s.problem))
            .with("SkippedItems", skipped),
    )
    .warning(cut))
}

/// Octets copied, for each minute that syncs took.
pub(super) fn bytes_per_minute(figures: &MoveFigures) -> Option<u64> {
    figures
        .bytes_synced
        .saturating_mul(60_000)
        .checked_div(figures.pass_milliseconds)
}

/// What is not in the target as it is in the source, item by item; and a warning where not all are given.
async fn skipped_items(
    call: &Call<'_>,
    m: &Move,
    batch: Option<&MigrationBatch>,
) -> Result<(Value, Option<String>), CommandError> {
    let limit = match call.parameters.int("LimitSkippedItemsTo") {
        Some(limit) => usize::try_from(limit).map_err(|_| {
            let text = "LimitSkippedItemsTo is a number of items, 0 and above.";
            CommandError::parameter("LimitSkippedItemsTo", text, "")
        })?,
        None => usize::MAX,
    };
    let report = call.ctx.target.report(m).await?;
    let assessment = m.figures.assessment();
    let until = batch.map(|batch| approved_until(m, batch)).unwrap_or_default();
    let items = report.items.iter().take(limit).map(|item| {
        let class = class_of(item);
        Value::Object(
            Object::new()
                .with("Kind", class.as_str())
                .with("ScoringClassifications", class.counts_as().as_str())
                .with("FolderName", item.folder.join("/"))
                .with("Uid", u64::from(item.uid))
                .with("Subject", item.subject.clone())
                .with("Sender", item.sender.clone())
                .with("DateSent", item.date_sent.clone())
                .with("DateReceived", second(item.received))
                .with("Size", item.size)
                .with("Reason", item.reason.as_str())
                .with("Side", side(item.side))
                .with("Found", second(Some(item.found)))
                .with("Approval", approval_of(&assessment, item, until).as_str()),
        )
    });
    let items = Value::List(items.collect());
    let all = report.items.len();
    let cut = (all > limit).then(|| format!("{limit} of {all} items are shown; Export-MigrationReport gives all."));
    Ok((items, cut))
}

pub(super) fn second(second: Option<i64>) -> Option<Timestamp> {
    Timestamp::from_second(second?).ok()
}

pub(super) fn side(side: Side) -> &'static str {
    match side {
        Side::Source => "Source",
        Side::Target => "Target",
    }
}

async fn set_user(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let (tenant, now) = (call.tenant(), call.ctx.now);
    let mut tx = call.ctx.store.write().await?;
    let m = named(call, &mut tx).await?;
    if let Some(at) = p.date_time("CompleteAfter") {
        control::user_complete_after(&mut tx, tenant, m.id, at, now).await?;
    }
    if p.switch("ApproveSkippedItems") {
        control::user_approve_skipped(&mut tx, tenant, m.id, now).await?;
    }
    if p.switch("RetrySkippedItems") {
        user_retry_skipped(&mut tx, tenant, m.id, now).await?;
    }
    if p.switch("AcceptUnlocked") {
        control::user_accept_unlocked(&mut tx, tenant, m.id, now).await?;
    }
    if p.switch("SyncNow") {
        control::user_sync_now(&mut tx, tenant, m.id, now).await?;
    }
    call.save(tx, &m.email_address).await?;
    Ok(Output::none())
}

async fn start_user(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let m = named(call, &mut tx).await?;
    control::user_start(&mut tx, call.tenant(), m.id, call.ctx.now).await?;
    call.save(tx, &m.email_address).await?;
    Ok(Output::none())
}

async fn stop_user(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let m = named(call, &mut tx).await?;
    control::user_stop(&mut tx, call.tenant(), m.id, call.ctx.now).await?;
    call.save(tx, &m.email_address).await?;
    Ok(Output::none())
}

async fn remove_user(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let m = named(call, &mut tx).await?;
    control::user_remove(&mut tx, call.tenant(), m.id, call.ctx.now).await?;
    call.save(tx, &m.email_address).await?;
    Ok(Output::none())
}

//! The life of a migration batch.

use super::batch_rows;
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::ResultSize,
    partners::endpoint,
    roles::{MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION},
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property};
use rehome_domain::{
    address::DomainName,
    batch::{BatchIntent, BatchStatus, MigrationBatch},
    consistency::DataConsistencyScore,
    error_id::ErrorId,
    id::BatchId,
    naming::{MAX_NAME, checked_text},
};
use rehome_migrate::target::{
    control::{self, BatchView, NewBatch},
    returning::NO_ENDPOINT,
};
use rehome_store::Tx;

const ROLES: &[&str] = &[MIGRATION, MOVE_MAILBOXES];
const STATUSES: &[&str] = &[
    "Created",
    "Waiting",
    "Starting",
    "Syncing",
    "IncrementalSyncing",
    "Synced",
    "SyncedwithErrors",
    "Completing",
    "Completed",
    "CompletedWithErrors",
    "Stopping",
    "Stopped",
    "Failed",
    "Removing",
];

fn identity() -> Parameter {
    Parameter::new("Identity", T::Identity, "The batch: Name or BatchGuid.")
        .position(1)
        .pipeline()
}

fn complete_after() -> Parameter {
    Parameter::new(
        "CompleteAfter",
        T::DateTime,
        "Completes synced users from this time on.",
    )
}

fn accept_unlocked() -> Parameter {
    Parameter::new(
        "AcceptUnlocked",
        T::Switch,
        "Completes users also where a mail platform cannot keep them out during the cutover. Keep users and delivery away from these mailboxes yourself.",
    )
}

fn properties() -> Vec<Property> {
    let columns = [
        ("Identity", "The Name."),
        ("Status", "Where the batch stands."),
        (
            "Type",
            "ExchangeRemoteMove, IMAP, or Return where a mailbox comes back.",
        ),
        ("TotalCount", "Users."),
    ];
    let others = [
        ("BatchGuid", "The object."),
        ("MigrationType", "The same."),
        ("BatchDirection", "Onboarding."),
        (
            "SourceEndpoint",
            "Where its users come from; none where a mailbox comes back.",
        ),
        (
            "TargetDeliveryDomain",
            "The domain of the address to which the source forwards afterwards; none from an IMAP server.",
        ),
        ("ExcludeFolders", "Folders that are left out, from an IMAP server."),
        ("ActiveCount", "Users that are being worked on or wait for it."),
        ("PendingCount", "Users before their initial sync."),
        ("RunningCount", "Users in a sync or in completion."),
        ("SyncedCount", "Users past their initial sync, completed ones included."),
        ("FinalizedCount", "Users that are completed."),
        ("FailedCount", "Users that failed."),
        ("StoppedCount", "Users that are stopped."),
        (
            "AutoComplete",
            "Whether each user is completed as soon as he is synced.",
        ),
        ("StartAfter", "Not begun before."),
        ("StartAfterUTC", "The same."),
        ("CompleteAfter", "Completed from then on."),
        ("CompleteAfterUTC", "The same."),
        ("CreationDateTimeUTC", "When made."),
        ("StartDateTimeUTC", "When first started."),
        ("LastSyncedDateTimeUTC", "End of the latest successful sync."),
        (
            "DataConsistencyScore",
            "The worst of its users': Perfect, Good, Investigate or Poor; empty before the first sync.",
        ),
        ("SubmittedByUser", "Who made it."),
    ];
    let columns = columns.iter().map(|(n, h)| Property::column(n, h));
    columns.chain(others.iter().map(|(n, h)| Property::new(n, h))).collect()
}

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    [reading(), changing()].concat()
}

fn reading() -> Vec<Cmdlet> {
    vec![Cmdlet::new(
        Declaration::new(
            "Get",
            "MigrationBatch",
            Effect::Read,
            &[MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION],
            "Shows migration batches.",
        )
        .parameters([
            identity().sets(&["Identity"]),
            Parameter::new("Endpoint", T::Identity, "Only batches from this migration endpoint.")
                .mandatory()
                .sets(&["BatchesByEndpoint"]),
            Parameter::new("Status", T::Text, "Only batches in this status.").allowed(STATUSES),
            Parameter::new("ResultSize", T::Unlimited, "Most objects to return; 1000 unless given."),
        ])
        .default_set("Identity")
        .output(properties())
        .example("Get-MigrationBatch", "Shows all."),
        handler!(get_batch),
    )]
}

fn changing() -> Vec<Cmdlet> {
    let on_one = |verb, effect, synopsis, description, example: (&str, &str), handler| {
        let declaration = Declaration::new(verb, "MigrationBatch", effect, ROLES, synopsis)
            .description(description)
            .parameters([identity().mandatory()])
            .example(example.0, example.1);
        Cmdlet::new(declaration, handler)
    };
    vec![
        Cmdlet::new(new_batch_declaration(), handler!(new_batch)),
        Cmdlet::new(
            Declaration::new(
                "Set",
                "MigrationBatch",
                Effect::Change,
                ROLES,
                "Asks a batch for a sync, sets its time of completion, or approves what was skipped.",
            )
            .parameters([
                identity().mandatory(),
                Parameter::new(
                    "SyncNow",
                    T::Switch,
                    "Copies what is new for all synced users now; failed users are left alone.",
                ),
                complete_after(),
                Parameter::new(
                    "ApproveSkippedItems",
                    T::Switch,
                    "Approves all items skipped up to now, so that their users can be completed, but for those who are Poor: they are approved one by one, with Set-MigrationUser. What is found later needs a new approval.",
                ),
            ])
            .example("Set-MigrationBatch 'Wave 1' -SyncNow", "Copies what has arrived since."),
            handler!(set_batch),
        ),
        on_one(
            "Start",
            Effect::Change,
            "Starts or resumes a batch, and tries its failed users again.",
            "A user is taken up where he stood, never from the beginning.",
            (
                "Start-MigrationBatch 'Wave 1'",
                "Starts it, or tries again after something was mended.",
            ),
            handler!(start_batch),
        ),
        on_one(
            "Stop",
            Effect::Change,
            "Stops a batch.",
            "Users that are being copied stop at once; a completion that runs is first brought to its end. Users that are completed stay so.",
            (
                "Stop-MigrationBatch 'Wave 1'",
                "Stops it; Start-MigrationBatch resumes it.",
            ),
            handler!(stop_batch),
        ),
        Cmdlet::new(
            Declaration::new(
                "Complete",
                "MigrationBatch",
                Effect::Change,
                ROLES,
                "Completes the synced users of a batch: the last sync, then both organisations switch over.",
            )
            .description("It is CompleteAfter set to now. A user's own CompleteAfter goes before it. Users whose data consistency score is Investigate or Poor wait until what was skipped is approved, and users whose mailboxes nothing keeps quiet until that is accepted.")
            .parameters([identity().mandatory(), accept_unlocked()])
            .example(
                "Complete-MigrationBatch 'Wave 1'",
                "Switches everyone over who is synced.",
            ),
            handler!(complete_batch),
        ),
        on_one(
            "Remove",
            Effect::Destroy,
            "Removes a batch with its users.",
            "What was copied for users that are not completed is removed as well; what came from an IMAP server stays in their mailboxes. Completed users keep their mailboxes.",
            ("Remove-MigrationBatch 'Wave 1'", "Removes it."),
            handler!(remove_batch),
        ),
    ]
}

fn new_batch_declaration() -> Declaration {
    Declaration::new("New", "MigrationBatch", Effect::Change, ROLES, "Makes a batch of mailboxes that are to move here.")
        .description(
            "The CSV file has the column EmailAddress: the address here of each mail user that is to receive a mailbox. From an IMAP endpoint it has EmailAddress (of a mailbox that is here already), UserName (the account at the server) and, where the endpoint has no credentials, Password; passwords are sealed at once and dropped when the user is completed. A file that is wrong makes no batch, and every row at fault is named. A row whose mail user is missing or not ready makes a failed user with all his reasons, while the others run; mend him and run Start-MigrationUser or Start-MigrationBatch.\nUsers are copied and kept up to date until Complete-MigrationBatch, unless -AutoComplete or -CompleteAfter says otherwise.",
        )
        .parameters([
            Parameter::new("Name", T::Text, "Unique in the organisation, at most 64 characters.").mandatory(),
            Parameter::new("SourceEndpoint", T::Identity, "The migration endpoint: Name or Guid.").mandatory(),
            Parameter::new("CSVData", T::Octets, "The CSV file.").mandatory(),
            Parameter::new(
                "TargetDeliveryDomain",
                T::Text,
                "An accepted domain here in which every mail user has an address; the source forwards to that one afterwards. Needed unless the endpoint is of type IMAP, where nothing forwards.",
            ),
            Parameter::new(
                "ExcludeFolders",
                T::List,
                "From an IMAP server: folders that are left out, as Projects/Old, Projects/* for all below it as well, or #JunkEmail# and the like (#Inbox#, #Archive#, #Drafts#, #SentItems#, #DeletedItems#) whatever they are called there.",
            ),
            Parameter::new("AutoStart", T::Switch, "Starts at once. Without it, Start-MigrationBatch starts it."),
            Parameter::new("AutoComplete", T::Switch, "Completes each user as soon as he is synced."),
            Parameter::new("StartAfter", T::DateTime, "Does not copy before this time."),
            complete_after(),
            accept_unlocked(),
            Parameter::new("AllowUnknownColumnsInCsv", T::Boolean, "Passes over other columns of the file."),
        ])
        .output(properties())
        .example(
            "New-MigrationBatch -Name 'Wave 1' -SourceEndpoint Contoso -CSVData wave1.csv -TargetDeliveryDomain fabrikam.example -AutoStart",
            "Begins to copy and then keeps the copies up to date.",
        )
        .example(
            "New-MigrationBatch -Name 'Old server' -SourceEndpoint Old -CSVData accounts.csv -ExcludeFolders '#JunkEmail#','#DeletedItems#/*' -AutoStart",
            "Copies accounts of an IMAP server into mailboxes that are here.",
        )
}

/// What a batch is shown with beside its own row.
pub(super) struct Origin {
    endpoint: String,
    pub(super) kind: &'static str,
    excluded_folders: Vec<String>,
}

fn shown(view: &BatchView, origin: &Origin) -> Object {
    let (b, c) = (&view.batch, &view.counts);
    Object::new()
        .with("Identity", b.name.as_str())
        .with("Status", view.status.as_str())
        .with("Type", origin.kind)
        .with("TotalCount", c.total)
        .with("BatchGuid", b.id.0)
        .with("MigrationType", origin.kind)
        .with("BatchDirection", "Onboarding")
        .with("SourceEndpoint", origin.endpoint.as_str())
        .with(
            "TargetDeliveryDomain",
            b.target_delivery_domain.as_ref().map(DomainName::as_str),
        )
        .with("ExcludeFolders", origin.excluded_folders.clone())
        .with("ActiveCount", c.starting + c.syncing + c.incremental + c.completing)
        .with("PendingCount", c.starting)
        .with("RunningCount", c.syncing + c.incremental + c.completing)
        .with("SyncedCount", c.synced)
        .with("FinalizedCount", c.finalized)
        .with("FailedCount", c.failed)
        .with("StoppedCount", c.stopped)
        .with("AutoComplete", b.auto_complete)
        .with("StartAfter", b.start_after)
        .with("StartAfterUTC", b.start_after)
        .with("CompleteAfter", b.complete_after)
        .with("CompleteAfterUTC", b.complete_after)
        .with("CreationDateTimeUTC", b.created)
        .with("StartDateTimeUTC", b.started)
        .with("LastSyncedDateTimeUTC", view.last_sync)
        .with("DataConsistencyScore", view.score.map(DataConsistencyScore::as_str))
        .with("SubmittedByUser", b.submitted_by.as_str())
}

/// The batch of this name or GUID.
pub(super) async fn find(call: &Call<'_>, tx: &mut Tx, identity: &str) -> Result<MigrationBatch, CommandError> {
    let wanted = identity.trim();
    let id = wanted.parse::<BatchId>().ok();
    let all = tx.batch_list(call.tenant()).await?;
    let found = all
        .into_iter()
        .find(|b| b.name.to_lowercase() == wanted.to_lowercase() || Some(b.id) == id);
    found.ok_or_else(|| {
        CommandError::new(
            ErrorId::ManagementObjectNotFound,
            identity,
            format!("The migration batch '{identity}' couldn't be found."),
            "Get-MigrationBatch lists them.",
        )
    })
}

async fn named(call: &Call<'_>, tx: &mut Tx) -> Result<MigrationBatch, CommandError> {
    find(call, tx, call.parameters.text("Identity").unwrap_or_default()).await
}

pub(super) async fn origin(call: &Call<'_>, tx: &mut Tx, batch: &MigrationBatch) -> Result<Origin, CommandError> {
    let endpoint = tx.endpoint_get(call.tenant(), batch.endpoint).await?;
    let excluded_folders = tx.batch_excluded_folders_get(call.tenant(), batch.id).await?;
    let (endpoint, kind) = match endpoint {
        Some(endpoint) => (endpoint.name, endpoint.kind.as_str()),
        None if batch.endpoint == NO_ENDPOINT => (String::new(), "Return"),
        // An endpoint in use cannot be removed.
        None => (batch.endpoint.to_string(), ""),
    };
    Ok(Origin {
        endpoint,
        kind,
        excluded_folders,
    })
}

async fn get_batch(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let mut tx = call.ctx.store.read().await?;
    let mut batches = match p.text("Identity") {
        Some(identity) => vec![find(call, &mut tx, identity).await?],
        None => tx.batch_list(call.tenant()).await?,
    };
    if let Some(identity) = p.text("Endpoint") {
        let endpoint = endpoint::find(call, &mut tx, identity).await?;
        batches.retain(|b| b.endpoint == endpoint.id);
    }
    let mut objects = Vec::new();
    for batch in batches {
        let origin = origin(call, &mut tx, &batch).await?;
        let view = control::batch_view(&mut tx, batch, call.ctx.now).await?;
        if p.text("Status").is_none_or(|s| s == view.status.as_str()) {
            objects.push(shown(&view, &origin));
        }
    }
    let cut = ResultSize::of(p).cut(&mut objects);
    Ok(Output::many(objects).warning(cut))
}

async fn new_batch(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let name = checked_text("Name", p.text("Name").unwrap_or_default(), MAX_NAME)?;
    let mut tx = call.ctx.store.write().await?;
    let endpoint = endpoint::find(call, &mut tx, p.text("SourceEndpoint").unwrap_or_default()).await?;
    let rows = batch_rows::read(call, &mut tx, &endpoint).await?;
    let new = NewBatch {
        tenant: call.tenant(),
        name,
        endpoint: endpoint.id,
        target_delivery_domain: rows.target_delivery_domain,
        addresses: rows.addresses,
        auto_start: p.switch("AutoStart"),
        auto_complete: p.switch("AutoComplete"),
        complete_after: p.date_time("CompleteAfter"),
        start_after: p.date_time("StartAfter"),
        accept_unlocked: p.switch("AcceptUnlocked"),
        submitted_by: call.ctx.caller.name.clone(),
    };
    let batch = control::batch_create(&mut tx, &new, call.ctx.now).await?;
    if let Some(direct) = rows.direct {
        call.ctx
            .target
            .direct_batch_insert(&mut tx, &batch, &direct.rows, &direct.excluded_folders)
            .await?;
    }
    let origin = origin(call, &mut tx, &batch).await?;
    let view = control::batch_view(&mut tx, batch, call.ctx.now).await?;
    call.save_with(tx, &new.name, serde_json::json!({ "Users": new.addresses }))
        .await?;
    Ok(Output::one(shown(&view, &origin)))
}

async fn set_batch(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let (tenant, now) = (call.tenant(), call.ctx.now);
    let mut tx = call.ctx.store.write().await?;
    let mut batch = named(call, &mut tx).await?;
    if let Some(at) = p.date_time("CompleteAfter") {
        if batch.intent == BatchIntent::Started {
            control::batch_complete(&mut tx, tenant, batch.id, at, now).await?;
        } else {
            batch.complete_after = Some(at);
            tx.batch_update(&batch).await?;
        }
    }
    if p.switch("ApproveSkippedItems") {
        control::batch_approve_skipped(&mut tx, tenant, batch.id, now).await?;
    }
    if p.switch("SyncNow") {
        control::batch_sync_now(&mut tx, tenant, batch.id, now).await?;
    }
    call.save(tx, &batch.name).await?;
    Ok(Output::none())
}

async fn start_batch(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let batch = named(call, &mut tx).await?;
    control::batch_start(&mut tx, call.tenant(), batch.id, call.ctx.now).await?;
    call.save(tx, &batch.name).await?;
    Ok(Output::none())
}

async fn stop_batch(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let batch = named(call, &mut tx).await?;
    control::batch_stop(&mut tx, call.tenant(), batch.id, call.ctx.now).await?;
    call.save(tx, &batch.name).await?;
    Ok(Output::none())
}

async fn complete_batch(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let batch = named(call, &mut tx).await?;
    let (id, name) = (batch.id, batch.name.clone());
    let view = control::batch_view(&mut tx, batch, call.ctx.now).await?;
    match view.status {
        BatchStatus::Synced
        | BatchStatus::SyncedWithErrors
        | BatchStatus::IncrementalSyncing
        | BatchStatus::Completing => {}
        BatchStatus::Completed => {
            return Ok(Output::none().warning([format!("The migration batch '{name}' is completed already.")]));
        }
        BatchStatus::Created
        | BatchStatus::Waiting
        | BatchStatus::Starting
        | BatchStatus::Syncing
        | BatchStatus::CompletedWithErrors
        | BatchStatus::Stopping
        | BatchStatus::Stopped
        | BatchStatus::Failed
        | BatchStatus::Removing => return Err(not_synced(&name, view.status)),
    }
    if call.parameters.switch("AcceptUnlocked") {
        control::batch_accept_unlocked(&mut tx, call.tenant(), id, call.ctx.now).await?;
    }
    control::batch_complete(&mut tx, call.tenant(), id, call.ctx.now, call.ctx.now).await?;
    call.save(tx, &name).await?;
    Ok(Output::none())
}

fn not_synced(name: &str, status: BatchStatus) -> CommandError {
    let advice = match status {
        BatchStatus::Created | BatchStatus::Stopped | BatchStatus::Failed | BatchStatus::CompletedWithErrors => {
            format!("Start-MigrationBatch '{name}'")
        }
        BatchStatus::Waiting | BatchStatus::Starting | BatchStatus::Syncing => {
            format!("Wait until it is synced, or Set-MigrationBatch '{name}' -CompleteAfter (a time).")
        }
        BatchStatus::IncrementalSyncing
        | BatchStatus::Synced
        | BatchStatus::SyncedWithErrors
        | BatchStatus::Completing
        | BatchStatus::Completed
        | BatchStatus::Stopping
        | BatchStatus::Removing => String::new(),
    };
    let message = format!(
        "The migration batch '{name}' is {}; it can be completed when it is Synced or SyncedwithErrors.",
        status.as_str()
    );
    CommandError::invalid_operation(name, message, advice)
}

async fn remove_batch(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let batch = named(call, &mut tx).await?;
    control::batch_remove(&mut tx, call.tenant(), batch.id, call.ctx.now).await?;
    call.save(tx, &batch.name).await?;
    Ok(Output::none())
}

//! What administrators ask of batches and users. Each function changes rows in the caller's transaction, so that the
//! audit record is in the same one; workers read the change at their next turn.

use super::reports::batch_score;
use jiff::Timestamp;
use rehome_domain::{
    address::DomainName,
    batch::{BatchCounts, BatchIntent, BatchStatus, MigrationBatch, batch_status},
    consistency::DataConsistencyScore,
    error_id::{ErrorId, Problem},
    id::{BatchId, EndpointId, Fence, MoveId, TenantId},
    moves::{Move, MoveFigures, UserEvent, UserStatus},
};
use rehome_store::{StoreError, Tx};

/// What New-MigrationBatch makes.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Whose it is.
    pub tenant: TenantId,
    /// Name, at most 64 characters.
    pub name: String,
    /// Where its users come from.
    pub endpoint: EndpointId,
    /// The domain whose proxy address is stamped on the source.
    pub target_delivery_domain: Option<DomainName>,
    /// The addresses of the CSV file, in its order.
    pub addresses: Vec<String>,
    /// Start at once.
    pub auto_start: bool,
    /// Complete each user as soon as he is synced.
    pub auto_complete: bool,
    /// Complete from this time on.
    pub complete_after: Option<Timestamp>,
    /// Do not start before.
    pub start_after: Option<Timestamp>,
    /// Complete users also where nothing keeps their mailboxes quiet.
    pub accept_unlocked: bool,
    /// Who makes it.
    pub submitted_by: String,
}

/// A batch as shown.
#[derive(Clone, Debug)]
pub struct BatchView {
    /// The row.
    pub batch: MigrationBatch,
    /// Its status, derived.
    pub status: BatchStatus,
    /// Its users by status.
    pub counts: BatchCounts,
    /// End of the latest successful sync of any user.
    pub last_sync: Option<Timestamp>,
    /// The worst of its users' data consistency scores.
    pub score: Option<DataConsistencyScore>,
}

pub(super) fn store_problem(error: &StoreError) -> Problem {
    match error {
        StoreError::Taken { what, value } => Problem::new(
            ErrorId::ObjectAlreadyExists,
            format!("The {what} '{value}' is already in use."),
            "Choose another one.",
        ),
        StoreError::Stale { .. } => Problem::new(
            ErrorId::InvalidOperation,
            "A worker took the user up at the same moment, so nothing was changed.",
            "Run the command again.",
        ),
        StoreError::Database { .. } | StoreError::Unreadable { .. } | StoreError::NewerSchema { .. } => {
            tracing::error!(error = crate::error_chain(error), "the store failed");
            Problem::new(
                ErrorId::Unexpected,
                format!("{error}; the server's log has the cause."),
                "",
            )
        }
    }
}

fn user(new: &NewBatch, batch: BatchId, address: &str, now: Timestamp) -> Move {
    Move {
        id: MoveId(uuid::Uuid::new_v4()),
        tenant: new.tenant,
        batch,
        email_address: address.to_owned(),
        recipient: None,
        exchange_guid: None,
        status: if new.auto_start {
            UserStatus::Validating
        } else {
            UserStatus::Starting
        },
        waiting_for: if new.auto_start {
            "a worker".into()
        } else {
            "Start-MigrationBatch".into()
        },
        problems: vec![],
        problem_correlation: None,
        complete_after: None,
        sync_now: false,
        stop: false,
        skipped_approved_until: None,
        next_run: new.start_after.unwrap_or(now),
        failures: 0,
        last_sync: None,
        figures: MoveFigures::default(),
        lease: None,
        fence: Fence(0),
        requests: 0,
    }
}

/// Makes a batch with its users.
///
/// # Errors
/// When the name is taken or too long, or an address appears twice.
pub async fn batch_create(tx: &mut Tx, new: &NewBatch, now: Timestamp) -> Result<MigrationBatch, Problem> {
    if new.name.is_empty() || new.name.chars().count() > 64 {
        return Err(Problem::new(
            ErrorId::ParameterBinding,
            "The name of a migration batch has 1 to 64 characters.",
            "",
        ));
    }
    let batch = MigrationBatch {
        id: BatchId(uuid::Uuid::new_v4()),
        tenant: new.tenant,
        name: new.name.clone(),
        endpoint: new.endpoint,
        target_delivery_domain: new.target_delivery_domain.clone(),
        intent: if new.auto_start {
            BatchIntent::Started
        } else {
            BatchIntent::Created
        },
        auto_complete: new.auto_complete,
        complete_after: new.complete_after,
        start_after: new.start_after,
        skipped_approved_until: None,
        submitted_by: new.submitted_by.clone(),
        created: now,
        started: new.auto_start.then_some(now),
    };
    tx.batch_insert(&batch).await.map_err(|e| store_problem(&e))?;
    for address in &new.addresses {
        tx.move_insert(&user(new, batch.id, address, now))
            .await
            .map_err(|e| store_problem(&e))?;
    }
    if new.accept_unlocked {
        batch_accept_unlocked(tx, new.tenant, batch.id, now).await?;
    }
    Ok(batch)
}

/// A batch with its derived status.
///
/// # Errors
/// When the store fails.
pub async fn batch_view(tx: &mut Tx, batch: MigrationBatch, now: Timestamp) -> Result<BatchView, Problem> {
    let users = tx
        .move_list(batch.tenant, Some(batch.id))
        .await
        .map_err(|e| store_problem(&e))?;
    let counts = BatchCounts::of(users.iter().map(|u| u.status));
    let running = users.iter().any(|u| leased(u, now));
    let status = batch_status(&batch, &counts, running, now);
    let last_sync = users.iter().filter_map(|u| u.last_sync).max();
    let score = batch_score(&users);
    Ok(BatchView {
        batch,
        status,
        counts,
        last_sync,
        score,
    })
}

fn leased(user: &Move, now: Timestamp) -> bool {
    user.lease.as_ref().is_some_and(|l| l.expires > now)
}

async fn batch(tx: &mut Tx, tenant: TenantId, id: BatchId) -> Result<MigrationBatch, Problem> {
    tx.batch_get(tenant, id)
        .await
        .map_err(|e| store_problem(&e))?
        .ok_or_else(|| {
            Problem::new(
                ErrorId::ManagementObjectNotFound,
                format!("The migration batch {id} couldn't be found."),
                "Get-MigrationBatch lists them.",
            )
        })
}

async fn one(tx: &mut Tx, tenant: TenantId, id: MoveId) -> Result<Move, Problem> {
    tx.move_get(tenant, id)
        .await
        .map_err(|e| store_problem(&e))?
        .ok_or_else(|| {
            Problem::new(
                ErrorId::ManagementObjectNotFound,
                format!("The migration user {id} couldn't be found."),
                "Get-MigrationUser lists them.",
            )
        })
}

/// Changes a user: his requests always, his status only when no worker holds him.
async fn apply(
    tx: &mut Tx,
    mut user: Move,
    event: Option<UserEvent>,
    waiting_for: &str,
    now: Timestamp,
) -> Result<(), Problem> {
    user.next_run = now;
    tx.move_save_request(&user).await.map_err(|e| store_problem(&e))?;
    let Some(event) = event else { return Ok(()) };
    if leased(&user, now) {
        return Ok(());
    }
    let Ok(status) = user.status.next(event) else {
        return Ok(());
    };
    let changed = Move {
        status,
        waiting_for: waiting_for.to_owned(),
        problems: if event == UserEvent::Start && (status != user.status || user.status.runnable()) {
            vec![]
        } else {
            user.problems.clone()
        },
        failures: 0,
        ..user
    };
    tx.move_save_unleased(&changed, now)
        .await
        .map_err(|e| store_problem(&e))
}

/// Starts, resumes, or retries the failed users of a batch. Allowed at any time.
///
/// # Errors
/// When it is being removed, or the store fails.
pub async fn batch_start(tx: &mut Tx, tenant: TenantId, id: BatchId, now: Timestamp) -> Result<(), Problem> {
    let mut row = batch(tx, tenant, id).await?;
    if row.intent == BatchIntent::Removing {
        return Err(Problem::new(
            ErrorId::InvalidOperation,
            format!("The migration batch '{}' is being removed.", row.name),
            "",
        ));
    }
    row.intent = BatchIntent::Started;
    row.started = row.started.or(Some(now));
    tx.batch_update(&row).await.map_err(|e| store_problem(&e))?;
    for mut user in tx.move_list(tenant, Some(id)).await.map_err(|e| store_problem(&e))? {
        user.stop = false;
        apply(tx, user, Some(UserEvent::Start), "a worker", now).await?;
    }
    Ok(())
}

/// Stops a batch: users that are being copied stop at once, those in a cutover when it has its outcome.
///
/// # Errors
/// When no user is in progress or waiting.
pub async fn batch_stop(tx: &mut Tx, tenant: TenantId, id: BatchId, now: Timestamp) -> Result<(), Problem> {
    let mut row = batch(tx, tenant, id).await?;
    let users = tx.move_list(tenant, Some(id)).await.map_err(|e| store_problem(&e))?;
    if row.intent != BatchIntent::Started || !users.iter().any(|u| u.status.runnable()) {
        return Err(Problem::new(
            ErrorId::InvalidOperation,
            format!(
                "No user of the migration batch '{}' is in progress or waiting, so there is nothing to stop.",
                row.name
            ),
            "Get-MigrationBatch shows where it stands.",
        ));
    }
    row.intent = BatchIntent::Stopped;
    tx.batch_update(&row).await.map_err(|e| store_problem(&e))?;
    for mut user in users {
        user.stop = true;
        apply(tx, user, Some(UserEvent::Stop), "", now).await?;
    }
    Ok(())
}

/// Completes a batch from `at` on. Repeating is always safe.
///
/// # Errors
/// When it is not started.
pub async fn batch_complete(
    tx: &mut Tx,
    tenant: TenantId,
    id: BatchId,
    at: Timestamp,
    now: Timestamp,
) -> Result<(), Problem> {
    let mut row = batch(tx, tenant, id).await?;
    if row.intent != BatchIntent::Started {
        return Err(Problem::new(
            ErrorId::InvalidOperation,
            format!(
                "The migration batch '{}' is not started, so it cannot be completed.",
                row.name
            ),
            format!("Start-MigrationBatch '{}'", row.name),
        ));
    }
    row.complete_after = Some(
        row.complete_after
            .map_or(at, |earlier| if earlier <= now && at <= now { earlier } else { at }),
    );
    tx.batch_update(&row).await.map_err(|e| store_problem(&e))?;
    for user in tx.move_list(tenant, Some(id)).await.map_err(|e| store_problem(&e))? {
        apply(tx, user, None, "", now).await?;
    }
    Ok(())
}

/// Marks a batch for removal; workers remove hidden contents and rows.
///
/// # Errors
/// When a cutover of one of its users has no outcome yet.
pub async fn batch_remove(tx: &mut Tx, tenant: TenantId, id: BatchId, now: Timestamp) -> Result<(), Problem> {
    let mut row = batch(tx, tenant, id).await?;
    let users = tx.move_list(tenant, Some(id)).await.map_err(|e| store_problem(&e))?;
    if let Some(user) = users.iter().find(|u| u.status == UserStatus::Completing) {
        return Err(completing(&user.email_address));
    }
    row.intent = BatchIntent::Removing;
    tx.batch_update(&row).await.map_err(|e| store_problem(&e))?;
    for mut user in users {
        user.stop = true;
        apply(tx, user, Some(UserEvent::Remove), "", now).await?;
    }
    tx.batch_delete_emptied().await.map_err(|e| store_problem(&e))
}

fn completing(address: &str) -> Problem {
    Problem::new(
        ErrorId::InvalidOperation,
        format!("The cutover of {address} is running; it is finished or undone before anything else."),
        "Wait until Get-MigrationUser shows another status, then run the command again.",
    )
}

/// Asks for an incremental sync of all synced users now; failed ones are left alone.
///
/// # Errors
/// When the store fails.
pub async fn batch_sync_now(tx: &mut Tx, tenant: TenantId, id: BatchId, now: Timestamp) -> Result<(), Problem> {
    batch(tx, tenant, id).await?;
    for user in tx.move_list(tenant, Some(id)).await.map_err(|e| store_problem(&e))? {
        if matches!(user.status, UserStatus::Synced | UserStatus::IncrementalSyncing) {
            apply(tx, Move { sync_now: true, ..user }, None, "", now).await?;
        }
    }
    Ok(())
}

/// Approves everything skipped up to now in a batch.
///
/// # Errors
/// When the store fails.
pub async fn batch_approve_skipped(tx: &mut Tx, tenant: TenantId, id: BatchId, now: Timestamp) -> Result<(), Problem> {
    let mut row = batch(tx, tenant, id).await?;
    row.skipped_approved_until = Some(now);
    tx.batch_update(&row).await.map_err(|e| store_problem(&e))?;
    for user in tx.move_list(tenant, Some(id)).await.map_err(|e| store_problem(&e))? {
        apply(tx, user, None, "", now).await?;
    }
    Ok(())
}

/// Accepts for all users of a batch that nothing keeps their mailboxes quiet during the cutover.
///
/// # Errors
/// When the store fails.
pub async fn batch_accept_unlocked(tx: &mut Tx, tenant: TenantId, id: BatchId, now: Timestamp) -> Result<(), Problem> {
    tx.unlocked_accept_batch(tenant, id, now)
        .await
        .map_err(|e| store_problem(&e))?;
    for user in tx.move_list(tenant, Some(id)).await.map_err(|e| store_problem(&e))? {
        apply(tx, user, None, "", now).await?;
    }
    Ok(())
}

/// Accepts for one user that nothing keeps his mailbox quiet during the cutover.
///
/// # Errors
/// When the store fails.
pub async fn user_accept_unlocked(tx: &mut Tx, tenant: TenantId, id: MoveId, now: Timestamp) -> Result<(), Problem> {
    let user = one(tx, tenant, id).await?;
    tx.unlocked_accept_move(tenant, id, now)
        .await
        .map_err(|e| store_problem(&e))?;
    apply(tx, user, None, "", now).await
}

/// Starts, resumes or retries one user; a batch that was only made is started with him waiting for it.
///
/// # Errors
/// When the batch is not started.
pub async fn user_start(tx: &mut Tx, tenant: TenantId, id: MoveId, now: Timestamp) -> Result<(), Problem> {
    let mut user = one(tx, tenant, id).await?;
    let mut row = batch(tx, tenant, user.batch).await?;
    match row.intent {
        BatchIntent::Started => {}
        BatchIntent::Stopped => {
            row.intent = BatchIntent::Started;
            tx.batch_update(&row).await.map_err(|e| store_problem(&e))?;
        }
        BatchIntent::Created | BatchIntent::Removing => {
            return Err(Problem::new(
                ErrorId::InvalidOperation,
                format!("The migration batch '{}' is not started.", row.name),
                format!("Start-MigrationBatch '{}'", row.name),
            ));
        }
    }
    user.stop = false;
    apply(tx, user, Some(UserEvent::Start), "a worker", now).await
}

/// Stops one user.
///
/// # Errors
/// When the store fails.
pub async fn user_stop(tx: &mut Tx, tenant: TenantId, id: MoveId, now: Timestamp) -> Result<(), Problem> {
    let mut user = one(tx, tenant, id).await?;
    user.stop = true;
    apply(tx, user, Some(UserEvent::Stop), "", now).await
}

/// Removes one user with what was copied for him; a completed one only from the list.
///
/// # Errors
/// When his cutover has no outcome yet.
pub async fn user_remove(tx: &mut Tx, tenant: TenantId, id: MoveId, now: Timestamp) -> Result<(), Problem> {
    let mut user = one(tx, tenant, id).await?;
    if user.status == UserStatus::Completing {
        return Err(completing(&user.email_address));
    }
    if leased(&user, now) {
        return Err(Problem::new(
            ErrorId::InvalidOperation,
            format!("{} is being copied at this moment.", user.email_address),
            format!("Stop-MigrationUser {}, then remove him.", user.email_address),
        ));
    }
    user.stop = true;
    apply(tx, user, Some(UserEvent::Remove), "", now).await
}

/// Asks for an incremental sync of one user now.
///
/// # Errors
/// When he has not been synced yet.
pub async fn user_sync_now(tx: &mut Tx, tenant: TenantId, id: MoveId, now: Timestamp) -> Result<(), Problem> {
    let user = one(tx, tenant, id).await?;
    if !matches!(user.status, UserStatus::Synced | UserStatus::IncrementalSyncing) {
        return Err(Problem::new(
            ErrorId::InvalidOperation,
            format!(
                "{} is {}, so there is nothing to sync again.",
                user.email_address, user.status
            ),
            format!("Start-MigrationUser {}", user.email_address),
        ));
    }
    apply(tx, Move { sync_now: true, ..user }, None, "", now).await
}

/// Sets when one user is completed; it overrides the batch's value.
///
/// # Errors
/// When the store fails.
pub async fn user_complete_after(
    tx: &mut Tx,
    tenant: TenantId,
    id: MoveId,
    at: Timestamp,
    now: Timestamp,
) -> Result<(), Problem> {
    let user = one(tx, tenant, id).await?;
    apply(
        tx,
        Move {
            complete_after: Some(at),
            ..user
        },
        None,
        "",
        now,
    )
    .await
}

/// Approves everything skipped up to now for one user.
///
/// # Errors
/// When the store fails.
pub async fn user_approve_skipped(tx: &mut Tx, tenant: TenantId, id: MoveId, now: Timestamp) -> Result<(), Problem> {
    let user = one(tx, tenant, id).await?;
    apply(
        tx,
        Move {
            skipped_approved_until: Some(now),
            ..user
        },
        None,
        "",
        now,
    )
    .await
}

//! `--wait`: progress of a batch until it has got there.

use crate::{
    cmdlet::AdminSession,
    failure::Failure,
    output::{property, text},
    print,
    text::harmless,
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rehome_command::Parameters;
use rehome_domain::moves::UserStatus;
use serde_json::{Value as Json, json};
use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks in a row that may fail before it is given up.
const FAILED_LOOKS: u32 = 10;

/// What a command is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Contents are copied once.
    Synced,
    /// The mailboxes have moved.
    Completed,
}

/// How a user stands with regard to the goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Still on the way.
    Running,
    /// There.
    Done,
    /// Nothing more will happen by itself.
    Failed,
}

/// The goal of the cmdlets that take `--wait`.
pub(crate) fn goal_of(cmdlet: &str) -> Option<Goal> {
    match cmdlet {
        "New-MigrationBatch" | "Start-MigrationBatch" => Some(Goal::Synced),
        "Complete-MigrationBatch" => Some(Goal::Completed),
        _ => None,
    }
}

fn standing(status: &str, goal: Goal) -> Standing {
    // A status that this program does not know belongs to a newer server; it will change.
    let Some(status) = UserStatus::ALL.iter().find(|known| known.as_str() == status) else {
        return Standing::Running;
    };
    match status {
        UserStatus::Completed | UserStatus::CompletedWithWarnings => Standing::Done,
        UserStatus::Synced if goal == Goal::Synced => Standing::Done,
        UserStatus::Failed
        | UserStatus::IncrementalFailed
        | UserStatus::CompletionFailed
        | UserStatus::Stopped
        | UserStatus::IncrementalStopped
        | UserStatus::Removing => Standing::Failed,
        UserStatus::Starting
        | UserStatus::Validating
        | UserStatus::Queued
        | UserStatus::Syncing
        | UserStatus::Synced
        | UserStatus::IncrementalSyncing
        | UserStatus::Completing => Standing::Running,
    }
}

/// Follows the batch's users until each is there or has failed.
///
/// # Errors
/// When a user failed, or the server could not be asked for some time.
pub(crate) async fn wait(
    session: &AdminSession,
    goal: Goal,
    parameters: &Parameters,
    made: &[Json],
) -> Result<(), Failure> {
    let batch = made
        .first()
        .and_then(|batch| property(batch, "Identity").map(text))
        .or_else(|| parameters.text("Identity").map(str::to_owned))
        .or_else(|| parameters.text("Name").map(str::to_owned))
        .ok_or_else(|| Failure::failed("the batch to wait for cannot be told"))?;
    let mut shown = Shown::new();
    let mut failed_looks = 0;
    loop {
        let look = session.invoke("Get-MigrationUser", json!({ "BatchId": batch })).await;
        let users = match look {
            Ok(invoked) => invoked.value,
            Err(failure) if failed_looks >= FAILED_LOOKS => return Err(failure),
            Err(_) => {
                failed_looks += 1;
                tokio::time::sleep(EVERY).await;
                continue;
            }
        };
        failed_looks = 0;
        let mut standings = Vec::new();
        for user in &users {
            let seen = Seen::of(session, user).await;
            standings.push((standing(&seen.status, goal), seen.clone()));
            shown.show(seen);
        }
        if standings.iter().all(|(standing, _)| *standing != Standing::Running) {
            return finish(&standings);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn finish(standings: &[(Standing, Seen)]) -> Result<(), Failure> {
    let failed: Vec<String> = standings
        .iter()
        .filter(|(standing, _)| *standing == Standing::Failed)
        .map(|(_, seen)| format!("{} is {}: {}", seen.identity, seen.status, seen.error))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(failed.join("\n")).advice("Mend what is told, then: rehome Start-MigrationUser NAME"))
}

/// A user at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    identity: String,
    status: String,
    percent: u64,
    items: String,
    error: String,
}

impl Seen {
    /// From the user's row, with figures from his statistics while he is moving.
    async fn of(session: &AdminSession, user: &Json) -> Self {
        let field = |name| property(user, name).map(text).unwrap_or_default();
        let mut seen = Self {
            identity: field("Identity"),
            status: field("Status"),
            percent: 0,
            items: field("SyncedItemCount"),
            error: field("ErrorSummary"),
        };
        let statistics = session
            .invoke("Get-MigrationUserStatistics", json!({ "Identity": seen.identity }))
            .await;
        // Figures are an extra; the status decides.
        if let Ok(statistics) = statistics
            && let Some(object) = statistics.value.first()
        {
            seen.percent = property(object, "PercentageComplete")
                .and_then(Json::as_u64)
                .unwrap_or(0)
                .min(100);
            seen.items = property(object, "SyncedItemCount").map(text).unwrap_or(seen.items);
        }
        seen
    }

    fn line(&self) -> String {
        let items = if self.items.is_empty() {
            String::new()
        } else {
            format!(", {} items", self.items)
        };
        let error = if self.error.is_empty() {
            String::new()
        } else {
            format!(": {}", self.error)
        };
        format!("{}{items}{error}", harmless(&self.status))
    }
}

/// Bars on a terminal; elsewhere a line for each change.
enum Shown {
    Bars(MultiProgress, BTreeMap<String, ProgressBar>),
    Lines(BTreeMap<String, String>),
}

impl Shown {
    fn new() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Bars(
                MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
                BTreeMap::new(),
            )
        } else {
            Self::Lines(BTreeMap::new())
        }
    }

    fn show(&mut self, seen: Seen) {
        match self {
            Self::Bars(all, bars) => {
                let bar = bars.entry(seen.identity.clone()).or_insert_with(|| {
                    let bar = all.add(ProgressBar::new(100));
                    if let Ok(style) = ProgressStyle::with_template("{prefix:32!} [{bar:20}] {percent:>3} %  {msg}") {
                        bar.set_style(style);
                    }
                    bar.set_prefix(seen.identity.clone());
                    bar
                });
                bar.set_position(seen.percent);
                bar.set_message(seen.line());
            }
            Self::Lines(last) => {
                if last.get(&seen.identity) != Some(&seen.status) {
                    print::say(&format!("{}: {}\n", seen.identity, seen.line()));
                    last.insert(seen.identity, seen.status);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_got_there() {
        for (status, synced, completed) in [
            ("Queued", Standing::Running, Standing::Running),
            ("Syncing", Standing::Running, Standing::Running),
            ("Synced", Standing::Done, Standing::Running),
            ("Completing", Standing::Running, Standing::Running),
            ("Completed", Standing::Done, Standing::Done),
            ("Failed", Standing::Failed, Standing::Failed),
            ("CompletionFailed", Standing::Failed, Standing::Failed),
            ("Stopped", Standing::Failed, Standing::Failed),
        ] {
            assert_eq!(standing(status, Goal::Synced), synced, "{status}");
            assert_eq!(standing(status, Goal::Completed), completed, "{status}");
        }
    }
}

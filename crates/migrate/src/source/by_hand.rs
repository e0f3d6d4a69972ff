//! By hand: the source's administrator ends a promise whose outcome does not come by itself.

use super::{
    ProxyError, Source, VerbContext,
    cutover::store_state,
    keeper::{asker_of, own_context},
};
use jiff::Timestamp;
use rehome_domain::{
    consent::ServicePrincipal,
    cutover::{Ground, Outcome, Resolution, SourceEvent, SourcePhase},
    error_id::{ErrorId, Problem},
    id::{ExchangeGuid, TenantId},
    recipient::{MailboxState, Recipient},
};
use rehome_identity::statement::{ExpectedOutcome, OutcomeStatement, StatedOutcome};
use rehome_store::{SourceAttemptRow, StoreError, Tx};

/// A prepared attempt, and what its target said when it was asked just now.
pub struct Promised {
    row: SourceAttemptRow,
    partner: Option<ServicePrincipal>,
    asked: Result<Outcome, String>,
}

/// What an administrator brings when he ends a promise.
#[derive(Clone, Copy, Debug)]
pub struct ByHand<'a> {
    /// The end that he names.
    pub wanted: Resolution,
    /// The target's signed statement.
    pub statement: Option<&'a str>,
    /// Whether he ends it without the target's word.
    pub force: bool,
    /// What he typed to say that he has read what that means.
    pub confirmed: Option<&'a str>,
}

/// What says that a promise may end so, or why it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// The target's answer is another one; nothing goes against it.
    Answered(Outcome),
    /// Its signed statement is another one.
    Stated(StatedOutcome),
    /// The statement says that nothing is decided yet.
    NothingStated,
    /// Neither an answer nor a statement.
    NothingKnown,
    /// Committed cannot be forced.
    NotByForce,
}

/// Decides how an administrator may know the outcome that he names. The target's answer goes before its statement, and
/// both before force.
fn ground(
    wanted: Resolution,
    asked: Option<Outcome>,
    stated: Option<StatedOutcome>,
    force: bool,
) -> Result<Ground, Refused> {
    match (asked, wanted) {
        (Some(Outcome::Decided), Resolution::Committed) | (Some(Outcome::Aborted), Resolution::Aborted) => {
            return Ok(Ground::Asked);
        }
        (Some(other @ (Outcome::Decided | Outcome::Aborted)), Resolution::Committed | Resolution::Aborted) => {
            return Err(Refused::Answered(other));
        }
        (Some(Outcome::Undecided) | None, Resolution::Committed | Resolution::Aborted) => {}
    }
    match (stated, wanted) {
        (Some(StatedOutcome::Decided), Resolution::Committed) | (Some(StatedOutcome::Aborted), Resolution::Aborted) => {
            Ok(Ground::Stated)
        }
        (
            Some(other @ (StatedOutcome::Decided | StatedOutcome::Aborted)),
            Resolution::Committed | Resolution::Aborted,
        ) => Err(Refused::Stated(other)),
        (Some(StatedOutcome::Undecided) | None, Resolution::Aborted) if force => Ok(Ground::Forced),
        (Some(StatedOutcome::Undecided) | None, Resolution::Committed) if force => Err(Refused::NotByForce),
        (Some(StatedOutcome::Undecided), Resolution::Committed | Resolution::Aborted) => Err(Refused::NothingStated),
        (None, Resolution::Committed | Resolution::Aborted) => Err(Refused::NothingKnown),
    }
}

fn past(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Decided => "decided: the mailbox is there, and Committed is the outcome",
        Outcome::Aborted => "aborted: the mailbox stays here, and Aborted is the outcome",
        Outcome::Undecided => "not decided yet",
    }
}

fn stated(outcome: StatedOutcome) -> Outcome {
    match outcome {
        StatedOutcome::Decided => Outcome::Decided,
        StatedOutcome::Aborted => Outcome::Aborted,
        StatedOutcome::Undecided => Outcome::Undecided,
    }
}

fn store_problem(error: &StoreError) -> Problem {
    let text = format!("The state could not be read or written: {}.", crate::error_chain(error));
    Problem::new(ErrorId::Unexpected, text, "The server's log says more.")
}

impl Promised {
    /// Whose attempt it is, as consented to.
    fn partner_name(&self) -> String {
        match &self.partner {
            Some(partner) => format!("'{}'", partner.display_name),
            None => format!("the service principal {}", self.row.attempt.service_principal),
        }
    }

    /// Why, or how, an administrator may end it so.
    ///
    /// # Errors
    /// A [`Problem`]: the target says otherwise, the statement is none of this attempt, or nothing supports what he names.
    pub fn ground(&self, by_hand: &ByHand<'_>, mailbox: &Recipient, now: Timestamp) -> Result<Ground, Problem> {
        let statement = by_hand.statement.map(|text| self.read(text, now)).transpose()?;
        let ground = ground(
            by_hand.wanted,
            self.asked.as_ref().ok().copied(),
            statement,
            by_hand.force,
        )
        .map_err(|refused| self.refusal(refused))?;
        match ground {
            Ground::Asked | Ground::Stated => Ok(ground),
            Ground::Forced => self.confirmed(by_hand.confirmed, mailbox).map(|()| ground),
        }
    }

    /// The outcome that a statement of this attempt's target states.
    fn read(&self, text: &str, now: Timestamp) -> Result<StatedOutcome, Problem> {
        let invalid = |message: String, advice: &str| Problem::new(ErrorId::OutcomeStatementInvalid, message, advice);
        let partner = self.partner.as_ref().ok_or_else(|| {
            invalid(
                format!(
                    "No statement can be checked: {} is not here any more, and its keys with it.",
                    self.partner_name()
                ),
                "Consent to the partner's application again, or use -Force.",
            )
        })?;
        let statement =
            OutcomeStatement::verify(text.trim(), &partner.pinned_keys, &partner.issuer, now).map_err(|error| {
                Problem::new(
                    error.error_id(),
                    format!(
                        "The statement is not one of {}: {}.",
                        self.partner_name(),
                        crate::error_chain(&error)
                    ),
                    "Ask the target's administrator for the output of Export-MigrationOutcome, unchanged.",
                )
            })?;
        let expected = ExpectedOutcome {
            attempt: self.row.attempt.id,
            move_id: self.row.attempt.move_id,
            exchange_guid: self.row.exchange_guid,
            target_tenant: partner.home_tenant,
            source_tenant: self.row.tenant,
        };
        statement.differs_from(&expected).map_or(Ok(statement.outcome), |what| {
            Err(invalid(
                format!("The statement is about another {what} than this one's."),
                "Get-OutboundMigration shows the attempt and the move; the target's administrator exports the statement of that attempt.",
            ))
        })
    }

    /// Force is taken only from someone who has typed which mailbox he does it to.
    fn confirmed(&self, typed: Option<&str>, mailbox: &Recipient) -> Result<(), Problem> {
        let address = mailbox
            .primary_smtp_address()
            .map(ToString::to_string)
            .unwrap_or_default();
        if !address.is_empty() && typed.is_some_and(|typed| typed.trim().eq_ignore_ascii_case(&address)) {
            return Ok(());
        }
        Err(Problem::new(
            ErrorId::InvalidOperation,
            format!(
                "-Force opens '{}' again without the target's word. If the target has decided, there are two mailboxes from now on: mail for the addresses here comes to this one and mail for the addresses there to the other, until the target is reached and catches up; \
                 mail that came here meanwhile is in the other only then, and what is deleted or changed here meanwhile is not carried over.",
                mailbox.name
            ),
            format!("To say that you want this, give -ConfirmMailbox {address}"),
        ))
    }

    fn refusal(&self, refused: Refused) -> Problem {
        let silent = match &self.asked {
            Ok(outcome) => format!(
                "The target was asked just now and answers that the attempt is {}",
                past(*outcome)
            ),
            Err(why) => format!("The target could not be asked: {why}"),
        };
        let ask_them = "Ask the target's administrator to resume the migration user (Start-MigrationUser) or for a statement (Export-MigrationOutcome).";
        let message = match refused {
            Refused::Answered(outcome) => {
                return Problem::new(
                    ErrorId::InvalidOperation,
                    format!(
                        "The target was asked just now and answers that the attempt is {}. Its answer stands.",
                        past(outcome)
                    ),
                    "Wait a few seconds: the source carries out that outcome by itself. Else give the outcome that the target names.",
                );
            }
            Refused::Stated(outcome) => {
                return Problem::new(
                    ErrorId::InvalidOperation,
                    format!(
                        "The target states that the attempt is {}. Its statement stands.",
                        past(stated(outcome))
                    ),
                    "Give the outcome that the statement names.",
                );
            }
            Refused::NothingStated => format!("{silent}. Its statement says that nothing is decided yet."),
            Refused::NothingKnown => format!("{silent}. There is no statement of the target either."),
            Refused::NotByForce => {
                format!(
                    "{silent}. Committed cannot be forced: if the target has not decided, nobody would take the mailbox's mail."
                )
            }
        };
        Problem::new(ErrorId::InvalidOperation, message, ask_them)
    }
}

impl Source {
    /// The attempt on a mailbox that waits for its outcome, with what the target's outcome address says of it now.
    ///
    /// # Errors
    /// A [`Problem`] when no attempt of the mailbox waits, or the state cannot be read.
    pub async fn promised(
        &self,
        tenant: TenantId,
        mailbox: &Recipient,
        guid: ExchangeGuid,
    ) -> Result<Promised, Problem> {
        let read = async {
            let mut tx = self.inner.store.read().await?;
            let Some(row) = tx.source_attempt_newest(tenant, guid).await? else {
                return Ok(None);
            };
            let partner = tx.service_principal_get(tenant, row.attempt.service_principal).await?;
            Ok::<_, StoreError>(Some((row, partner)))
        };
        let found = read.await.map_err(|e| store_problem(&e))?;
        let Some((row, partner)) = found.filter(|(row, _)| row.attempt.phase == SourcePhase::Prepared) else {
            return Err(nothing_waits(&mailbox.name));
        };
        let asked = self.ask_target(&row).await;
        Ok(Promised { row, partner, asked })
    }

    /// Ends the promise within a change that is being made, as [`Promised::ground`] allowed.
    ///
    /// # Errors
    /// A [`Problem`] when it has ended meanwhile, or the state cannot be written; nothing is changed then.
    pub async fn resolve(
        &self,
        tx: &mut Tx,
        promised: &Promised,
        wanted: Resolution,
        ground: Ground,
    ) -> Result<serde_json::Value, Problem> {
        let now = self.inner.clock.now();
        let seen = &promised.row;
        let newest = tx
            .source_attempt_newest(seen.tenant, seen.exchange_guid)
            .await
            .map_err(|e| store_problem(&e))?;
        let event = SourceEvent::Resolve {
            resolution: wanted,
            ground,
        };
        let name = seen.exchange_guid.to_string();
        let attempt = self
            .next_state(newest.as_ref(), &asker_of(seen), event, now)
            .map_err(|_| nothing_waits(&name))?;
        let mut row = newest
            .filter(|row| row.attempt.phase == SourcePhase::Prepared)
            .ok_or_else(|| nothing_waits(&name))?;
        match wanted {
            Resolution::Committed => {
                let ctx = VerbContext {
                    origin: "by hand".into(),
                    ..own_context(&row)
                };
                self.commit_in(tx, row, attempt, &ctx, now).await.map_err(as_problem)?;
            }
            Resolution::Aborted => {
                row.attempt = attempt;
                row.ended_at = Some(now);
                store_state(tx, &row, Some(MailboxState::Open), now)
                    .await
                    .map_err(|e| store_problem(&e))?;
            }
        }
        if ground == Ground::Forced {
            tracing::warn!(mailbox = %seen.exchange_guid, attempt = %seen.attempt.id, "a prepared mailbox was opened by hand without the target's word; if the target has decided, it catches up when it is back");
        }
        Ok(serde_json::json!({
            "attempt": seen.attempt.id.to_string(),
            "ground": match ground {
                Ground::Asked => "asked",
                Ground::Stated => "stated",
                Ground::Forced => "forced",
            },
        }))
    }
}

fn as_problem(error: ProxyError) -> Problem {
    Problem::new(error.id, error.message, "")
}

fn nothing_waits(name: &str) -> Problem {
    Problem::new(
        ErrorId::InvalidOperation,
        format!("No attempt of '{name}' waits for its outcome, so there is nothing to resolve."),
        "Get-OutboundMigration shows where it stands.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_end_by_hand_stands_on() {
        use Resolution::{Aborted, Committed};
        use StatedOutcome as S;
        let answers = [None, Some(Outcome::Undecided)];
        for asked in answers {
            for (wanted, stated, force, expected) in [
                (Committed, None, false, Err(Refused::NothingKnown)),
                (Aborted, None, false, Err(Refused::NothingKnown)),
                (Aborted, None, true, Ok(Ground::Forced)),
                (Committed, None, true, Err(Refused::NotByForce)),
                (Committed, Some(S::Decided), false, Ok(Ground::Stated)),
                (Aborted, Some(S::Aborted), false, Ok(Ground::Stated)),
                // A signed word is stronger than force.
                (Aborted, Some(S::Decided), true, Err(Refused::Stated(S::Decided))),
                (Committed, Some(S::Aborted), true, Err(Refused::Stated(S::Aborted))),
                (Aborted, Some(S::Undecided), false, Err(Refused::NothingStated)),
                (Committed, Some(S::Undecided), false, Err(Refused::NothingStated)),
                (Aborted, Some(S::Undecided), true, Ok(Ground::Forced)),
                (Committed, Some(S::Undecided), true, Err(Refused::NotByForce)),
            ] {
                assert_eq!(
                    ground(wanted, asked, stated, force),
                    expected,
                    "{asked:?} {wanted:?} {stated:?} {force}"
                );
            }
        }
        // An answer is stronger than everything.
        for force in [false, true] {
            for stated in [None, Some(S::Decided), Some(S::Aborted), Some(S::Undecided)] {
                for (outcome, wanted, other) in [
                    (Outcome::Decided, Committed, Aborted),
                    (Outcome::Aborted, Aborted, Committed),
                ] {
                    assert_eq!(ground(wanted, Some(outcome), stated, force), Ok(Ground::Asked));
                    assert_eq!(
                        ground(other, Some(outcome), stated, force),
                        Err(Refused::Answered(outcome))
                    );
                }
            }
        }
    }
}

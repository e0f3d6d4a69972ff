//! The gate: one pure function answers every request of a partner's mover.
//!
//! Its specification is the table verb × mailbox state × what has been withdrawn; the tests walk that table.

use crate::{
    consent::{ROLE_MAILBOX_MIGRATION, ROLE_MAILBOX_RETURN, ServicePrincipal},
    cutover::{SourceAttempt, SourcePhase},
    error_id::ErrorId,
    id::{ApplicationId, AttemptId, ExchangeGuid, MoveId, ServicePrincipalId, TenantId},
    relationship::OrganizationRelationship,
};
use jiff::Timestamp;

/// What a partner's mover asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Facts and folder lists.
    Open,
    /// Listings and contents.
    Read,
    /// Lock for a cutover, and renew that lock.
    Lock,
    /// Promise to wait for the outcome.
    Prepare,
    /// Turn the mailbox into a mail user.
    Commit,
    /// Undo the attempt.
    Abort,
    /// Where the attempt stands.
    Status,
    /// List and read what came after Prepare's root.
    Sweep,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::Read,
        Self::Lock,
        Self::Prepare,
        Self::Commit,
        Self::Abort,
        Self::Status,
        Self::Sweep,
    ];
}

/// Who asks, as the access token says; the token itself was checked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `oid`.
    pub service_principal: ServicePrincipalId,
    /// `azp`.
    pub app_id: ApplicationId,
    /// `home_iss`.
    pub home_issuer: String,
    /// `home_tid`.
    pub home_tenant: TenantId,
    /// `roles`.
    pub roles: Vec<String>,
}

/// What the source knows of the mailbox asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxFacts {
    /// Its identity.
    pub exchange_guid: ExchangeGuid,
    /// Direct member of a published scope, member through a nested group only, or neither.
    pub membership: Membership,
    /// Any hold.
    pub on_hold: bool,
    /// Where its cutover stands.
    pub cutover: CutoverFacts,
    /// The move that has it open, if any that is not ended, and whose it is.
    pub open_move: Option<MoveId>,
    /// How it came here, if a partner's mailbox was moved here and may be taken back.
    pub return_record: Option<ReturnRecord>,
}

/// The newest commit between the two organisations by which a mailbox came here: in a return it stands in place of
/// relationship and scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnRecord {
    /// The old source, as it may come back.
    pub service_principal: ServicePrincipalId,
    /// Until when its old content is kept, and with it the right.
    pub retention_until: Timestamp,
    /// Whether this organisation has approved the return, for this mailbox or for the partner as a whole.
    pub approved: bool,
}

/// How a mailbox belongs to the published scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// A direct member of one.
    Direct,
    /// Only a member of a group that is a member of one.
    NestedOnly,
    /// None.
    None,
}

/// Where a mailbox's cutover stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutoverFacts {
    /// No attempt holds it.
    Open,
    /// Locked by an attempt.
    Locked(Holder),
    /// Prepared by an attempt.
    Prepared(Holder),
    /// Opened again by hand although an attempt was prepared: as open, but that the attempt's end is answered.
    Reopened(Holder),
    /// Moved by an attempt; its old content is kept until `retention_until`.
    Moved {
        /// By whom.
        holder: Holder,
        /// When sweeps end.
        retention_until: Timestamp,
    },
}

impl CutoverFacts {
    /// Told from the newest attempt on the mailbox, and whether the recipient that has the ExchangeGuid is a mailbox now.
    #[must_use]
    pub fn of(newest: Option<&SourceAttempt>, retention_until: Option<Timestamp>, is_mailbox: bool) -> Self {
        let Some(newest) = newest else { return Self::Open };
        let holder = Holder {
            attempt: newest.id,
            move_id: newest.move_id,
            service_principal: newest.service_principal,
        };
        match newest.phase {
            SourcePhase::Locked => Self::Locked(holder),
            SourcePhase::Prepared => Self::Prepared(holder),
            SourcePhase::Reopened => Self::Reopened(holder),
            SourcePhase::Committed | SourcePhase::Released if !is_mailbox => Self::Moved {
                holder,
                retention_until: retention_until.unwrap_or(Timestamp::MIN),
            },
            // A catch-up that has ended: the reopened attempt still has to be told so.
            SourcePhase::Aborted | SourcePhase::Lapsed if newest.catches_up.is_some() => Self::Reopened(Holder {
                attempt: newest.catches_up.unwrap_or(newest.id),
                ..holder
            }),
            // A mailbox again: it came back, or the lock was undone.
            SourcePhase::Committed
            | SourcePhase::Released
            | SourcePhase::Returned
            | SourcePhase::Aborted
            | SourcePhase::Lapsed => Self::Open,
        }
    }
}

/// Which attempt of which move of which partner holds a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The attempt.
    pub attempt: AttemptId,
    /// The move.
    pub move_id: MoveId,
    /// The partner.
    pub service_principal: ServicePrincipalId,
}

/// One request with all that is needed to answer it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// For what.
    pub verb: Verb,
    /// The service principal of the token's `oid`, if it is still there.
    pub principal: Option<&'a ServicePrincipal>,
    /// The relationship bound to that service principal.
    pub relationship: Option<&'a OrganizationRelationship>,
    /// The mailbox of the ExchangeGuid asked for.
    pub mailbox: Option<&'a MailboxFacts>,
    /// The move named in the request.
    pub move_id: MoveId,
    /// The attempt named in the request.
    pub attempt: Option<AttemptId>,
    /// The source's clock.
    pub now: Timestamp,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the partner gets.
    pub id: ErrorId,
    /// The text that the partner gets; the same for all causes that he must not tell apart.
    pub partner_text: &'static str,
    /// The exact reason, for the source's own log.
    pub reason: String,
}

const TEXT_PRINCIPAL: &str = "The application is not consented to in this organisation (AADSTS700016).";
const TEXT_ROLE: &str = "The access token does not hold the role that this request needs.";
const TEXT_TENANT: &str = "The source organisation does not authorise your organisation for mailbox moves.";
const TEXT_DISABLED: &str = "The source's organization relationship, or its mailbox moves, are switched off.";
const TEXT_CAPABILITY: &str = "The source's organization relationship does not have the capability RemoteOutbound.";
const TEXT_SCOPES: &str = "The source's organization relationship publishes no group in MailboxMovePublishedScopes.";
const TEXT_SCOPE: &str = "The mailbox is not in the scope that the source has published. It must exist there with this ExchangeGuid and be a direct member of a published group; members of nested groups do not count.";
const TEXT_HOLD: &str = "A hold keeps the mailbox in the source organisation.";
const TEXT_OTHER_MOVE: &str = "Another move has the mailbox.";
const TEXT_STALE: &str = "The request belongs to an attempt that does not hold the mailbox.";
const TEXT_RETENTION: &str = "The time for which the source keeps the old content has ended.";
const TEXT_NO_RETURN: &str = "No commit between the two organisations gives the right to take this mailbox back.";
const TEXT_RETURN_ENDED: &str = "The time in which the mailbox may be taken back has ended.";
const TEXT_NOT_APPROVED: &str = "The organisation that has the mailbox now has not approved its return yet.";

fn refuse<T>(id: ErrorId, partner_text: &'static str, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        id,
        partner_text,
        reason: reason.into(),
    })
}

/// Decides one request. `Ok` means allowed.
///
/// # Errors
/// A [`Refusal`] with the id that the partner gets and the exact reason for the source's log.
pub fn gate(request: &Request<'_>) -> Result<(), Refusal> {
    match request.verb {
        Verb::Commit | Verb::Abort | Verb::Status => outcome_verb(request),
        Verb::Sweep => {
            match consent(request)? {
                // Its own attempt, which `sweep` asks for, is all that a return stands on.
                Right::Return => {}
                Right::Migration => {
                    relationship(request)?;
                }
            }
            sweep(request)
        }
        Verb::Open | Verb::Read | Verb::Lock | Verb::Prepare => {
            let mailbox = may_have(request, consent(request)?)?;
            permitting(request, mailbox)
        }
    }
}

/// By which right a caller asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// The role Mailbox.Migration: by relationship and scope.
    Migration,
    /// The role Mailbox.Return: by the commit record.
    Return,
}

/// The mailbox, where the caller's right reaches it.
fn may_have<'a>(request: &Request<'a>, right: Right) -> Result<&'a MailboxFacts, Refusal> {
    match right {
        Right::Migration => {
            let relationship = relationship(request)?;
            scope(request, relationship)
        }
        Right::Return => returning(request),
    }
}

/// A return: the newest commit of this mailbox must be one between the two, not ended, and approved here.
fn returning<'a>(request: &Request<'a>) -> Result<&'a MailboxFacts, Refusal> {
    let none = |reason: &str| refuse(ErrorId::ReturnRightMissing, TEXT_NO_RETURN, reason);
    let Some(mailbox) = request.mailbox else {
        return none("no mailbox has this ExchangeGuid");
    };
    let Some(record) = mailbox.return_record else {
        return none("no recorded commit brought this mailbox here");
    };
    if record.service_principal != request.caller.service_principal {
        return none("the mailbox came here from another organisation");
    }
    if request.now >= record.retention_until {
        return refuse(
            ErrorId::ReturnPeriodEnded,
            TEXT_RETURN_ENDED,
            format!("the right to take it back ended at {}", record.retention_until),
        );
    }
    if record.approved {
        Ok(mailbox)
    } else {
        refuse(
            ErrorId::ReturnNotApproved,
            TEXT_NOT_APPROVED,
            "Undo-MigrationUser was not run here, and no relationship with MailboxReturnWithoutApproval names the partner",
        )
    }
}

fn consent(request: &Request<'_>) -> Result<Right, Refusal> {
    let Some(principal) = request.principal else {
        return refuse(
            ErrorId::ApplicationNotConsented,
            TEXT_PRINCIPAL,
            "the service principal of the token does not exist",
        );
    };
    if let Some(at) = principal.revoked_at {
        return refuse(
            ErrorId::ApplicationNotConsented,
            TEXT_PRINCIPAL,
            format!("consent was revoked at {at}"),
        );
    }
    if request.now >= principal.expires_at {
        return refuse(
            ErrorId::ApplicationNotConsented,
            TEXT_PRINCIPAL,
            format!("consent ended at {}", principal.expires_at),
        );
    }
    let caller = request.caller;
    if caller.app_id != principal.app_id
        || caller.home_tenant != principal.home_tenant
        || caller.home_issuer != principal.issuer
    {
        return refuse(
            ErrorId::ApplicationNotConsented,
            TEXT_PRINCIPAL,
            "the token's application, home tenant or issuer is not that of the service principal",
        );
    }
    let held = |role: &str| {
        [&caller.roles, &principal.roles]
            .iter()
            .all(|roles| roles.iter().any(|r| r == role))
    };
    if held(ROLE_MAILBOX_MIGRATION) {
        Ok(Right::Migration)
    } else if held(ROLE_MAILBOX_RETURN) {
        Ok(Right::Return)
    } else {
        refuse(
            ErrorId::InvalidAccessToken,
            TEXT_ROLE,
            "neither Mailbox.Migration nor Mailbox.Return is held by token and service principal",
        )
    }
}

fn relationship<'a>(request: &Request<'a>) -> Result<&'a OrganizationRelationship, Refusal> {
    let caller = request.caller;
    let Some(relationship) = request
        .relationship
        .filter(|r| r.service_principal == Some(caller.service_principal))
    else {
        return refuse(
            ErrorId::SourceTenantNotAuthorized,
            TEXT_TENANT,
            "no organization relationship is bound to this service principal",
        );
    };
    if !relationship.names_tenant(caller.home_tenant) {
        return refuse(
            ErrorId::SourceTenantNotAuthorized,
            TEXT_TENANT,
            format!(
                "DomainNames of '{}' does not hold the application's home tenant {}",
                relationship.name, caller.home_tenant
            ),
        );
    }
    if !relationship.enabled {
        return refuse(
            ErrorId::OrganizationRelationshipDisabled,
            TEXT_DISABLED,
            format!("'{}' has Enabled false", relationship.name),
        );
    }
    if !relationship.mailbox_move_enabled {
        return refuse(
            ErrorId::OrganizationRelationshipDisabled,
            TEXT_DISABLED,
            format!("'{}' has MailboxMoveEnabled false", relationship.name),
        );
    }
    if !relationship.mailbox_move_capability.remote_outbound {
        return refuse(
            ErrorId::MailboxMoveCapability,
            TEXT_CAPABILITY,
            format!(
                "'{}' has MailboxMoveCapability {}",
                relationship.name, relationship.mailbox_move_capability
            ),
        );
    }
    if relationship.mailbox_move_published_scopes.is_empty() {
        return refuse(
            ErrorId::MailboxMovePublishedScopesMissing,
            TEXT_SCOPES,
            format!("'{}' has no MailboxMovePublishedScopes", relationship.name),
        );
    }
    Ok(relationship)
}

fn scope<'a>(request: &Request<'a>, relationship: &OrganizationRelationship) -> Result<&'a MailboxFacts, Refusal> {
    let out = |reason: String| refuse(ErrorId::MailboxNotInCrossTenantMigrationScope, TEXT_SCOPE, reason);
    let Some(mailbox) = request.mailbox else {
        return out("no mailbox has this ExchangeGuid".into());
    };
    match mailbox.membership {
        Membership::Direct => Ok(mailbox),
        Membership::NestedOnly => out(format!(
            "the mailbox is in a published scope of '{}' only through a nested group",
            relationship.name
        )),
        Membership::None => out(format!(
            "the mailbox is in no published scope of '{}'",
            relationship.name
        )),
    }
}

fn permitting(request: &Request<'_>, mailbox: &MailboxFacts) -> Result<(), Refusal> {
    if mailbox.on_hold {
        return refuse(ErrorId::MailboxOnHold, TEXT_HOLD, "LitigationHoldEnabled is true");
    }
    if let Some(other) = mailbox.open_move.filter(|m| *m != request.move_id) {
        return refuse(
            ErrorId::SourceMailboxAlreadyBeingMovedPermanent,
            TEXT_OTHER_MOVE,
            format!("move {other} has it open"),
        );
    }
    let own = |h: Holder| h.service_principal == request.caller.service_principal && h.move_id == request.move_id;
    match (mailbox.cutover, request.verb) {
        (CutoverFacts::Moved { .. }, _) => refuse(
            ErrorId::SourceMailboxAlreadyBeingMovedPermanent,
            TEXT_OTHER_MOVE,
            "the mailbox has moved",
        ),
        (CutoverFacts::Locked(h) | CutoverFacts::Prepared(h), _) if !own(h) => refuse(
            ErrorId::SourceMailboxAlreadyBeingMovedPermanent,
            TEXT_OTHER_MOVE,
            format!("attempt {} of move {} holds it", h.attempt, h.move_id),
        ),
        (CutoverFacts::Locked(h) | CutoverFacts::Prepared(h), Verb::Prepare) if request.attempt != Some(h.attempt) => {
            refuse(
                ErrorId::StaleAttempt,
                TEXT_STALE,
                format!("attempt {} holds it", h.attempt),
            )
        }
        (CutoverFacts::Prepared(h), Verb::Lock) if request.attempt != Some(h.attempt) => refuse(
            ErrorId::StaleAttempt,
            TEXT_STALE,
            format!("attempt {} is prepared", h.attempt),
        ),
        (CutoverFacts::Open | CutoverFacts::Locked(_) | CutoverFacts::Prepared(_) | CutoverFacts::Reopened(_), _) => {
            Ok(())
        }
    }
}

/// Whether the request is of the attempt that holds the mailbox, of its move and of its partner.
fn is_holder(request: &Request<'_>, holder: Holder) -> bool {
    holder.service_principal == request.caller.service_principal
        && holder.move_id == request.move_id
        && request.attempt == Some(holder.attempt)
}

/// Commit, Abort and Status need only the same service principal and the attempt, whatever has been withdrawn since.
fn outcome_verb(request: &Request<'_>) -> Result<(), Refusal> {
    let holder = request.mailbox.and_then(|m| match m.cutover {
        CutoverFacts::Open => None,
        CutoverFacts::Locked(h)
        | CutoverFacts::Prepared(h)
        | CutoverFacts::Reopened(h)
        | CutoverFacts::Moved { holder: h, .. } => Some(h),
    });
    match holder {
        Some(h) if is_holder(request, h) => Ok(()),
        Some(h) if h.service_principal == request.caller.service_principal => refuse(
            ErrorId::StaleAttempt,
            TEXT_STALE,
            format!("attempt {} holds the mailbox", h.attempt),
        ),
        Some(_) | None => {
            // To whoever holds nothing here, existence is told only after everything else was proven.
            may_have(request, consent(request)?)?;
            refuse(
                ErrorId::StaleAttempt,
                TEXT_STALE,
                "no attempt of this partner holds the mailbox",
            )
        }
    }
}

fn sweep(request: &Request<'_>) -> Result<(), Refusal> {
    match request.mailbox.map(|m| m.cutover) {
        Some(CutoverFacts::Moved {
            holder,
            retention_until,
        }) if is_holder(request, holder) => {
            if request.now < retention_until {
                Ok(())
            } else {
                refuse(
                    ErrorId::StaleAttempt,
                    TEXT_RETENTION,
                    format!("retention ended at {retention_until}"),
                )
            }
        }
        Some(
            CutoverFacts::Open
            | CutoverFacts::Locked(_)
            | CutoverFacts::Prepared(_)
            | CutoverFacts::Reopened(_)
            | CutoverFacts::Moved { .. },
        )
        | None => refuse(
            ErrorId::StaleAttempt,
            TEXT_STALE,
            "the mailbox was not moved by this attempt of this partner",
        ),
    }
}

#[cfg(test)]
mod tests;

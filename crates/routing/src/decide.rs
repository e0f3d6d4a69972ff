//! Fetches what the decision in `domain` is made from, for one address, groups resolved.

use jiff::Timestamp;
use rehome_domain::{
    address::SmtpAddress,
    cutover::TargetPhase,
    id::{RecipientId, TenantId},
    mailflow::{
        Decision, DeferReason, Expansion, ExpansionError, MAX_MEMBERS, Passage, RefuseReason, RouteFacts, route,
    },
    recipient::{Mailbox, Recipient},
};
use rehome_store::{Store, StoreError, Tx};

/// Addresses of a recipient that are looked at for a cutover.
const MAX_ADDRESSES: usize = 50;

/// One place where a message for an address goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A mailbox on a platform of ours.
    Here {
        /// It.
        mailbox: Mailbox,
        /// When its directory object was last written: a mailbox that went and came back is another destination.
        changed: Timestamp,
    },
    /// Wherever mail for this address goes.
    There(SmtpAddress),
}

/// What becomes of a message for one address, with everything needed to do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes to all of these; never none.
    Deliver {
        /// Whose address it is.
        tenant: TenantId,
        /// The places.
        destinations: Vec<Destination>,
    },
    /// Later.
    Defer(DeferReason),
    /// Never.
    Refuse(RefuseReason),
    /// Never: the group is too large.
    TooLarge(ExpansionError),
}

/// Decides from one consistent view of the state. `passage` gives a message's way so far with regard to a tenant,
/// none while only the envelope is known.
pub(crate) async fn decide(
    store: &Store,
    address: &SmtpAddress,
    passage: &(dyn Fn(TenantId) -> Option<Passage> + Send + Sync),
) -> Result<Verdict, StoreError> {
    let mut tx = store.read().await?;
    let Some(tenant) = tx.tenant_of_domain(address.domain()).await? else {
        return Ok(Verdict::Refuse(RefuseReason::NotOurDomain));
    };
    let passage = passage(tenant);
    let Some(recipient) = tx.recipient_by_smtp_anywhere(address).await? else {
        return Ok(Verdict::Refuse(RefuseReason::Unknown));
    };
    let mut destinations = Vec::new();
    match decision(&mut tx, &recipient, passage).await? {
        Decision::Expand { group } => {
            let members = match expand(&mut tx, tenant, group).await? {
                Ok(members) => members,
                Err(e) => return Ok(Verdict::TooLarge(e)),
            };
            let mut waiting = None;
            for member in &members {
                match destination(member, decision(&mut tx, member, passage).await?) {
                    Ok(destination) => destinations.push(destination),
                    // A member who can wait must not hide one who never gets it.
                    Err(Verdict::Defer(reason)) => waiting = Some(Verdict::Defer(reason)),
                    Err(refused) => return Ok(refused),
                }
            }
            if let Some(waiting) = waiting {
                return Ok(waiting);
            }
        }
        other => match destination(&recipient, other) {
            Ok(destination) => destinations.push(destination),
            Err(verdict) => return Ok(verdict),
        },
    }
    if destinations.is_empty() {
        // A group of nobody: taking the message would be losing it.
        return Ok(Verdict::Refuse(RefuseReason::NoRoute));
    }
    Ok(Verdict::Deliver { tenant, destinations })
}

async fn decision(tx: &mut Tx, recipient: &Recipient, passage: Option<Passage>) -> Result<Decision, StoreError> {
    // Asked only where it makes a difference.
    let cutover_under_way = passage.is_some_and(Passage::is_loop) && is_in_cutover(tx, recipient).await?;
    Ok(route(&RouteFacts {
        domain_accepted: true,
        recipient: Some(recipient),
        passage,
        cutover_under_way,
    }))
}

/// Whether a mailbox is about to become this recipient's, or has just become it. (The other side of a cutover is told
/// by the mailbox's own state.)
async fn is_in_cutover(tx: &mut Tx, recipient: &Recipient) -> Result<bool, StoreError> {
    for address in recipient.smtp_addresses().take(MAX_ADDRESSES) {
        for moving in tx.move_by_address(recipient.tenant, &address.key()).await? {
            let attempt = tx.attempt_newest(recipient.tenant, moving.id).await?;
            match attempt.map(|a| a.phase) {
                Some(
                    TargetPhase::Closing
                    | TargetPhase::Decided
                    | TargetPhase::Reopened
                    | TargetPhase::CatchingUp
                    | TargetPhase::CatchUpAborted,
                ) => return Ok(true),
                Some(TargetPhase::Aborted | TargetPhase::Done) | None => {}
            }
        }
    }
    Ok(false)
}

fn destination(recipient: &Recipient, decision: Decision) -> Result<Destination, Verdict> {
    match (decision, recipient.mailbox()) {
        (Decision::DeliverHere { .. }, Some(mailbox)) => Ok(Destination::Here {
            mailbox: mailbox.clone(),
            changed: recipient.changed,
        }),
        (Decision::Relay { address }, _) => Ok(Destination::There(address)),
        (Decision::Defer(reason), _) => Err(Verdict::Defer(reason)),
        (Decision::Refuse(reason), _) => Err(Verdict::Refuse(reason)),
        // Neither comes: only mailboxes are delivered to, and an expansion has no groups.
        (Decision::DeliverHere { .. }, None) | (Decision::Expand { .. }, _) => {
            Err(Verdict::Refuse(RefuseReason::NoRoute))
        }
    }
}

async fn expand(
    tx: &mut Tx,
    tenant: TenantId,
    group: RecipientId,
) -> Result<Result<Vec<Recipient>, ExpansionError>, StoreError> {
    let mut expansion = Expansion::of(group);
    // More direct members than this are too many in any case.
    let limit = u32::try_from(2 * MAX_MEMBERS + 1).unwrap_or(u32::MAX);
    while let Some(group) = expansion.next_group() {
        if let Err(e) = expansion.add(tx.group_member_list(tenant, group, limit).await?) {
            return Ok(Err(e));
        }
    }
    Ok(Ok(expansion.into_members()))
}

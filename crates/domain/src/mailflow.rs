//! Where a message for an address goes: one decision, with its reason.
//!
//! The recipient's state is asked twice for every message: when the address is named, and again after its last
//! octet, under the mailbox's lock. Both times the answer comes from [`route`].

use crate::{
    address::SmtpAddress,
    id::{ExchangeGuid, MoveId, RecipientId},
    recipient::{MailboxState, Recipient, RecipientKind},
};
use std::collections::{HashSet, VecDeque};

/// How often a message may enter one tenant: there, back after a cutover, back after a move back.
pub const MAX_ENTRIES: u32 = 3;

/// Most `Received` lines a message may carry when it arrives.
pub const MAX_RECEIVED: u32 = 30;

/// Most recipients that a group may stand for, nested groups resolved.
pub const MAX_MEMBERS: usize = 100;

/// Most groups that are opened for one address.
pub const MAX_GROUPS: usize = 100;

/// What the decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct RouteFacts<'a> {
    /// Whether a tenant of this deployment accepts mail for the address's domain, or the address was reached
    /// through a group of such a tenant.
    pub domain_accepted: bool,
    /// Who has the address.
    pub recipient: Option<&'a Recipient>,
    /// The message's way so far; none while only its envelope is known.
    pub passage: Option<Passage>,
    /// Whether a cutover of this recipient is known to be under way in this tenant, beyond what
    /// [`MailboxState`] says (a mail user that is about to become the mailbox).
    pub cutover_under_way: bool,
}

/// A message's way so far, as its header tells it before we add our own lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// How often it has entered the recipient's tenant before.
    pub earlier_entries: u32,
    /// How many `Received` lines it has.
    pub received_lines: u32,
}

impl Passage {
    /// Whether taking it in once more would be a loop: the fourth entry, or more than [`MAX_RECEIVED`] lines.
    #[must_use]
    pub fn is_loop(self) -> bool {
        self.earlier_entries >= MAX_ENTRIES || self.received_lines > MAX_RECEIVED
    }
}

/// What becomes of a message for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Put it into this mailbox.
    DeliverHere {
        /// The directory object.
        recipient: RecipientId,
        /// Its contents.
        exchange_guid: ExchangeGuid,
    },
    /// Hand it to the next hop of this address, which replaces the recipient's.
    Relay {
        /// `ExternalEmailAddress`.
        address: SmtpAddress,
    },
    /// Not now; the sender keeps it and repeats.
    Defer(DeferReason),
    /// Never; the sender learns so at once.
    Refuse(RefuseReason),
    /// Decide for each member of this group instead.
    Expand {
        /// The group.
        group: RecipientId,
    },
}

/// Why a message must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeferReason {
    /// The mailbox is locked or prepared for a cutover by this move, or the lock's lease has lapsed and it is not open again yet.
    InCutover(MoveId),
    /// The mailbox was decided to be here and is not in its place yet.
    NotYetShown,
    /// It looks like a loop, but a cutover is under way that may explain it.
    LoopDuringCutover,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefuseReason {
    /// No tenant here accepts mail for the domain; taking it would be relaying for strangers.
    NotOurDomain,
    /// Nobody has the address.
    Unknown,
    /// A mail user without an `ExternalEmailAddress`, or with one that is his own.
    NoRoute,
    /// The message has been here too often, or has too many `Received` lines.
    Loop,
}

impl std::fmt::Display for DeferReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InCutover(id) => write!(f, "the mailbox is in cutover (move {id})"),
            Self::NotYetShown => f.write_str("the mailbox is not shown yet"),
            Self::LoopDuringCutover => f.write_str("a suspected loop while a cutover is under way"),
        }
    }
}

impl std::fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotOurDomain => "the domain is nobody's here",
            Self::Unknown => "nobody has the address",
            Self::NoRoute => "the mail user has no usable ExternalEmailAddress",
            Self::Loop => "the message loops",
        })
    }
}

/// Decides what becomes of a message for one address.
#[must_use]
pub fn route(facts: &RouteFacts<'_>) -> Decision {
    if !facts.domain_accepted {
        return Decision::Refuse(RefuseReason::NotOurDomain);
    }
    let Some(recipient) = facts.recipient else {
        return Decision::Refuse(RefuseReason::Unknown);
    };
    let by_state = by_state(recipient);
    if !facts.passage.is_some_and(Passage::is_loop) {
        return by_state;
    }
    match by_state {
        // A state that defers explains the loop by itself.
        Decision::Defer(_) => Decision::Defer(DeferReason::LoopDuringCutover),
        Decision::DeliverHere { .. } | Decision::Relay { .. } | Decision::Refuse(_) | Decision::Expand { .. } => {
            if facts.cutover_under_way {
                Decision::Defer(DeferReason::LoopDuringCutover)
            } else {
                Decision::Refuse(RefuseReason::Loop)
            }
        }
    }
}

fn by_state(recipient: &Recipient) -> Decision {
    match &recipient.kind {
        RecipientKind::Mailbox(mailbox) => match mailbox.state {
            MailboxState::Open => Decision::DeliverHere {
                recipient: recipient.id,
                exchange_guid: mailbox.exchange_guid,
            },
            MailboxState::NotYetShown => Decision::Defer(DeferReason::NotYetShown),
            MailboxState::InCutover(id) => Decision::Defer(DeferReason::InCutover(id)),
        },
        RecipientKind::MailUser(user) => match &user.external_email_address {
            Some(address) if !recipient.smtp_addresses().any(|own| own == address) => Decision::Relay {
                address: address.clone(),
            },
            Some(_) | None => Decision::Refuse(RefuseReason::NoRoute),
        },
        RecipientKind::Group(_) => Decision::Expand { group: recipient.id },
    }
}

/// A group stands for more than can be handled in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpansionError {
    /// More than [`MAX_MEMBERS`] recipients.
    #[error("the group stands for more than {MAX_MEMBERS} recipients")]
    TooManyMembers,
    /// More than [`MAX_GROUPS`] groups.
    #[error("the group holds more than {MAX_GROUPS} groups")]
    TooManyGroups,
}

/// Resolves a group into recipients that are not groups, each once; groups that hold each other are no harm.
///
/// Ask [`Expansion::next_group`], fetch that group's direct members, hand them to [`Expansion::add`], until
/// there is no next; then take [`Expansion::into_members`].
#[derive(Debug)]
pub struct Expansion {
    waiting: VecDeque<RecipientId>,
    seen: HashSet<RecipientId>,
    groups: usize,
    members: Vec<Recipient>,
}

impl Expansion {
    /// Begins with `group`.
    #[must_use]
    pub fn of(group: RecipientId) -> Self {
        Self {
            waiting: VecDeque::from([group]),
            seen: HashSet::from([group]),
            groups: 1,
            members: Vec::new(),
        }
    }

    /// The next group whose direct members are wanted.
    pub fn next_group(&mut self) -> Option<RecipientId> {
        self.waiting.pop_front()
    }

    /// Takes the direct members of a group.
    ///
    /// # Errors
    /// When a bound is passed.
    pub fn add(&mut self, members: Vec<Recipient>) -> Result<(), ExpansionError> {
        for member in members {
            if !self.seen.insert(member.id) {
                continue;
            }
            match member.kind {
                RecipientKind::Group(_) => {
                    self.groups += 1;
                    if self.groups > MAX_GROUPS {
                        return Err(ExpansionError::TooManyGroups);
                    }
                    self.waiting.push_back(member.id);
                }
                RecipientKind::Mailbox(_) | RecipientKind::MailUser(_) => {
                    if self.members.len() == MAX_MEMBERS {
                        return Err(ExpansionError::TooManyMembers);
                    }
                    self.members.push(member);
                }
            }
        }
        Ok(())
    }

    /// The mailboxes and mail users, in the order in which they were met.
    #[must_use]
    pub fn into_members(self) -> Vec<Recipient> {
        self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::{LegacyExchangeDn, ProxyAddress},
        id::TenantId,
        recipient::{Group, GroupType, MailUser, Mailbox},
    };

    const GUID: ExchangeGuid = ExchangeGuid::from_u128(9);
    const MOVE: MoveId = MoveId::from_u128(5);

    fn recipient(id: u128, kind: RecipientKind) -> Recipient {
        let own: SmtpAddress = format!("r{id}@contoso.example").parse().unwrap();
        Recipient {
            id: RecipientId::from_u128(id),
            tenant: TenantId::from_u128(1),
            name: format!("r{id}"),
            alias: format!("r{id}"),
            display_name: String::new(),
            user_principal_name: None,
            legacy_exchange_dn: LegacyExchangeDn::for_recipient(own.domain(), RecipientId::from_u128(id), "r"),
            email_addresses: vec![ProxyAddress::Primary(own)],
            kind,
            hidden: false,
            custom_attributes: Vec::new(),
            created: jiff::Timestamp::UNIX_EPOCH,
            changed: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn mailbox(state: MailboxState) -> RecipientKind {
        RecipientKind::Mailbox(Mailbox {
            exchange_guid: GUID,
            platform: "local".into(),
            location: "r".into(),
            state,
            litigation_hold: false,
            max_receive_size: 1000,
        })
    }

    fn mail_user(external: Option<&str>) -> RecipientKind {
        RecipientKind::MailUser(MailUser {
            external_email_address: external.map(|a| a.parse().unwrap()),
            exchange_guid: Some(GUID),
            archive_guid: None,
        })
    }

    fn group() -> RecipientKind {
        RecipientKind::Group(Group {
            group_type: GroupType::Security,
        })
    }

    #[test]
    fn every_kind_and_state() {
        let here = Decision::DeliverHere {
            recipient: RecipientId::from_u128(1),
            exchange_guid: GUID,
        };
        let relay = Decision::Relay {
            address: "r@fabrikam.example".parse().unwrap(),
        };
        let expand = Decision::Expand {
            group: RecipientId::from_u128(1),
        };
        let no_route = Decision::Refuse(RefuseReason::NoRoute);
        let loops = Decision::Refuse(RefuseReason::Loop);
        let wait = Decision::Defer(DeferReason::LoopDuringCutover);
        let shown = Decision::Defer(DeferReason::NotYetShown);
        let locked = Decision::Defer(DeferReason::InCutover(MOVE));
        // kind, no loop, loop, loop while a cutover is under way
        let table = [
            (mailbox(MailboxState::Open), &here, &loops, &wait),
            (mailbox(MailboxState::NotYetShown), &shown, &wait, &wait),
            (mailbox(MailboxState::InCutover(MOVE)), &locked, &wait, &wait),
            (mail_user(Some("r@fabrikam.example")), &relay, &loops, &wait),
            (mail_user(None), &no_route, &loops, &wait),
            (mail_user(Some("R1@contoso.example")), &no_route, &loops, &wait),
            (group(), &expand, &loops, &wait),
        ];
        let calm = Passage {
            earlier_entries: 2,
            received_lines: 30,
        };
        for (kind, plain, looping, looping_in_cutover) in table {
            let recipient = recipient(1, kind);
            let facts = |passage, cutover_under_way| RouteFacts {
                domain_accepted: true,
                recipient: Some(&recipient),
                passage,
                cutover_under_way,
            };
            for under_way in [false, true] {
                assert_eq!(&route(&facts(None, under_way)), plain, "{recipient:?}");
                assert_eq!(&route(&facts(Some(calm), under_way)), plain, "{recipient:?}");
            }
            for passage in [
                Passage {
                    earlier_entries: 3,
                    received_lines: 0,
                },
                Passage {
                    earlier_entries: 0,
                    received_lines: 31,
                },
            ] {
                assert_eq!(&route(&facts(Some(passage), false)), looping, "{recipient:?}");
                assert_eq!(&route(&facts(Some(passage), true)), looping_in_cutover, "{recipient:?}");
            }
        }
    }

    #[test]
    fn strangers_and_unknown_addresses() {
        let known = recipient(1, mailbox(MailboxState::Open));
        for (domain_accepted, recipient, reason) in [
            (false, None, RefuseReason::NotOurDomain),
            (false, Some(&known), RefuseReason::NotOurDomain),
            (true, None, RefuseReason::Unknown),
        ] {
            let facts = RouteFacts {
                domain_accepted,
                recipient,
                passage: None,
                cutover_under_way: true,
            };
            assert_eq!(route(&facts), Decision::Refuse(reason));
        }
    }

    #[test]
    fn nested_groups_that_hold_each_other_end() {
        let direct = |id: u128| match id {
            1 => vec![recipient(2, group()), recipient(10, mailbox(MailboxState::Open))],
            2 => vec![
                recipient(1, group()),
                recipient(10, mailbox(MailboxState::Open)),
                recipient(11, mail_user(None)),
            ],
            _ => Vec::new(),
        };
        let mut expansion = Expansion::of(RecipientId::from_u128(1));
        while let Some(group) = expansion.next_group() {
            expansion.add(direct(group.as_u128())).unwrap();
        }
        let ids: Vec<_> = expansion.into_members().iter().map(|r| r.id.as_u128()).collect();
        assert_eq!(ids, [10, 11]);
    }

    #[test]
    fn expansion_is_bounded() {
        let many = |from: u128, count: usize, kind: fn() -> RecipientKind| -> Vec<Recipient> {
            (from..from + count as u128).map(|id| recipient(id, kind())).collect()
        };
        let mut expansion = Expansion::of(RecipientId::from_u128(1));
        expansion
            .add(many(2, MAX_MEMBERS, || mailbox(MailboxState::Open)))
            .unwrap();
        let one_more = expansion.add(many(5000, 1, || mailbox(MailboxState::Open)));
        assert_eq!(one_more, Err(ExpansionError::TooManyMembers));
        let mut expansion = Expansion::of(RecipientId::from_u128(1));
        assert_eq!(
            expansion.add(many(2, MAX_GROUPS, group)),
            Err(ExpansionError::TooManyGroups)
        );
    }
}

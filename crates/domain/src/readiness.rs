//! Is this mail user, and this source mailbox, ready to move? All problems at once, each with what mends it.

use crate::{
    address::{DomainName, ProxyAddress, SmtpAddress},
    conversion::answers_for,
    error_id::{ErrorId, Problem},
    id::ExchangeGuid,
    recipient::{MailboxState, Recipient, RecipientKind},
};

/// What the source tells of the mailbox when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFacts {
    /// Its identity.
    pub exchange_guid: ExchangeGuid,
    /// Its LegacyExchangeDN; the target must answer for it.
    pub legacy_exchange_dn: String,
    /// Its x500 proxies; the target should answer for them too.
    pub x500_addresses: Vec<String>,
    /// Its SMTP addresses; ExternalEmailAddress must be one of them.
    pub smtp_addresses: Vec<SmtpAddress>,
    /// Its archive, if it has one.
    pub archive_guid: Option<ExchangeGuid>,
}

/// What the target knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct TargetFacts<'a> {
    /// The address of the CSV row.
    pub address: &'a str,
    /// The recipient found for it.
    pub recipient: Option<&'a Recipient>,
    /// The batch's TargetDeliveryDomain; none when only an endpoint is tested.
    pub target_delivery_domain: Option<&'a DomainName>,
    /// The tenant's accepted domains.
    pub accepted_domains: &'a [DomainName],
    /// Another active batch that has the same address.
    pub other_batch: Option<&'a str>,
}

/// Checks that need the target alone. Empty means ready.
#[must_use]
pub fn target_problems(facts: &TargetFacts<'_>) -> Vec<Problem> {
    let address = facts.address;
    let Some(recipient) = facts.recipient else {
        return vec![Problem::new(
            ErrorId::MigrationRecipientNotFound,
            format!("No recipient of this organisation has the address {address}."),
            format!(
                "New-MailUser -Name … -ExternalEmailAddress <address in the source> -PrimarySmtpAddress {address} -MicrosoftOnlineServicesID {address}, then set its ExchangeGuid and x500 address with Set-MailUser."
            ),
        )];
    };
    let mut problems = Vec::new();
    if let Some(batch) = facts.other_batch {
        problems.push(in_other_batch(address, batch));
    }
    match &recipient.kind {
        RecipientKind::Mailbox(_) => problems.push(Problem::new(
            ErrorId::MigrationPermanent,
            format!("Target user '{}' already has a primary mailbox.", recipient.name),
            "Only a mail user can receive a mailbox. If this mailbox is not wanted, remove it and make a mail user.",
        )),
        RecipientKind::Group(_) => problems.push(Problem::new(
            ErrorId::MigrationPermanent,
            format!("'{}' is a group.", recipient.name),
            "Give the address of a mail user in the CSV file.",
        )),
        RecipientKind::MailUser(user) => {
            if user.exchange_guid.is_none() {
                problems.push(Problem::new(
                    ErrorId::MissingExchangeGuid,
                    format!("The mail user '{}' has no ExchangeGuid.", recipient.name),
                    format!(
                        "Set-MailUser '{}' -ExchangeGuid <the ExchangeGuid that Get-Mailbox prints in the source>",
                        recipient.name
                    ),
                ));
            }
            address_problems(recipient, user.external_email_address.as_ref(), &mut problems);
        }
    }
    domain_problems(recipient, facts, &mut problems);
    problems
}

fn address_problems(recipient: &Recipient, external: Option<&SmtpAddress>, problems: &mut Vec<Problem>) {
    match external {
        None => problems.push(Problem::new(
            ErrorId::ExternalEmailAddressInvalid,
            format!("The mail user '{}' has no ExternalEmailAddress.", recipient.name),
            format!(
                "Set-MailUser '{}' -ExternalEmailAddress <an address of the mailbox in the source>",
                recipient.name
            ),
        )),
        Some(external) if recipient.smtp_addresses().any(|a| a == external) => problems.push(Problem::new(
            ErrorId::ExternalEmailAddressInvalid,
            format!(
                "ExternalEmailAddress {external} of '{}' is also in its EmailAddresses, so its mail would go round.",
                recipient.name
            ),
            format!(
                "Set-MailUser '{}' -EmailAddresses '@{{Remove=\"smtp:{external}\"}}'",
                recipient.name
            ),
        )),
        Some(_) => {}
    }
    if !recipient
        .email_addresses
        .iter()
        .any(|p| matches!(p, ProxyAddress::X500(_)))
    {
        problems.push(Problem::new(
            ErrorId::MissingX500Proxy,
            format!("The mail user '{}' has no x500 address, so replies to old mail would bounce.", recipient.name),
            format!("Set-MailUser '{}' -EmailAddresses '@{{Add=\"x500:<the LegacyExchangeDN that Get-Mailbox prints in the source>\"}}'", recipient.name),
        ));
    }
}

fn domain_problems(recipient: &Recipient, facts: &TargetFacts<'_>, problems: &mut Vec<Problem>) {
    for address in recipient.smtp_addresses() {
        if !facts.accepted_domains.contains(address.domain()) {
            problems.push(Problem::new(
                ErrorId::NotAcceptedDomain,
                format!("'{}' has the address {address}, and {} is not an accepted domain of this organisation.", recipient.name, address.domain()),
                format!("Set-MailUser '{}' -EmailAddresses '@{{Remove=\"smtp:{address}\"}}', or give it another primary address first.", recipient.name),
            ));
        }
    }
    if let Some(domain) = facts.target_delivery_domain
        && recipient.address_in(domain).is_none()
    {
        problems.push(no_delivery_address(recipient, domain));
    }
}

/// What is known here of a user who is copied from an IMAP server into his mailbox.
#[derive(Clone, Copy, Debug)]
pub struct DirectFacts<'a> {
    /// The address of the CSV row.
    pub address: &'a str,
    /// The recipient found for it.
    pub recipient: Option<&'a Recipient>,
    /// Another active batch that has the same address.
    pub other_batch: Option<&'a str>,
    /// Whether there is someone to sign in as: the endpoint's, or the user himself with the password of his row.
    pub can_sign_in: bool,
}

/// Checks of a copy from an IMAP server that need nothing but what is here. Empty means ready.
#[must_use]
pub fn direct_problems(facts: &DirectFacts<'_>) -> Vec<Problem> {
    let address = facts.address;
    let Some(recipient) = facts.recipient else {
        return vec![Problem::new(
            ErrorId::MigrationRecipientNotFound,
            format!("No recipient of this organisation has the address {address}."),
            format!("Make his mailbox with New-Mailbox or Import-Mailbox, then Start-MigrationUser {address}."),
        )];
    };
    let mut problems = Vec::new();
    if let Some(batch) = facts.other_batch {
        problems.push(in_other_batch(address, batch));
    }
    match &recipient.kind {
        RecipientKind::Mailbox(mailbox) => match mailbox.state {
            MailboxState::Open => {}
            MailboxState::NotYetShown | MailboxState::InCutover(_) => problems.push(Problem::new(
                ErrorId::InvalidOperation,
                format!("The mailbox '{}' is being cut over.", recipient.name),
                format!("Start-MigrationUser {address} when that is done."),
            )),
        },
        RecipientKind::MailUser(_) => problems.push(Problem::new(
            ErrorId::MigrationPermanent,
            format!(
                "'{}' is a mail user, and a copy from an IMAP server goes into a mailbox that is there already.",
                recipient.name
            ),
            "Make a mailbox in place of the mail user with New-Mailbox or Import-Mailbox.",
        )),
        RecipientKind::Group(_) => problems.push(Problem::new(
            ErrorId::MigrationPermanent,
            format!("'{}' is a group.", recipient.name),
            "Give the address of a mailbox in the CSV file.",
        )),
    }
    if !facts.can_sign_in {
        problems.push(Problem::new(
            ErrorId::ImapAuthentication,
            format!("The row of {address} has no password, and the migration endpoint has no credentials."),
            format!("Remove-MigrationUser {address} and add him in a new batch with a Password, or give the endpoint a user who may sign in for others: Set-MigrationEndpoint … -Credentials."),
        ));
    }
    problems
}

/// The recipient has no address in the domain to which the source is to forward.
#[must_use]
pub fn no_delivery_address(recipient: &Recipient, domain: &DomainName) -> Problem {
    Problem::new(
        ErrorId::TargetDeliveryDomainMismatchPermanent,
        format!(
            "The target mailbox '{}' doesn't have an SMTP proxy matching '{domain}'.",
            recipient.name
        ),
        format!(
            "Set-MailUser '{}' -EmailAddresses '@{{Add=\"smtp:{}@{domain}\"}}'",
            recipient.name, recipient.alias
        ),
    )
}

fn in_other_batch(address: &str, batch: &str) -> Problem {
    Problem::new(
        ErrorId::UserDuplicateInOtherBatch,
        format!("{address} is in the migration batch '{batch}' already."),
        format!("Remove-MigrationUser {address} there, or leave the row out here."),
    )
}

/// Checks that compare both sides. Empty means ready.
#[must_use]
pub fn pair_problems(recipient: &Recipient, source: &SourceFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    for dn in std::iter::once(&source.legacy_exchange_dn).chain(&source.x500_addresses) {
        if !answers_for(recipient, dn) {
            problems.push(Problem::new(
                ErrorId::MissingX500Proxy,
                format!(
                    "The mail user '{}' lacks the source's address x500:{dn}, so replies to old mail would bounce.",
                    recipient.name
                ),
                format!(
                    "Set-MailUser '{}' -EmailAddresses '@{{Add=\"x500:{dn}\"}}'",
                    recipient.name
                ),
            ));
        }
    }
    if let Some(external) = recipient.mail_user().and_then(|u| u.external_email_address.as_ref())
        && !source.smtp_addresses.contains(external)
    {
        problems.push(Problem::new(
            ErrorId::ExternalEmailAddressInvalid,
            format!(
                "ExternalEmailAddress {external} of '{}' is no address of the mailbox in the source.",
                recipient.name
            ),
            format!(
                "Set-MailUser '{}' -ExternalEmailAddress <an address of the mailbox in the source>",
                recipient.name
            ),
        ));
    }
    problems
}

/// Whether each side keeps a mailbox quiet: refuses sign-in and ends sessions while it is cut over, or filled unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locks {
    /// The platform of the mailbox at the source.
    pub source: bool,
    /// The platform that it moves to.
    pub target: bool,
}

impl Locks {
    /// What is not kept quiet, in sentences; none where both sides are.
    #[must_use]
    pub fn warnings(self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.source {
            warnings.push(
                "The source's mail platform cannot keep users out of a mailbox while it is cut over: what they or other programs change then may be left behind."
                    .to_owned(),
            );
        }
        if !self.target {
            warnings.push(
                "The mail platform here cannot keep users out of a mailbox while it is filled: they see it before it is whole, and what they change then may stop its cutover."
                    .to_owned(),
            );
        }
        warnings
    }

    /// What stands in the way of a cutover unless it was accepted. Only the source's side does: what is changed here
    /// while a mailbox is filled shows when both sides are compared.
    #[must_use]
    pub fn problem(self, address: &str, accepted: bool) -> Option<Problem> {
        if self.source || accepted {
            return None;
        }
        Some(Problem::new(
            ErrorId::MailboxNotLocked,
            self.warnings().swap_remove(0),
            format!(
                "Have the source's operator configure [platform.NAME.access]; or keep users and delivery away from the mailbox, then run Set-MigrationUser {address} -AcceptUnlocked, or Complete-MigrationBatch with -AcceptUnlocked for all."
            ),
        ))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        address::LegacyExchangeDn,
        id::{RecipientId, TenantId},
        recipient::{MailUser, Mailbox, MailboxState},
    };
    use jiff::Timestamp;

    pub(crate) fn guid() -> ExchangeGuid {
        ExchangeGuid::from_u128(0x51)
    }

    fn recipient(kind: RecipientKind, addresses: &[&str]) -> Recipient {
        let id = RecipientId::from_u128(4);
        Recipient {
            id,
            tenant: TenantId::from_u128(1),
            name: "user1".into(),
            alias: "user1".into(),
            display_name: "User 1".into(),
            user_principal_name: None,
            email_addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            legacy_exchange_dn: LegacyExchangeDn::for_recipient(&"contoso.example".parse().unwrap(), id, "user1"),
            kind,
            hidden: false,
            custom_attributes: vec![],
            created: Timestamp::UNIX_EPOCH,
            changed: Timestamp::UNIX_EPOCH,
        }
    }

    pub(crate) fn mailbox() -> Recipient {
        let kind = RecipientKind::Mailbox(Mailbox {
            exchange_guid: guid(),
            platform: "mail".into(),
            location: "user1".into(),
            state: MailboxState::Open,
            litigation_hold: false,
            max_receive_size: 1 << 27,
        });
        recipient(kind, &["SMTP:user1@contoso.example"])
    }

    pub(crate) fn mail_user() -> Recipient {
        let kind = RecipientKind::MailUser(MailUser {
            external_email_address: Some("user1@contoso.example".parse().unwrap()),
            exchange_guid: Some(guid()),
            archive_guid: None,
        });
        let x500 = mailbox().legacy_exchange_dn.as_x500().to_string();
        recipient(kind, &["SMTP:user1@fabrikam.example", &x500])
    }

    fn ids(recipient: Option<&Recipient>, domain: &str, other: Option<&str>) -> Vec<ErrorId> {
        target_problems(&TargetFacts {
            address: "user1@fabrikam.example",
            recipient,
            target_delivery_domain: Some(&domain.parse().unwrap()),
            accepted_domains: &["fabrikam.example".parse().unwrap()],
            other_batch: other,
        })
        .into_iter()
        .map(|p| p.id)
        .collect()
    }

    #[test]
    fn a_prepared_mail_user_is_ready() {
        assert_eq!(ids(Some(&mail_user()), "fabrikam.example", None), vec![]);
    }

    #[test]
    fn all_problems_at_once() {
        let mut bare = mail_user();
        bare.email_addresses = vec!["SMTP:user1@contoso.example".parse().unwrap()];
        bare.kind = RecipientKind::MailUser(MailUser {
            external_email_address: Some("user1@contoso.example".parse().unwrap()),
            exchange_guid: None,
            archive_guid: None,
        });
        assert_eq!(
            ids(Some(&bare), "fabrikam.example", Some("old batch")),
            vec![
                ErrorId::UserDuplicateInOtherBatch,
                ErrorId::MissingExchangeGuid,
                ErrorId::ExternalEmailAddressInvalid,
                ErrorId::MissingX500Proxy,
                ErrorId::NotAcceptedDomain,
                ErrorId::TargetDeliveryDomainMismatchPermanent,
            ]
        );
        assert_eq!(
            ids(None, "fabrikam.example", None),
            vec![ErrorId::MigrationRecipientNotFound]
        );
        assert_eq!(
            ids(Some(&mailbox()), "contoso.example", None),
            vec![ErrorId::MigrationPermanent, ErrorId::NotAcceptedDomain]
        );
    }

    #[test]
    fn whoever_is_copied_from_an_imap_server_has_a_mailbox_here() {
        let closed = |state| {
            let mut closed = mailbox();
            if let RecipientKind::Mailbox(mailbox) = &mut closed.kind {
                mailbox.state = state;
            }
            closed
        };
        let group = recipient(
            RecipientKind::Group(crate::recipient::Group {
                group_type: crate::recipient::GroupType::Distribution,
            }),
            &["SMTP:user1@contoso.example"],
        );
        let moving = closed(MailboxState::InCutover(crate::id::MoveId::from_u128(9)));
        for (recipient, other_batch, can_sign_in, expected) in [
            (Some(mailbox()), None, true, vec![]),
            (None, Some("old"), false, vec![ErrorId::MigrationRecipientNotFound]),
            (Some(mail_user()), None, true, vec![ErrorId::MigrationPermanent]),
            (Some(group), None, true, vec![ErrorId::MigrationPermanent]),
            (
                Some(closed(MailboxState::NotYetShown)),
                None,
                true,
                vec![ErrorId::InvalidOperation],
            ),
            (
                Some(moving),
                Some("old"),
                false,
                vec![
                    ErrorId::UserDuplicateInOtherBatch,
                    ErrorId::InvalidOperation,
                    ErrorId::ImapAuthentication,
                ],
            ),
            (Some(mailbox()), None, false, vec![ErrorId::ImapAuthentication]),
        ] {
            let found = direct_problems(&DirectFacts {
                address: "user1@contoso.example",
                recipient: recipient.as_ref(),
                other_batch,
                can_sign_in,
            });
            assert!(found.iter().all(|p| !p.advice.is_empty()));
            assert_eq!(found.iter().map(|p| p.id).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_is_not_locked_waits_for_its_acceptance() {
        for (source, target) in [(true, true), (true, false), (false, true), (false, false)] {
            let locks = Locks { source, target };
            let open = locks.problem("user1@fabrikam.example", false);
            assert_eq!(open.is_none(), source);
            assert!(open.is_none_or(|p| p.id == ErrorId::MailboxNotLocked && p.advice.contains("-AcceptUnlocked")));
            assert_eq!(locks.warnings().len(), usize::from(!source) + usize::from(!target));
            assert_eq!(locks.problem("user1@fabrikam.example", true), None);
        }
    }

    #[test]
    fn both_sides_compared() {
        let source = SourceFacts {
            exchange_guid: guid(),
            legacy_exchange_dn: mailbox().legacy_exchange_dn.as_str().to_uppercase(),
            x500_addresses: vec!["/o=old/ou=x/cn=Recipients/cn=u".into()],
            smtp_addresses: vec!["other@contoso.example".parse().unwrap()],
            archive_guid: None,
        };
        let mut user = mail_user();
        user.legacy_exchange_dn = "/o=f/ou=x/cn=Recipients/cn=own".parse().unwrap();
        let ids: Vec<_> = pair_problems(&user, &source).into_iter().map(|p| p.id).collect();
        assert_eq!(
            ids,
            vec![ErrorId::MissingX500Proxy, ErrorId::ExternalEmailAddressInvalid]
        );
    }
}

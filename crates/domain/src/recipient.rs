//! Recipients: mailboxes, mail users and groups.

use crate::{
    address::{DomainName, LegacyExchangeDn, ProxyAddress, SmtpAddress},
    id::{ExchangeGuid, MoveId, RecipientId, TenantId},
};

/// A recipient of a tenant's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The directory object.
    pub id: RecipientId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Unique in the tenant, at most 64 characters.
    pub name: String,
    /// Unique in the tenant (mailNickname), at most 64 characters.
    pub alias: String,
    /// At most 256 characters.
    pub display_name: String,
    /// Sign-in name (UserPrincipalName, MicrosoftOnlineServicesID); none for groups.
    pub user_principal_name: Option<String>,
    /// `EmailAddresses`: exactly one `Primary`, each key unique in the tenant.
    pub email_addresses: Vec<ProxyAddress>,
    /// Set once.
    pub legacy_exchange_dn: LegacyExchangeDn,
    /// What it is, with what only that kind has.
    pub kind: RecipientKind,
    /// Hidden from address lists.
    pub hidden: bool,
    /// `CustomAttribute1` … `15`, those that are set.
    pub custom_attributes: Vec<(u8, String)>,
    /// When created and last changed.
    pub created: jiff::Timestamp,
    /// When last changed.
    pub changed: jiff::Timestamp,
}

/// What a recipient is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientKind {
    /// `UserMailbox`: has contents on a platform.
    Mailbox(Mailbox),
    /// `MailUser`: forwards to an outside address.
    MailUser(MailUser),
    /// A distribution group or mail-enabled security group.
    Group(Group),
}

/// What only a mailbox has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Identity of the contents.
    pub exchange_guid: ExchangeGuid,
    /// Name of the platform (configuration `[platform.NAME]`) that holds the contents.
    pub platform: String,
    /// Where on the platform: the maildir driver's folder below its root, another driver's user name.
    pub location: String,
    /// Whether mail may be served and delivered, and if not, why.
    pub state: MailboxState,
    /// Any hold; blocks a move (`LitigationHoldEnabled`).
    pub litigation_hold: bool,
    /// Largest message it accepts, octets.
    pub max_receive_size: u64,
}

/// Whether a mailbox is in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailboxState {
    /// Served and delivered to.
    Open,
    /// Contents are in place in the hidden area; deferred until shown (target, after Decide).
    NotYetShown,
    /// Locked or prepared for a cutover by this move: mail is deferred (source).
    InCutover(MoveId),
}

/// What only a mail user has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailUser {
    /// Where its mail goes (`ExternalEmailAddress`, targetAddress).
    pub external_email_address: Option<SmtpAddress>,
    /// Identity of the mailbox it stands for, if known.
    pub exchange_guid: Option<ExchangeGuid>,
    /// Identity of that mailbox's archive; always none until archives are built.
    pub archive_guid: Option<ExchangeGuid>,
}

/// What only a group has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Distribution or mail-enabled security.
    pub group_type: GroupType,
}

/// `-Type` of New-DistributionGroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupType {
    /// Mail only.
    Distribution,
    /// May be a publishing scope.
    Security,
}

impl Recipient {
    /// The `SMTP:` entry. A stored recipient always has one.
    #[must_use]
    pub fn primary_smtp_address(&self) -> Option<&SmtpAddress> {
        self.email_addresses.iter().find_map(|p| match p {
            ProxyAddress::Primary(a) => Some(a),
            ProxyAddress::Smtp(_) | ProxyAddress::X500(_) | ProxyAddress::X400(_) => None,
        })
    }

    /// All SMTP addresses, the primary one included.
    pub fn smtp_addresses(&self) -> impl Iterator<Item = &SmtpAddress> {
        self.email_addresses.iter().filter_map(ProxyAddress::smtp)
    }

    /// The first SMTP address in `domain`, the primary one preferred: what TargetDeliveryDomain picks.
    #[must_use]
    pub fn address_in(&self, domain: &DomainName) -> Option<&SmtpAddress> {
        self.primary_smtp_address()
            .into_iter()
            .chain(self.smtp_addresses())
            .find(|a| a.domain() == domain)
    }

    /// `RecipientType`.
    #[must_use]
    pub fn recipient_type(&self) -> &'static str {
        match &self.kind {
            RecipientKind::Mailbox(_) => "UserMailbox",
            RecipientKind::MailUser(_) => "MailUser",
            RecipientKind::Group(g) => match g.group_type {
                GroupType::Distribution => "MailUniversalDistributionGroup",
                GroupType::Security => "MailUniversalSecurityGroup",
            },
        }
    }

    /// The mailbox part, if it is one.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match &self.kind {
            RecipientKind::Mailbox(m) => Some(m),
            RecipientKind::MailUser(_) | RecipientKind::Group(_) => None,
        }
    }

    /// The mail user part, if it is one.
    #[must_use]
    pub fn mail_user(&self) -> Option<&MailUser> {
        match &self.kind {
            RecipientKind::MailUser(m) => Some(m),
            RecipientKind::Mailbox(_) | RecipientKind::Group(_) => None,
        }
    }

    /// The ExchangeGuid of a mailbox or mail user.
    #[must_use]
    pub fn exchange_guid(&self) -> Option<ExchangeGuid> {
        match &self.kind {
            RecipientKind::Mailbox(m) => Some(m.exchange_guid),
            RecipientKind::MailUser(m) => m.exchange_guid,
            RecipientKind::Group(_) => None,
        }
    }
}

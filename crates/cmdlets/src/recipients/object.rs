//! How recipients are shown.

use rehome_command::{Object, Property, Value};
use rehome_domain::{
    id::ExchangeGuid,
    recipient::{GroupType, MailboxState, Recipient, RecipientKind},
};
use uuid::Uuid;

/// Number of custom attributes of a recipient.
pub(super) const CUSTOM_ATTRIBUTES: u8 = 15;

fn guid(guid: Option<ExchangeGuid>) -> Uuid {
    guid.map_or(Uuid::nil(), |g| g.0)
}

fn common(r: &Recipient) -> Object {
    Object::new()
        .with("Name", r.name.as_str())
        .with("Identity", r.name.as_str())
        .with("DisplayName", r.display_name.as_str())
        .with("Alias", r.alias.as_str())
        .with("RecipientType", r.recipient_type())
        .with("RecipientTypeDetails", r.recipient_type())
        .with("PrimarySmtpAddress", r.primary_smtp_address().map(ToString::to_string))
        .with("WindowsEmailAddress", r.primary_smtp_address().map(ToString::to_string))
        .with(
            "EmailAddresses",
            r.email_addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
        .with("LegacyExchangeDN", r.legacy_exchange_dn.as_str())
        .with("Guid", r.id.0)
        .with("ExternalDirectoryObjectId", r.id.to_string())
        .with("HiddenFromAddressListsEnabled", r.hidden)
}

fn common_properties(columns: &[&str]) -> Vec<Property> {
    let all = [
        ("Name", "Unique in the organisation."),
        ("Identity", "The Name."),
        ("DisplayName", "Shown in address lists."),
        ("Alias", "Unique in the organisation."),
        (
            "RecipientType",
            "UserMailbox, MailUser, MailUniversalSecurityGroup or MailUniversalDistributionGroup.",
        ),
        ("RecipientTypeDetails", "The same here."),
        ("PrimarySmtpAddress", "The SMTP: entry of EmailAddresses."),
        ("WindowsEmailAddress", "The primary address."),
        ("EmailAddresses", "All proxy addresses."),
        (
            "LegacyExchangeDN",
            "The name under which internal mail remembers the recipient; never changes.",
        ),
        ("Guid", "The directory object."),
        ("ExternalDirectoryObjectId", "The directory object, as text."),
        ("HiddenFromAddressListsEnabled", "Whether address lists leave it out."),
    ];
    all.iter()
        .map(|(name, help)| Property::among(columns, name, help))
        .collect()
}

fn tail(mut object: Object, r: &Recipient) -> Object {
    for number in 1..=CUSTOM_ATTRIBUTES {
        let value = r
            .custom_attributes
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, v)| v.as_str());
        object = object.with(&format!("CustomAttribute{number}"), value.unwrap_or_default());
    }
    object
        .with("WhenCreatedUTC", r.created)
        .with("WhenChangedUTC", r.changed)
}

fn tail_properties() -> Vec<Property> {
    let mut all: Vec<Property> = (1..=CUSTOM_ATTRIBUTES)
        .map(|n| Property::new(&format!("CustomAttribute{n}"), "Free text."))
        .collect();
    all.push(Property::new("WhenCreatedUTC", "When it was made."));
    all.push(Property::new("WhenChangedUTC", "When it was last changed."));
    all
}

fn external(r: &Recipient) -> Option<String> {
    r.mail_user()
        .and_then(|m| m.external_email_address.as_ref())
        .map(|a| format!("SMTP:{a}"))
}

/// As Get-Mailbox shows it.
pub(super) fn mailbox(r: &Recipient) -> Object {
    let m = r.mailbox();
    let state = m.map(|m| match m.state {
        MailboxState::Open => "Open",
        MailboxState::NotYetShown => "NotYetShown",
        MailboxState::InCutover(_) => "InCutover",
    });
    let object = common(r)
        .with("UserPrincipalName", r.user_principal_name.clone())
        .with("MicrosoftOnlineServicesID", r.user_principal_name.clone())
        .with("ExchangeGuid", guid(r.exchange_guid()))
        .with("ArchiveGuid", Uuid::nil())
        .with("LitigationHoldEnabled", m.is_some_and(|m| m.litigation_hold))
        .with("MaxReceiveSize", m.map(|m| m.max_receive_size))
        .with("Platform", m.map(|m| m.platform.as_str()))
        .with("Location", m.map(|m| m.location.as_str()))
        .with("MailboxState", state);
    tail(object, r)
}

pub(super) fn mailbox_properties() -> Vec<Property> {
    let columns = ["Name", "Alias", "PrimarySmtpAddress", "ExchangeGuid", "Platform"];
    let mut all = common_properties(&columns);
    all.extend(
        [
            ("UserPrincipalName", "Sign-in name."),
            ("MicrosoftOnlineServicesID", "Sign-in name."),
            (
                "ExchangeGuid",
                "Identity of the contents; kept for ever, also across a move.",
            ),
            ("ArchiveGuid", "Always zero: no archive."),
            ("LitigationHoldEnabled", "A hold blocks a move."),
            ("MaxReceiveSize", "Largest message it accepts, octets."),
            ("Platform", "The mail platform that holds the contents."),
            ("Location", "Where on the platform."),
            (
                "MailboxState",
                "Open; InCutover while a partner completes its move; NotYetShown while ours does.",
            ),
        ]
        .map(|(name, help)| Property::among(&columns, name, help)),
    );
    all.extend(tail_properties());
    all
}

/// As Get-MailUser shows it.
pub(super) fn mail_user(r: &Recipient) -> Object {
    let object = common(r)
        .with("UserPrincipalName", r.user_principal_name.clone())
        .with("MicrosoftOnlineServicesID", r.user_principal_name.clone())
        .with("ExternalEmailAddress", external(r))
        .with("ExchangeGuid", guid(r.exchange_guid()))
        .with("ArchiveGuid", guid(r.mail_user().and_then(|m| m.archive_guid)));
    tail(object, r)
}

pub(super) fn mail_user_properties() -> Vec<Property> {
    let columns = ["Name", "RecipientType"];
    let mut all = common_properties(&columns);
    all.extend(
        [
            ("UserPrincipalName", "Sign-in name."),
            ("MicrosoftOnlineServicesID", "Sign-in name."),
            ("ExternalEmailAddress", "Where its mail goes."),
            ("ExchangeGuid", "The mailbox it stands for; zero for none."),
            ("ArchiveGuid", "That mailbox's archive; zero for none."),
        ]
        .map(|(name, help)| Property::among(&columns, name, help)),
    );
    all.extend(tail_properties());
    all
}

/// As Get-Recipient shows it: what every kind has, and where its mail goes.
pub(super) fn recipient(r: &Recipient) -> Object {
    let object = common(r)
        .with("ExternalEmailAddress", external(r))
        .with("ExchangeGuid", guid(r.exchange_guid()));
    tail(object, r)
}

pub(super) fn recipient_properties() -> Vec<Property> {
    let mut all = common_properties(&["Name", "RecipientType"]);
    all.push(Property::new("ExternalEmailAddress", "Where a mail user's mail goes."));
    all.push(Property::new(
        "ExchangeGuid",
        "The mailbox it has or stands for; zero for none.",
    ));
    all.extend(tail_properties());
    all
}

/// As New-DistributionGroup shows it.
pub(super) fn group(r: &Recipient) -> Object {
    let security = match &r.kind {
        RecipientKind::Group(g) => g.group_type == GroupType::Security,
        RecipientKind::Mailbox(_) | RecipientKind::MailUser(_) => false,
    };
    let kind: Value = if security {
        "Universal, SecurityEnabled"
    } else {
        "Universal"
    }
    .into();
    tail(
        common(r)
            .with("GroupType", kind)
            .with("MemberJoinRestriction", "Closed")
            .with("MemberDepartRestriction", if security { "Closed" } else { "Open" }),
        r,
    )
}

pub(super) fn group_properties() -> Vec<Property> {
    let columns = ["Name", "DisplayName", "GroupType", "PrimarySmtpAddress"];
    let mut all = common_properties(&columns);
    all.push(Property::column(
        "GroupType",
        "Universal, with SecurityEnabled for a mail-enabled security group.",
    ));
    all.push(Property::new(
        "MemberJoinRestriction",
        "Closed: administrators add members.",
    ));
    all.push(Property::new(
        "MemberDepartRestriction",
        "Closed for a security group, otherwise Open.",
    ));
    all.extend(tail_properties());
    all
}

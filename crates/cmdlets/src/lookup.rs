//! From what an administrator types to the one object it names: none and several are errors, never "all".

use crate::{context::Call, error::CommandError};
use rehome_command::{Parameters, Value};
use rehome_domain::{
    address::{DomainName, ProxyAddress, SmtpAddress},
    error_id::ErrorId,
    moves::UserStatus,
    recipient::{MailboxState, Recipient, RecipientKind},
};
use rehome_store::Tx;

/// Objects that a Get returns unless told otherwise.
const DEFAULT_RESULT_SIZE: u32 = 1000;

/// Which recipients an identity may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Any,
    Mailbox,
    MailUser,
    Group,
}

impl Wanted {
    fn fits(self, recipient: &Recipient) -> bool {
        match (self, &recipient.kind) {
            (Self::Any, _)
            | (Self::Mailbox, RecipientKind::Mailbox(_))
            | (Self::MailUser, RecipientKind::MailUser(_))
            | (Self::Group, RecipientKind::Group(_)) => true,
            (Self::Mailbox | Self::MailUser | Self::Group, _) => false,
        }
    }
}

/// The recipient that `identity` names among those wanted.
pub(crate) async fn recipient(
    call: &Call<'_>,
    tx: &mut Tx,
    identity: &str,
    wanted: Wanted,
) -> Result<Recipient, CommandError> {
    let found = tx.recipient_find(call.tenant(), identity).await?;
    let other = found.first().map(Recipient::recipient_type);
    let mut fitting: Vec<Recipient> = found.into_iter().filter(|r| wanted.fits(r)).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(one), false) => {
            let names: Vec<String> = fitting
                .iter()
                .chain(std::iter::once(&one))
                .map(|r| format!("'{}' ({})", r.name, r.id))
                .collect();
            Err(CommandError::new(
                ErrorId::ManagementObjectAmbiguous,
                identity,
                format!(
                    "The identity '{identity}' matches multiple entries: {}.",
                    names.join(", ")
                ),
                "Give the Guid or the address of the one that is meant.",
            ))
        }
        (None, _) => {
            let organisation = call.organisation(tx).await?;
            let advice = match other {
                Some(kind) => format!("There is a recipient '{identity}', but it is of type {kind}."),
                None => "Get-Recipient lists the recipients.".to_owned(),
            };
            Err(CommandError::not_found(identity, &organisation, advice))
        }
    }
}

/// How many objects to return, and how to cut a list that was read with one more.
pub(crate) struct ResultSize(u32);

impl ResultSize {
    pub(crate) fn of(parameters: &Parameters) -> Self {
        match parameters.get("ResultSize") {
            Some(Value::Int(n)) => Self(u32::try_from(*n).unwrap_or(DEFAULT_RESULT_SIZE)),
            Some(Value::Text(_)) => Self(u32::MAX - 1),
            _ => Self(DEFAULT_RESULT_SIZE),
        }
    }

    /// How many to read.
    pub(crate) fn to_read(&self) -> u32 {
        self.0 + 1
    }

    /// Cuts the list and says so.
    pub(crate) fn cut<T>(&self, list: &mut Vec<T>) -> Option<String> {
        let most = usize::try_from(self.0).unwrap_or(usize::MAX);
        if list.len() <= most {
            return None;
        }
        list.truncate(most);
        Some(format!(
            "There are more results than the {most} shown. Use -ResultSize Unlimited to see all."
        ))
    }
}

/// The tenant's accepted domains, the default first.
pub(crate) async fn accepted_domains(call: &Call<'_>, tx: &mut Tx) -> Result<Vec<DomainName>, CommandError> {
    Ok(tx
        .accepted_domain_list(call.tenant())
        .await?
        .into_iter()
        .map(|d| d.name)
        .collect())
}

/// Refuses addresses outside the accepted domains.
pub(crate) fn check_accepted<'a>(
    domains: &[DomainName],
    addresses: impl IntoIterator<Item = &'a SmtpAddress>,
) -> Result<(), CommandError> {
    match addresses.into_iter().find(|a| !domains.contains(a.domain())) {
        None => Ok(()),
        Some(address) => Err(CommandError::new(
            ErrorId::NotAcceptedDomain,
            address.to_string(),
            format!(
                "You can't use the domain because it's not an accepted domain for your organization. ({} in {address})",
                address.domain()
            ),
            format!(
                "Use one of: {}. The operator adds domains with rehome tenant domain add.",
                text_list(domains)
            ),
        )),
    }
}

fn text_list(domains: &[DomainName]) -> String {
    domains.iter().map(DomainName::as_str).collect::<Vec<_>>().join(", ")
}

/// A parameter that is an SMTP address.
pub(crate) fn smtp_address(parameters: &Parameters, name: &str) -> Result<Option<SmtpAddress>, CommandError> {
    parameters.text(name).map(|t| parse_smtp(name, t)).transpose()
}

pub(crate) fn parse_smtp(name: &str, text: &str) -> Result<SmtpAddress, CommandError> {
    let bare = text.trim();
    let bare = bare
        .get(..5)
        .filter(|p| p.eq_ignore_ascii_case("smtp:"))
        .map_or(bare, |_| &bare[5..]);
    bare.parse()
        .map_err(|e| CommandError::parameter(name, format!("Cannot bind parameter '{name}': {e}."), ""))
}

pub(crate) fn parse_proxies(name: &str, texts: &[String]) -> Result<Vec<ProxyAddress>, CommandError> {
    let parse = |t: &String| {
        t.parse()
            .map_err(|e| CommandError::parameter(name, format!("Cannot bind parameter '{name}': {e}."), ""))
    };
    texts.iter().map(parse).collect()
}

/// Names every address of `recipient` that another recipient has, and every x500 address that is another's LegacyExchangeDN.
pub(crate) async fn check_addresses_free(
    call: &Call<'_>,
    tx: &mut Tx,
    recipient: &Recipient,
) -> Result<(), CommandError> {
    let mut taken = Vec::new();
    for address in &recipient.email_addresses {
        let holder = match address {
            ProxyAddress::X500(dn) => {
                let holders = tx.recipients_by_legacy_exchange_dn(call.tenant(), dn).await?;
                holders.into_iter().find(|h| h.id != recipient.id)
            }
            ProxyAddress::Primary(_) | ProxyAddress::Smtp(_) | ProxyAddress::X400(_) => tx
                .recipient_by_proxy(call.tenant(), &address.key())
                .await?
                .filter(|h| h.id != recipient.id),
        };
        if let Some(holder) = holder {
            taken.push(format!(
                "{address} is already used by '{}' ({})",
                holder.name,
                holder.recipient_type()
            ));
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    Err(CommandError::new(
        ErrorId::ObjectAlreadyExists,
        recipient.name.as_str(),
        format!("{}.", taken.join("; ")),
        "An address belongs to one recipient: take it from that one first.",
    ))
}

/// Refuses a change while a cutover holds the recipient on either side.
pub(crate) async fn check_not_in_cutover(
    call: &Call<'_>,
    tx: &mut Tx,
    recipient: &Recipient,
) -> Result<(), CommandError> {
    let held = match recipient.mailbox().map(|m| m.state) {
        Some(MailboxState::InCutover(_) | MailboxState::NotYetShown) => true,
        Some(MailboxState::Open) => false,
        None => {
            let moves = tx.move_list(call.tenant(), None).await?;
            moves
                .iter()
                .any(|m| m.recipient == Some(recipient.id) && m.status == UserStatus::Completing)
        }
    };
    if held {
        return Err(CommandError::invalid_operation(
            &recipient.name,
            format!(
                "'{}' is being completed by a migration just now and cannot be changed.",
                recipient.name
            ),
            "Wait until Get-MigrationUser (in the target) or Get-OutboundMigration (in the source) shows the end.",
        ));
    }
    Ok(())
}

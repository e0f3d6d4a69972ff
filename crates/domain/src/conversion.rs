//! What completion does to the two recipients, attribute by attribute.

use crate::{
    address::{LegacyExchangeDn, ProxyAddress, SmtpAddress},
    id::ExchangeGuid,
    recipient::{MailUser, Mailbox, MailboxState, Recipient, RecipientKind},
};
use jiff::Timestamp;

/// What the source promised at Prepare and stamps at Commit, exactly so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Becomes ExternalEmailAddress.
    pub routing_address: SmtpAddress,
    /// Becomes an x500 proxy, so that replies to old mail keep working.
    pub target_legacy_exchange_dn: LegacyExchangeDn,
}

/// The source's mailbox as the mail user it becomes.
///
/// Addresses, ExchangeGuid, LegacyExchangeDN and group memberships stay; the routing address becomes
/// ExternalEmailAddress; the target's LegacyExchangeDN is added as x500 proxy.
#[must_use]
pub fn mailbox_to_mail_user(
    source: &Recipient,
    exchange_guid: ExchangeGuid,
    promise: &Promise,
    now: Timestamp,
) -> Recipient {
    let mut email_addresses = source.email_addresses.clone();
    let x500 = promise.target_legacy_exchange_dn.as_x500();
    if !email_addresses.iter().any(|p| p.key() == x500.key())
        && !source
            .legacy_exchange_dn
            .same_as(promise.target_legacy_exchange_dn.as_str())
    {
        email_addresses.push(x500);
    }
    Recipient {
        email_addresses,
        kind: RecipientKind::MailUser(MailUser {
            external_email_address: Some(promise.routing_address.clone()),
            exchange_guid: Some(exchange_guid),
            archive_guid: None,
        }),
        changed: now,
        ..source.clone()
    }
}

/// Where the target's contents lie when it becomes a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The platform's name.
    pub platform: String,
    /// The location on it once shown.
    pub location: String,
    /// Largest message it accepts, octets.
    pub max_receive_size: u64,
}

/// The target's mail user as the mailbox it becomes at the decision: not yet shown, so mail is deferred until it is.
///
/// ExternalEmailAddress is cleared; addresses stay as prepared.
#[must_use]
pub fn mail_user_to_mailbox(
    target: &Recipient,
    exchange_guid: ExchangeGuid,
    place: Place,
    now: Timestamp,
) -> Recipient {
    Recipient {
        kind: RecipientKind::Mailbox(Mailbox {
            exchange_guid,
            platform: place.platform,
            location: place.location,
            state: MailboxState::NotYetShown,
            litigation_hold: false,
            max_receive_size: place.max_receive_size,
        }),
        changed: now,
        ..target.clone()
    }
}

/// The mailbox with another state, all else as it was; none when it is no mailbox.
#[must_use]
pub fn with_mailbox_state(recipient: &Recipient, state: MailboxState, now: Timestamp) -> Option<Recipient> {
    let mailbox = recipient.mailbox()?;
    Some(Recipient {
        kind: RecipientKind::Mailbox(Mailbox {
            state,
            ..mailbox.clone()
        }),
        changed: now,
        ..recipient.clone()
    })
}

/// Whether `proxies` already answer for `dn`.
#[must_use]
pub fn answers_for(recipient: &Recipient, dn: &str) -> bool {
    recipient.legacy_exchange_dn.same_as(dn)
        || recipient
            .email_addresses
            .iter()
            .any(|p| matches!(p, ProxyAddress::X500(v) if v.eq_ignore_ascii_case(dn)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{RecipientId, TenantId},
        readiness::tests::{guid, mail_user, mailbox},
    };

    #[test]
    fn the_source_forwards_and_answers_for_the_target() {
        let source = mailbox();
        let dn = LegacyExchangeDn::for_recipient(&"fabrikam.example".parse().unwrap(), RecipientId::from_u128(9), "u1");
        let promise = Promise {
            routing_address: "u1@fabrikam.example".parse().unwrap(),
            target_legacy_exchange_dn: dn.clone(),
        };
        let after = mailbox_to_mail_user(&source, guid(), &promise, Timestamp::UNIX_EPOCH);
        let user = after.mail_user().unwrap();
        assert_eq!(
            user.external_email_address.as_ref().unwrap().to_string(),
            "u1@fabrikam.example"
        );
        assert_eq!(user.exchange_guid, Some(guid()));
        assert!(answers_for(&after, dn.as_str()));
        assert_eq!(after.primary_smtp_address(), source.primary_smtp_address());
        assert_eq!(after.legacy_exchange_dn, source.legacy_exchange_dn);
        assert_eq!((after.id, after.tenant), (source.id, TenantId::from_u128(1)));
        let again = mailbox_to_mail_user(&after, guid(), &promise, Timestamp::UNIX_EPOCH);
        assert_eq!(
            again.email_addresses, after.email_addresses,
            "stamping twice adds nothing"
        );
    }

    #[test]
    fn the_target_is_a_mailbox_that_is_not_yet_shown() {
        let place = Place {
            platform: "mail".into(),
            location: "u1".into(),
            max_receive_size: 1,
        };
        let after = mail_user_to_mailbox(&mail_user(), guid(), place, Timestamp::UNIX_EPOCH);
        assert_eq!(after.mailbox().unwrap().state, MailboxState::NotYetShown);
        assert_eq!(after.recipient_type(), "UserMailbox");
        assert_eq!(after.email_addresses, mail_user().email_addresses);
    }
}

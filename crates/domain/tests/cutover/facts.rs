//! The values that the functions of production are given.

use crate::state::{Held, Place, State};
use jiff::{SignedDuration, Timestamp};
use rehome_domain::{
    address::LegacyExchangeDn,
    consent::{PinnedKeys, ROLE_MAILBOX_MIGRATION, ServicePrincipal},
    cutover::{LockLimits, SourceAttempt, SourcePhase},
    gate::{Caller, CutoverFacts, MailboxFacts, Membership, Request, Verb, gate},
    id::{ApplicationId, AttemptId, ExchangeGuid, MoveId, RecipientId, RelationshipId, ServicePrincipalId, TenantId},
    recipient::{MailUser, Mailbox, MailboxState, Recipient, RecipientKind},
    relationship::{MailboxMoveCapability, OrganizationRelationship},
};

pub const MOVE: MoveId = MoveId::from_u128(5);
pub const PRINCIPAL: ServicePrincipalId = ServicePrincipalId::from_u128(6);
const GUID: ExchangeGuid = ExchangeGuid::from_u128(7);
const FIRST_ATTEMPT: u128 = 100;

pub fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

pub fn attempt_id(attempt: u8) -> AttemptId {
    AttemptId::from_u128(FIRST_ATTEMPT + u128::from(attempt))
}

pub fn attempt_from(id: AttemptId) -> u8 {
    u8::try_from(id.as_u128() - FIRST_ATTEMPT).expect("one of the model's attempts")
}

/// Limits that are never reached: what they do is wait.
pub fn limits() -> LockLimits {
    LockLimits {
        attempts_per_day: 100,
        ..LockLimits::default()
    }
}

/// The row of production.
pub fn source_attempt(held: &Held) -> SourceAttempt {
    SourceAttempt {
        id: attempt_id(held.id),
        move_id: MOVE,
        service_principal: PRINCIPAL,
        phase: held.phase,
        granted_at: now(),
        lease_until: now() + limits().lease,
        committed_at: None,
        catches_up: held.catches_up.map(attempt_id),
    }
}

pub struct Facts {
    caller: Caller,
    consent: ServicePrincipal,
    revoked: ServicePrincipal,
    relationship: OrganizationRelationship,
    source_open: Recipient,
    source_in_cutover: Recipient,
    source_moved: Recipient,
    target_mail_user: Recipient,
    target_not_shown: Recipient,
    target_open: Recipient,
}

fn recipient(domain: &str, kind: RecipientKind) -> Recipient {
    let domain = domain.parse().expect("a domain");
    let id = RecipientId::from_u128(1);
    Recipient {
        id,
        tenant: TenantId::from_u128(1),
        name: "orders".into(),
        alias: "orders".into(),
        display_name: "orders".into(),
        user_principal_name: None,
        email_addresses: vec![format!("SMTP:orders@{domain}").parse().expect("an address")],
        legacy_exchange_dn: LegacyExchangeDn::for_recipient(&domain, id, "orders"),
        kind,
        hidden: false,
        custom_attributes: vec![],
        created: now(),
        changed: now(),
    }
}

fn mailbox(domain: &str, state: MailboxState) -> Recipient {
    let kind = RecipientKind::Mailbox(Mailbox {
        exchange_guid: GUID,
        platform: "local".into(),
        location: "orders".into(),
        state,
        litigation_hold: false,
        max_receive_size: 1000,
    });
    recipient(domain, kind)
}

fn mail_user(domain: &str, to: &str) -> Recipient {
    let kind = RecipientKind::MailUser(MailUser {
        external_email_address: Some(format!("orders@{to}").parse().expect("an address")),
        exchange_guid: Some(GUID),
        archive_guid: None,
    });
    recipient(domain, kind)
}

impl Facts {
    pub fn new() -> Self {
        const SOURCE: &str = "contoso.example";
        const TARGET: &str = "fabrikam.example";
        let (home_tenant, app_id) = (TenantId::from_u128(2), ApplicationId::from_u128(3));
        let roles = vec![ROLE_MAILBOX_MIGRATION.to_owned()];
        let issuer = "https://fabrikam.example/2/v2.0".to_owned();
        let consent = ServicePrincipal {
            id: PRINCIPAL,
            tenant: TenantId::from_u128(1),
            issuer: issuer.clone(),
            home_tenant,
            app_id,
            display_name: "Mover".into(),
            home_domains: vec![TARGET.into()],
            outcome_endpoint: None,
            pinned_keys: PinnedKeys {
                sequence: 1,
                keys: vec![],
            },
            roles: roles.clone(),
            return_right: true,
            accepted_by: "admin@contoso.example".into(),
            accepted_at: now(),
            expires_at: now() + SignedDuration::from_hours(24),
            revoked_at: None,
        };
        Self {
            revoked: ServicePrincipal {
                revoked_at: Some(now()),
                ..consent.clone()
            },
            consent,
            caller: Caller {
                service_principal: PRINCIPAL,
                app_id,
                home_issuer: issuer,
                home_tenant,
                roles,
            },
            relationship: OrganizationRelationship {
                id: RelationshipId::from_u128(1),
                tenant: TenantId::from_u128(1),
                name: "fabrikam".into(),
                domain_names: vec![home_tenant.to_string()],
                enabled: true,
                mailbox_move_enabled: true,
                mailbox_move_capability: MailboxMoveCapability {
                    remote_outbound: true,
                    ..Default::default()
                },
                mailbox_move_published_scopes: vec![RecipientId::from_u128(2)],
                oauth_application_id: Some(app_id),
                service_principal: Some(PRINCIPAL),
                max_lock_attempts_per_day: 3,
                content_retention_days: None,
                mailbox_return_without_approval: false,
            },
            source_open: mailbox(SOURCE, MailboxState::Open),
            source_in_cutover: mailbox(SOURCE, MailboxState::InCutover(MOVE)),
            source_moved: mail_user(SOURCE, TARGET),
            target_mail_user: mail_user(TARGET, SOURCE),
            target_not_shown: mailbox(TARGET, MailboxState::NotYetShown),
            target_open: mailbox(TARGET, MailboxState::Open),
        }
    }

    /// The source's recipient, as the transactions that write an attempt's phase leave it.
    pub fn at_source(&self, state: &State) -> &Recipient {
        match state.source.newest.map(|held| held.phase) {
            None | Some(SourcePhase::Aborted | SourcePhase::Lapsed | SourcePhase::Reopened | SourcePhase::Returned) => {
                &self.source_open
            }
            Some(SourcePhase::Locked | SourcePhase::Prepared) => &self.source_in_cutover,
            Some(SourcePhase::Committed | SourcePhase::Released) => &self.source_moved,
        }
    }

    pub fn at_target(&self, state: &State) -> &Recipient {
        match state.target.place {
            Place::MailUser => &self.target_mail_user,
            Place::NotYetShown => &self.target_not_shown,
            Place::Open => &self.target_open,
        }
    }

    /// What the source's gate says.
    pub fn admits(&self, state: &State, verb: Verb, attempt: Option<u8>) -> bool {
        let newest = state.source.newest.as_ref().map(source_attempt);
        let released = state
            .source
            .newest
            .is_some_and(|held| held.phase == SourcePhase::Released);
        let retention_until = if released {
            now()
        } else {
            now() + SignedDuration::from_hours(1)
        };
        let is_mailbox = self.at_source(state).mailbox().is_some();
        let mailbox = MailboxFacts {
            exchange_guid: GUID,
            membership: Membership::Direct,
            on_hold: false,
            cutover: CutoverFacts::of(newest.as_ref(), Some(retention_until), is_mailbox),
            open_move: None,
            return_record: None,
        };
        let principal = if state.source.revoked {
            &self.revoked
        } else {
            &self.consent
        };
        gate(&Request {
            caller: &self.caller,
            verb,
            principal: Some(principal),
            relationship: Some(&self.relationship),
            mailbox: Some(&mailbox),
            move_id: MOVE,
            attempt: attempt.map(attempt_id),
            now: now(),
        })
        .is_ok()
    }
}

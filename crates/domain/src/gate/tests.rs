//! The gate's table: verb × mailbox state × what has been withdrawn.

use super::*;
use crate::{
    consent::PinnedKeys,
    id::{RecipientId, RelationshipId},
    relationship::MailboxMoveCapability,
};

const NOW: i64 = 1_800_000_000;
const ATTEMPT: AttemptId = AttemptId::from_u128(0xa);
const MOVE: MoveId = MoveId::from_u128(0xb);
const PRINCIPAL: ServicePrincipalId = ServicePrincipalId::from_u128(0xc);
const HOME: TenantId = TenantId::from_u128(0xd);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

struct World {
    caller: Caller,
    principal: Option<ServicePrincipal>,
    relationship: Option<OrganizationRelationship>,
    mailbox: Option<MailboxFacts>,
    attempt: Option<AttemptId>,
    move_id: MoveId,
}

fn world(cutover: CutoverFacts) -> World {
    let app_id = ApplicationId::from_u128(0xe);
    let tenant = TenantId::from_u128(0xf);
    World {
        caller: Caller {
            service_principal: PRINCIPAL,
            app_id,
            home_issuer: "https://fabrikam.example/x/v2.0".into(),
            home_tenant: HOME,
            roles: vec![ROLE_MAILBOX_MIGRATION.into()],
        },
        principal: Some(ServicePrincipal {
            id: PRINCIPAL,
            tenant,
            issuer: "https://fabrikam.example/x/v2.0".into(),
            home_tenant: HOME,
            app_id,
            display_name: "Mover".into(),
            home_domains: vec!["fabrikam.example".into()],
            outcome_endpoint: None,
            pinned_keys: PinnedKeys {
                sequence: 1,
                keys: vec![],
            },
            roles: vec![ROLE_MAILBOX_MIGRATION.into()],
            return_right: true,
            accepted_by: "admin@contoso.example".into(),
            accepted_at: at(NOW - 100),
            expires_at: at(NOW + 100),
            revoked_at: None,
        }),
        relationship: Some(OrganizationRelationship {
            id: RelationshipId::from_u128(1),
            tenant,
            name: "fabrikam".into(),
            domain_names: vec![HOME.to_string()],
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
        }),
        mailbox: Some(MailboxFacts {
            exchange_guid: ExchangeGuid::from_u128(3),
            membership: Membership::Direct,
            on_hold: false,
            cutover,
            open_move: Some(MOVE),
            return_record: None,
        }),
        attempt: Some(ATTEMPT),
        move_id: MOVE,
    }
}

impl World {
    fn ask(&self, verb: Verb) -> Result<(), ErrorId> {
        gate(&Request {
            caller: &self.caller,
            verb,
            principal: self.principal.as_ref(),
            relationship: self.relationship.as_ref(),
            mailbox: self.mailbox.as_ref(),
            move_id: self.move_id,
            attempt: self.attempt,
            now: at(NOW),
        })
        .map_err(|r| r.id)
    }
}

fn holder() -> Holder {
    Holder {
        attempt: ATTEMPT,
        move_id: MOVE,
        service_principal: PRINCIPAL,
    }
}

fn states() -> [(&'static str, CutoverFacts); 5] {
    [
        ("open", CutoverFacts::Open),
        ("locked", CutoverFacts::Locked(holder())),
        ("prepared", CutoverFacts::Prepared(holder())),
        ("reopened", CutoverFacts::Reopened(holder())),
        (
            "moved",
            CutoverFacts::Moved {
                holder: holder(),
                retention_until: at(NOW + 50),
            },
        ),
    ]
}

type Withdrawal = (&'static str, ErrorId, fn(&mut World));

fn withdrawals() -> Vec<Withdrawal> {
    vec![
        ("principal gone", ErrorId::ApplicationNotConsented, |w| {
            w.principal = None
        }),
        ("revoked", ErrorId::ApplicationNotConsented, |w| {
            w.principal.as_mut().unwrap().revoked_at = Some(at(NOW - 1))
        }),
        ("consent ended", ErrorId::ApplicationNotConsented, |w| {
            w.principal.as_mut().unwrap().expires_at = at(NOW)
        }),
        ("other issuer", ErrorId::ApplicationNotConsented, |w| {
            w.caller.home_issuer = "https://evil.example/x/v2.0".into()
        }),
        ("other app", ErrorId::ApplicationNotConsented, |w| {
            w.caller.app_id = ApplicationId::from_u128(99)
        }),
        ("token without role", ErrorId::InvalidAccessToken, |w| {
            w.caller.roles.clear()
        }),
        ("principal without role", ErrorId::InvalidAccessToken, |w| {
            w.principal.as_mut().unwrap().roles.clear()
        }),
        ("no relationship", ErrorId::SourceTenantNotAuthorized, |w| {
            w.relationship = None
        }),
        ("bound to another principal", ErrorId::SourceTenantNotAuthorized, |w| {
            w.relationship.as_mut().unwrap().service_principal = Some(ServicePrincipalId::from_u128(98));
        }),
        ("names another tenant", ErrorId::SourceTenantNotAuthorized, |w| {
            w.relationship.as_mut().unwrap().domain_names =
                vec![TenantId::from_u128(97).to_string(), "fabrikam.example".into()];
        }),
        ("disabled", ErrorId::OrganizationRelationshipDisabled, |w| {
            w.relationship.as_mut().unwrap().enabled = false
        }),
        ("moves disabled", ErrorId::OrganizationRelationshipDisabled, |w| {
            w.relationship.as_mut().unwrap().mailbox_move_enabled = false
        }),
        ("capability", ErrorId::MailboxMoveCapability, |w| {
            w.relationship.as_mut().unwrap().mailbox_move_capability = MailboxMoveCapability {
                inbound: true,
                ..Default::default()
            };
        }),
        ("no scopes", ErrorId::MailboxMovePublishedScopesMissing, |w| {
            w.relationship.as_mut().unwrap().mailbox_move_published_scopes.clear()
        }),
    ]
}

#[test]
fn nothing_withdrawn() {
    use ErrorId::{SourceMailboxAlreadyBeingMovedPermanent as Moving, StaleAttempt as Stale};
    // Columns: open, locked, prepared, reopened, moved (all by the asking attempt).
    let table: [(Verb, [Result<(), ErrorId>; 5]); 8] = [
        (Verb::Open, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Moving)]),
        (Verb::Read, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Moving)]),
        (Verb::Lock, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Moving)]),
        (Verb::Prepare, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Moving)]),
        (Verb::Commit, [Err(Stale), Ok(()), Ok(()), Ok(()), Ok(())]),
        (Verb::Abort, [Err(Stale), Ok(()), Ok(()), Ok(()), Ok(())]),
        (Verb::Status, [Err(Stale), Ok(()), Ok(()), Ok(()), Ok(())]),
        (Verb::Sweep, [Err(Stale), Err(Stale), Err(Stale), Err(Stale), Ok(())]),
    ];
    for (verb, row) in table {
        for ((name, state), expected) in states().into_iter().zip(row) {
            assert_eq!(world(state).ask(verb), expected, "{verb:?} {name}");
        }
    }
}

#[test]
fn every_withdrawal_stops_content_and_none_stops_the_outcome() {
    for (state_name, state) in states() {
        for (name, id, withdraw) in withdrawals() {
            let mut w = world(state);
            withdraw(&mut w);
            for verb in Verb::ALL {
                let expected = match (verb, state) {
                    (Verb::Commit | Verb::Abort | Verb::Status, CutoverFacts::Open) => Err(id),
                    (Verb::Commit | Verb::Abort | Verb::Status, _) => Ok(()),
                    (Verb::Open | Verb::Read | Verb::Lock | Verb::Prepare | Verb::Sweep, _) => Err(id),
                };
                assert_eq!(w.ask(verb), expected, "{verb:?} {state_name} {name}");
            }
        }
    }
}

#[test]
fn scope_hold_and_other_moves() {
    use ErrorId::{
        MailboxNotInCrossTenantMigrationScope as Scope, MailboxOnHold,
        SourceMailboxAlreadyBeingMovedPermanent as Moving,
    };
    type Case = (&'static str, ErrorId, fn(&mut World));
    let cases: [Case; 5] = [
        ("missing", Scope, |w| w.mailbox = None),
        ("no group", Scope, |w| {
            w.mailbox.as_mut().unwrap().membership = Membership::None
        }),
        ("nested", Scope, |w| {
            w.mailbox.as_mut().unwrap().membership = Membership::NestedOnly
        }),
        ("hold", MailboxOnHold, |w| w.mailbox.as_mut().unwrap().on_hold = true),
        ("other move", Moving, |w| {
            w.mailbox.as_mut().unwrap().open_move = Some(MoveId::from_u128(77))
        }),
    ];
    for (name, id, change) in cases {
        let mut w = world(CutoverFacts::Open);
        change(&mut w);
        for verb in [Verb::Open, Verb::Read, Verb::Lock, Verb::Prepare] {
            assert_eq!(w.ask(verb), Err(id), "{verb:?} {name}");
        }
    }
    // One text for everything that would tell whether a mailbox exists.
    let texts: Vec<_> = cases[..3]
        .iter()
        .map(|(_, _, change)| {
            let mut w = world(CutoverFacts::Open);
            change(&mut w);
            gate(&Request {
                caller: &w.caller,
                verb: Verb::Open,
                principal: w.principal.as_ref(),
                relationship: w.relationship.as_ref(),
                mailbox: w.mailbox.as_ref(),
                move_id: MOVE,
                attempt: None,
                now: at(NOW),
            })
            .unwrap_err()
            .partner_text
        })
        .collect();
    assert!(texts.windows(2).all(|t| t[0] == t[1]) && texts[0].contains("nested"));
}

#[test]
fn a_sweep_needs_no_group_but_ends_with_retention() {
    let mut w = world(CutoverFacts::Moved {
        holder: holder(),
        retention_until: at(NOW + 1),
    });
    w.mailbox.as_mut().unwrap().membership = Membership::None;
    assert_eq!(w.ask(Verb::Sweep), Ok(()));
    w.mailbox.as_mut().unwrap().cutover = CutoverFacts::Moved {
        holder: holder(),
        retention_until: at(NOW),
    };
    assert_eq!(w.ask(Verb::Sweep), Err(ErrorId::StaleAttempt));
}

#[test]
fn another_partner_never_answers_for_an_attempt() {
    for (_, state) in states() {
        let mut w = world(state);
        let other = ServicePrincipalId::from_u128(50);
        w.caller.service_principal = other;
        w.principal.as_mut().unwrap().id = other;
        w.relationship.as_mut().unwrap().service_principal = Some(other);
        for verb in [Verb::Commit, Verb::Abort, Verb::Status, Verb::Sweep] {
            assert_eq!(w.ask(verb), Err(ErrorId::StaleAttempt), "{verb:?}");
        }
    }
}

#[test]
fn another_attempt_is_stale() {
    for (_, state) in states().into_iter().skip(1) {
        let mut w = world(state);
        w.attempt = Some(AttemptId::from_u128(51));
        for verb in [Verb::Commit, Verb::Abort, Verb::Status, Verb::Sweep] {
            assert_eq!(w.ask(verb), Err(ErrorId::StaleAttempt), "{verb:?}");
        }
    }
}

#[test]
fn another_move_of_the_same_partner_is_stale_too() {
    for (_, state) in states().into_iter().skip(1) {
        let mut w = world(state);
        w.move_id = MoveId::from_u128(52);
        w.mailbox.as_mut().unwrap().open_move = None;
        for verb in [Verb::Commit, Verb::Abort, Verb::Status, Verb::Sweep] {
            assert_eq!(w.ask(verb), Err(ErrorId::StaleAttempt), "{verb:?}");
        }
    }
}

/// The old source, taking back what a recorded commit moved: neither relationship nor scope is asked.
fn returning(cutover: CutoverFacts) -> World {
    let mut w = world(cutover);
    w.relationship = None;
    w.caller.roles = vec![ROLE_MAILBOX_RETURN.into()];
    w.principal.as_mut().unwrap().roles = vec![ROLE_MAILBOX_RETURN.into()];
    let mailbox = w.mailbox.as_mut().unwrap();
    mailbox.membership = Membership::None;
    mailbox.return_record = Some(ReturnRecord {
        service_principal: PRINCIPAL,
        retention_until: at(NOW + 50),
        approved: true,
    });
    w
}

#[test]
fn a_return_stands_on_the_commit_record_alone() {
    use ErrorId::{SourceMailboxAlreadyBeingMovedPermanent as Moving, StaleAttempt as Stale};
    // Columns: open, locked, prepared, reopened, moved (all by the asking attempt): as for a move.
    let table: [(Verb, [Result<(), ErrorId>; 5]); 8] = [
        (Verb::Open, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Moving)]),
        (Verb::Read, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Moving)]),
        (Verb::Lock, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Moving)]),
        (Verb::Prepare, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Moving)]),
        (Verb::Commit, [Err(Stale), Ok(()), Ok(()), Ok(()), Ok(())]),
        (Verb::Abort, [Err(Stale), Ok(()), Ok(()), Ok(()), Ok(())]),
        (Verb::Status, [Err(Stale), Ok(()), Ok(()), Ok(()), Ok(())]),
        (Verb::Sweep, [Err(Stale), Err(Stale), Err(Stale), Err(Stale), Ok(())]),
    ];
    for (verb, row) in table {
        for ((name, state), expected) in states().into_iter().zip(row) {
            assert_eq!(returning(state).ask(verb), expected, "{verb:?} {name}");
        }
    }
}

#[test]
fn what_ends_a_return() {
    use ErrorId::{
        ApplicationNotConsented, InvalidAccessToken, MailboxOnHold, ReturnNotApproved, ReturnPeriodEnded,
        ReturnRightMissing, SourceMailboxAlreadyBeingMovedPermanent as Moving, SourceTenantNotAuthorized,
    };
    fn record(w: &mut World) -> &mut ReturnRecord {
        w.mailbox.as_mut().unwrap().return_record.as_mut().unwrap()
    }
    type Case = (&'static str, ErrorId, fn(&mut World));
    let cases: [Case; 12] = [
        ("right revoked", ApplicationNotConsented, |w| {
            w.principal.as_mut().unwrap().revoked_at = Some(at(NOW - 1))
        }),
        ("right ended", ApplicationNotConsented, |w| {
            w.principal.as_mut().unwrap().expires_at = at(NOW)
        }),
        ("principal gone", ApplicationNotConsented, |w| w.principal = None),
        ("token without role", InvalidAccessToken, |w| w.caller.roles.clear()),
        ("principal without role", InvalidAccessToken, |w| {
            w.principal.as_mut().unwrap().roles.clear()
        }),
        // A token for moves is none for returns, and the other way round.
        ("token of a move", InvalidAccessToken, |w| {
            w.caller.roles = vec![ROLE_MAILBOX_MIGRATION.into()]
        }),
        ("both roles, no relationship", SourceTenantNotAuthorized, |w| {
            w.caller.roles.push(ROLE_MAILBOX_MIGRATION.into());
            w.principal.as_mut().unwrap().roles.push(ROLE_MAILBOX_MIGRATION.into());
        }),
        ("no mailbox", ReturnRightMissing, |w| w.mailbox = None),
        ("no commit", ReturnRightMissing, |w| {
            w.mailbox.as_mut().unwrap().return_record = None
        }),
        ("another's commit", ReturnRightMissing, |w| {
            record(w).service_principal = ServicePrincipalId::from_u128(50)
        }),
        ("after retention", ReturnPeriodEnded, |w| {
            record(w).retention_until = at(NOW)
        }),
        ("not approved", ReturnNotApproved, |w| record(w).approved = false),
    ];
    for (state_name, state) in states() {
        for (name, id, change) in cases {
            let mut w = returning(state);
            change(&mut w);
            for verb in [Verb::Open, Verb::Read, Verb::Lock, Verb::Prepare] {
                assert_eq!(w.ask(verb), Err(id), "{verb:?} {state_name} {name}");
            }
            // Once there is an attempt its outcome is told whatever has ended since.
            let held = w.mailbox.is_some() && state != CutoverFacts::Open;
            for verb in [Verb::Commit, Verb::Abort, Verb::Status] {
                assert_eq!(
                    w.ask(verb),
                    if held { Ok(()) } else { Err(id) },
                    "{verb:?} {state_name} {name}"
                );
            }
        }
    }
    for (name, id, change) in [
        (
            "hold",
            MailboxOnHold,
            (|w: &mut World| w.mailbox.as_mut().unwrap().on_hold = true) as fn(&mut World),
        ),
        ("other move", Moving, |w| {
            w.mailbox.as_mut().unwrap().open_move = Some(MoveId::from_u128(77))
        }),
    ] {
        let mut w = returning(CutoverFacts::Open);
        change(&mut w);
        for verb in [Verb::Open, Verb::Read, Verb::Lock, Verb::Prepare] {
            assert_eq!(w.ask(verb), Err(id), "{verb:?} {name}");
        }
    }
}

#[test]
fn a_move_is_not_let_through_by_a_commit_record() {
    let mut w = returning(CutoverFacts::Open);
    for roles in [&mut w.caller.roles, &mut w.principal.as_mut().unwrap().roles] {
        *roles = vec![ROLE_MAILBOX_MIGRATION.into()];
    }
    assert_eq!(w.ask(Verb::Open), Err(ErrorId::SourceTenantNotAuthorized));
}

/// Guards against a target that decided, was reopened, and never learns so because a lock came in between.
#[test]
fn a_catch_up_that_has_ended_leaves_the_reopened_attempt_answered() {
    use crate::cutover::{SourceAttempt, SourcePhase};
    let reopened = AttemptId::from_u128(0xa0);
    let catch_up = |phase| SourceAttempt {
        id: ATTEMPT,
        move_id: MOVE,
        service_principal: PRINCIPAL,
        phase,
        granted_at: at(NOW),
        lease_until: at(NOW),
        committed_at: None,
        catches_up: Some(reopened),
    };
    for phase in [SourcePhase::Lapsed, SourcePhase::Aborted] {
        let facts = CutoverFacts::of(Some(&catch_up(phase)), None, true);
        let mut w = world(facts);
        w.attempt = Some(reopened);
        w.principal.as_mut().unwrap().revoked_at = Some(at(NOW - 1));
        assert_eq!(w.ask(Verb::Commit), Ok(()), "{phase:?}");
        let mut w = world(facts);
        w.attempt = Some(AttemptId::from_u128(0xa1));
        assert_eq!(w.ask(Verb::Lock), Ok(()), "{phase:?}");
    }
    let facts = CutoverFacts::of(Some(&catch_up(SourcePhase::Locked)), None, true);
    assert_eq!(facts, CutoverFacts::Locked(holder()));
}

//! The directory's rules that SQL keeps: uniqueness in a tenant, identities, membership, isolation.

use crate::{RecipientFilter, Store, StoreError};
use jiff::Timestamp;
use rehome_domain::{
    address::LegacyExchangeDn,
    endpoint::{EndpointKind, ImapSecurity, ImapServer, ImapSignIn, MigrationEndpoint, RemoteMove},
    id::{ApplicationId, EndpointId, ExchangeGuid, MoveId, RecipientId, RelationshipId, TenantId},
    recipient::{Group, GroupType, MailUser, Mailbox, MailboxState, Recipient, RecipientKind},
    relationship::OrganizationRelationship,
    tenant::Tenant,
};

const CONTOSO: TenantId = TenantId::from_u128(1);
const FABRIKAM: TenantId = TenantId::from_u128(2);

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    let mut tx = store.write().await.unwrap();
    for (id, domain) in [(CONTOSO, "contoso.example"), (FABRIKAM, "fabrikam.example")] {
        let tenant = Tenant {
            id,
            initial_domain: domain.parse().unwrap(),
            display_name: domain.into(),
        };
        tx.tenant_insert(&tenant, Timestamp::UNIX_EPOCH).await.unwrap();
    }
    tx.commit("test").await.unwrap();
    (folder, store)
}

fn recipient(tenant: TenantId, number: u128, name: &str, domain: &str, kind: RecipientKind) -> Recipient {
    let id = RecipientId::from_u128(number);
    Recipient {
        id,
        tenant,
        name: format!("{name} Surname"),
        alias: name.into(),
        display_name: name.to_uppercase(),
        user_principal_name: Some(format!("{name}@{domain}")),
        email_addresses: vec![
            format!("SMTP:{name}.surname@{domain}").parse().unwrap(),
            format!("smtp:{name}.s@{domain}").parse().unwrap(),
            format!("x500:/o=Old/ou=x/cn=Recipients/cn={name}").parse().unwrap(),
        ],
        legacy_exchange_dn: LegacyExchangeDn::for_recipient(&domain.parse().unwrap(), id, name),
        kind,
        hidden: false,
        custom_attributes: vec![(1, "Cross-Tenant-Project".into())],
        created: Timestamp::UNIX_EPOCH,
        changed: Timestamp::UNIX_EPOCH,
    }
}

fn mailbox(number: u128) -> RecipientKind {
    RecipientKind::Mailbox(Mailbox {
        exchange_guid: ExchangeGuid::from_u128(1000 + number),
        platform: "main".into(),
        location: format!("box{number}"),
        state: MailboxState::InCutover(MoveId::from_u128(3)),
        litigation_hold: true,
        max_receive_size: 150 << 20,
    })
}

fn group() -> RecipientKind {
    RecipientKind::Group(Group {
        group_type: GroupType::Security,
    })
}

#[tokio::test]
async fn a_place_is_found_in_its_spelling_or_in_any_case() {
    let (_folder, store) = store().await;
    let mut tx = store.write().await.unwrap();
    let mut ids = Vec::new();
    for (number, location) in [(30, "Press"), (31, "press"), (32, "ORDERS")] {
        let mut kind = mailbox(number);
        if let RecipientKind::Mailbox(mailbox) = &mut kind {
            location.clone_into(&mut mailbox.location);
        }
        let made = recipient(CONTOSO, number, &format!("n{number}"), "contoso.example", kind);
        tx.recipient_insert(CONTOSO, &made).await.unwrap();
        ids.push((CONTOSO, made.id));
    }
    let made = tx.recipient_get(CONTOSO, ids[0].1).await.unwrap().unwrap();
    let platform = made.mailbox().unwrap().platform.clone();
    for (location, exact, any) in [
        ("Press", Some(ids[0]), Some(ids[0])),
        ("press", Some(ids[1]), Some(ids[1])),
        ("PRESS", None, Some(ids[0])),
        ("orders", None, Some(ids[2])),
        ("orders2", None, None),
    ] {
        assert_eq!(tx.mailbox_at(&platform, location).await.unwrap(), exact, "{location}");
        assert_eq!(
            tx.mailbox_at_in_any_case(&platform, location).await.unwrap(),
            any,
            "{location}"
        );
        assert_eq!(
            tx.mailbox_at_in_any_case("another", location).await.unwrap(),
            None,
            "{location}"
        );
    }
}

#[tokio::test]
async fn a_recipient_comes_back_as_it_was_under_every_identity() {
    let (_folder, store) = store().await;
    let mut tx = store.write().await.unwrap();
    let mut a = recipient(CONTOSO, 10, "Röntgen", "contoso.example", mailbox(10));
    tx.recipient_insert(CONTOSO, &a).await.unwrap();
    for identity in [
        "röntgen SURNAME",
        "RÖNTGEN",
        "röntgen@contoso.example",
        "Röntgen.Surname@contoso.example",
        "smtp:röntgen.s@contoso.example",
        "/O=old/ou=x/cn=recipients/cn=röntgen",
        a.legacy_exchange_dn.as_str(),
        &a.id.to_string(),
        &a.exchange_guid().unwrap().to_string().to_uppercase(),
    ] {
        assert_eq!(
            tx.recipient_find(CONTOSO, identity).await.unwrap(),
            vec![a.clone()],
            "{identity}"
        );
        assert_eq!(
            tx.recipient_find(FABRIKAM, identity).await.unwrap(),
            vec![],
            "{identity}"
        );
    }
    for nothing in ["", "  ", "*", "%", "$null", "surname"] {
        assert_eq!(tx.recipient_find(CONTOSO, nothing).await.unwrap(), vec![], "{nothing}");
    }
    a.kind = RecipientKind::MailUser(MailUser {
        external_email_address: Some("r@fabrikam.example".parse().unwrap()),
        exchange_guid: a.exchange_guid(),
        archive_guid: None,
    });
    a.email_addresses.pop();
    assert!(tx.recipient_update(CONTOSO, &a).await.unwrap());
    assert!(!tx.recipient_update(FABRIKAM, &a).await.unwrap());
    assert_eq!(tx.recipient_get(CONTOSO, a.id).await.unwrap(), Some(a.clone()));
    assert_eq!(tx.recipient_get(FABRIKAM, a.id).await.unwrap(), None);
    let guid = a.exchange_guid().unwrap();
    assert_eq!(
        tx.recipient_by_exchange_guid(CONTOSO, guid).await.unwrap(),
        Some(a.clone())
    );
    assert_eq!(tx.recipient_by_exchange_guid(FABRIKAM, guid).await.unwrap(), None);
    let outside = "R@fabrikam.example".parse().unwrap();
    assert_eq!(
        tx.mail_users_by_external_address(CONTOSO, &outside).await.unwrap(),
        vec![a.clone()]
    );
    assert_eq!(
        tx.recipient_by_smtp_anywhere(&"RÖNTGEN.s@contoso.example".parse().unwrap())
            .await
            .unwrap(),
        Some(a.clone())
    );
    assert_eq!(
        tx.recipient_by_smtp_anywhere(&"röntgen.s@nowhere.example".parse().unwrap())
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        tx.recipient_find(CONTOSO, "/o=Old/ou=x/cn=Recipients/cn=Röntgen")
            .await
            .unwrap(),
        vec![]
    );
    assert!(tx.recipient_delete(CONTOSO, a.id).await.unwrap());
    assert_eq!(
        tx.recipient_by_proxy(CONTOSO, "smtp:röntgen.s@contoso.example")
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn what_is_unique_in_a_tenant() {
    let (_folder, store) = store().await;
    let first = recipient(CONTOSO, 10, "anna", "contoso.example", mailbox(10));
    let mut tx = store.write().await.unwrap();
    tx.recipient_insert(CONTOSO, &first).await.unwrap();
    tx.commit("test").await.unwrap();
    type Change = fn(&mut Recipient, &Recipient);
    let rows: &[(&str, Change)] = &[
        ("Name", |r, o| r.name = o.name.to_uppercase()),
        ("Alias", |r, o| r.alias = o.alias.to_uppercase()),
        ("UserPrincipalName", |r, o| {
            r.user_principal_name.clone_from(&o.user_principal_name)
        }),
        ("LegacyExchangeDN", |r, o| {
            r.legacy_exchange_dn = o.legacy_exchange_dn.clone()
        }),
        ("proxy address", |r, o| {
            r.email_addresses[1] = o.email_addresses[0].clone()
        }),
        ("proxy address", |r, o| {
            r.email_addresses[2] = o.email_addresses[2].clone()
        }),
        ("Guid", |r, o| r.id = o.id),
        ("ExchangeGuid", |r, o| {
            r.kind = RecipientKind::MailUser(MailUser {
                external_email_address: None,
                exchange_guid: o.exchange_guid(),
                archive_guid: None,
            });
        }),
        ("mailbox location", |r, o| {
            let RecipientKind::Mailbox(mut place) = o.kind.clone() else {
                unreachable!()
            };
            place.exchange_guid = ExchangeGuid::from_u128(77);
            r.kind = RecipientKind::Mailbox(place);
        }),
    ];
    for (what, change) in rows {
        let mut second = recipient(CONTOSO, 11, "bert", "contoso.example", mailbox(11));
        change(&mut second, &first);
        let mut tx = store.write().await.unwrap();
        match tx.recipient_insert(CONTOSO, &second).await {
            Err(StoreError::Taken { what: found, .. }) => assert_eq!(found, *what),
            other => panic!("{what}: {other:?}"),
        }
    }
    // Another tenant may use all of it, but not the place.
    let mut elsewhere = first.clone();
    elsewhere.tenant = FABRIKAM;
    elsewhere.kind = mailbox(11);
    let mut tx = store.write().await.unwrap();
    tx.recipient_insert(FABRIKAM, &elsewhere).await.unwrap();
    drop(tx);
    elsewhere.kind = first.kind.clone();
    let mut tx = store.write().await.unwrap();
    assert!(matches!(
        tx.recipient_insert(FABRIKAM, &elsewhere).await,
        Err(StoreError::Taken {
            what: "mailbox location",
            ..
        })
    ));
}

#[tokio::test]
async fn membership_is_direct_and_inside_one_tenant() {
    let (_folder, store) = store().await;
    let mut tx = store.write().await.unwrap();
    let (outer, inner) = (RecipientId::from_u128(20), RecipientId::from_u128(21));
    let (anna, bert) = (RecipientId::from_u128(10), RecipientId::from_u128(11));
    for (id, name, kind) in [
        (20, "outer", group()),
        (21, "inner", group()),
        (10, "anna", mailbox(10)),
        (11, "bert", mailbox(11)),
    ] {
        tx.recipient_insert(CONTOSO, &recipient(CONTOSO, id, name, "contoso.example", kind))
            .await
            .unwrap();
    }
    tx.recipient_insert(
        FABRIKAM,
        &recipient(FABRIKAM, 30, "carl", "fabrikam.example", mailbox(30)),
    )
    .await
    .unwrap();
    assert!(tx.group_member_add(CONTOSO, outer, inner).await.unwrap());
    assert!(tx.group_member_add(CONTOSO, inner, outer).await.unwrap());
    assert!(tx.group_member_add(CONTOSO, inner, anna).await.unwrap());
    assert!(!tx.group_member_add(CONTOSO, inner, anna).await.unwrap());
    assert!(tx.group_member_add(CONTOSO, outer, bert).await.unwrap());
    assert_eq!(tx.groups_of(CONTOSO, anna).await.unwrap(), vec![inner]);
    assert_eq!(tx.groups_of_nested_only(CONTOSO, anna).await.unwrap(), vec![outer]);
    assert_eq!(tx.groups_of(FABRIKAM, anna).await.unwrap(), vec![]);
    let names: Vec<_> = tx
        .group_member_list(CONTOSO, outer, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|r| r.alias)
        .collect();
    assert_eq!(names, ["bert", "inner"]);
    assert!(tx.group_member_remove(CONTOSO, inner, anna).await.unwrap());
    assert!(!tx.group_member_remove(CONTOSO, inner, anna).await.unwrap());
    assert_eq!(
        tx.recipient_list(CONTOSO, RecipientFilter::Groups, 10)
            .await
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        tx.recipient_list(CONTOSO, RecipientFilter::All, 3).await.unwrap().len(),
        3
    );
    assert!(
        tx.group_member_add(CONTOSO, outer, RecipientId::from_u128(30))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn relationships_and_endpoints() {
    let (_folder, store) = store().await;
    let mut tx = store.write().await.unwrap();
    let mut relationship = OrganizationRelationship {
        id: RelationshipId::from_u128(1),
        tenant: CONTOSO,
        name: "Fabrikam".into(),
        domain_names: vec![FABRIKAM.to_string(), "fabrikam.example".into()],
        enabled: true,
        mailbox_move_enabled: true,
        mailbox_move_capability: "Inbound, RemoteOutbound".parse().unwrap(),
        mailbox_move_published_scopes: vec![RecipientId::from_u128(5)],
        oauth_application_id: Some(ApplicationId::from_u128(6)),
        service_principal: None,
        max_lock_attempts_per_day: 3,
        content_retention_days: None,
        mailbox_return_without_approval: false,
    };
    tx.relationship_insert(CONTOSO, &relationship).await.unwrap();
    assert_eq!(
        tx.relationship_get(CONTOSO, relationship.id).await.unwrap(),
        Some(relationship.clone())
    );
    relationship.domain_names.pop();
    assert!(tx.relationship_update(CONTOSO, &relationship).await.unwrap());
    assert_eq!(tx.relationship_list(CONTOSO).await.unwrap(), vec![relationship.clone()]);
    assert_eq!(tx.relationship_list(FABRIKAM).await.unwrap(), vec![]);
    let mut second = relationship.clone();
    second.id = RelationshipId::from_u128(2);
    second.name = "Other".into();
    assert!(matches!(
        tx.relationship_insert(CONTOSO, &second).await,
        Err(StoreError::Taken {
            what: "DomainNames entry",
            ..
        })
    ));
    drop(tx);

    let mut tx = store.write().await.unwrap();
    let mut endpoint = MigrationEndpoint {
        id: EndpointId::from_u128(1),
        tenant: FABRIKAM,
        name: "Contoso".into(),
        kind: EndpointKind::ExchangeRemoteMove(RemoteMove {
            remote_tenant: "contoso.example".into(),
            remote_tenant_id: Some(CONTOSO),
            application_id: ApplicationId::from_u128(6),
        }),
        remote_server: "mail.contoso.example".into(),
        sealed_secret: Some(vec![1, 2, 3]),
        max_concurrent_migrations: None,
        max_concurrent_incremental_syncs: Some(20),
    };
    tx.endpoint_insert(FABRIKAM, &endpoint).await.unwrap();
    assert_eq!(
        tx.endpoint_by_name(FABRIKAM, "CONTOSO").await.unwrap(),
        Some(endpoint.clone())
    );
    endpoint.max_concurrent_migrations = Some(100);
    assert!(tx.endpoint_update(FABRIKAM, &endpoint).await.unwrap());
    assert_eq!(
        tx.endpoint_get(FABRIKAM, endpoint.id).await.unwrap(),
        Some(endpoint.clone())
    );
    for sign_in in [
        ImapSignIn::Users,
        ImapSignIn::Master {
            user: "mover".into(),
            separator: '*',
        },
        ImapSignIn::Authorization { user: "mover".into() },
        ImapSignIn::OAuth {
            token_url: "https://login.contoso.example/token".into(),
            client_id: "client".into(),
            scope: None,
        },
    ] {
        endpoint.sealed_secret = sign_in.user_name().map(|_| vec![4]);
        endpoint.kind = EndpointKind::Imap(ImapServer {
            port: 993,
            security: ImapSecurity::Ssl,
            sign_in,
        });
        assert!(tx.endpoint_update(FABRIKAM, &endpoint).await.unwrap());
        let found = tx.endpoint_get(FABRIKAM, endpoint.id).await.unwrap();
        assert_eq!(found, Some(endpoint.clone()));
    }
    assert_eq!(tx.endpoint_get(CONTOSO, endpoint.id).await.unwrap(), None);
    assert_eq!(tx.endpoint_list(CONTOSO).await.unwrap(), vec![]);
    assert!(!tx.endpoint_delete(CONTOSO, endpoint.id).await.unwrap());
    assert!(tx.endpoint_delete(FABRIKAM, endpoint.id).await.unwrap());
}

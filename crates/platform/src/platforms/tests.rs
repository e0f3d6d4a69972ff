use super::*;
use crate::maildir::OWN;
use rehome_domain::id::TenantId;
use rehome_mailbox::{FolderPath, NewFolder};
use rehome_mailbox::{Retry, maildir::place::LockError};
use std::time::Duration;

const MOVE: MoveId = MoveId::from_u128(7);
const GUID: ExchangeGuid = ExchangeGuid::from_u128(0x1234_5678 << 96);

fn one(root: &Path) -> Platforms {
    let config = PlatformConfig::Maildir { root: root.to_owned() };
    Platforms::new(
        BTreeMap::from([("local".to_owned(), config)]),
        None,
        &root.join("state"),
    )
    .unwrap()
}

fn location(tenant: u128) -> String {
    MaildirPlatform::new_location(&NewMailbox {
        tenant: TenantId::from_u128(tenant),
        alias: "Press/B",
        primary: &"press@contoso.example".parse().unwrap(),
        exchange_guid: GUID,
    })
}

fn place() -> Place {
    Place {
        exchange_guid: GUID,
        platform: "local".to_owned(),
        location: location(1),
    }
}

#[test]
fn which_is_the_default() {
    let config = |root: &str| PlatformConfig::Maildir { root: root.into() };
    let new = |platforms, default| Platforms::new(platforms, default, Path::new("/nowhere"));
    let two = || BTreeMap::from([("a".to_owned(), config("/a")), ("b".to_owned(), config("/b"))]);
    assert_eq!(new(two(), Some("b")).unwrap().default_platform().unwrap(), "b");
    assert_eq!(new(two(), None).unwrap_err(), PlatformConfigError::NoDefault);
    assert_eq!(
        new(two(), Some("c")).unwrap_err(),
        PlatformConfigError::UnknownDefault("c".into())
    );
    let none = new(BTreeMap::new(), None).unwrap();
    assert!(matches!(none.default_platform(), Err(PlatformError::NoPlatform)));
    let relative = BTreeMap::from([("a".to_owned(), config("a"))]);
    assert!(matches!(
        new(relative, None),
        Err(PlatformConfigError::RelativeRoot { .. })
    ));
}

#[test]
fn new_locations_name_the_tenant() {
    assert_eq!(location(1), "00000000-0000-0000-0000-000000000001/press_b-12345678");
    assert_ne!(location(1), location(2));
}

#[tokio::test]
async fn hidden_then_shown_then_closed() {
    let root = tempfile::tempdir().unwrap();
    let (platforms, place) = (one(root.path()), place());
    let hidden = platforms.staging(&place, MOVE).await.unwrap();
    hidden
        .create_folder(&FolderPath::inbox(), &NewFolder::default())
        .await
        .unwrap();
    assert!(platforms.open(&place).await.is_err());
    for _ in 0..2 {
        platforms.show(&place, MOVE).await.unwrap();
    }
    assert_eq!(platforms.open(&place).await.unwrap().folders().await.unwrap().len(), 1);
    // The mailbox that was open before is the same one after.
    assert_eq!(hidden.folders().await.unwrap().len(), 1);
    for _ in 0..2 {
        platforms.close_source(&place, MOVE).await.unwrap();
    }
    assert!(platforms.open(&place).await.is_err());
    assert_eq!(
        platforms
            .open_closed("local", GUID, MOVE)
            .await
            .unwrap()
            .folders()
            .await
            .unwrap()
            .len(),
        1
    );
    for _ in 0..2 {
        platforms.remove_closed("local", GUID, MOVE).await.unwrap();
    }
    assert!(platforms.open_closed("local", GUID, MOVE).await.is_err());
}

#[tokio::test]
async fn two_mailboxes_never_share_a_place() {
    let root = tempfile::tempdir().unwrap();
    let (platforms, place) = (one(root.path()), place());
    for _ in 0..2 {
        platforms.create(&place).await.unwrap();
    }
    platforms.staging(&place, MOVE).await.unwrap();
    let refused = platforms.show(&place, MOVE).await.unwrap_err();
    assert_eq!(refused.retry(), Retry::Never);
    for _ in 0..2 {
        platforms.remove_staging("local", MOVE).await.unwrap();
    }
    // Without anything hidden it looks as if it had been shown already.
    platforms.show(&place, MOVE).await.unwrap();
}

#[tokio::test]
async fn deliveries_and_drain() {
    let root = tempfile::tempdir().unwrap();
    let (platforms, place) = (one(root.path()), place());
    let mailbox = platforms.create(&place).await.unwrap();
    let mut delivery = platforms.deliver_begin(&place).await.unwrap();
    delivery.write(b"Subject: a\r\n\r\n").await.unwrap();
    let whole = delivery.finish().await.unwrap();
    let lock = platforms.deliver_lock(&place, Duration::ZERO).await.unwrap();
    let busy = platforms.quiesce(&place, Duration::ZERO).await.unwrap_err();
    assert!(matches!(busy, PlatformError::Lock(LockError::InUse { .. })), "{busy:?}");
    whole.publish(&lock).await.unwrap();
    drop(lock);
    platforms.quiesce(&place, Duration::ZERO).await.unwrap();
    assert_eq!(mailbox.list(&FolderPath::inbox(), None).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn orphans_and_inspection() {
    let root = tempfile::tempdir().unwrap();
    let platforms = one(root.path());
    for location in ["press", "contoso.example/box", "contoso.example/other"] {
        let place = Place {
            exchange_guid: GUID,
            platform: "local".into(),
            location: location.into(),
        };
        platforms.create(&place).await.unwrap();
    }
    platforms.staging(&place(), MOVE).await.unwrap();
    std::fs::create_dir(root.path().join("empty")).unwrap();
    let known = BTreeSet::from(["contoso.example/box".to_owned()]);
    assert_eq!(
        platforms.orphans("local", known).await.unwrap(),
        ["contoso.example/other", "press"]
    );
    let inspection = platforms.inspect("local", "press").await.unwrap();
    assert!(inspection.is_mailbox);
    assert!(!platforms.inspect("local", "empty").await.unwrap().is_mailbox);
    assert!(platforms.inspect("local", "../press").await.is_err());
    assert!(platforms.inspect("local", "nobody").await.is_err());
    assert!(matches!(
        platforms.inspect("else", "press").await,
        Err(PlatformError::UnknownPlatform { .. })
    ));
}

#[tokio::test]
async fn a_missing_root_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("mount");
    let platforms = one(&root);
    assert!(matches!(
        platforms.check("local").await,
        Err(PlatformError::Root { .. })
    ));
    assert!(matches!(
        platforms.staging(&place(), MOVE).await,
        Err(PlatformError::Root { .. })
    ));
    assert!(!root.exists());
}

#[tokio::test]
async fn our_own_folder_may_not_be_a_link() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join(OWN)).unwrap();
    assert!(one(root.path()).staging(&place(), MOVE).await.is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

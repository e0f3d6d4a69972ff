//! An IMAP platform over real servers, with the access programs exactly as they are shipped.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use rehome_domain::id::{ExchangeGuid, MoveId};
use rehome_mailbox::{FolderPath, Mailbox, NewFolder};
use rehome_platform::{
    AccessCommand, AccessConfig, AccessError, ImapConfig, LockMethod, Place, PlatformConfig, PlatformError, Platforms,
    Retry, Security, ServerSettings, SignIn,
};
use rehome_testkit::{cyrus::Cyrus, dovecot::Dovecot, imap::Session, is_left_out};
use rustls_pki_types::pem::PemObject;
use std::{collections::BTreeMap, io::Write, net::TcpStream, path::Path, sync::Arc, time::Duration};

const MOVE: MoveId = MoveId::from_u128(7);
const OTHER_MOVE: MoveId = MoveId::from_u128(8);
const GUID: ExchangeGuid = ExchangeGuid::from_u128(0x1234_5678 << 96);
const USER: &str = "press@contoso.example";

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../packaging/access")
        .join(name);
    path.canonicalize().unwrap().display().to_string()
}

fn command(program: Vec<String>) -> AccessConfig {
    AccessConfig::Command(AccessCommand {
        program,
        call_within: Duration::from_secs(30),
        drain_within: Duration::from_secs(60),
    })
}

fn dovecot_access(dovecot: &Dovecot) -> AccessConfig {
    command(vec![
        shipped("dovecot-passwd-file"),
        "--passwd-file".to_owned(),
        dovecot.users_file().display().to_string(),
        "--config".to_owned(),
        dovecot.configuration().display().to_string(),
    ])
}

fn tls() -> Arc<rustls::ClientConfig> {
    // Refused where a test has installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    Arc::new(config.with_no_client_auth())
}

fn platforms(state: &Path, port: u16, sign_in: SignIn, access: AccessConfig) -> Platforms {
    let server = ServerSettings::new("127.0.0.1", port, Security::Plain, tls(), sign_in);
    let config = ImapConfig {
        server,
        account: "{primary}".parse().unwrap(),
        access,
    };
    let named = BTreeMap::from([("imap".to_owned(), PlatformConfig::Imap(Box::new(config)))]);
    Platforms::new(named, None, state).unwrap()
}

fn master() -> SignIn {
    SignIn::Master {
        user: "rehome".to_owned(),
        password: "master-secret".into(),
        separator: '*',
    }
}

fn place(account: &str) -> Place {
    Place {
        exchange_guid: GUID,
        platform: "imap".to_owned(),
        location: account.to_owned(),
    }
}

/// A Dovecot with a user, a master, and a platform over it.
struct World {
    dovecot: Dovecot,
    folder: tempfile::TempDir,
    _mail: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let mail = tempfile::tempdir().unwrap();
        let dovecot = Dovecot::builder(mail.path())
            .users([(USER, "secret"), ("orders@contoso.example", "secret")])
            .master("rehome", "master-secret")
            .start();
        Self {
            dovecot,
            folder: tempfile::tempdir().unwrap(),
            _mail: mail,
        }
    }

    fn platforms(&self) -> Platforms {
        let state = self.folder.path().join("platforms");
        platforms(&state, self.dovecot.port(), master(), dovecot_access(&self.dovecot))
    }

    /// A session for the user that is ours.
    fn as_master(&self) -> Session {
        Session::login(self.dovecot.port(), &format!("{USER}*rehome"), "master-secret")
    }

    fn user(&self) -> Session {
        Session::login(self.dovecot.port(), USER, "secret")
    }

    /// Whether the user gets in now.
    fn gets_in(&self) -> bool {
        let mut session = Session::connect(self.dovecot.port());
        session.command(&format!("LOGIN {USER} secret")).is_ok()
    }
}

const MESSAGE: &[u8] = b"From: press@contoso.example\r\nSubject: a\r\n\r\nb\r\n";

/// Puts a message into the inbox, as ourselves.
async fn deliver(platforms: &Platforms, place: &Place) {
    let mut delivery = platforms.deliver_begin(place).await.unwrap();
    delivery.write(MESSAGE).await.unwrap();
    let whole = delivery.finish().await.unwrap();
    let lock = platforms.deliver_lock(place, Duration::ZERO).await.unwrap();
    whole.publish(&lock).await.unwrap();
}

async fn count(mailbox: &dyn Mailbox, folder: &FolderPath) -> usize {
    mailbox.list(folder, None).await.unwrap().items.len()
}

#[tokio::test]
async fn quiet_means_that_nobody_is_in_and_we_are() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let platforms = world.platforms();
    assert_eq!(platforms.lock_method("imap").unwrap(), LockMethod::Locked);
    platforms.check("imap").await.unwrap();
    let mut idle = world.user();
    idle.ok("SELECT INBOX");
    let mut half = half_an_append(world.dovecot.port());
    // Ours is open as well, as an exporter's is.
    let ours = platforms.open(&place(USER)).await.unwrap();
    assert_eq!(count(&*ours, &FolderPath::inbox()).await, 0);
    rehome_testkit::wait::until_true("three sessions are there", Duration::from_secs(20), || {
        world.dovecot.sessions(USER).len() >= 3
    });

    platforms.quiesce(&place(USER), Duration::from_secs(5)).await.unwrap();
    assert_eq!(world.dovecot.sessions(USER), Vec::<u32>::new());
    assert!(!world.gets_in());
    // What comes too late is not stored.
    let _ = half.write_all(b"or\r\n\r\nb\r\n\r\n");
    assert_eq!(count(&*ours, &FolderPath::inbox()).await, 0);
    deliver(&platforms, &place(USER)).await;
    assert_eq!(count(&*ours, &FolderPath::inbox()).await, 1);
    // Again, as after a crash.
    platforms.quiesce(&place(USER), Duration::from_secs(5)).await.unwrap();
    assert_eq!(platforms.denied().await.unwrap(), [place(USER)]);
    assert!(world.user_is_others_business());

    // Another process knows of it, and opens it only if it may.
    let platforms = world.platforms();
    let no = async { Ok::<_, PlatformError>(false) };
    assert!(!platforms.reopen(&place(USER), no).await.unwrap());
    assert_eq!(platforms.denied().await.unwrap(), [place(USER)]);
    for _ in 0..2 {
        let yes = async { Ok::<_, PlatformError>(true) };
        assert!(platforms.reopen(&place(USER), yes).await.unwrap());
    }
    assert_eq!(platforms.denied().await.unwrap(), []);
    rehome_testkit::wait::until_true("the user gets in again", Duration::from_secs(20), || world.gets_in());
}

impl World {
    /// The other user is not touched by any of this.
    fn user_is_others_business(&self) -> bool {
        let mut session = Session::connect(self.dovecot.port());
        session.command("LOGIN orders@contoso.example secret").is_ok()
    }
}

/// A session that has sent half of a message.
fn half_an_append(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let text = format!("a LOGIN {USER} secret\r\nb APPEND INBOX {{17+}}\r\nSubject: f");
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

#[tokio::test]
async fn committed_it_stays_closed_to_all_but_us() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let platforms = world.platforms();
    world.user().append("INBOX", "", MESSAGE);
    platforms.quiesce(&place(USER), Duration::from_secs(5)).await.unwrap();
    for _ in 0..2 {
        platforms.close_source(&place(USER), MOVE).await.unwrap();
    }
    assert_eq!(platforms.denied().await.unwrap(), []);
    assert!(!world.gets_in());
    let kept = platforms.open_closed("imap", GUID, MOVE).await.unwrap();
    assert_eq!(count(&*kept, &FolderPath::inbox()).await, 1);
    for _ in 0..2 {
        platforms.remove_closed("imap", GUID, MOVE).await.unwrap();
    }
    let gone = platforms.open_closed("imap", GUID, MOVE).await.err().unwrap();
    assert_eq!(gone.retry(), Retry::Never);
}

#[tokio::test]
async fn hidden_while_it_is_filled_then_shown() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let platforms = world.platforms();
    let _before = world.user();
    let staging = platforms.staging(&place(USER), MOVE).await.unwrap();
    assert_eq!(
        world.dovecot.sessions(USER).len(),
        1,
        "the user's session has ended, ours is there"
    );
    assert!(!world.gets_in());
    let sent = FolderPath(vec!["Sent".to_owned()]);
    staging.create_folder(&sent, &NewFolder::default()).await.unwrap();
    world.as_master().append("Sent", "", MESSAGE);
    // Another move must not fill it too, and its name is fixed from now on.
    let other = platforms
        .staging(&place(&USER.to_uppercase()), OTHER_MOVE)
        .await
        .err()
        .unwrap();
    assert!(matches!(other, PlatformError::AccountFilled { .. }), "{other}");
    assert!(!world.gets_in());
    let platforms = world.platforms();
    let again = platforms.staging(&place("elsewhere"), MOVE).await.unwrap();
    assert_eq!(count(&*again, &sent).await, 1);
    for _ in 0..2 {
        platforms.show(&place(USER), MOVE).await.unwrap();
    }
    rehome_testkit::wait::until_true("the user gets in", Duration::from_secs(20), || world.gets_in());
    assert_eq!(count(&*platforms.open(&place(USER)).await.unwrap(), &sent).await, 1);
}

#[tokio::test]
async fn a_move_that_is_given_up_leaves_the_account_as_it_was() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let platforms = world.platforms();
    let staging = platforms.staging(&place(USER), MOVE).await.unwrap();
    let deep = FolderPath(vec!["a".to_owned(), "b".to_owned()]);
    staging.create_folder(&deep, &NewFolder::default()).await.unwrap();
    for folder in ["a/b", "INBOX"] {
        world.as_master().append(folder, "", MESSAGE);
    }
    for _ in 0..2 {
        platforms.remove_staging("imap", MOVE).await.unwrap();
    }
    rehome_testkit::wait::until_true("the user gets in", Duration::from_secs(20), || world.gets_in());
    let found = platforms.inspect("imap", USER).await.unwrap();
    assert_eq!((found.items, found.folders), (0, 1));

    // An account that holds something is nobody's to fill, and its user is let in again.
    world.user().append("INBOX", "", MESSAGE);
    let full = platforms.staging(&place(USER), MOVE).await.err().unwrap();
    assert!(
        matches!(full, PlatformError::AccountNotEmpty { items: 1, .. }),
        "{full}"
    );
    rehome_testkit::wait::until_true("the user gets in", Duration::from_secs(20), || world.gets_in());
    assert_eq!(platforms.inspect("imap", USER).await.unwrap().items, 1);
    let nobody = platforms
        .staging(&place("nobody@contoso.example"), MOVE)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(nobody, PlatformError::Access(AccessError::NoAccount { .. })),
        "{nobody}"
    );
    assert_eq!(nobody.retry(), Retry::Never);
    platforms.remove_staging("imap", MOVE).await.unwrap();
}

#[tokio::test]
async fn kept_contents_are_neither_shown_to_their_user_nor_taken_for_anothers() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let platforms = world.platforms();
    world.user().append("INBOX", "", MESSAGE);
    platforms.quiesce(&place(USER), Duration::from_secs(5)).await.unwrap();
    platforms.close_source(&place(USER), MOVE).await.unwrap();
    // A move into the account is refused, and lets nobody in.
    for _ in 0..2 {
        let full = platforms.staging(&place(USER), OTHER_MOVE).await.err().unwrap();
        assert!(matches!(full, PlatformError::AccountNotEmpty { .. }), "{full}");
        platforms.remove_staging("imap", OTHER_MOVE).await.unwrap();
        assert!(!world.gets_in());
    }
    assert!(platforms.open_closed("imap", GUID, MOVE).await.is_ok());
    // Emptied by the server's administrator it can be filled; what comes then is no late item of the old mailbox.
    let mut master = world.as_master();
    master.ok("SELECT INBOX");
    master.ok("STORE 1 +FLAGS (\\Deleted)");
    master.ok("EXPUNGE");
    drop(master);
    platforms.staging(&place(USER), OTHER_MOVE).await.unwrap();
    assert!(platforms.is_staged(&place(USER), OTHER_MOVE).await.unwrap());
    assert!(!platforms.is_staged(&place(USER), MOVE).await.unwrap());
    let gone = platforms.open_closed("imap", GUID, MOVE).await.err().unwrap();
    assert_eq!(gone.retry(), Retry::Never);
    assert!(!world.gets_in());
}

#[tokio::test]
async fn what_was_shown_is_not_opened_again_while_it_moves_on() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let platforms = world.platforms();
    platforms.staging(&place(USER), MOVE).await.unwrap();
    platforms.show(&place(USER), MOVE).await.unwrap();
    platforms.quiesce(&place(USER), Duration::from_secs(5)).await.unwrap();
    platforms.show(&place(USER), MOVE).await.unwrap();
    assert!(!world.gets_in());
}

#[tokio::test]
async fn an_account_is_filled_by_one_of_two_moves_at_once() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let platforms = world.platforms();
    let here = place(USER);
    let (one, other) = tokio::join!(platforms.staging(&here, MOVE), platforms.staging(&here, OTHER_MOVE));
    let refused = match (one, other) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        (Ok(_), Ok(_)) => panic!("both fill it"),
        (Err(one), Err(other)) => panic!("nobody fills it: {one}, {other}"),
    };
    assert!(matches!(refused, PlatformError::AccountFilled { .. }), "{refused}");
}

#[tokio::test]
async fn a_program_configured_later_does_not_make_the_users_items_ours() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let state = world.folder.path().join("platforms");
    let open = platforms(&state, world.dovecot.port(), master(), AccessConfig::None);
    open.staging(&place(USER), MOVE).await.unwrap();
    world.user().append("INBOX", "", MESSAGE);
    let platforms = world.platforms();
    platforms.remove_staging("imap", MOVE).await.unwrap();
    assert_eq!(platforms.inspect("imap", USER).await.unwrap().items, 1);
    rehome_testkit::wait::until_true("the user gets in", Duration::from_secs(20), || world.gets_in());
}

#[test]
fn a_name_that_doveadm_takes_for_an_address_is_refused() {
    for (account, refused) in [
        ("10.0.0.1", true),
        ("1.2", true),
        ("10/8", true),
        ("*", true),
        ("1001", false),
        ("press.1@contoso.example", false),
    ] {
        for verb in ["deny", "sessions"] {
            let done = std::process::Command::new(shipped("dovecot-passwd-file"))
                .args(["--passwd-file", "/nonexistent", "--doveadm", "/bin/true", verb, account])
                .output()
                .unwrap();
            assert_eq!(done.status.code() == Some(64), refused, "{verb} {account}");
        }
    }
}

#[tokio::test]
async fn deliveries_are_appended_under_the_lock() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let platforms = world.platforms();
    let mut delivery = platforms.deliver_begin(&place(USER)).await.unwrap();
    delivery.write(MESSAGE).await.unwrap();
    let whole = delivery.finish().await.unwrap();
    let lock = platforms.deliver_lock(&place(USER), Duration::ZERO).await.unwrap();
    let busy = platforms.quiesce(&place(USER), Duration::ZERO).await.unwrap_err();
    assert!(matches!(busy, PlatformError::Lock(_)), "{busy}");
    whole.publish(&lock).await.unwrap();
    drop(lock);
    let mut user = world.user();
    user.ok("SELECT INBOX");
    assert_eq!(user.body(1), MESSAGE);
    let abandoned = platforms.deliver_begin(&place(USER)).await.unwrap();
    drop(abandoned);
    let spool = world.folder.path().join("platforms/imap/spool");
    assert_eq!(std::fs::read_dir(spool).unwrap().count(), 0);
    assert!(platforms.deliver_begin(&place("nobody@contoso.example")).await.is_err());
}

#[tokio::test]
async fn without_a_program_nothing_is_locked() {
    if is_left_out("dovecot") {
        return;
    }
    let world = World::new();
    let state = world.folder.path().join("platforms");
    let platforms = platforms(&state, world.dovecot.port(), master(), AccessConfig::None);
    assert_eq!(platforms.lock_method("imap").unwrap(), LockMethod::NotLocked);
    platforms.quiesce(&place(USER), Duration::from_secs(5)).await.unwrap();
    assert_eq!(platforms.denied().await.unwrap(), []);
    platforms.staging(&place(USER), MOVE).await.unwrap();
    deliver(&platforms, &place(USER)).await;
    // It cannot be told what is ours, so nothing is removed.
    platforms.remove_staging("imap", MOVE).await.unwrap();
    assert_eq!(platforms.inspect("imap", USER).await.unwrap().items, 1);
    assert!(world.gets_in());
}

#[tokio::test]
async fn cyrus_keeps_users_out_of_one_service_and_lets_us_in_by_another() {
    if is_left_out("cyrus") {
        return;
    }
    let cyrus = Cyrus::builder()
        .users([("press", "secret")])
        .proxy("rehome", "proxy-secret")
        .tls()
        .start();
    let folder = tempfile::tempdir().unwrap();
    let sign_in = SignIn::Authzid {
        user: "rehome".to_owned(),
        password: "proxy-secret".into(),
    };
    let mut roots = rustls::RootCertStore::empty();
    let authority = std::fs::read(cyrus.authority()).unwrap();
    for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(&authority) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerSettings::new("localhost", cyrus.tls_port(), Security::Tls, Arc::new(tls), sign_in);
    let access = command(vec![
        shipped("cyrus-deny"),
        "--services".to_owned(),
        "imap".to_owned(),
        "--config".to_owned(),
        cyrus.configuration().display().to_string(),
    ]);
    let config = ImapConfig {
        server,
        account: "{alias}".parse().unwrap(),
        access,
    };
    let named = BTreeMap::from([("imap".to_owned(), PlatformConfig::Imap(Box::new(config)))]);
    let platforms = Platforms::new(named, None, folder.path()).unwrap();
    let gets_in = || {
        let mut session = Session::connect(cyrus.port());
        session.plain("", "press", "secret").is_ok()
    };
    let mut idle = Session::login(cyrus.port(), "press", "secret");
    idle.ok("SELECT INBOX");
    platforms.staging(&place("press"), MOVE).await.unwrap();
    deliver(&platforms, &place("press")).await;
    assert!(!gets_in());
    platforms.show(&place("press"), MOVE).await.unwrap();
    assert!(gets_in());
    platforms
        .quiesce(&place("press"), Duration::from_secs(5))
        .await
        .unwrap();
    assert!(!gets_in());
    platforms.close_source(&place("press"), MOVE).await.unwrap();
    let kept = platforms.open_closed("imap", GUID, MOVE).await.unwrap();
    assert_eq!(count(&*kept, &FolderPath::inbox()).await, 1);
    assert!(!gets_in());
}

/// Names with dots, which some configurations of Cyrus write otherwise inside; with domains, and with capitals.
#[tokio::test]
async fn cyrus_keeps_users_of_any_name_out() {
    if is_left_out("cyrus") {
        return;
    }
    let cyrus = Cyrus::builder()
        .users([("press.office", "secret"), ("press", "secret")])
        .tls()
        .start();
    let configuration = cyrus.configuration().display().to_string();
    let does = |verb: &str, account: &str| {
        let done = std::process::Command::new(shipped("cyrus-deny"))
            .args(["--services", "imap", "--config", &configuration, verb, account])
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{verb} {account}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap()
    };
    let gets_in = |account: &str| Session::connect(cyrus.port()).plain("", account, "secret").is_ok();
    let mut idle = Session::login(cyrus.port(), "press.office", "secret");
    idle.ok("SELECT INBOX");
    let mut other = Session::login(cyrus.port(), "press", "secret");
    other.ok("SELECT INBOX");
    assert_eq!(does("sessions", "press.office").lines().count(), 1);
    does("deny", "press.office");
    assert!(!gets_in("press.office"), "denied");
    assert!(gets_in("press"), "another one is not");
    does("kick", "press.office");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !does("sessions", "press.office").is_empty() {
        assert!(std::time::Instant::now() < deadline, "the session ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    other.ok("NOOP");
    does("allow", "press.office");
    assert!(gets_in("press.office"), "allowed");
    // As Cyrus itself does, unless username_tolower says otherwise.
    assert_eq!(does("sessions", "Press").lines().count(), 1);
    does("deny", "PRESS");
    assert!(!gets_in("press"), "denied in another spelling");
    does("allow", "Press");
    assert!(gets_in("press") && gets_in("PRESS"));
}

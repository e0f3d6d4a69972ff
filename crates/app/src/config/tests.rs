use super::*;
use crate::golden;

const SMALLEST: &str =
    "data_folder = \"data\"\nlisten = \"127.0.0.1:8443\"\npublic_name = \"localhost:8443\"\nkey_file = \"seal.key\"\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/rehome/rehome.toml"), text).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn the_manual() {
    golden::check("config-describe.txt", &manual());
}

#[test]
fn the_example_is_a_configuration() {
    let config = parse(&manual::example()).unwrap();
    assert_eq!(config.consent.days.get32(), 180);
    assert_eq!(config.platform.len(), 3);
    assert_eq!(config.mailflow.routes.len(), 1);
    assert_eq!(config.connections.r#override.len(), 1);
}

#[test]
fn defaults_and_relative_paths() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!(config.data_folder, Path::new("/etc/rehome/data"));
    assert_eq!(config.max_users_per_batch.get(), 2000);
    assert_eq!(config.cutover.retention_days.get(), 30);
    assert_eq!(config.replication.read_back, ReadBack::On);
    assert!(config.platform.is_empty() && config.mailflow.smtp_listen.is_none());
    assert!(!config.key_lies_with_the_data());
}

#[test]
fn every_mistake_names_line_and_what_is_allowed() {
    for (added, line, said) in [
        (
            "lisen = 1\n",
            5,
            "unknown key 'lisen'; allowed here: data_folder, listen",
        ),
        (
            "[tls]\ncertficate = \"x\"\n",
            6,
            "unknown key 'certficate'; allowed here: certificate, key, extra_roots",
        ),
        (
            "[log]\nformat = \"xml\"\n",
            6,
            "'xml' is not allowed here; allowed: \"text\" or \"json\"",
        ),
        (
            "[log]\nformat = 3\n",
            6,
            "expected \"text\" or \"json\", found an integer",
        ),
        (
            "max_users_per_batch = 0\n",
            5,
            "0 is not a whole number from 1 to 100000",
        ),
        ("max_users_per_batch = -1\n", 5, "-1 is not a whole number"),
        ("tls = 1\n", 5, "expected a table, found an integer"),
        (
            "[platform.mail]\nroot = \"/srv\"\n",
            5,
            "the key 'driver' is missing; it takes \"maildir\" or \"imap\"",
        ),
        (
            "[platform.\"Not Good\"]\ndriver = \"maildir\"\nroot = \"/srv\"\n",
            5,
            "'Not Good' is not a platform's name",
        ),
        (
            "[mailflow.routes.\"fabrikam.example\"]\nnext_hop = \"mx\"\n",
            6,
            "'mx' is not a next hop",
        ),
        (
            "[mailflow.routes.\"fabrikam.example\"]\nnext_hop = \"mx:25\"\ntls = \"maybe\"\n",
            7,
            "\"none\", \"opportunistic\" or \"required\"",
        ),
        (
            "[connections]\noverride = { \"outlook\" = \"127.0.0.1:1\" }\n",
            6,
            "'outlook' is not host:port",
        ),
        (
            "[connections]\noverride = { \"a.example:443\" = \"b\" }\n",
            6,
            "'b' is not an address with a port",
        ),
        ("[tls]\nextra_roots = [\"a\", 3]\n", 6, "found an integer"),
        ("[tls\n", 5, "not TOML"),
        ("listen = \"127.0.0.1:1\"\n", 5, "not TOML: duplicate key"),
    ] {
        let told = parse(&format!("{SMALLEST}{added}")).unwrap_err();
        assert!(
            told.starts_with(&format!("/etc/rehome/rehome.toml:{line}: ")),
            "{added:?}: {told}"
        );
        assert!(told.contains(said), "{added:?}: {told}");
    }
}

#[test]
fn all_mistakes_come_at_once() {
    let told = parse("listen = \"x\"\npublic_name = \"https://y\"\nzzz = 1\n").unwrap_err();
    assert_eq!(told.lines().count(), 4, "{told}");
    for part in [
        "data_folder",
        "rehome.toml:1: 'x'",
        "rehome.toml:2: 'https://y'",
        "rehome.toml:3: unknown key 'zzz'",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn keys_that_belong_together() {
    let two = "[platform.a]\ndriver = \"maildir\"\nroot = \"/a\"\n[platform.b]\ndriver = \"maildir\"\nroot = \"/b\"\n";
    for (text, said) in [
        (format!("{SMALLEST}[tls]\nkey = \"k\"\n"), "both certificate and key"),
        (SMALLEST.replace("127.0.0.1", "0.0.0.0"), "can be reached by others"),
        (format!("{SMALLEST}{two}"), "must name one of a, b"),
        (
            format!("{SMALLEST}default_platform = \"c\"\n{two}"),
            "none of the platforms: a, b",
        ),
    ] {
        assert!(parse(&text).unwrap_err().contains(said), "{said}");
    }
    assert!(parse(&format!("{SMALLEST}default_platform = \"b\"\n{two}")).is_ok());
}

const IMAP: &str = "[platform.dovecot]\ndriver = \"imap\"\nhost = \"imap.contoso.example\"\nsign_in = \"master\"\nuser = \"rehome\"\npassword_file = \"imap.password\"\n";

fn imap(text: &str) -> PlatformImap {
    let config = parse(&format!("{SMALLEST}{text}")).unwrap_or_else(|told| panic!("{text}: {told}"));
    match config.platform.into_values().next().map(|platform| platform.driver) {
        Some(PlatformDriver::Imap(imap)) => *imap,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn an_imap_platform_with_what_it_takes_by_itself() {
    use rehome_platform::Security;
    let read = imap(IMAP);
    assert_eq!(
        (read.host.as_str(), read.port, read.security),
        ("imap.contoso.example", 993, Security::Tls)
    );
    assert_eq!(
        (read.connections, read.connections_per_account, read.compress),
        (8, 4, false)
    );
    assert_eq!(read.account.as_str(), "{primary}");
    assert!(read.access.is_none());
    match read.sign_in {
        PlatformSignIn::Master {
            user,
            password_file,
            separator,
        } => {
            assert_eq!((user.as_str(), separator), ("rehome", '*'));
            assert_eq!(password_file, Path::new("/etc/rehome/imap.password"));
        }
        other => panic!("{other:?}"),
    }
    for (more, port, security) in [
        ("security = \"starttls\"\n", 143, Security::StartTls),
        ("security = \"starttls\"\nport = 1143\n", 1143, Security::StartTls),
    ] {
        let read = imap(&format!("{IMAP}{more}"));
        assert_eq!((read.port, read.security), (port, security));
    }
    for host in ["127.0.0.1", "::1", "localhost", "LocalHost"] {
        let plain = imap(&format!("{IMAP}security = \"none\"\n").replace("imap.contoso.example", host));
        assert_eq!((plain.port, plain.security), (143, Security::Plain), "{host}");
    }
    // Never more for one account than for all.
    assert_eq!(imap(&format!("{IMAP}connections = 2\n")).connections_per_account, 2);
}

#[test]
fn other_ways_to_sign_in() {
    let authzid = IMAP.replace("master", "authzid");
    assert!(matches!(imap(&authzid).sign_in, PlatformSignIn::Authzid { user, .. } if user == "rehome"));
    let oauth = "[platform.online]\ndriver = \"imap\"\nhost = \"outlook.office365.com\"\nsign_in = \"oauth\"\n\
        [platform.online.oauth]\ntoken_url = \"https://login.example/token\"\nclient_id = \"a\"\nclient_secret_file = \"b\"\n";
    match imap(oauth).sign_in {
        PlatformSignIn::OAuth {
            token_url,
            client_id,
            scope,
            mechanism,
            ..
        } => {
            assert_eq!(
                (token_url.as_str(), client_id.as_str()),
                ("https://login.example/token", "a")
            );
            assert_eq!((scope, mechanism), (None, rehome_platform::OAuthMechanism::Offered));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_an_imap_platform_cannot_be() {
    let without = |key: &str| {
        let lines = IMAP.lines().filter(|line| !line.starts_with(key));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let access = |text: &str| format!("{IMAP}[platform.dovecot.access]\n{text}\n");
    for (text, said) in [
        (without("host"), "the key 'host' is missing; driver \"imap\" needs it"),
        (
            without("sign_in"),
            "the key 'sign_in' is missing; driver \"imap\" needs it",
        ),
        (
            without("user"),
            "the key 'user' is missing; sign_in \"master\" needs it",
        ),
        (without("password_file"), "the key 'password_file' is missing"),
        (
            format!("{IMAP}root = \"/srv\"\n"),
            "the key 'root' means nothing with driver \"imap\"",
        ),
        (format!("{IMAP}security = \"none\"\n"), "for all to read"),
        (format!("{IMAP}password = \"x\"\n"), "unknown key 'password'"),
        (format!("{IMAP}separator = \"ab\"\n"), "'ab' is not one character"),
        (format!("{IMAP}separator = \"a\"\n"), "'a' is not one character"),
        (
            format!("{IMAP}account = \"everyone\"\n"),
            "is not a template of account names",
        ),
        (format!("{IMAP}port = 0\n"), "0 is not a whole number"),
        (
            IMAP.replace("imap.contoso.example", "no host"),
            "'no host' is not a host name",
        ),
        (
            IMAP.replace("master", "oauth"),
            "the key 'user' means nothing with sign_in \"oauth\"",
        ),
        (
            format!("{}separator = \"*\"\n", IMAP.replace("master", "authzid")),
            "'separator' means nothing",
        ),
        (
            format!(
                "{IMAP}[platform.dovecot.oauth]\ntoken_url = \"https://a.example\"\nclient_id = \"a\"\nclient_secret_file = \"b\"\n"
            ),
            "the key 'oauth' means nothing with sign_in \"master\"",
        ),
        (
            format!(
                "{IMAP}[platform.dovecot.oauth]\ntoken_url = \"http://login.example\"\nclient_id = \"a\"\nclient_secret_file = \"b\"\n"
            ),
            "is not an https URL",
        ),
        (access("method = \"command\""), "needs a command"),
        (access("method = \"command\"\ncommand = [\"program\"]"), "absolute path"),
        (access("method = \"none\"\ncommand = [\"/program\"]"), "means nothing"),
        (access("method = \"dovecot\""), "\"command\" or \"none\""),
        (access("method = \"none\"\ndrain_seconds = 91"), "from 1 to 90"),
        (
            "[platform.mail]\ndriver = \"maildir\"\n".to_owned(),
            "the key 'root' is missing; driver \"maildir\" needs it",
        ),
        (
            "[platform.mail]\ndriver = \"maildir\"\nroot = \"/srv\"\nhost = \"a.example\"\n".to_owned(),
            "the key 'host' means nothing with driver \"maildir\"",
        ),
    ] {
        let told = parse(&format!("{SMALLEST}{text}")).unwrap_err();
        assert!(told.starts_with("/etc/rehome/rehome.toml:"), "{text}: {told}");
        assert!(told.contains(said), "{text}: {told}");
    }
}

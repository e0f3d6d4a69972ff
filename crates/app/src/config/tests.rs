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
    assert_eq!(config.platform.len(), 1);
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
            "the key 'driver' is missing; it takes \"maildir\"",
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

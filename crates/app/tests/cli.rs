//! The binary from outside: exit codes, where output goes, and the operator's commands. No server is started here.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use serde_json::Value as Json;
use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Output, Stdio},
};

struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// A machine with key file and configuration.
    fn new() -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(
            machine.path("config.toml"),
            "data_folder = \"data\"\nlisten = \"127.0.0.1:0\"\npublic_name = \"localhost:8443\"\nkey_file = \"seal.key\"\n",
        )
        .unwrap();
        machine.succeeds(&["key", "new", "--out", "seal.key"]);
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rehome"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("REHOME_HOME", self.path("home"))
            .env("REHOME_CONFIG", "config.toml")
            .env_remove("REHOME_PROFILE")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Fails with this exit code and nothing on standard output; returns what was said.
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        said
    }

    fn audit(&self, tenant: &str) -> Vec<Json> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = rehome_store::Store::open(&self.path("data")).await.unwrap();
            let mut tx = store.read().await.unwrap();
            let tenant = tenant.parse().unwrap();
            assert_eq!(tx.audit_first_break(tenant).await.unwrap(), None);
            let rows = tx.audit_list(tenant, 0, 100).await.unwrap();
            rows.iter()
                .map(|row| serde_json::from_str(&row.body).unwrap())
                .collect()
        })
    }
}

#[test]
fn exit_codes_tell_misuse_from_failure() {
    let machine = Machine::new();
    for (arguments, code, said) in [
        (&["no-such"][..], 2, "not recognized as a command"),
        (&["tenant", "new"], 2, "--admin"),
        (&["Get-Mailbox", "-Foo"], 2, "matches parameter name 'Foo'"),
        (&["Get-Mailbox", "--jsn"], 2, "not a switch of the command line"),
        (
            &["New-OrganizationRelationship", "x", "-Enabled:"],
            2,
            "your shell removed $true",
        ),
        (
            &["New-MigrationEndpoint", "-Credentials", "s3cret"],
            2,
            "other users of this machine can read a command line",
        ),
        (&["Get-Mailbox"], 2, "nobody is signed in"),
        (&["Get-Mailbox", "--profile", "x"], 2, "there is no profile 'x'"),
        (&["--profile", "x", "Get-Mailbox"], 2, "there is no profile 'x'"),
        (&["config", "check", "nowhere.toml"], 2, "nowhere.toml: cannot be read"),
        (&["key", "new", "--out", "seal.key"], 1, "seal.key"),
        (
            &["tenant", "domain", "add", "unknown.example", "x.example"],
            1,
            "there is no tenant 'unknown.example'",
        ),
        (
            &["login", "--server", "localhost:1", "--tenant", "contoso.example"],
            2,
            "no terminal to ask on",
        ),
    ] {
        let told = machine.fails(arguments, code);
        assert!(told.contains(said), "{arguments:?}: {told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
    let told = machine.fails(&["Get-Mailbox", "-Foo", "--json"], 2);
    let told: Json = serde_json::from_str(&told).unwrap();
    assert_eq!(told["error"]["id"], "ParameterBindingException");
}

#[test]
fn mistakes_of_the_configuration_stop_every_command_that_reads_it() {
    let machine = Machine::new();
    let text = fs::read_to_string(machine.path("config.toml")).unwrap();
    fs::write(
        machine.path("config.toml"),
        format!("{text}lisen = 1\n[tls]\nkey = 3\n"),
    )
    .unwrap();
    for arguments in [&["serve"][..], &["tenant", "list"], &["config", "check", "config.toml"]] {
        let told = machine.fails(arguments, 2);
        assert!(told.contains("config.toml:5: unknown key 'lisen'"), "{told}");
        assert!(told.contains("config.toml:7: expected a path"), "{told}");
    }
}

#[test]
fn tenants_are_made_listed_changed_and_every_change_is_audited() {
    let machine = Machine::new();
    let made = machine.succeeds(&[
        "tenant",
        "new",
        "contoso.example",
        "--admin",
        "admin@contoso.example",
        "--json",
    ]);
    let made: Json = serde_json::from_str(&made).unwrap();
    let tenant = made["tenant_id"].as_str().unwrap();
    assert_eq!(
        (
            made["domain"].as_str(),
            made["admin"].as_str(),
            made["code"].as_str().map(str::len)
        ),
        (Some("contoso.example"), Some("admin@contoso.example"), Some(27))
    );
    let taken = machine.fails(&["tenant", "new", "contoso.example", "--admin", "a@contoso.example"], 1);
    assert!(taken.contains("already in use"), "{taken}");

    machine.succeeds(&["tenant", "domain", "add", "contoso.example", "contoso.test"]);
    let list: Json = serde_json::from_str(&machine.succeeds(&["tenant", "list", "--json"])).unwrap();
    assert_eq!(
        list[0]["AcceptedDomains"],
        serde_json::json!(["contoso.example", "contoso.test"])
    );
    machine.succeeds(&["tenant", "domain", "remove", tenant, "contoso.test"]);
    let kept = machine.fails(&["tenant", "domain", "remove", tenant, "contoso.example"], 1);
    assert!(kept.contains("it stays"), "{kept}");

    let reset = machine.succeeds(&["admin", "reset", "contoso.example", "admin@contoso.example", "--json"]);
    let reset: Json = serde_json::from_str(&reset).unwrap();
    assert_ne!(reset["code"], made["code"]);

    let rows = machine.audit(tenant);
    let actions: Vec<&str> = rows.iter().filter_map(|row| row["action"].as_str()).collect();
    for action in [
        "NewTenant",
        "NewAdministrator",
        "AddDomain",
        "RemoveDomain",
        "ResetAdministrator",
    ] {
        assert!(actions.contains(&action), "{action}: {actions:?}");
    }
    assert!(
        rows.iter()
            .all(|row| row["caller"] == "operator" && row["origin"] == "local")
    );
    let text = serde_json::to_string(&rows).unwrap();
    for code in [&made["code"], &reset["code"]] {
        assert!(!text.contains(code.as_str().unwrap()));
    }
}

#[test]
fn the_data_folder_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new();
    machine.succeeds(&["tenant", "list"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&machine.path("data")), mode(&machine.path("seal.key"))),
        (0o700, 0o600)
    );
    fs::set_permissions(machine.path("seal.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = machine.fails(
        &["tenant", "new", "contoso.example", "--admin", "admin@contoso.example"],
        1,
    );
    assert!(told.contains("chmod 600"), "{told}");
}

#[test]
fn help_goes_to_standard_output_and_a_reader_may_stop_reading() {
    let machine = Machine::new();
    for arguments in [
        &["--help"][..],
        &["help"],
        &["help", "get-mailbox"],
        &["Get-Mailbox", "--help"],
        &["Get-Mailbox", "-?"],
        &["help", "tenant", "new"],
        &["tenant", "--help"],
        &["config", "describe"],
    ] {
        assert!(!machine.succeeds(arguments).is_empty(), "{arguments:?}");
    }
    let mut child = machine
        .command(&["config", "describe"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(said, "");
}

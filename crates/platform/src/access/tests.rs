use super::*;
use std::{os::unix::fs::PermissionsExt, path::Path};

fn program(folder: &Path, script: &str) -> AccessCommand {
    let path = folder.join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    AccessCommand {
        program: vec![path.display().to_string(), folder.display().to_string()],
        call_within: Duration::from_secs(20),
        drain_within: Duration::from_secs(60),
    }
}

#[tokio::test]
async fn arguments_come_as_they_are_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let command = program(folder.path(), r#"{ echo "$#|$2|$3"; env | sort; pwd; } > "$1/seen""#);
    let account = "a $(b) 'c' ;d\"@contoso.example";
    command.deny(account).await.unwrap();
    let seen = std::fs::read_to_string(folder.path().join("seen")).unwrap();
    let mut lines = seen.lines();
    assert_eq!(lines.next().unwrap(), format!("3|deny|{account}"));
    let environment: Vec<&str> = lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    for name in &environment {
        // The shell itself adds the last ones.
        assert!(
            ["PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"].contains(name),
            "{environment:?}"
        );
    }
}

#[tokio::test]
async fn exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let said = |error: AccessError| error.to_string();
    let gone = program(folder.path(), "echo no such user >&2; exit 67")
        .allow("x")
        .await
        .unwrap_err();
    assert!(matches!(gone, AccessError::NoAccount { .. }), "{gone}");
    let failed = program(folder.path(), "printf 'a\\033b\\nc' >&2; exit 3")
        .allow("x")
        .await
        .unwrap_err();
    assert!(said(failed).ends_with("(exit status: 3): a b c"));
    let silent = program(folder.path(), "kill -9 $$").allow("x").await.unwrap_err();
    assert!(said(silent).contains("it said nothing"));
    let mut missing = program(folder.path(), "");
    missing.program[0] = folder.path().join("nothing").display().to_string();
    assert!(matches!(
        missing.allow("x").await.unwrap_err(),
        AccessError::Start { .. }
    ));
}

#[tokio::test]
async fn output_is_bounded_and_never_stops_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let command = program(
        folder.path(),
        "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero >&2",
    );
    assert_eq!(command.run(Verb::Sessions, "x").await.unwrap().len(), OUTPUT);
}

#[tokio::test]
async fn what_does_not_end_is_ended_with_all_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(folder.path(), "sleep 600 & echo $! > \"$1/child\"; wait");
    command.call_within = Duration::from_secs(1);
    let error = command.deny("x").await.unwrap_err();
    assert!(matches!(error, AccessError::TimedOut { seconds: 1, .. }), "{error}");
    let child = std::fs::read_to_string(folder.path().join("child")).unwrap();
    let state = format!("/proc/{}/stat", child.trim());
    rehome_testkit::wait::until_true("the program's child ends", Duration::from_secs(20), || {
        // Gone, or a zombie that nobody has waited for yet.
        std::fs::read_to_string(&state).map_or(true, |text| text.contains(") Z "))
    });
}

#[tokio::test]
async fn drained_when_no_session_is_left() {
    let folder = tempfile::tempdir().unwrap();
    // Each kick ends one of three sessions; a blank line is none.
    let script = r#"case $2 in
kick) echo x >> "$1/kicks";;
sessions) n=$(wc -l < "$1/kicks"); echo; [ "$n" -ge 3 ] || seq "$n" 2;;
esac"#;
    program(folder.path(), script).drain("x").await.unwrap();
    assert_eq!(
        std::fs::read_to_string(folder.path().join("kicks"))
            .unwrap()
            .lines()
            .count(),
        3
    );
    let mut stubborn = program(folder.path(), "[ $2 = kick ] || echo one");
    stubborn.drain_within = Duration::from_secs(1);
    let error = stubborn.drain("x").await.unwrap_err();
    assert!(matches!(error, AccessError::InUse { sessions: 1, .. }), "{error}");
}

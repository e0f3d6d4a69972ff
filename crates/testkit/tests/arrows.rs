//! The arrows between the rooms: only those of the design exist, and the golden file shows the whole graph.
//!
//! With `UPDATE_GOLDEN=1` the golden file is written anew; what the design does not allow fails all the same.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What each room may know. Every room but `domain`, `wire` and `command` may use `fault` as well; every room but
/// `wire`, `mailbox`, `replicate`, `command` and `fault` may use `domain`.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "app",
        &[
            "cmdlets",
            "command",
            "console",
            "identity",
            "mailbox",
            "migrate",
            "platform",
            "remote",
            "replicate",
            "routing",
            "store",
            "wire",
        ],
    ),
    (
        "remote",
        &["command", "cmdlets", "migrate", "identity", "replicate", "wire"],
    ),
    ("cmdlets", &["command", "migrate", "platform", "identity", "store"]),
    ("console", &["command", "cmdlets", "identity"]),
    (
        "migrate",
        &[
            "routing",
            "platform",
            "replicate",
            "mailbox",
            "identity",
            "store",
            "wire",
        ],
    ),
    ("routing", &["platform", "store", "wire"]),
    ("platform", &["mailbox", "store"]),
    ("replicate", &["mailbox", "wire"]),
    ("identity", &["store"]),
    ("mailbox", &["wire"]),
    ("store", &[]),
    ("command", &[]),
    ("domain", &[]),
    ("wire", &[]),
    ("fault", &[]),
    ("testkit", &[]),
    (
        "fuzz",
        &[
            "cmdlets",
            "command",
            "identity",
            "mailbox",
            "migrate",
            "remote",
            "replicate",
            "wire",
        ],
    ),
    ("bench", &[]),
    ("tests", &[]),
];
const WITHOUT_FAULT: &[&str] = &[
    "domain", "wire", "command", "fault", "testkit", "tests", "bench", "fuzz",
];
const WITHOUT_DOMAIN: &[&str] = &[
    "wire",
    "mailbox",
    "replicate",
    "command",
    "fault",
    "domain",
    "testkit",
    "tests",
    "bench",
];
/// What tests of any room may use beside its own dependencies. `tests` works from outside: testkit is all it knows.
const DEV: &[&str] = &["testkit"];
/// What the tests of one room may use beside that: these run whole deployments in one process, wired as `app` does.
const DEV_OF: &[(&str, &[&str])] = &[
    ("remote", &["console", "platform", "routing", "store"]),
    ("console", &["store"]),
    ("cmdlets", &["routing"]),
];

fn allowed(from: &str, to: &str) -> bool {
    let arrows = ARROWS
        .iter()
        .find(|(room, _)| *room == from)
        .map_or(&[][..], |(_, arrows)| *arrows);
    arrows.contains(&to)
        || to == "fault" && !WITHOUT_FAULT.contains(&from)
        || to == "domain" && !WITHOUT_DOMAIN.contains(&from)
}

/// room → rooms, for normal and build dependencies, and for dev-dependencies.
fn graph() -> BTreeMap<(String, &'static str), BTreeSet<String>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo describes the workspace");
    let room = |name: &str| name.strip_prefix("rehome-").map(str::to_owned);
    let mut graph = BTreeMap::new();
    for package in &metadata.packages {
        let from = room(&package.name).unwrap_or_else(|| panic!("{} is not named rehome-…", package.name));
        graph.entry((from.clone(), "uses")).or_insert_with(BTreeSet::new);
        for dependency in &package.dependencies {
            let Some(to) = room(&dependency.name) else { continue };
            let kind = match dependency.kind {
                DependencyKind::Development => "tests with",
                _ => "uses",
            };
            graph.entry((from.clone(), kind)).or_default().insert(to);
        }
    }
    graph
}

#[test]
fn only_the_designs_arrows_exist() {
    let graph = graph();
    let mut wrong = Vec::new();
    for ((from, kind), rooms) in &graph {
        if !ARROWS.iter().any(|(room, _)| room == from) {
            wrong.push(format!("{from} is no room of the design"));
        }
        for to in rooms {
            let good = match *kind {
                "uses" => allowed(from, to),
                _ => {
                    let wired = DEV_OF
                        .iter()
                        .any(|(room, rooms)| room == from && rooms.contains(&to.as_str()));
                    wired || DEV.contains(&to.as_str()) || from != "tests" && allowed(from, to)
                }
            };
            if !good {
                wrong.push(format!("{from} {kind} {to}: not an arrow of the design"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_graph_is_the_golden_one() {
    let mut text = String::new();
    for ((from, kind), rooms) in &graph() {
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let rooms = if rooms.is_empty() {
            "nothing of ours".to_owned()
        } else {
            rooms.join(", ")
        };
        text.push_str(&format!("{from} {kind} {rooms}\n"));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/arrows.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).expect("the golden file is written");
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(
        text, expected,
        "the graph has changed; if that is meant: UPDATE_GOLDEN=1 cargo test -p rehome-testkit"
    );
}

#[test]
fn the_rule_itself() {
    for (from, to, good) in [
        ("app", "store", true),
        ("domain", "fault", false),
        ("wire", "domain", false),
        ("store", "domain", true),
        ("mailbox", "domain", false),
        ("mailbox", "fault", true),
        ("routing", "mailbox", false),
        ("identity", "wire", false),
        ("replicate", "store", false),
        ("console", "store", false),
    ] {
        assert_eq!(allowed(from, to), good, "{from} → {to}");
    }
}

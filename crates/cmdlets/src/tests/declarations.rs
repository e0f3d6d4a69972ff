//! Every declaration is well formed, and every example in it binds.

use super::world::{CONTOSO, World, administrator};
use crate::{registry, roles::ROLE_GROUPS, visible};
use rehome_command::{Credential, Declaration, Effect, Inputs, ParameterType, bind_words, render_help};
use rehome_domain::error_id::ErrorId;
use secrecy::SecretString;
use std::collections::BTreeSet;

struct Typist;

impl Inputs for Typist {
    fn credential(&mut self, _: &str, user_name: Option<&str>) -> Result<Credential, String> {
        Ok(Credential {
            user_name: user_name.unwrap_or("user").into(),
            password: "secret".to_owned().into(),
        })
    }

    fn secret(&mut self, _: &str) -> Result<SecretString, String> {
        Ok("secret".to_owned().into())
    }

    fn octets(&mut self, _: &str) -> Result<Vec<u8>, String> {
        Ok(b"EmailAddress\n".to_vec())
    }
}

/// Splits as a POSIX shell does, as far as examples use it: blanks, and single quotes.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            _ => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

fn check(d: &Declaration) {
    let name = d.name();
    let known: BTreeSet<&str> = ROLE_GROUPS
        .iter()
        .flat_map(|(_, roles)| roles.iter().copied())
        .collect();
    assert!(
        !d.roles.is_empty() && d.roles.iter().all(|r| known.contains(r.as_str())),
        "{name}: roles"
    );
    let expected = match d.verb.as_str() {
        "Get" | "Test" => Effect::Read,
        "Export" if d.noun != "MigrationOutcome" => Effect::Read,
        "Remove" if d.noun != "DistributionGroupMember" => Effect::Destroy,
        _ => Effect::Change,
    };
    assert_eq!(d.effect, expected, "{name}");
    for text in [&d.synopsis]
        .into_iter()
        .chain(d.parameters.iter().map(|p| &p.help))
        .chain(d.output.iter().map(|p| &p.help))
    {
        assert!(text.len() > 5 && text.ends_with('.'), "{name}: '{text}'");
    }
    assert!(!d.examples.is_empty(), "{name}: no example");

    let mut names = BTreeSet::new();
    for p in &d.parameters {
        for spelling in std::iter::once(&p.name).chain(&p.aliases) {
            assert!(names.insert(spelling.to_lowercase()), "{name}: -{spelling} twice");
        }
        assert!(
            p.roles.iter().all(|r| known.contains(r.as_str())),
            "{name}: roles of -{}",
            p.name
        );
        let secret = matches!(p.kind, ParameterType::Secret | ParameterType::Credential);
        assert!(!(secret && p.position.is_some()), "{name}: a secret at a position");
        assert!(
            !(p.nullable && (p.mandatory || p.kind == ParameterType::Identity)),
            "{name}: -{} may be null",
            p.name
        );
        assert!(
            p.kind != ParameterType::Flags || !p.allowed_values.is_empty(),
            "{name}: -{} has no flags",
            p.name
        );
        assert!(
            p.user_name_from.as_ref().is_none_or(|n| d.parameter(n).is_some()),
            "{name}: -{}",
            p.name
        );
    }
    let sets = d.sets();
    assert!(
        d.default_set.as_ref().is_none_or(|s| sets.contains(s)),
        "{name}: default set"
    );
    assert!(sets.len() == 1 || d.default_set.is_some(), "{name}: no default set");
    for set in &sets {
        let mut positions: Vec<u8> = d
            .parameters
            .iter()
            .filter(|p| p.is_in(set))
            .filter_map(|p| p.position)
            .collect();
        positions.sort_unstable();
        let expected: Vec<u8> = (1..=u8::try_from(positions.len()).unwrap()).collect();
        assert_eq!(positions, expected, "{name}: positions in set '{set}'");
    }
    let columns: BTreeSet<&str> = d.output.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(columns.len(), d.output.len(), "{name}: a property twice");
    assert!(
        d.output.is_empty() || d.output.iter().any(|p| p.default_column),
        "{name}: no default column"
    );
}

#[test]
fn declarations_are_well_formed() {
    let mut names = BTreeSet::new();
    for cmdlet in registry() {
        let d = &cmdlet.declaration;
        assert!(names.insert(d.name().to_lowercase()), "{} twice", d.name());
        check(d);
        let json = serde_json::to_string(d).unwrap();
        assert_eq!(&serde_json::from_str::<Declaration>(&json).unwrap(), d);
        let help = render_help(d);
        assert!(
            d.parameters
                .iter()
                .all(|p| help.contains(&format!("    -{} <", p.name))),
            "{}",
            d.name()
        );
        for example in &d.examples {
            // What begins with two dashes is the program's own option; --out has a file's name behind it.
            let mut before = String::new();
            let words: Vec<String> = shell_words(&example.command)
                .into_iter()
                .filter(|word| {
                    let belongs = before != "--out" && !word.starts_with("--");
                    before.clone_from(word);
                    belongs
                })
                .collect();
            assert_eq!(words[0], d.name());
            if let Err(error) = bind_words(d, &words[1..], &mut Typist) {
                panic!("rehome {}: {error}", example.command);
            }
        }
    }
}

#[test]
fn the_cmdlets_of_this_release() {
    let names: Vec<String> = registry().iter().map(|c| c.declaration.name()).collect();
    for (noun, verbs) in [
        ("OrganizationRelationship", &["New", "Get", "Set", "Remove"][..]),
        ("MigrationEndpoint", &["New", "Get", "Set", "Remove"]),
        ("MigrationServerAvailability", &["Test"]),
        (
            "MigrationBatch",
            &["New", "Get", "Set", "Start", "Stop", "Complete", "Remove"],
        ),
        ("MigrationUser", &["Get", "Set", "Start", "Stop", "Remove"]),
        ("MigrationUserStatistics", &["Get"]),
        ("MigrationReceipt", &["Get", "Export", "Test"]),
        ("MigrationReport", &["Export"]),
        ("OutboundMigration", &["Get", "Test", "Resolve", "Set"]),
        ("MigrationOutcome", &["Export"]),
        ("Mailbox", &["New", "Get", "Set", "Import"]),
        ("MailUser", &["New", "Get", "Set", "Remove"]),
        ("Recipient", &["Get"]),
        ("DistributionGroup", &["New"]),
        ("DistributionGroupMember", &["Add", "Get", "Remove"]),
        ("AcceptedDomain", &["Get"]),
        ("OrganizationConfig", &["Get"]),
        ("MgApplication", &["New", "Get"]),
        ("MgApplicationPassword", &["Add"]),
        ("MgServicePrincipalAppRoleAssignment", &["New"]),
        ("MgServicePrincipal", &["Get", "Remove"]),
    ] {
        for verb in verbs {
            assert!(names.contains(&format!("{verb}-{noun}")), "{verb}-{noun}");
        }
    }
}

#[tokio::test]
async fn outside_his_roles_nothing_exists_for_a_caller() {
    let world = World::new().await;
    assert_eq!(visible(&world.context.caller).len(), registry().len());
    let mut context = world.context.clone();
    context.caller = administrator(CONTOSO, "clerk@contoso.example");
    context.caller.role_groups = vec!["Help Desk".into()];
    assert!(visible(&context.caller).is_empty());
    for cmdlet in registry() {
        let name = cmdlet.declaration.name();
        let error = crate::invoke_json(&context, &name, &serde_json::Map::new())
            .await
            .unwrap_err();
        assert_eq!(error.id, ErrorId::CommandNotFound, "{name}");
        let expected = format!("The term '{name}' is not recognized as the name of a cmdlet");
        assert!(error.message.starts_with(&expected), "{}", error.message);
        let unknown = crate::invoke_json(&world.context, "Get-Nonsense", &serde_json::Map::new())
            .await
            .unwrap_err();
        assert_eq!(unknown.message.replace("Get-Nonsense", &name), error.message);
    }
}

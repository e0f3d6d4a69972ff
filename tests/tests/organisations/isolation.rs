//! Two tenants of one deployment: nothing of one is found from the other, by any cmdlet, under any form of identity.

use crate::administrator::Administrator;
use crate::pair::{Pair, Plan, SOURCE, TARGET, text};
use crate::rogue::{Rogue, SCOPE};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Properties that name an object.
const NAMING: &[&str] = &[
    "Name",
    "Alias",
    "PrimarySmtpAddress",
    "Guid",
    "ExchangeGuid",
    "LegacyExchangeDN",
    "Identity",
    "BatchGuid",
    "RequestGuid",
    "AppId",
    "Id",
    "KeyId",
];

fn declarations(administrator: &Administrator) -> Vec<Value> {
    let bearer = format!("Bearer {}", administrator.token());
    let answer = administrator.client().get(
        &format!("/adminapi/beta/{}/Commands", administrator.tenant),
        &[("authorization", &bearer)],
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["value"].as_array().cloned().unwrap_or_default()
}

fn cmdlet(declaration: &Value) -> String {
    format!("{}-{}", text(declaration, "Verb"), text(declaration, "Noun"))
}

fn parameters(declaration: &Value) -> Vec<Value> {
    declaration["Parameters"].as_array().cloned().unwrap_or_default()
}

/// Everything that an administrator sees, by cmdlet.
fn everything(administrator: &Administrator) -> Vec<(String, Value)> {
    let reads = declarations(administrator)
        .into_iter()
        .filter(|d| text(d, "Verb") == "Get");
    let whole = reads.filter(|d| d["DefaultSet"].is_string() || parameters(d).iter().all(|p| p["Mandatory"] != true));
    whole
        .map(|d| cmdlet(&d))
        .filter_map(|name| {
            let answer = administrator.invoke(&name, &json!({}));
            (answer.status == 200).then(|| (name, answer.json()["value"].clone()))
        })
        .collect()
}

/// Every name of an object that stands anywhere in it.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(name) if NAMING.contains(&key.as_str()) && !name.is_empty() => {
                        found.insert(name.clone());
                    }
                    other => names(other, found),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn names_of(administrator: &Administrator) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    everything(administrator)
        .iter()
        .for_each(|(_, value)| names(value, &mut found));
    found
}

/// A value that binds, for a parameter that the call needs beside the one under test.
fn filler(parameter: &Value) -> Value {
    let allowed = parameter["AllowedValues"]
        .as_array()
        .and_then(|values| values.first().cloned());
    match text(parameter, "Type").as_str() {
        "SwitchParameter" | "Boolean" => json!(true),
        "Int32" | "Unlimited" => json!(1),
        "Guid" => json!("deadbeef-0000-4000-8000-000000000000"),
        "DateTime" => json!("2030-06-01T00:00:00Z"),
        "Byte[]" => json!("RW1haWxBZGRyZXNzCnhAeC5leGFtcGxlCg=="),
        "PSCredential" => json!({ "UserName": "deadbeef-0000-4000-8000-000000000000", "Password": "x" }),
        _ => allowed.unwrap_or_else(|| json!("nothing-of-this-name")),
    }
}

/// A call of a cmdlet that looks for `name` by one of its parameters.
fn call(declaration: &Value, parameter: &Value, name: &Value) -> Value {
    let all = parameters(declaration);
    let sets_of = |one: &Value| one["Sets"].as_array().cloned().unwrap_or_default();
    // One set of parameters, as a caller has to choose it: the parameter's own, the default one, or the first.
    let default = declaration["DefaultSet"].as_str().map(|set| vec![json!(set)]);
    let candidates = [sets_of(parameter), default.unwrap_or_default()];
    let candidates = candidates.into_iter().chain(all.iter().map(sets_of));
    let chosen = candidates.flatten().next();
    let beside = |other: &&Value| {
        let others = sets_of(other);
        let same_set = others.is_empty() || chosen.as_ref().is_none_or(|set| others.contains(set));
        other["Mandatory"] == true && same_set && other["Name"] != parameter["Name"]
    };
    let mut call: Map<String, Value> = all
        .iter()
        .filter(beside)
        .map(|other| (text(other, "Name"), filler(other)))
        .collect();
    call.insert(text(parameter, "Name"), name.clone());
    Value::Object(call)
}

/// The parameters by which a cmdlet looks for an object.
fn looks_for(declaration: &Value) -> Vec<Value> {
    parameters(declaration)
        .into_iter()
        .filter(|p| {
            let kind = text(p, "Type");
            let sets_a_value =
                text(declaration, "Verb") == "Set" && p["Name"] == "ExchangeGuid" || p["Name"] == "AppRoleId";
            (kind == "Identity" || kind == "Guid") && !sets_a_value
        })
        .collect()
}

fn finds_nothing(seeker: &Administrator, victim: &Administrator) {
    // What stands in one's own objects in any form, such as the x500 address of a mail user, may be found there.
    let own = format!("{:?}", everything(seeker)).to_lowercase();
    let foreign: Vec<String> = names_of(victim)
        .into_iter()
        .filter(|name| !own.contains(&name.to_lowercase()))
        .collect();
    // The organisation's own GUID is public: partners name it in their relationships.
    let guids: Vec<&String> = foreign
        .iter()
        .filter(|name| uuid::Uuid::parse_str(name).is_ok() && **name != victim.tenant)
        .collect();
    assert!(
        foreign.len() > 8 && guids.len() > 3,
        "there is something to be looked for: {foreign:?}"
    );
    let (before, own_before) = (everything(victim), everything(seeker));
    let mut asked = 0;
    for declaration in declarations(seeker) {
        for parameter in looks_for(&declaration) {
            let is_guid = text(&parameter, "Type") == "Guid";
            for name in foreign
                .iter()
                .filter(|name| !is_guid || uuid::Uuid::parse_str(name).is_ok())
            {
                let call = call(&declaration, &parameter, &json!(name));
                let answer = seeker.invoke(&cmdlet(&declaration), &call);
                let nothing =
                    answer.status == 200 && answer.json()["value"] == json!([]) && text(&declaration, "Verb") == "Get";
                let not_found = ["ManagementObjectNotFoundException", "ApplicationNotConsentedException"]
                    .contains(&answer.error_id().as_str());
                assert!(
                    nothing || not_found,
                    "{} {call}: {}",
                    cmdlet(&declaration),
                    answer.text()
                );
                asked += 1;
            }
            for name in [json!("*"), json!("%"), json!("p*"), json!("?"), json!(""), Value::Null] {
                let call = call(&declaration, &parameter, &name);
                let answer = seeker.invoke(&cmdlet(&declaration), &call);
                let text = answer.text();
                assert!(
                    !guids.iter().any(|guid| text.contains(guid.as_str())),
                    "{} {call}: {text}",
                    cmdlet(&declaration)
                );
            }
        }
        // Without any identity, too, a list holds one's own alone.
        if text(&declaration, "Verb") == "Get" {
            let answer = seeker.invoke(&cmdlet(&declaration), &json!({})).text();
            assert!(
                !guids.iter().any(|guid| answer.contains(guid.as_str())),
                "{}: {answer}",
                cmdlet(&declaration)
            );
        }
    }
    assert!(asked > 200, "only {asked} questions were asked");
    assert_eq!(before, everything(victim), "nothing of the victim has changed");
    assert_eq!(own_before, everything(seeker), "nothing was changed by looking");
}

#[test]
fn one_tenant_finds_nothing_of_the_other() {
    let mut pair = Pair::ready(&Plan {
        one_authority: true,
        mailboxes: &["press", "board"],
        ..Plan::default()
    });
    pair.source.does(&[
        "New-MailUser",
        "gone-before",
        "-ExternalEmailAddress",
        "gone@elsewhere.example",
        "-PrimarySmtpAddress",
        &format!("gone@{SOURCE}"),
    ]);
    pair.source.does(&[
        "New-Mailbox",
        "stays",
        "-MicrosoftOnlineServicesID",
        &format!("stays@{SOURCE}"),
    ]);
    pair.target.does(&[
        "New-DistributionGroup",
        "newcomers",
        "-PrimarySmtpAddress",
        &format!("newcomers@{TARGET}"),
    ]);
    pair.starts_batch("wave-1", &["press", "board"], &[]);
    for name in ["press", "board"] {
        pair.is_synced(name);
    }
    finds_nothing(&pair.source, &pair.target);
    finds_nothing(&pair.target, &pair.source);
    pair.completes_batch("wave-1");
    for name in ["press", "board"] {
        pair.is_completed(name);
        pair.has_moved(name);
    }
}

/// The tenant in path and query is the token's own, or it is answered as one that does not exist.
#[test]
fn another_tenants_path() {
    let pair = Pair::strangers(&Plan {
        one_authority: true,
        ..Plan::default()
    });
    let body = json!({ "CmdletInput": { "CmdletName": "Get-Recipient", "Parameters": {} } });
    let bearer = format!("Bearer {}", pair.target.token());
    let ask = |path: &str| {
        let answer = pair
            .target
            .client()
            .post_json(path, &[("authorization", &bearer)], &body);
        let mut error = answer.json()["error"].clone();
        error["correlation_id"] = Value::Null;
        (answer.status, error)
    };
    let nobody = uuid::Uuid::new_v4().to_string();
    let words = |(status, error): (u16, Value), name: &str| (status, error.to_string().replace(name, "NAME"));
    for name in [pair.source.tenant.as_str(), SOURCE] {
        let unknown = if name == SOURCE { "nobody.example" } else { &nobody };
        for path in [
            "/adminapi/beta/NAME/InvokeCommand".to_owned(),
            format!("/adminapi/beta/{}/InvokeCommand?DelegatedOrg=NAME", pair.target.tenant),
        ] {
            let (theirs, nobodys) = (ask(&path.replace("NAME", name)), ask(&path.replace("NAME", unknown)));
            assert_ne!(theirs.0, 200);
            assert_eq!(words(theirs, name), words(nobodys, unknown), "{path}");
        }
    }
    assert_eq!(
        ask(&format!("/adminapi/beta/{}/InvokeCommand", pair.target.tenant)).0,
        200
    );
    assert_eq!(
        ask(&format!("/adminapi/beta/{TARGET}/InvokeCommand?DelegatedOrg={TARGET}")).0,
        200
    );
}

/// What a partner got at one tenant is nothing at another tenant of the same deployment.
#[test]
fn a_partners_token_at_another_tenant() {
    let mut pair = Pair::ready(&Plan {
        one_authority: true,
        ..Plan::default()
    });
    let third = pair.source_server().tenant("tailspin.example");
    third.does(&[
        "New-Mailbox",
        "other",
        "-MicrosoftOnlineServicesID",
        "other@tailspin.example",
    ]);
    let other = text(
        &third.asks("Get-Mailbox", &json!({ "Identity": "other" }))[0],
        "ExchangeGuid",
    );
    let press = text(&pair.mailbox("press"), "ExchangeGuid");
    let rogue = Rogue::with_secret(&pair);
    assert_eq!(rogue.verb(&press, "open", &json!({})).status, 200, "at home it is good");
    assert_ne!(
        rogue.verb(&other, "open", &json!({})).status,
        200,
        "and a move is of one mailbox"
    );
    let rogue = Rogue {
        move_id: uuid::Uuid::new_v4().to_string(),
        ..rogue
    };
    let answer = rogue.verb(&other, "open", &json!({}));
    assert_eq!(
        answer.error_id(),
        "MailboxNotInCrossTenantMigrationScopeException",
        "{}",
        answer.text()
    );
    // Nobody consented there: no token.
    let path = format!("/{}/oauth2/v2.0/token", third.tenant);
    let proof = rogue.key.proof("POST", &format!("{}{path}", rogue.origin), None);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &pair.app),
        ("scope", SCOPE),
        ("client_secret", &pair.secret),
    ];
    let answer = rogue.client.post_form(&path, &[("dpop", &proof)], &form);
    assert!(
        answer.status >= 400 && answer.text().contains("AADSTS700016"),
        "{}",
        answer.text()
    );
    // The token of the one at the other's proxy: as if there were no such tenant.
    let there = Rogue {
        tenant: third.tenant.clone(),
        ..rogue
    };
    let nowhere = uuid::Uuid::new_v4().to_string();
    for guid in [&press, &other] {
        for verb in ["open", "folders", "lock", "commit"] {
            let answer = there.attempt(guid, verb, &nowhere);
            assert_eq!(answer.error_id(), "InvalidTenantException", "{verb}: {}", answer.text());
        }
    }
    let nobody = Rogue {
        tenant: nowhere.clone(),
        ..there
    };
    let answer = nobody.verb(&other, "open", &json!({}));
    assert_eq!(answer.error_id(), "InvalidTenantException", "{}", answer.text());
}

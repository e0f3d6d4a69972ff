//! Those on the line, with a token that is not theirs.

use crate::https::Response;
use crate::interceptor::Seen;
use crate::jose::{Key, claims};
use crate::pair::{ENDPOINT, Pair, Plan, TARGET, text};
use crate::rogue::{JWT_BEARER, SCOPE, asks_with_assertion, stolen_assertion};
use serde_json::json;

fn intercepted() -> Plan<'static> {
    Plan {
        between: "interceptor",
        ..Plan::default()
    }
}

/// The honest mover's Open, as it passed: token and proof.
fn overheard_open(pair: &Pair) -> Seen {
    let test = &pair.target.does(&[
        "Test-MigrationServerAvailability",
        "-Endpoint",
        ENDPOINT,
        "-TestMailbox",
        &format!("press@{TARGET}"),
    ])[0];
    assert_eq!(text(test, "Result"), "Success", "{test}");
    pair.interceptor()
        .seen()
        .into_iter()
        .rfind(|seen| seen.is_verb("open"))
        .expect("the mailbox was opened")
}

fn bare_token(seen: &Seen) -> String {
    seen.header("authorization")
        .split_once(' ')
        .map(|(_, token)| token.to_owned())
        .expect("it has a token")
}

/// A request to the proxy with these two headers; either may be left out.
fn to_proxy(pair: &Pair, path: &str, authorization: &str, proof: &str) -> Response {
    let moved = uuid::Uuid::new_v4().to_string();
    let all = [
        ("authorization", authorization),
        ("dpop", proof),
        ("rehome-move-id", &moved),
    ];
    let headers: Vec<(&str, &str)> = all.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    pair.source.client().post_json(path, &headers, &json!({}))
}

/// An access token that was copied on the way is worth nothing without the mover's key.
#[test]
fn copied_access_token() {
    let pair = Pair::ready(&intercepted());
    let seen = overheard_open(&pair);
    let (token, own) = (bare_token(&seen), Key::generate());
    let url = format!("https://{}{}", pair.source.server, seen.path);
    let folders = seen.path.replace("/open", "/folders");
    let dpop = format!("DPoP {token}");
    for (what, path, authorization, proof) in [
        ("the same request again", &seen.path, dpop.clone(), seen.header("dpop")),
        (
            "another key's proof",
            &seen.path,
            dpop.clone(),
            own.proof("POST", &url, Some(&token)),
        ),
        ("no proof", &seen.path, dpop.clone(), String::new()),
        (
            "as a bearer token",
            &seen.path,
            format!("Bearer {token}"),
            String::new(),
        ),
        (
            "as a bearer token with a proof",
            &seen.path,
            format!("Bearer {token}"),
            own.proof("POST", &url, Some(&token)),
        ),
        ("the proof of another verb", &folders, dpop.clone(), seen.header("dpop")),
        (
            "the proof as token",
            &seen.path,
            format!("DPoP {}", seen.header("dpop")),
            own.proof("POST", &url, Some(&seen.header("dpop"))),
        ),
        ("no token", &seen.path, String::new(), own.proof("POST", &url, None)),
    ] {
        let answer = to_proxy(&pair, path, &authorization, &proof);
        assert_eq!(
            (answer.status, answer.error_id().as_str()),
            (401, "InvalidAccessTokenException"),
            "{what}: {}",
            answer.text()
        );
    }
    // A token that says the same and is signed by another key.
    let forged = own.token("at+jwt", &claims(&token));
    let answer = to_proxy(
        &pair,
        &seen.path,
        &format!("DPoP {forged}"),
        &own.proof("POST", &url, Some(&forged)),
    );
    assert_eq!(answer.status, 401, "{}", answer.text());
    // Another algorithm, or none.
    for header in [
        json!({ "typ": "at+jwt", "alg": "none" }),
        json!({ "typ": "at+jwt", "alg": "HS256" }),
    ] {
        let forged = own.sign(&header, &claims(&token));
        let answer = to_proxy(
            &pair,
            &seen.path,
            &format!("DPoP {forged}"),
            &own.proof("POST", &url, Some(&forged)),
        );
        assert_eq!(answer.status, 401, "{header}: {}", answer.text());
    }
    assert_eq!(
        pair.outbound("press")
            .map_or(0, |row| row["ItemsServed"].as_u64().unwrap_or(0)),
        0,
        "nothing was served"
    );
}

/// Every kind of token is tried at every door; each opens one.
#[test]
fn each_kind_of_token_at_every_door() {
    let pair = Pair::ready(&intercepted());
    let seen = overheard_open(&pair);
    let assertion = stolen_assertion(&pair);
    let document = |client: &crate::https::Client, path: String| {
        let answer = client.get(&path, &[]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    };
    let kinds = [
        ("access", bare_token(&seen)),
        ("administrator", pair.source.token()),
        ("partner's administrator", pair.target.token()),
        ("assertion", assertion.clone()),
        ("proof", seen.header("dpop")),
        (
            "application",
            document(
                pair.target.client(),
                format!("/{}/applications/{}", pair.target.tenant, pair.app),
            ),
        ),
        (
            "keys",
            document(
                pair.source.client(),
                format!("/{}/discovery/v2.0/signedkeys", pair.source.tenant),
            ),
        ),
        (
            "partner's keys",
            document(
                pair.target.client(),
                format!("/{}/discovery/v2.0/signedkeys", pair.target.tenant),
            ),
        ),
        ("nonsense", "a.b.c".to_owned()),
    ];
    let key = Key::generate();
    let (origin, tenant) = (format!("https://{}", pair.source.server), &pair.source.tenant);
    let url = format!("{origin}{}", seen.path);
    let token_path = format!("/{tenant}/oauth2/v2.0/token");
    for (kind, token) in &kinds {
        // The administrators' door.
        let body = json!({ "CmdletInput": { "CmdletName": "Get-Mailbox", "Parameters": {} } });
        let path = format!("/adminapi/beta/{tenant}/InvokeCommand");
        for scheme in ["Bearer", "DPoP"] {
            let answer =
                pair.source
                    .client()
                    .post_json(&path, &[("authorization", &format!("{scheme} {token}"))], &body);
            assert_eq!(
                answer.status == 200,
                *kind == "administrator" && scheme == "Bearer",
                "{kind} as {scheme} at REST: {}",
                answer.text()
            );
        }
        // The proxy's door, with a proof that fits the token.
        let answer = to_proxy(
            &pair,
            &seen.path,
            &format!("DPoP {token}"),
            &key.proof("POST", &url, Some(token)),
        );
        assert!(
            matches!(answer.status, 400 | 401 | 403 | 404) && answer.error_id() != "",
            "{kind} at the proxy: {}",
            answer.text()
        );
        // The consent page: it asks for sign-in.
        let path = pair.link.strip_prefix(&origin).expect("the link leads to the source");
        let cookie = format!("__Host-rehome={token}");
        let answer = pair
            .source
            .client()
            .get(path, &[("cookie", &cookie), ("accept", "application/json")]);
        assert_eq!(
            answer.status == 200,
            *kind == "administrator",
            "{kind} at the consent page: {}",
            answer.text()
        );
        // The token endpoint: as assertion, and as proof.
        if *kind != "assertion" {
            let answer = asks_with_assertion(pair.source.client(), &origin, tenant, &pair.app, token, &key);
            assert!(
                matches!(answer.status, 400 | 401) && !answer.text().contains("access_token\""),
                "{kind} as assertion: {}",
                answer.text()
            );
        }
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &pair.app),
            ("scope", SCOPE),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", "a.b.c"),
        ];
        let answer = pair.source.client().post_form(&token_path, &[("dpop", token)], &fields);
        assert!(matches!(answer.status, 400 | 401), "{kind} as proof: {}", answer.text());
    }
    // The outcome address takes none of them.
    for (kind, token) in &kinds {
        let path = format!("/{}/outcome", pair.target.tenant);
        let body = json!({ "attempt": uuid::Uuid::new_v4().to_string(), "key": token });
        let answer = pair
            .target
            .client()
            .post_json(&path, &[("authorization", &format!("Bearer {token}"))], &body);
        assert_eq!(answer.status, 404, "{kind} at the outcome address: {}", answer.text());
    }
    // Its own door opens for the assertion, once.
    let answer = asks_with_assertion(pair.source.client(), &origin, tenant, &pair.app, &assertion, &key);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = asks_with_assertion(pair.source.client(), &origin, tenant, &pair.app, &assertion, &key);
    assert_ne!(answer.status, 200, "used twice: {}", answer.text());
}

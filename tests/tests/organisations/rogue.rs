//! A mover of our own: it holds a right token for the source's proxy and does what no honest mover does.

use crate::https::Client;
use crate::interceptor::Action;
use crate::jose::Key;
use crate::pair::{ENDPOINT, Pair};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// `client_assertion_type` of RFC 7523.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The scope that stands for the MRS proxy.
pub const SCOPE: &str = "https://outlook.office365.com/.default";

/// A mover with a key and token of its own.
pub struct Rogue {
    /// Speaks with the source directly.
    pub client: Client,
    /// The key that its token is bound to.
    pub key: Key,
    /// Its access token.
    pub token: String,
    /// `https://host:port`.
    pub origin: String,
    /// The source tenant.
    pub tenant: String,
    /// The move that it says it is.
    pub move_id: String,
}

/// Takes a client assertion off the line: the target's authority made it for the source's token endpoint, and the request that
/// carries it never arrives.
pub fn stolen_assertion(pair: &Pair) -> String {
    let taken = Arc::new(Mutex::new(None));
    let (keep, app) = (Arc::clone(&taken), pair.app.clone());
    pair.interceptor().rule(move |seen| {
        if !seen.asks_token() {
            return Action::Forward;
        }
        assert_eq!(seen.field("client_id").as_deref(), Some(app.as_str()));
        *keep.lock().expect("no one panics here") = seen.field("client_assertion");
        Action::Answer(
            503,
            json!({ "error": "temporarily_unavailable", "error_description": "not now", "error_codes": [90033] }),
        )
    });
    // It cannot succeed; what it says is not the point.
    let _ = pair
        .target
        .run(&["Test-MigrationServerAvailability", "-Endpoint", ENDPOINT]);
    pair.interceptor().forward_all();
    let assertion = taken.lock().expect("no one panics here").take();
    assertion.expect("the target asked for a token with an assertion")
}

/// Asks the source's token endpoint with an assertion.
pub fn asks_with_assertion(
    client: &Client,
    origin: &str,
    tenant: &str,
    app: &str,
    assertion: &str,
    key: &Key,
) -> crate::https::Response {
    let path = format!("/{tenant}/oauth2/v2.0/token");
    let proof = key.proof("POST", &format!("{origin}{path}"), None);
    client.post_form(
        &path,
        &[("dpop", &proof)],
        &[
            ("grant_type", "client_credentials"),
            ("client_id", app),
            ("scope", SCOPE),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion),
        ],
    )
}

impl Rogue {
    /// A mover that got its token with a stolen assertion, in a pair of two authorities.
    pub fn with_stolen_assertion(pair: &Pair) -> Self {
        let (client, key) = (pair.source.client().clone(), Key::generate());
        let origin = format!("https://{}", pair.source.server);
        let assertion = stolen_assertion(pair);
        let answer = asks_with_assertion(&client, &origin, &pair.source.tenant, &pair.app, &assertion, &key);
        Self::from_answer(pair, client, key, &answer)
    }

    /// A mover that holds the secret, in a pair of one authority.
    pub fn with_secret(pair: &Pair) -> Self {
        let (client, key) = (pair.source.client().clone(), Key::generate());
        let path = format!("/{}/oauth2/v2.0/token", pair.source.tenant);
        let proof = key.proof("POST", &format!("https://{}{path}", pair.source.server), None);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &pair.app),
            ("scope", SCOPE),
            ("client_secret", &pair.secret),
        ];
        let answer = client.post_form(&path, &[("dpop", &proof)], &form);
        Self::from_answer(pair, client, key, &answer)
    }

    fn from_answer(pair: &Pair, client: Client, key: Key, answer: &crate::https::Response) -> Self {
        assert_eq!(answer.status, 200, "{}", answer.text());
        Self {
            client,
            key,
            token: answer.json()["access_token"].as_str().expect("a token").to_owned(),
            origin: format!("https://{}", pair.source.server),
            tenant: pair.source.tenant.clone(),
            move_id: uuid::Uuid::new_v4().to_string(),
        }
    }

    /// The path of a verb.
    pub fn path(&self, guid: &str, verb: &str) -> String {
        format!("/mrs/{}/mailboxes/{guid}/{verb}", self.tenant)
    }

    /// One verb of the proxy with a right token and a right proof.
    pub fn verb(&self, guid: &str, verb: &str, body: &Value) -> crate::https::Response {
        let path = self.path(guid, verb);
        let proof = self
            .key
            .proof("POST", &format!("{}{path}", self.origin), Some(&self.token));
        let authorization = format!("DPoP {}", self.token);
        let correlation = uuid::Uuid::new_v4().to_string();
        let headers = [
            ("authorization", authorization.as_str()),
            ("dpop", &proof),
            ("rehome-move-id", &self.move_id),
            ("client-request-id", &correlation),
        ];
        self.client.post_json(&path, &headers, body)
    }

    /// A verb that takes an attempt and nothing else.
    pub fn attempt(&self, guid: &str, verb: &str, attempt: &str) -> crate::https::Response {
        self.verb(guid, verb, &json!({ "attempt": attempt }))
    }

    /// Prepare with these addresses and a root that proves nothing.
    pub fn prepare(
        &self,
        guid: &str,
        attempt: &str,
        routing_address: &str,
        legacy_exchange_dn: &str,
    ) -> crate::https::Response {
        self.verb(
            guid,
            "prepare",
            &json!({
                "attempt": attempt, "root": "0".repeat(64), "exceptions": [], "read_back": true,
                "routing_address": routing_address, "legacy_exchange_dn": legacy_exchange_dn,
                "outcome_key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
            }),
        )
    }
}

//! Tokens, documents and requests of a partner whom nobody knows yet.

use jiff::Timestamp;
use rehome_domain::{consent::PinnedKeys, id::ApplicationId};
use rehome_identity::{
    authority::{Origin, check_discovery, parse_issuer},
    description::check_app_description,
    dpop::{ProofMemory, check_proof},
    jws::{self, SigningKey, TokenType},
    keyset::check_key_set,
    session_from_cookies,
    statement::{OutcomeStatement, ReceiptStatement},
    token::TokenRequest,
};
use rehome_migrate::protocol;
use std::sync::LazyLock;

const ISSUER: &str = "https://contoso.example/7c4fa9d6-0b7f-4a51-9f6f-2f4ee1c9f0a1/v2.0";
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().expect("a key"));

fn now() -> Timestamp {
    Timestamp::from_second(1_900_000_000).expect("a time")
}

/// Nothing that a key of ours did not sign is believed, whatever it says of itself.
pub fn tokens(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    for kind in TokenType::ALL {
        assert!(
            jws::open::<serde_json::Value>(&text, kind, [KEY.public()]).is_err(),
            "{kind:?}"
        );
    }
    let pinned = PinnedKeys {
        sequence: 1,
        keys: Vec::new(),
    };
    assert!(check_key_set(&pinned, ISSUER, &text, now()).is_err());
    assert!(OutcomeStatement::verify(&text, &pinned, ISSUER, now()).is_err());
    assert!(ReceiptStatement::verify(&text, &pinned, ISSUER, now()).is_err());
    // A proof carries its own key, so one that is signed well may pass; with our key's thumbprint none does.
    let url = "https://contoso.example/mrs/mailboxes";
    let memory = ProofMemory::default();
    assert!(check_proof(&text, "POST", url, None, Some(KEY.public().kid()), now(), &memory).is_err());
    let _ = session_from_cookies(&text);
}

/// Documents of an authority: those that say they lie at another origin are refused.
pub fn documents(octets: &[u8]) {
    let origin: Origin = "contoso.example".parse().expect("an origin");
    let text = String::from_utf8_lossy(octets);
    if let Ok(found) = check_discovery(&origin, octets) {
        assert!(origin.holds(&found.token_endpoint) && origin.holds(&found.mrs_endpoint));
    }
    let _ = check_app_description(&text, &origin, ApplicationId::from_u128(7), now());
    if let Some((origin, tenant)) = parse_issuer(&text) {
        assert_eq!(origin.issuer(tenant), text);
    }
    if let Ok(origin) = text.parse::<Origin>() {
        assert_eq!(origin.as_str().parse::<Origin>().ok().as_ref(), Some(&origin));
        assert!(origin.as_str().starts_with("https://"));
    }
}

fn read_alike<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(
    octets: &[u8],
) -> Option<T> {
    let value: T = serde_json::from_slice(octets).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&written).ok().as_ref(), Some(&value));
    Some(value)
}

/// Requests and answers of the verbs, and of the token endpoint.
pub fn verbs(octets: &[u8]) {
    let _ = TokenRequest::parse(octets);
    read_alike::<protocol::OpenAnswer>(octets);
    read_alike::<protocol::FoldersRequest>(octets);
    read_alike::<protocol::ListingRequest>(octets);
    read_alike::<protocol::ItemsRequest>(octets);
    read_alike::<protocol::AttemptRequest>(octets);
    read_alike::<protocol::LeaseAnswer>(octets);
    read_alike::<protocol::StatusAnswer>(octets);
    read_alike::<protocol::CommitAnswer>(octets);
    read_alike::<protocol::ErrorAnswer>(octets);
    if let Some(answer) = read_alike::<protocol::FoldersAnswer>(octets) {
        assert!(answer.folders.len() <= octets.len());
    }
    if let Some(request) = read_alike::<protocol::PrepareRequest>(octets) {
        for exception in &request.exceptions {
            let _ = exception.read();
        }
    }
    if let Some(answer) = read_alike::<protocol::SweepAnswer>(octets) {
        let _ = answer.read();
    }
}

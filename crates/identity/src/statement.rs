//! Signed statements of a tenant, checkable later by anyone with its published statement key.

use crate::{
    clock::SKEW,
    error::StatementError,
    jws::{CryptographyFailed, Jwk, JwsError, PublicKey, SigningKey, TokenType, Unverified, open},
    keyset::pinned_for,
};
use jiff::Timestamp;
use rehome_domain::{
    consent::{KeyPurpose, PinnedKeys},
    id::{AttemptId, ExchangeGuid, MoveId, TenantId},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatedOutcome {
    /// The target decided: the mailbox is there.
    Decided,
    /// The attempt was aborted: the mailbox stays at the source.
    Aborted,
    /// Neither yet.
    Undecided,
}

/// The target tenant's statement of an attempt's outcome (`rehome-outcome+jwt`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeStatement {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its outcome.
    pub outcome: StatedOutcome,
    /// The move.
    pub move_id: MoveId,
    /// The mailbox.
    pub exchange_guid: ExchangeGuid,
    /// Whose statement: the target.
    pub target_tenant: TenantId,
    /// From where.
    pub source_tenant: TenantId,
    /// When the outcome was recorded, or asked while undecided; to the second.
    pub at: Timestamp,
}

/// What a statement of an outcome must be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedOutcome {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its move.
    pub move_id: MoveId,
    /// The mailbox.
    pub exchange_guid: ExchangeGuid,
    /// The target, whose statement it is.
    pub target_tenant: TenantId,
    /// The source, which asks.
    pub source_tenant: TenantId,
}

/// One tenant's receipt of a finished move (`rehome-receipt+jwt`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptStatement {
    /// The move.
    pub move_id: MoveId,
    /// The attempt that was committed.
    pub attempt: AttemptId,
    /// The mailbox.
    pub exchange_guid: ExchangeGuid,
    /// Where it is now.
    pub target_tenant: TenantId,
    /// Where it was.
    pub source_tenant: TenantId,
    /// When it was committed; to the second.
    pub at: Timestamp,
    /// Roots, counts, skipped items, exceptions, lock time and how the platforms were locked.
    pub body: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    iat: i64,
    jti: String,
    attempt: String,
    #[serde(rename = "move")]
    move_id: String,
    exchange_guid: String,
    target_tid: String,
    source_tid: String,
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<StatedOutcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receipt: Option<serde_json::Value>,
    /// The public half of the key that signed it, so that whoever knows its fingerprint alone can check a receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Jwk>,
    /// Where the tenant publishes its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys_at: Option<String>,
}

fn read(
    text: &str,
    kind: TokenType,
    pinned: &PinnedKeys,
    issuer: &str,
    now: Timestamp,
) -> Result<Claims, StatementError> {
    let claims: Claims = open(text, kind, &pinned_for(pinned, KeyPurpose::Statement)).map_err(|e| match e {
        JwsError::UnknownKey { kid } => StatementError::NotPinned {
            issuer: issuer.to_owned(),
            kid,
        },
        other => StatementError::Token(other),
    })?;
    if claims.iss != issuer {
        return Err(StatementError::WrongIssuer {
            expected: issuer.to_owned(),
        });
    }
    if claims.iat > now.as_second() + SKEW {
        return Err(StatementError::FromTheFuture);
    }
    Ok(claims)
}

fn id<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, StatementError> {
    text.parse()
        .map_err(|_| StatementError::Token(JwsError::Malformed(format!("its {what} is not a GUID"))))
}

fn second(at: i64) -> Result<Timestamp, StatementError> {
    Timestamp::from_second(at).map_err(|_| StatementError::Token(JwsError::Malformed("its time is none".into())))
}

impl OutcomeStatement {
    /// Signs the statement with the target tenant's statement key.
    pub(crate) fn sign(&self, key: &SigningKey, issuer: &str, now: Timestamp) -> Result<String, CryptographyFailed> {
        let claims = Claims {
            iss: issuer.to_owned(),
            iat: now.as_second(),
            jti: Uuid::new_v4().to_string(),
            attempt: self.attempt.to_string(),
            move_id: self.move_id.to_string(),
            exchange_guid: self.exchange_guid.to_string(),
            target_tid: self.target_tenant.to_string(),
            source_tid: self.source_tenant.to_string(),
            at: self.at.as_second(),
            outcome: Some(self.outcome),
            receipt: None,
            key: None,
            keys_at: None,
        };
        key.sign(TokenType::Outcome, &claims)
    }

    /// Reads a statement that a pinned statement key of `issuer` signed.
    ///
    /// # Errors
    /// [`StatementError`]. Whether it is about the attempt in question is for the caller to compare.
    pub fn verify(text: &str, pinned: &PinnedKeys, issuer: &str, now: Timestamp) -> Result<Self, StatementError> {
        let claims = read(text, TokenType::Outcome, pinned, issuer, now)?;
        Ok(Self {
            attempt: id(&claims.attempt, "attempt")?,
            outcome: claims
                .outcome
                .ok_or_else(|| StatementError::Token(JwsError::Malformed("it has no outcome".into())))?,
            move_id: id(&claims.move_id, "move")?,
            exchange_guid: id(&claims.exchange_guid, "exchange_guid")?,
            target_tenant: id(&claims.target_tid, "target_tid")?,
            source_tenant: id(&claims.source_tid, "source_tid")?,
            at: second(claims.at)?,
        })
    }
}

impl OutcomeStatement {
    /// The first thing in which it is about something else than `expected`, in words; none when it is about that.
    #[must_use]
    pub fn differs_from(&self, expected: &ExpectedOutcome) -> Option<&'static str> {
        [
            (self.attempt == expected.attempt, "attempt"),
            (self.move_id == expected.move_id, "move"),
            (self.exchange_guid == expected.exchange_guid, "mailbox"),
            (self.target_tenant == expected.target_tenant, "target organisation"),
            (self.source_tenant == expected.source_tenant, "source organisation"),
        ]
        .into_iter()
        .find_map(|(same, what)| (!same).then_some(what))
    }
}

impl ReceiptStatement {
    /// Signs the receipt with one tenant's statement key, whose public half goes with it; `keys_at` is where the tenant
    /// publishes its keys.
    pub(crate) fn sign(
        &self,
        key: &SigningKey,
        (issuer, keys_at): (&str, &str),
        now: Timestamp,
    ) -> Result<String, CryptographyFailed> {
        let claims = Claims {
            iss: issuer.to_owned(),
            iat: now.as_second(),
            jti: Uuid::new_v4().to_string(),
            attempt: self.attempt.to_string(),
            move_id: self.move_id.to_string(),
            exchange_guid: self.exchange_guid.to_string(),
            target_tid: self.target_tenant.to_string(),
            source_tid: self.source_tenant.to_string(),
            at: self.at.as_second(),
            outcome: None,
            receipt: Some(self.body.clone()),
            key: Some(key.public().jwk()),
            keys_at: Some(keys_at.to_owned()),
        };
        key.sign(TokenType::Receipt, &claims)
    }

    /// Reads a receipt that a pinned statement key of `issuer` signed.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn verify(text: &str, pinned: &PinnedKeys, issuer: &str, now: Timestamp) -> Result<Self, StatementError> {
        Self::from_claims(read(text, TokenType::Receipt, pinned, issuer, now)?)
    }

    fn from_claims(claims: Claims) -> Result<Self, StatementError> {
        Ok(Self {
            attempt: id(&claims.attempt, "attempt")?,
            move_id: id(&claims.move_id, "move")?,
            exchange_guid: id(&claims.exchange_guid, "exchange_guid")?,
            target_tenant: id(&claims.target_tid, "target_tid")?,
            source_tenant: id(&claims.source_tid, "source_tid")?,
            at: second(claims.at)?,
            body: claims
                .receipt
                .ok_or_else(|| StatementError::Token(JwsError::Malformed("it has no receipt".into())))?,
        })
    }
}

/// A receipt's statement as it is written, with what it says of its own signer. Nothing of it is proven before
/// [`ReadReceipt::is_signed_by`].
#[derive(Clone, Debug, PartialEq)]
pub struct ReadReceipt {
    /// What is stated.
    pub statement: ReceiptStatement,
    /// The issuer that it names.
    pub issuer: String,
    /// The id of the key that it names: the key's thumbprint (RFC 7638).
    pub kid: String,
    /// Where its issuer publishes its keys, as it says.
    pub keys_at: Option<String>,
    /// When it was signed, as it says.
    pub issued: Timestamp,
    key: Option<PublicKey>,
}

impl ReadReceipt {
    /// Takes a statement apart. Its type and algorithm are checked, its signature is not.
    ///
    /// # Errors
    /// [`StatementError`] when it is no receipt's statement, or the key that it carries is not the one that it names.
    pub fn read(text: &str) -> Result<Self, StatementError> {
        let unverified = Unverified::parse(text, TokenType::Receipt)?;
        let kid = unverified.kid()?.to_owned();
        let claims: Claims = unverified.claims()?;
        let malformed = |why: &str| StatementError::Token(JwsError::Malformed(why.to_owned()));
        let key = claims.key.as_ref().map(PublicKey::from_jwk).transpose();
        let key = key.map_err(|_| malformed("the key that it carries is none"))?;
        if key.as_ref().is_some_and(|key| key.kid() != kid) {
            return Err(malformed("the key that it carries is not the one that it names"));
        }
        Ok(Self {
            issuer: claims.iss.clone(),
            keys_at: claims.keys_at.clone(),
            issued: second(claims.iat)?,
            statement: ReceiptStatement::from_claims(claims)?,
            kid,
            key,
        })
    }

    /// The key that it carries: worth something only to who knows its fingerprint.
    #[must_use]
    pub fn carried_key(&self) -> Option<&PublicKey> {
        self.key.as_ref()
    }

    /// Whether `key` signed the text that this was read from.
    ///
    /// # Errors
    /// [`StatementError`] when it did not.
    pub fn is_signed_by(text: &str, key: &PublicKey) -> Result<(), StatementError> {
        open::<serde::de::IgnoredAny>(text, TokenType::Receipt, [key])?;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::keyset::tests::{TENANT, at, keys, origin, pin};

    pub(crate) fn outcome() -> OutcomeStatement {
        OutcomeStatement {
            attempt: AttemptId::from_u128(1),
            outcome: StatedOutcome::Decided,
            move_id: MoveId::from_u128(2),
            exchange_guid: ExchangeGuid::from_u128(3),
            target_tenant: TENANT,
            source_tenant: TenantId::from_u128(5),
            at: at(0),
        }
    }

    pub(crate) fn receipt() -> ReceiptStatement {
        ReceiptStatement {
            attempt: AttemptId::from_u128(1),
            move_id: MoveId::from_u128(2),
            exchange_guid: ExchangeGuid::from_u128(3),
            target_tenant: TENANT,
            source_tenant: TenantId::from_u128(5),
            at: at(0),
            body: serde_json::json!({"items": 400}),
        }
    }

    #[test]
    fn a_statement_about_something_else_is_told() {
        let stated = outcome();
        let expected = ExpectedOutcome {
            attempt: stated.attempt,
            move_id: stated.move_id,
            exchange_guid: stated.exchange_guid,
            target_tenant: stated.target_tenant,
            source_tenant: stated.source_tenant,
        };
        assert_eq!(stated.differs_from(&expected), None);
        for (other, what) in [
            (
                ExpectedOutcome {
                    attempt: AttemptId::from_u128(9),
                    ..expected
                },
                "attempt",
            ),
            (
                ExpectedOutcome {
                    move_id: MoveId::from_u128(9),
                    ..expected
                },
                "move",
            ),
            (
                ExpectedOutcome {
                    exchange_guid: ExchangeGuid::from_u128(9),
                    ..expected
                },
                "mailbox",
            ),
            (
                ExpectedOutcome {
                    target_tenant: TenantId::from_u128(9),
                    ..expected
                },
                "target organisation",
            ),
            (
                ExpectedOutcome {
                    source_tenant: TenantId::from_u128(9),
                    ..expected
                },
                "source organisation",
            ),
        ] {
            assert_eq!(stated.differs_from(&other), Some(what));
        }
    }

    #[test]
    fn statements_outlive_everything_but_their_key() {
        let keys = keys(1);
        let (pinned, issuer) = (pin(&keys), origin().issuer(TENANT));
        let text = outcome().sign(&keys.statement, &issuer, at(0)).unwrap();
        assert_eq!(
            OutcomeStatement::verify(&text, &pinned, &issuer, at(1_000_000_000)).unwrap(),
            outcome()
        );
        assert_eq!(
            OutcomeStatement::verify(&text, &pinned, &issuer, at(-121)),
            Err(StatementError::FromTheFuture)
        );
        assert!(matches!(
            OutcomeStatement::verify(&text, &pinned, "https://evil.example", at(0)),
            Err(StatementError::WrongIssuer { .. })
        ));
        // A token key may not make statements.
        let text = outcome().sign(&keys.token, &issuer, at(0)).unwrap();
        assert!(matches!(
            OutcomeStatement::verify(&text, &pinned, &issuer, at(0)),
            Err(StatementError::NotPinned { .. })
        ));

        let text = receipt()
            .sign(&keys.statement, (&issuer, &origin().keys(TENANT)), at(0))
            .unwrap();
        assert_eq!(
            ReceiptStatement::verify(&text, &pinned, &issuer, at(9)).unwrap(),
            receipt()
        );
        assert!(OutcomeStatement::verify(&text, &pinned, &issuer, at(9)).is_err());
    }

    #[test]
    fn a_receipts_signer_can_be_checked_by_fingerprint_and_by_nothing_else() {
        let (signer, other) = (keys(1).statement, keys(1).statement);
        let issuer = origin().issuer(TENANT);
        let text = receipt()
            .sign(&signer, (&issuer, &origin().keys(TENANT)), at(0))
            .unwrap();
        let read = ReadReceipt::read(&text).unwrap();
        assert_eq!((&read.statement, read.issuer.as_str()), (&receipt(), issuer.as_str()));
        assert_eq!(read.kid, signer.public().kid());
        assert_eq!(read.carried_key(), Some(signer.public()));
        ReadReceipt::is_signed_by(&text, signer.public()).unwrap();
        assert!(ReadReceipt::is_signed_by(&text, other.public()).is_err());
        // An outcome is no receipt, and every other character is noticed.
        let outcome = outcome().sign(&signer, &issuer, at(0)).unwrap();
        assert!(ReadReceipt::read(&outcome).is_err());
        for at in 0..text.len() {
            let mut flipped = text.clone().into_bytes();
            flipped[at] ^= 1;
            let Ok(flipped) = String::from_utf8(flipped) else {
                continue;
            };
            assert!(
                ReadReceipt::is_signed_by(&flipped, signer.public()).is_err(),
                "character {at}"
            );
        }
    }
}

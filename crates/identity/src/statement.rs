//! Signed statements of a tenant, checkable later by anyone with its published statement key.

use crate::{
    clock::SKEW,
    error::StatementError,
    jws::{CryptographyFailed, JwsError, SigningKey, TokenType, open},
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

impl ReceiptStatement {
    /// Signs the receipt with one tenant's statement key.
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
            outcome: None,
            receipt: Some(self.body.clone()),
        };
        key.sign(TokenType::Receipt, &claims)
    }

    /// Reads a receipt that a pinned statement key of `issuer` signed.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn verify(text: &str, pinned: &PinnedKeys, issuer: &str, now: Timestamp) -> Result<Self, StatementError> {
        let claims = read(text, TokenType::Receipt, pinned, issuer, now)?;
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

        let text = receipt().sign(&keys.statement, &issuer, at(0)).unwrap();
        assert_eq!(
            ReceiptStatement::verify(&text, &pinned, &issuer, at(9)).unwrap(),
            receipt()
        );
        assert!(OutcomeStatement::verify(&text, &pinned, &issuer, at(9)).is_err());
    }
}

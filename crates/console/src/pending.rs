//! Consent pages that were shown and not answered yet.
//!
//! What is accepted is what was shown: the description is kept with the page's token and is not fetched again. The
//! token is random, known to the page alone, usable once, and bound to tenant and account; that is the CSRF protection.

use jiff::{SignedDuration, Timestamp};
use rehome_domain::id::{AccountId, TenantId};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

/// How long a page can be answered.
const LIFETIME: SignedDuration = SignedDuration::from_mins(10);
/// Most pages kept; the oldest goes first.
const MAXIMUM: usize = 1_000;
/// Most pages kept for one account.
const MAXIMUM_PER_ACCOUNT: usize = 20;

struct Page<T> {
    tenant: TenantId,
    account: AccountId,
    shown: Timestamp,
    content: T,
}

/// Pages waiting for an answer.
pub(crate) struct Pending<T>(Mutex<HashMap<String, Page<T>>>);

impl<T> Pending<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Keeps a page and returns its token.
    pub(crate) fn keep(&self, tenant: TenantId, account: AccountId, content: T, now: Timestamp) -> String {
        let token = random_token();
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|_, page| now.duration_since(page.shown) < LIFETIME);
        drop_oldest(&mut pages, MAXIMUM, |_| true);
        drop_oldest(&mut pages, MAXIMUM_PER_ACCOUNT, |page| page.account == account);
        pages.insert(
            token.clone(),
            Page {
                tenant,
                account,
                shown: now,
                content,
            },
        );
        token
    }

    /// Takes the page with this token, if it was shown to this account and is not too old.
    pub(crate) fn take(&self, token: &str, tenant: TenantId, account: AccountId, now: Timestamp) -> Option<T> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let page = pages.get(token)?;
        let fits = page.tenant == tenant && page.account == account && now.duration_since(page.shown) < LIFETIME;
        if fits {
            pages.remove(token).map(|page| page.content)
        } else {
            None
        }
    }
}

fn drop_oldest<T>(pages: &mut HashMap<String, Page<T>>, maximum: usize, counts: impl Fn(&Page<T>) -> bool) {
    while pages.values().filter(|page| counts(page)).count() >= maximum {
        let oldest = pages
            .iter()
            .filter(|(_, page)| counts(page))
            .min_by_key(|(_, page)| page.shown);
        let Some(token) = oldest.map(|(token, _)| token.clone()) else {
            return;
        };
        pages.remove(&token);
    }
}

/// 244 random bits.
pub(crate) fn random_token() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId::from_u128(1);
    const ACCOUNT: AccountId = AccountId::from_u128(2);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_page_is_answered_once_in_time_by_whom_it_was_shown_to() {
        let pending = Pending::new();
        let token = pending.keep(TENANT, ACCOUNT, "page", at(0));
        assert_eq!(pending.take("", TENANT, ACCOUNT, at(1)), None);
        assert_eq!(pending.take(&token, TenantId::from_u128(9), ACCOUNT, at(1)), None);
        assert_eq!(pending.take(&token, TENANT, AccountId::from_u128(9), at(1)), None);
        assert_eq!(pending.take(&token, TENANT, ACCOUNT, at(600)), None);
        assert_eq!(pending.take(&token, TENANT, ACCOUNT, at(599)), Some("page"));
        assert_eq!(pending.take(&token, TENANT, ACCOUNT, at(599)), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pending = Pending::new();
        let first = pending.keep(TENANT, ACCOUNT, 0, at(0));
        for second in 1..=20 {
            pending.keep(TENANT, ACCOUNT, second, at(second));
        }
        assert_eq!(pending.take(&first, TENANT, ACCOUNT, at(21)), None);
        for account in 0..1_500 {
            pending.keep(TENANT, AccountId::from_u128(account), 0, at(30));
        }
        assert!(pending.0.lock().unwrap().len() <= MAXIMUM);
    }
}

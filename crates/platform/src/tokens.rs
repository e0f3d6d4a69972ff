//! Access tokens for sign-in to an IMAP server, kept until shortly before they expire.

use async_trait::async_trait;
use rehome_mailbox::{ErrorScope, MailboxError, Retry, imap::AccessTokens};
use secrecy::SecretString;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// A token is not used in the last part of its time: a sign-in takes a while, and clocks differ.
const BEFORE_EXPIRY: Duration = Duration::from_secs(60);
/// After a failed request the next one waits for so long: a wrong secret must not become a flood of wrong secrets.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// A token as it was given.
#[derive(Clone, Debug)]
pub struct FreshToken {
    /// The token.
    pub token: SecretString,
    /// For how long it is good, from now.
    pub expires_in: Duration,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// What the token endpoint, or the way to it, answered; without secrets.
    pub cause: String,
    /// Whether trying again later may help.
    pub passing: bool,
}

/// Asks for a new token each time it is asked.
#[async_trait]
pub trait TokenFetcher: Send + Sync {
    /// Gets a new token.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    async fn fetch(&self) -> Result<FreshToken, TokenRefusal>;
}

/// Tokens of one client. One request is under way at a time, and all who wait share its answer.
pub struct CachedTokens {
    fetcher: Arc<dyn TokenFetcher>,
    held: Mutex<Held>,
    /// Set when the token given last was refused.
    refused: AtomicBool,
}

#[derive(Default)]
struct Held {
    token: Option<(SecretString, Instant)>,
    failure: Option<(TokenRefusal, Instant)>,
}

impl CachedTokens {
    /// Tokens from here.
    #[must_use]
    pub fn new(fetcher: Arc<dyn TokenFetcher>) -> Self {
        Self {
            fetcher,
            held: Mutex::default(),
            refused: AtomicBool::new(false),
        }
    }
}

fn refused(refusal: &TokenRefusal) -> MailboxError {
    MailboxError {
        what: "getting an access token".to_owned(),
        cause: refusal.cause.clone(),
        scope: ErrorScope::Endpoint,
        retry: if refusal.passing {
            Retry::After(60)
        } else {
            Retry::Never
        },
    }
}

#[async_trait]
impl AccessTokens for CachedTokens {
    async fn token(&self) -> Result<SecretString, MailboxError> {
        let mut held = self.held.lock().await;
        let now = Instant::now();
        if self.refused.swap(false, Ordering::SeqCst) {
            held.token = None;
        }
        if let Some((token, until)) = &held.token
            && now < *until
        {
            return Ok(token.clone());
        }
        if let Some((refusal, until)) = &held.failure
            && now < *until
        {
            return Err(refused(refusal));
        }
        match self.fetcher.fetch().await {
            Ok(fresh) => {
                let now = Instant::now();
                let usable = fresh.expires_in.saturating_sub(BEFORE_EXPIRY);
                held.token = Some((fresh.token.clone(), now + usable));
                held.failure = None;
                Ok(fresh.token)
            }
            Err(refusal) => {
                let error = refused(&refusal);
                held.token = None;
                held.failure = Some((refusal, Instant::now() + AFTER_FAILURE));
                Err(error)
            }
        }
    }

    fn forget(&self) {
        self.refused.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::sync::atomic::AtomicU32;

    /// Gives `token 1`, `token 2` and so on for ten minutes each, unless it is to refuse.
    #[derive(Default)]
    struct Counting {
        asked: AtomicU32,
        refuses: AtomicBool,
    }

    #[async_trait]
    impl TokenFetcher for Counting {
        async fn fetch(&self) -> Result<FreshToken, TokenRefusal> {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::task::yield_now().await;
            if self.refuses.load(Ordering::SeqCst) {
                return Err(TokenRefusal {
                    cause: "invalid_client".into(),
                    passing: false,
                });
            }
            Ok(FreshToken {
                token: format!("token {asked}").into(),
                expires_in: Duration::from_secs(600),
            })
        }
    }

    async fn given(tokens: &CachedTokens) -> String {
        tokens.token().await.unwrap().expose_secret().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn kept_until_a_minute_before_the_end() {
        let fetcher = Arc::new(Counting::default());
        let tokens = CachedTokens::new(fetcher.clone());
        let (one, other) = tokio::join!(given(&tokens), given(&tokens));
        assert_eq!((one.as_str(), other.as_str()), ("token 1", "token 1"));
        tokio::time::advance(Duration::from_secs(539)).await;
        assert_eq!(given(&tokens).await, "token 1");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(given(&tokens).await, "token 2");
        tokens.forget();
        tokens.forget();
        assert_eq!(given(&tokens).await, "token 3");
        assert_eq!(given(&tokens).await, "token 3");
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_asked_for_again_at_once() {
        let fetcher = Arc::new(Counting::default());
        let tokens = CachedTokens::new(fetcher.clone());
        fetcher.refuses.store(true, Ordering::SeqCst);
        for _ in 0..5 {
            let error = tokens.token().await.unwrap_err();
            assert_eq!((error.scope, error.retry), (ErrorScope::Endpoint, Retry::Never));
        }
        assert_eq!(fetcher.asked.load(Ordering::SeqCst), 1);
        fetcher.refuses.store(false, Ordering::SeqCst);
        tokio::time::advance(AFTER_FAILURE + Duration::from_secs(1)).await;
        assert_eq!(given(&tokens).await, "token 2");
    }
}

//! IMAP servers without a partner who runs Rehome: how they are reached, and what is copied from them.
//!
//! Their target is a mailbox in use. Additions and flags are carried into it, removals are not, and nothing else is
//! touched; there is no lock and no conversion, and completion is one last pass.

mod link;
mod problem;
mod servers;
mod turn;

use super::Target;
use futures_util::future::BoxFuture;
use rehome_domain::{
    batch::MigrationBatch,
    endpoint::{EndpointKind, ImapServer as ImapEndpoint, MigrationEndpoint},
    error_id::{ErrorId, Problem},
    id::{MoveId, TenantId},
    moves::RemoteUser,
};
use rehome_mailbox::imap::{ImapServer, ServerSettings};
use rehome_store::{StoreError, Tx};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;

pub(super) use servers::Servers;

/// How a deployment reaches IMAP servers: the settings of an endpoint with its secret, by the operator's rules for roots,
/// addresses and tokens.
pub type ImapConnect = Arc<
    dyn Fn(MigrationEndpoint, Option<SecretString>) -> BoxFuture<'static, Result<ServerSettings, Problem>>
        + Send
        + Sync,
>;

/// An account at an IMAP server.
#[derive(Clone, Debug)]
pub struct ImapAccount {
    /// Its name there.
    pub name: String,
    /// Its own password; none where the endpoint signs in for it.
    pub password: Option<SecretString>,
}

/// A row of a batch from an IMAP server.
#[derive(Clone, Debug)]
pub struct DirectRow {
    /// The address of the mailbox here, as in the batch's rows.
    pub address: String,
    /// The account that is copied.
    pub account: ImapAccount,
}

fn password_purpose(user: MoveId) -> String {
    format!("migration-user-password {user}")
}

impl Target {
    /// Says how IMAP servers are reached. Once, at the start; without it every endpoint of that kind is refused.
    pub fn reach_imap(&self, connect: ImapConnect) {
        if self.inner.imap.set(connect).is_err() {
            tracing::warn!("how IMAP servers are reached was said already");
        }
    }

    /// Connects to an IMAP server, and signs in to `account` where one is given. What it returns does not stand in the
    /// way and should be known all the same.
    ///
    /// # Errors
    /// What is wrong, with what mends it.
    pub async fn test_imap(
        &self,
        endpoint: &MigrationEndpoint,
        account: Option<&ImapAccount>,
    ) -> Result<Vec<String>, Problem> {
        let imap = imap_of(endpoint)?;
        let server = self.new_server(endpoint).await?;
        let Some(account) = account else {
            server
                .check()
                .await
                .map_err(|error| problem::told(&error, endpoint, imap))?;
            return Ok(Vec::new());
        };
        let facts = server
            .check_account(&account.name, account.password.clone())
            .await
            .map_err(|error| problem::told_at_sign_in(&error, endpoint, imap))?;
        server.close_account(&account.name).await;
        let numbers_changes = facts
            .capabilities
            .iter()
            .any(|name| name == "CONDSTORE" || name == "QRESYNC");
        let slow = "The server does not number changes (CONDSTORE): every sync lists all its folders whole.";
        Ok((!numbers_changes).then(|| slow.to_owned()).into_iter().collect())
    }

    /// Stores what only a batch from an IMAP server has, in the transaction that makes it: the folders that are left out
    /// and, for each row, the account with its password sealed.
    ///
    /// # Errors
    /// When the store fails, a password cannot be sealed, or a row is not in the batch.
    pub async fn direct_batch_insert(
        &self,
        tx: &mut Tx,
        batch: &MigrationBatch,
        rows: &[DirectRow],
        excluded_folders: &[String],
    ) -> Result<(), Problem> {
        let failed = |error: StoreError| {
            tracing::error!(error = crate::error_chain(&error), "a batch could not be stored");
            Problem::new(
                ErrorId::Unexpected,
                "The batch could not be stored; the server's log has the cause.",
                "",
            )
        };
        tx.batch_excluded_folders_set(batch.tenant, batch.id, excluded_folders)
            .await
            .map_err(failed)?;
        let users = tx.move_list(batch.tenant, Some(batch.id)).await.map_err(failed)?;
        for user in users {
            let row = rows.iter().find(|row| row.address == user.email_address);
            let account = &row.ok_or_else(|| not_stored(&user.email_address))?.account;
            let sealed = account
                .password
                .as_ref()
                .map(|p| self.seal_password(user.tenant, user.id, p));
            let remote = RemoteUser {
                name: account.name.clone(),
                sealed_password: sealed.transpose()?,
            };
            tx.direct_user_insert(user.tenant, user.id, &remote)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    fn seal_password(&self, tenant: TenantId, user: MoveId, password: &SecretString) -> Result<Vec<u8>, Problem> {
        self.inner
            .seal
            .seal(tenant, &password_purpose(user), password.expose_secret().as_bytes())
            .map_err(|e| Problem::new(ErrorId::Unexpected, format!("A password could not be sealed: {e}."), ""))
    }

    fn unseal_password(&self, tenant: TenantId, user: MoveId, sealed: &[u8]) -> Option<SecretString> {
        let octets = self.inner.seal.unseal(tenant, &password_purpose(user), sealed).ok()?;
        String::from_utf8(octets.to_vec()).ok().map(SecretString::from)
    }

    /// A server with a pool of its own.
    async fn new_server(&self, endpoint: &MigrationEndpoint) -> Result<ImapServer, Problem> {
        let Some(connect) = self.inner.imap.get() else {
            return Err(Problem::new(
                ErrorId::InvalidOperation,
                "This server was not told how to reach IMAP servers.",
                "",
            ));
        };
        let secret = match &endpoint.sealed_secret {
            Some(_) => Some(self.endpoint_secret(endpoint)?),
            None => None,
        };
        connect(endpoint.clone(), secret).await.map(ImapServer::new)
    }
}

fn not_stored(address: &str) -> Problem {
    Problem::new(ErrorId::Unexpected, format!("The row of {address} was not stored."), "")
}

/// How an endpoint's server is reached.
///
/// # Errors
/// When it is none.
fn imap_of(endpoint: &MigrationEndpoint) -> Result<&ImapEndpoint, Problem> {
    match &endpoint.kind {
        EndpointKind::Imap(imap) => Ok(imap),
        EndpointKind::ExchangeRemoteMove(_) => Err(Problem::new(
            ErrorId::InvalidOperation,
            format!("The migration endpoint '{}' is no IMAP server.", endpoint.name),
            "Give an endpoint of type IMAP.",
        )),
    }
}

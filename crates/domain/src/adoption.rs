//! What of a mail platform a tenant may take: platforms have no tenants of their own.

use crate::{address::DomainName, id::TenantId};
use std::collections::BTreeSet;

/// Which mailboxes of a platform a tenant may take. Alone in a deployment he may take any; beside others only folders
/// below one that is named like him, and accounts in his domains, so that no tenant takes another's mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Territory {
    alone: bool,
    /// His GUID and his domains.
    own: BTreeSet<String>,
}

impl Territory {
    /// The territory of a tenant with these accepted domains, who is the only one of his deployment, or not.
    #[must_use]
    pub fn new(tenant: TenantId, domains: &[DomainName], alone: bool) -> Self {
        let mut own = BTreeSet::from([tenant.to_string()]);
        own.extend(domains.iter().map(|domain| domain.as_str().to_lowercase()));
        Self { alone, own }
    }

    /// Whether a folder below a platform's root is his to take.
    #[must_use]
    pub fn holds_folder(&self, location: &str) -> bool {
        let first = location.split('/').next().unwrap_or_default();
        self.alone || self.own.contains(&first.to_lowercase())
    }

    /// Whether an account of a server is his to take.
    #[must_use]
    pub fn holds_account(&self, account: &str) -> bool {
        let domain = account.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
        self.alone || domain.is_some_and(|domain| self.own.contains(&domain))
    }

    /// Said of a folder that is not, without a look at what is there.
    #[must_use]
    pub fn not_his_folder(location: &str) -> String {
        format!(
            "'{location}' is not below a folder of this organisation. Where a deployment serves several, the operator puts what \
             each may adopt below a folder named like its domain, for example contoso.example/reception."
        )
    }

    /// Said of an account that is not, without a look at what is there.
    #[must_use]
    pub fn not_his_account(account: &str) -> String {
        format!(
            "The account '{account}' is not in a domain of this organisation. Where a deployment serves several, each may use \
             only accounts named like its addresses, for example reception@contoso.example."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whose() {
        let tenant = TenantId::from_u128(1);
        let domains = ["contoso.example".parse().unwrap()];
        let beside = Territory::new(tenant, &domains, false);
        let alone = Territory::new(tenant, &domains, true);
        for (folder, his) in [
            ("contoso.example/press", true),
            ("Contoso.Example/press", true),
            ("00000000-0000-0000-0000-000000000001/press", true),
            ("fabrikam.example/press", false),
            ("press", false),
            ("press/contoso.example", false),
        ] {
            assert_eq!(beside.holds_folder(folder), his, "{folder}");
            assert!(alone.holds_folder(folder));
        }
        for (account, his) in [
            ("press@contoso.example", true),
            ("press@CONTOSO.example", true),
            ("press@fabrikam.example", false),
            ("press@contoso.example@fabrikam.example", false),
            ("press", false),
            ("contoso.example", false),
        ] {
            assert_eq!(beside.holds_account(account), his, "{account}");
            assert!(alone.holds_account(account));
        }
    }
}

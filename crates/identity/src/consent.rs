//! Consent in the source: the request as the link carries it, whether it may be granted, where it leads back to.

use crate::{
    application::mailbox_migration,
    authority::{Origin, parse_issuer},
    description::AppDescription,
    error::ConsentError,
};
use rehome_domain::{
    consent::{EXCHANGE_ONLINE_APP_ID, KeyPurpose, PinnedKeys, ServicePrincipal},
    id::{ApplicationId, ServicePrincipalId, TenantId},
};
use rehome_store::SignInAudience;
use url::{Url, form_urlencoded};

/// Longest query of a consent link, in octets.
pub const MAX_QUERY: usize = 8 * 1024;

/// A consent link's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentRequest {
    /// The application.
    pub client_id: ApplicationId,
    /// Where to lead back to; must be one that the application lists.
    pub redirect_uri: String,
    /// Given back unchanged.
    pub state: Option<String>,
    /// The application's home authority; without it the application is looked up in this deployment.
    pub authority: Option<HomeAuthority>,
}

/// The `authority` parameter: `https://{server}` or `https://{server}/{home tenant}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeAuthority {
    /// The server.
    pub origin: Origin,
    /// The home tenant, if named.
    pub tenant: Option<TenantId>,
}

impl HomeAuthority {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("https://")?;
        let (host, tenant) = rest.split_once('/').unwrap_or((rest, ""));
        let tenant = match tenant.trim_end_matches('/') {
            "" => None,
            text => Some(text.parse().ok()?),
        };
        Some(Self {
            origin: host.parse().ok()?,
            tenant,
        })
    }
}

impl ConsentRequest {
    /// Reads the query string of a consent link; unknown parameters are ignored.
    ///
    /// # Errors
    /// AADSTS900144 when `client_id` or `redirect_uri` is missing, AADSTS90013 when a parameter is malformed or
    /// stands twice.
    pub fn parse(query: &str) -> Result<Self, ConsentError> {
        if query.len() > MAX_QUERY {
            return Err(ConsentError::Malformed { parameter: "query" });
        }
        let (mut client_id, mut redirect_uri, mut state, mut authority) = (None, None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let (slot, name) = match name.as_ref() {
                "client_id" => (&mut client_id, "client_id"),
                "redirect_uri" => (&mut redirect_uri, "redirect_uri"),
                "state" => (&mut state, "state"),
                "authority" => (&mut authority, "authority"),
                _ => continue,
            };
            if slot.replace(value.into_owned()).is_some() {
                return Err(ConsentError::Malformed { parameter: name });
            }
        }
        let required = |value: Option<String>, parameter| {
            value
                .filter(|v| !v.is_empty())
                .ok_or(ConsentError::MissingParameter { parameter })
        };
        let client_id = required(client_id, "client_id")?
            .parse()
            .map_err(|_| ConsentError::Malformed { parameter: "client_id" })?;
        let redirect_uri = required(redirect_uri, "redirect_uri")?;
        let authority = authority
            .filter(|a| !a.is_empty())
            .map(|a| HomeAuthority::parse(&a).ok_or(ConsentError::Malformed { parameter: "authority" }))
            .transpose()?;
        Ok(Self {
            client_id,
            redirect_uri,
            state,
            authority,
        })
    }

    /// The finished link for the partner.
    #[must_use]
    pub fn link(&self, partner: &Origin, partner_tenant: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("client_id", &self.client_id.to_string());
        query.append_pair("redirect_uri", &self.redirect_uri);
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
        if let Some(authority) = &self.authority {
            let mut text = authority.origin.to_string();
            if let Some(tenant) = authority.tenant {
                text.push('/');
                text.push_str(&tenant.to_string());
            }
            query.append_pair("authority", &text);
        }
        format!("{partner}/{partner_tenant}/adminconsent?{}", query.finish())
    }

    /// Where the browser goes after consent was given:
    /// `{redirect_uri}?tenant={GUID}&state={state}&admin_consent=True`. Only for a listed redirect URI.
    #[must_use]
    pub fn success_redirect(&self, tenant: TenantId) -> String {
        self.redirect(&[("tenant", &tenant.to_string())], &[("admin_consent", "True")])
    }

    /// Where the browser goes after the administrator cancelled. Only for a listed redirect URI.
    #[must_use]
    pub fn failure_redirect(&self) -> String {
        self.redirect(
            &[
                ("error", "permission_denied"),
                ("error_description", "The admin canceled the request"),
            ],
            &[],
        )
    }

    fn redirect(&self, before: &[(&str, &str)], after: &[(&str, &str)]) -> String {
        // A listed redirect URI is a URL; any other never gets here.
        let Ok(mut url) = Url::parse(&self.redirect_uri) else {
            return self.redirect_uri.clone();
        };
        {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(before);
            if let Some(state) = &self.state {
                pairs.append_pair("state", state);
            }
            pairs.extend_pairs(after);
        }
        url.into()
    }
}

/// What accepting would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsentEffect {
    /// A new service principal.
    Create,
    /// The same application again: keys, name, domains and end are taken anew.
    Renew(ServicePrincipalId),
    /// The application's own home: its roles are granted here.
    GrantAtHome,
}

/// What is known in this deployment about identifiers that a description names.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// All service principals of the tenant, revoked ones too.
    pub principals: Vec<ServicePrincipal>,
    /// Issuer of a tenant of this deployment with the described home tenant's GUID.
    pub local_tenant_issuer: Option<String>,
    /// Issuer of the home of an application of this deployment with the described app id.
    pub local_application_issuer: Option<String>,
}

/// Whether a description may be consented to in `tenant`, and what that would do.
///
/// A service principal is the triple (issuer, home tenant, app id): a GUID or an app id already known here
/// under another issuer is refused, with both shown.
///
/// # Errors
/// [`ConsentError`]: redirect URI not listed (AADSTS50011), not multi-tenant (AADSTS50194), no application
/// permission asked for (AADSTS650056), or a conflict.
pub fn decide(
    tenant: TenantId,
    own: &Origin,
    request: &ConsentRequest,
    description: &AppDescription,
    known: &Known,
) -> Result<ConsentEffect, ConsentError> {
    if description.app_id != request.client_id || description.app_id == EXCHANGE_ONLINE_APP_ID {
        return Err(ConsentError::AppNotFound {
            app_id: request.client_id,
        });
    }
    if !description.redirect_uris.contains(&request.redirect_uri) {
        return Err(ConsentError::RedirectMismatch {
            redirect_uri: request.redirect_uri.clone(),
        });
    }
    if !description.permissions.contains(&mailbox_migration()) {
        return Err(ConsentError::PermissionMissing);
    }
    let conflict = |what: &str, known: &str| ConsentError::Conflict {
        what: what.to_owned(),
        known: known.to_owned(),
        asking: description.issuer.clone(),
    };
    if let Some(issuer) = known.local_tenant_issuer.as_ref().filter(|i| **i != description.issuer) {
        return Err(conflict(&format!("tenant {}", description.home_tenant), issuer));
    }
    if let Some(issuer) = known
        .local_application_issuer
        .as_ref()
        .filter(|i| **i != description.issuer)
    {
        return Err(conflict(&format!("application {}", description.app_id), issuer));
    }
    for principal in &known.principals {
        let same = principal.issuer == description.issuer && principal.home_tenant == description.home_tenant;
        if principal.app_id == description.app_id && !same {
            return Err(conflict(
                &format!("application {}", description.app_id),
                &principal.issuer,
            ));
        }
        if principal.home_tenant == description.home_tenant && principal.issuer != description.issuer {
            return Err(conflict(
                &format!("tenant {}", description.home_tenant),
                &principal.issuer,
            ));
        }
    }
    let home_is_here = parse_issuer(&description.issuer).is_some_and(|(origin, _)| origin == *own);
    if home_is_here && description.home_tenant == tenant {
        return Ok(ConsentEffect::GrantAtHome);
    }
    match description.sign_in_audience {
        SignInAudience::AzureADMultipleOrgs => {}
        SignInAudience::AzureADMyOrg => {
            return Err(ConsentError::SingleTenant {
                app_id: description.app_id,
            });
        }
    }
    Ok(match known.principals.iter().find(|p| p.app_id == description.app_id) {
        // A renewal is a routine click; taking keys that no pinned one stands for must not be.
        Some(principal) if principal.revoked_at.is_none() && !shares_token_key(principal, description) => {
            return Err(ConsentError::KeysReplaced);
        }
        Some(principal) => ConsentEffect::Renew(principal.id),
        None => ConsentEffect::Create,
    })
}

/// Whether a token key pinned earlier is still published, or none was pinned.
fn shares_token_key(principal: &ServicePrincipal, description: &AppDescription) -> bool {
    let token_keys = |keys: &PinnedKeys| -> Vec<Vec<u8>> {
        keys.keys
            .iter()
            .filter(|k| k.purpose == KeyPurpose::Token)
            .map(|k| k.public.clone())
            .collect()
    };
    let (pinned, published) = (token_keys(&principal.pinned_keys), token_keys(&description.keys));
    pinned.is_empty() || pinned.iter().any(|key| published.contains(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::tests::{TENANT, at, keys, origin, pin};
    use proptest::prelude::*;
    use rehome_domain::consent::PinnedKeys;

    fn description() -> AppDescription {
        let app = crate::description::tests::application();
        AppDescription {
            app_id: app.app_id,
            display_name: app.display_name,
            home_tenant: TENANT,
            home_domains: vec!["contoso.example".into()],
            issuer: origin().issuer(TENANT),
            sign_in_audience: app.sign_in_audience,
            redirect_uris: app.redirect_uris,
            permissions: app.permissions,
            keys: pin(&keys(1)),
            outcome_endpoint: origin().outcome_endpoint(TENANT),
        }
    }

    fn request() -> ConsentRequest {
        ConsentRequest {
            client_id: description().app_id,
            redirect_uri: "https://office.com".into(),
            state: Some("a b&c".into()),
            authority: Some(HomeAuthority {
                origin: origin(),
                tenant: Some(TENANT),
            }),
        }
    }

    fn principal(issuer: &str, home: TenantId, app: ApplicationId) -> ServicePrincipal {
        ServicePrincipal {
            id: ServicePrincipalId::from_u128(0x5b),
            tenant: TenantId::from_u128(0x50),
            issuer: issuer.into(),
            home_tenant: home,
            app_id: app,
            display_name: "x".into(),
            home_domains: vec![],
            outcome_endpoint: None,
            pinned_keys: PinnedKeys {
                sequence: 1,
                keys: vec![],
            },
            roles: vec![],
            return_right: true,
            accepted_by: "admin@fabrikam.example".into(),
            accepted_at: at(0),
            expires_at: at(10),
            revoked_at: Some(at(5)),
        }
    }

    #[test]
    fn links_and_redirects() {
        let partner: Origin = "mx.fabrikam.example:8443".parse().unwrap();
        let link = request().link(&partner, "fabrikam.example");
        let (head, query) = link.split_once('?').unwrap();
        assert_eq!(head, "https://mx.fabrikam.example:8443/fabrikam.example/adminconsent");
        assert_eq!(ConsentRequest::parse(query).unwrap(), request());
        assert_eq!(
            request().success_redirect(TENANT),
            format!("https://office.com/?tenant={TENANT}&state=a+b%26c&admin_consent=True")
        );
        assert_eq!(
            request().failure_redirect(),
            "https://office.com/?error=permission_denied&error_description=The+admin+canceled+the+request&state=a+b%26c"
        );
    }

    #[test]
    fn what_a_bad_link_gets() {
        let id = description().app_id;
        for (query, code) in [
            (String::new(), 900144),
            (format!("client_id={id}"), 900144),
            (format!("client_id={id}&redirect_uri="), 900144),
            ("redirect_uri=https://office.com".into(), 900144),
            ("client_id=mover&redirect_uri=https://office.com".into(), 90013),
            (format!("client_id={id}&client_id={id}&redirect_uri=x"), 90013),
            (
                format!("client_id={id}&redirect_uri=x&authority=http://a.example"),
                90013,
            ),
            (
                format!("client_id={id}&redirect_uri=x&authority=https://a.example/not-a-guid"),
                90013,
            ),
            (format!("client_id={id}&redirect_uri={}", "x".repeat(MAX_QUERY)), 90013),
        ] {
            let error = ConsentRequest::parse(&query).unwrap_err();
            assert_eq!(error.aadsts(), Some(code), "{query:.80}");
        }
        let plain =
            ConsentRequest::parse(&format!("client_id={id}&redirect_uri=x&authority=https://a.example")).unwrap();
        assert_eq!(plain.authority.unwrap().tenant, None);
    }

    #[test]
    fn decisions() {
        let (here, source): (Origin, _) = ("mx.fabrikam.example".parse().unwrap(), TenantId::from_u128(0x50));
        let d = description();
        let other_home = TenantId::from_u128(0xc1);
        let other_app = ApplicationId::from_u128(0xb1);
        let evil = "https://evil.example/x/v2.0";
        let known = |principals| Known {
            principals,
            ..Known::default()
        };
        let table: Vec<(Known, Result<ConsentEffect, &str>)> = vec![
            (Known::default(), Ok(ConsentEffect::Create)),
            (
                known(vec![principal(&d.issuer, d.home_tenant, d.app_id)]),
                Ok(ConsentEffect::Renew(ServicePrincipalId::from_u128(0x5b))),
            ),
            (
                known(vec![principal(&d.issuer, d.home_tenant, other_app)]),
                Ok(ConsentEffect::Create),
            ),
            (
                known(vec![principal(evil, d.home_tenant, d.app_id)]),
                Err("application"),
            ),
            (
                known(vec![principal(&d.issuer, other_home, d.app_id)]),
                Err("application"),
            ),
            (known(vec![principal(evil, d.home_tenant, other_app)]), Err("tenant")),
            (
                known(vec![principal(evil, other_home, other_app)]),
                Ok(ConsentEffect::Create),
            ),
            (
                Known {
                    local_tenant_issuer: Some(here.issuer(d.home_tenant)),
                    ..Known::default()
                },
                Err("tenant"),
            ),
            (
                Known {
                    local_application_issuer: Some(here.issuer(source)),
                    ..Known::default()
                },
                Err("application"),
            ),
        ];
        for (known, expected) in table {
            let got = decide(source, &here, &request(), &d, &known);
            match (expected, got) {
                (Ok(effect), Ok(found)) => assert_eq!(effect, found),
                (Err(what), Err(error @ ConsentError::Conflict { .. })) => {
                    let text = error.to_string();
                    assert!(text.contains(what) && text.contains(&d.issuer), "{text}");
                }
                (expected, got) => panic!("{expected:?} but {got:?}"),
            }
        }
        // In its own home the same link grants the roles there.
        let local = Known {
            local_tenant_issuer: Some(d.issuer.clone()),
            ..Known::default()
        };
        assert_eq!(
            decide(TENANT, &origin(), &request(), &d, &local).unwrap(),
            ConsentEffect::GrantAtHome
        );

        let mut asked = request();
        asked.redirect_uri = "https://office.com/".into();
        assert_eq!(
            decide(source, &here, &asked, &d, &Known::default())
                .unwrap_err()
                .aadsts(),
            Some(50011)
        );
        let mut single = d.clone();
        single.sign_in_audience = SignInAudience::AzureADMyOrg;
        assert_eq!(
            decide(source, &here, &request(), &single, &Known::default())
                .unwrap_err()
                .aadsts(),
            Some(50194)
        );
        let mut nothing = d.clone();
        nothing.permissions.clear();
        assert_eq!(
            decide(source, &here, &request(), &nothing, &Known::default())
                .unwrap_err()
                .aadsts(),
            Some(650056)
        );
    }

    proptest! {
        #[test]
        fn any_state_comes_back(state in "\\PC{0,200}") {
            let mut asked = request();
            asked.state = Some(state.clone());
            let back = Url::parse(&asked.success_redirect(TENANT)).unwrap();
            let found = back.query_pairs().find(|(n, _)| n == "state").map(|(_, v)| v.into_owned());
            prop_assert_eq!(found, Some(state));
        }

        #[test]
        fn parsing_never_panics(query in "\\PC{0,300}") {
            let _ = ConsentRequest::parse(&query);
        }
    }
}

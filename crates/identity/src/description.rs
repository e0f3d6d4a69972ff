//! The signed description of an application, which the consent page shows and whose keys consent pins.

use crate::{
    application::redirect_uri_fault,
    authority::{Origin, parse_issuer},
    clock::{SKEW, after},
    error::DescriptionError,
    jws::{CryptographyFailed, PublicKey, TokenType, Unverified},
    keyset::{PublishedKey, PublishedPurpose, TenantKeys, publish, read_published},
};
use jiff::Timestamp;
use rehome_domain::{
    address::DomainName,
    consent::PinnedKeys,
    id::{ApplicationId, TenantId},
};
use rehome_store::{Application, RequiredPermission, SignInAudience};
use serde::{Deserialize, Serialize};

/// How long a description may be used after it was signed, in seconds.
const LIFETIME: i64 = 600;
/// Most domains that it may name.
const MAX_DOMAINS: usize = 5_000;

/// A checked description of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppDescription {
    /// The application.
    pub app_id: ApplicationId,
    /// Its name; from outside, so shown quoted.
    pub display_name: String,
    /// Its home tenant.
    pub home_tenant: TenantId,
    /// The domains that the home tenant publishes.
    pub home_domains: Vec<String>,
    /// Issuer of the home tenant's authority.
    pub issuer: String,
    /// Who may consent.
    pub sign_in_audience: SignInAudience,
    /// Where the consent page may lead back to.
    pub redirect_uris: Vec<String>,
    /// What it asks for.
    pub permissions: Vec<RequiredPermission>,
    /// The keys to pin.
    pub keys: PinnedKeys,
    /// Where the outcome of an attempt can be asked.
    pub outcome_endpoint: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    app_id: String,
    display_name: String,
    home_tid: String,
    home_domains: Vec<String>,
    sign_in_audience: String,
    redirect_uris: Vec<String>,
    permissions: Vec<RequiredPermission>,
    keys: Vec<PublishedKey>,
    sequence: u64,
    rehome_outcome_endpoint: String,
    iat: i64,
    exp: i64,
}

/// Signs the description of one of our own applications.
pub(crate) fn sign_description(
    keys: &TenantKeys,
    origin: &Origin,
    application: &Application,
    home_domains: Vec<String>,
    now: Timestamp,
) -> Result<String, CryptographyFailed> {
    let claims = Claims {
        iss: origin.issuer(application.tenant),
        app_id: application.app_id.to_string(),
        display_name: application.display_name.clone(),
        home_tid: application.tenant.to_string(),
        home_domains,
        sign_in_audience: application.sign_in_audience.as_str().to_owned(),
        redirect_uris: application.redirect_uris.clone(),
        permissions: application.permissions.clone(),
        keys: publish(keys),
        sequence: keys.sequence,
        rehome_outcome_endpoint: origin.outcome_endpoint(application.tenant),
        iat: now.as_second(),
        exp: after(now, LIFETIME).as_second(),
    };
    keys.token.sign(TokenType::AppDescription, &claims)
}

/// Checks a description fetched from `authority`: signed by a token key that it lists itself, its issuer and outcome
/// address at the origin it came from, about the application asked for.
///
/// # Errors
/// [`DescriptionError`], saying which part is wrong.
pub fn check_app_description(
    document: &str,
    authority: &Origin,
    app_id: ApplicationId,
    now: Timestamp,
) -> Result<AppDescription, DescriptionError> {
    let bad = |why: &str| DescriptionError::Inconsistent { why: why.to_owned() };
    let unverified = Unverified::parse(document, TokenType::AppDescription)?;
    let kid = unverified.kid()?;
    let listed: Claims = unverified.claims()?;
    let signer = listed
        .keys
        .iter()
        .find(|k| k.kid == kid && k.rehome_purpose == PublishedPurpose::Token)
        .ok_or_else(|| bad("it is signed by a key that it does not list for tokens"))?;
    let signer = PublicKey::from_jwk(&signer.jwk).map_err(|_| bad("its signer is not a P-256 key"))?;
    if signer.kid() != kid {
        return Err(bad("a key id is not its key's thumbprint"));
    }
    let claims: Claims = unverified.verify(&signer)?;
    let keys = read_published(claims.sequence, &claims.keys).map_err(|why| bad(&why))?;
    if !claims
        .keys
        .iter()
        .any(|k| k.rehome_purpose == PublishedPurpose::Statement)
    {
        return Err(bad("it lists no statement key"));
    }
    let (origin, home_tenant) = parse_issuer(&claims.iss)
        .ok_or_else(|| bad("its issuer is not of the form https://{name}/{tenant GUID}/v2.0"))?;
    if origin != *authority {
        return Err(DescriptionError::WrongAuthority {
            expected: authority.to_string(),
            found: origin.to_string(),
        });
    }
    if claims.home_tid.parse() != Ok(home_tenant) {
        return Err(bad("its home tenant is not its issuer's"));
    }
    if claims.app_id.parse() != Ok(app_id) {
        return Err(bad("it describes another application"));
    }
    if claims.iat > now.as_second() + SKEW || now.as_second() >= claims.exp {
        return Err(DescriptionError::NotNow);
    }
    if !authority.holds(&claims.rehome_outcome_endpoint) || claims.rehome_outcome_endpoint.len() > 500 {
        return Err(bad("its outcome address is at another server"));
    }
    let name = claims.display_name.trim();
    if name.is_empty() || name.chars().count() > 120 || name.chars().any(char::is_control) {
        return Err(bad(
            "its name is empty, longer than 120 characters or holds control characters",
        ));
    }
    if claims.home_domains.is_empty() || claims.home_domains.len() > MAX_DOMAINS {
        return Err(bad("it names no domain, or too many"));
    }
    let domains = claims
        .home_domains
        .iter()
        .map(|d| d.parse::<DomainName>().map(|d| d.to_string()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| bad("one of its domains is not a domain name"))?;
    if claims.redirect_uris.len() > crate::application::MAX_REDIRECT_URIS
        || claims.redirect_uris.iter().any(|u| redirect_uri_fault(u).is_some())
    {
        return Err(bad("one of its redirect URIs is not allowed"));
    }
    if claims.permissions.len() > 64 || claims.permissions.iter().any(|p| !is_permission_name(&p.name)) {
        return Err(bad("its permissions are malformed"));
    }
    Ok(AppDescription {
        app_id,
        display_name: name.to_owned(),
        home_tenant,
        home_domains: domains,
        issuer: claims.iss,
        sign_in_audience: claims
            .sign_in_audience
            .parse()
            .map_err(|_| bad("its sign-in audience is unknown"))?,
        redirect_uris: claims.redirect_uris,
        permissions: claims.permissions,
        keys,
        outcome_endpoint: claims.rehome_outcome_endpoint,
    })
}

/// Whether a text can be a permission's name: up to 64 ASCII letters, digits, dots and hyphens.
pub(crate) fn is_permission_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::keyset::tests::{TENANT, at, keys, origin};

    pub(crate) fn application() -> Application {
        Application {
            app_id: ApplicationId::from_u128(0xa1),
            tenant: TENANT,
            service_principal: rehome_domain::id::ServicePrincipalId::from_u128(0xa2),
            display_name: "Fabrikam mover".into(),
            sign_in_audience: SignInAudience::AzureADMultipleOrgs,
            redirect_uris: vec!["https://office.com".into()],
            permissions: vec![crate::application::mailbox_migration()],
            created: at(0),
        }
    }

    fn domains() -> Vec<String> {
        vec!["contoso.example".into()]
    }

    #[test]
    fn round_trip_and_wrong_place() {
        let keys = keys(2);
        let app = application();
        let document = sign_description(&keys, &origin(), &app, domains(), at(0)).unwrap();
        let found = check_app_description(&document, &origin(), app.app_id, at(5)).unwrap();
        assert_eq!(
            (found.home_tenant, found.keys.sequence, found.keys.keys.len()),
            (TENANT, 2, 2)
        );
        let elsewhere: Origin = "evil.example".parse().unwrap();
        assert!(matches!(
            check_app_description(&document, &elsewhere, app.app_id, at(5)),
            Err(DescriptionError::WrongAuthority { .. })
        ));
        assert!(matches!(
            check_app_description(&document, &origin(), ApplicationId::from_u128(1), at(5)),
            Err(DescriptionError::Inconsistent { .. })
        ));
        for late in [600, -121] {
            assert_eq!(
                check_app_description(&document, &origin(), app.app_id, at(late)),
                Err(DescriptionError::NotNow)
            );
        }
    }

    #[test]
    fn each_claim_is_checked() {
        let keys = keys(1);
        let app = application();
        let good = sign_description(&keys, &origin(), &app, domains(), at(0)).unwrap();
        let good: serde_json::Value = Unverified::parse(&good, TokenType::AppDescription)
            .unwrap()
            .claims()
            .unwrap();
        let other = crate::keyset::tests::keys(1);
        let table = [
            ("iss", serde_json::json!("https://mail.contoso.example/other/v2.0")),
            ("home_tid", TenantId::from_u128(5).to_string().into()),
            ("app_id", "x".into()),
            ("display_name", "".into()),
            ("display_name", "a\u{7}b".into()),
            ("display_name", "x".repeat(121).into()),
            ("home_domains", serde_json::json!([])),
            ("home_domains", serde_json::json!(["not a domain"])),
            ("redirect_uris", serde_json::json!(["javascript:alert(1)"])),
            ("redirect_uris", serde_json::json!(["http://contoso.example/"])),
            (
                "permissions",
                serde_json::json!([{"resource_app_id": "00000002-0000-0ff1-ce00-000000000000", "name": "<b>", "application": true}]),
            ),
            ("rehome_outcome_endpoint", "https://evil.example/outcome".into()),
            ("sign_in_audience", "Everyone".into()),
            ("keys", serde_json::to_value(publish(&other)).unwrap()),
            ("keys", serde_json::json!([])),
            ("keys", serde_json::json!([good["keys"][0]])),
            ("sequence", "1".into()),
            ("exp", serde_json::Value::Null),
        ];
        for (field, value) in table {
            let mut claims = good.clone();
            claims[field] = value.clone();
            let document = keys.token.sign(TokenType::AppDescription, &claims).unwrap();
            assert!(
                check_app_description(&document, &origin(), app.app_id, at(5)).is_err(),
                "{field} = {value}"
            );
        }
        // A statement key may not sign it.
        let document = keys.statement.sign(TokenType::AppDescription, &good).unwrap();
        assert!(check_app_description(&document, &origin(), app.app_id, at(5)).is_err());
    }
}

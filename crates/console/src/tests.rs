//! The consent page as a browser and as the command line use it; the target's authority is another deployment.

use super::*;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use rehome_domain::id::{ApplicationId, TenantId};
use rehome_domain::tenant::Tenant;
use rehome_identity::application::mailbox_migration;
use rehome_identity::{Actor, IdentityConfig, ORGANIZATION_MANAGEMENT, SESSION_COOKIE, SealKey, SignInAudience};
use rehome_store::Store;
use secrecy::{ExposeSecret, SecretString};
use std::sync::atomic::{AtomicUsize, Ordering};
use tower::ServiceExt;

const SOURCE: TenantId = TenantId::from_u128(0x50);
const TARGET: TenantId = TenantId::from_u128(0x7a);
const ADMIN: &str = "admin@contoso.example";
const PASSWORD: &str = "a long enough password";

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

async fn deployment(folder: &std::path::Path, name: &str, tenant: TenantId, domain: &str) -> (Identity, String) {
    std::fs::create_dir_all(folder).unwrap();
    let store = Store::open(folder).await.unwrap();
    let seal = SealKey::generate_file(&folder.join("key")).unwrap();
    let identity = Identity::new(store, seal, IdentityConfig::new(name.parse().unwrap())).unwrap();
    let tenant = Tenant {
        id: tenant,
        initial_domain: domain.parse().unwrap(),
        display_name: domain.to_owned(),
    };
    let admin = format!("admin@{domain}");
    let code = identity
        .tenant_new(&tenant, &admin, &Actor::operator(), now())
        .await
        .unwrap();
    (identity, code.expose_secret().to_owned())
}

/// Reads descriptions from the target's deployment in process, and counts.
struct InProcess {
    target: Identity,
    fetched: AtomicUsize,
    broken: bool,
}

#[async_trait]
impl DescriptionFetcher for InProcess {
    async fn fetch(&self, url: &str, _correlation: CorrelationId) -> Result<String, String> {
        self.fetched.fetch_add(1, Ordering::SeqCst);
        if self.broken {
            return Err("https://mail.fabrikam.example: cannot be reached".to_owned());
        }
        let app_id: ApplicationId = url.rsplit('/').next().unwrap().parse().unwrap();
        self.target
            .app_description(None, app_id, now())
            .await
            .map_err(|error| error.to_string())
    }
}

struct Scene {
    _folder: tempfile::TempDir,
    source: Identity,
    fetcher: Arc<InProcess>,
    router: Router,
    code: String,
    link: String,
}

async fn scene(broken: bool) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let (source, code) = deployment(
        &folder.path().join("source"),
        "mail.contoso.example",
        SOURCE,
        "contoso.example",
    )
    .await;
    let (target, _) = deployment(
        &folder.path().join("target"),
        "mail.fabrikam.example",
        TARGET,
        "fabrikam.example",
    )
    .await;
    let application = target
        .application_new(
            TARGET,
            "Fabrikam <mover>",
            SignInAudience::AzureADMultipleOrgs,
            vec!["https://office.com".to_owned()],
            Some(vec![mailbox_migration()]),
            &Actor::operator(),
            now(),
        )
        .await
        .unwrap();
    let link = format!(
        "/contoso.example/adminconsent?client_id={}&redirect_uri=https%3A%2F%2Foffice.com&state=s1&authority=https%3A%2F%2Fmail.fabrikam.example",
        application.app_id
    );
    let fetcher = Arc::new(InProcess {
        target,
        fetched: AtomicUsize::new(0),
        broken,
    });
    let router = Console::new(source.clone(), fetcher.clone(), now).router();
    Scene {
        _folder: folder,
        source,
        fetcher,
        router,
        code,
        link,
    }
}

struct Got {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The value of a cookie that is set.
    fn cookie(&self, name: &str) -> Option<String> {
        self.headers
            .get_all("set-cookie")
            .iter()
            .filter_map(|value| value.to_str().unwrap().split(';').next()?.split_once('='))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.to_owned())
    }

    /// The hidden field `csrf`.
    fn csrf(&self) -> String {
        let after = self.text.split("name=\"csrf\" value=\"").nth(1).expect("a form");
        after.split('"').next().unwrap().to_owned()
    }
}

impl Scene {
    async fn send(&self, request: Request<Body>) -> Got {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Got {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    async fn get(&self, link: &str, cookie: &str, accept: &str) -> Got {
        self.send(
            Request::get(link)
                .header("cookie", cookie)
                .header("accept", accept)
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    async fn post(&self, link: &str, cookie: &str, fields: &[(&str, &str)]) -> Got {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = Request::post(link)
            .header("cookie", cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        self.send(request).await
    }

    /// Signs in through the form, with the one-time code, and returns the session's cookie.
    async fn signed_in(&self) -> String {
        let page = self.get(&self.link, "", "text/html").await;
        let form_cookie = format!("__Host-rehome-form={}", page.cookie("__Host-rehome-form").unwrap());
        let csrf = page.csrf();
        let fields = [
            ("csrf", csrf.as_str()),
            ("action", "signin"),
            ("name", ADMIN),
            ("password", &self.code),
            ("new_password", PASSWORD),
        ];
        let answer = self.post(&self.link, &form_cookie, &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        assert!(
            answer
                .header("location")
                .starts_with(&format!("/{SOURCE}/adminconsent?client_id=")),
            "{}",
            answer.header("location")
        );
        format!("{SESSION_COOKIE}={}", answer.cookie(SESSION_COOKIE).unwrap())
    }
}

#[tokio::test]
async fn a_browser_signs_in_sees_who_asks_and_accepts() {
    let scene = scene(false).await;
    let before = scene.get(&scene.link, "", "text/html").await;
    assert_eq!(before.status, StatusCode::OK);
    assert!(
        before.text.contains("Sign in") && !before.text.contains("mover"),
        "{}",
        before.text
    );
    let session = scene.signed_in().await;
    assert_eq!(
        scene.fetcher.fetched.load(Ordering::SeqCst),
        0,
        "nothing is fetched before sign-in"
    );

    let page = scene.get(&scene.link, &session, "text/html").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    let target = TARGET.to_string();
    for part in [
        "“Fabrikam &lt;mover&gt;”",
        target.as_str(),
        "fabrikam.example",
        "Mailbox.Migration",
        "Way back",
        "2027-03-20",
    ] {
        assert!(page.text.contains(part), "{part} is missing in {}", page.text);
    }
    assert!(!page.text.contains("<script"));
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(policy.contains("form-action 'self' https://office.com;"), "{policy}");
    assert_eq!(page.header("referrer-policy"), "no-referrer");

    let csrf = page.csrf();
    let accepted = scene
        .post(&scene.link, &session, &[("csrf", &csrf), ("action", "accept")])
        .await;
    assert_eq!(accepted.status, StatusCode::SEE_OTHER, "{}", accepted.text);
    assert_eq!(
        accepted.header("location"),
        format!("https://office.com/?tenant={SOURCE}&state=s1&admin_consent=True")
    );
    let principals = scene.source.service_principal_list(SOURCE).await.unwrap();
    assert_eq!(principals.len(), 1);
    assert!(principals[0].return_right && principals[0].accepted_by == ADMIN);

    let again = scene
        .post(&scene.link, &session, &[("csrf", &csrf), ("action", "accept")])
        .await;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "a page is answered once");
}

#[tokio::test]
async fn cancel_leads_back_with_permission_denied_and_changes_nothing() {
    let scene = scene(false).await;
    let session = scene.signed_in().await;
    let csrf = scene.get(&scene.link, &session, "text/html").await.csrf();
    let cancelled = scene
        .post(&scene.link, &session, &[("csrf", &csrf), ("action", "cancel")])
        .await;
    assert_eq!(cancelled.status, StatusCode::SEE_OTHER);
    assert_eq!(
        cancelled.header("location"),
        "https://office.com/?error=permission_denied&error_description=The+admin+canceled+the+request&state=s1"
    );
    assert!(scene.source.service_principal_list(SOURCE).await.unwrap().is_empty());
}

#[tokio::test]
async fn forms_that_were_not_shown_are_forbidden() {
    let scene = scene(false).await;
    let session = scene.signed_in().await;
    for csrf in ["", "guessed"] {
        for action in ["accept", "cancel"] {
            let answer = scene
                .post(&scene.link, &session, &[("csrf", csrf), ("action", action)])
                .await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN);
        }
    }
    // Without a session nothing is answered either, and a sign-in form needs the browser's own cookie.
    let csrf = scene.get(&scene.link, &session, "text/html").await.csrf();
    let answer = scene
        .post(&scene.link, "", &[("csrf", &csrf), ("action", "accept")])
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let page = scene.get(&scene.link, "", "text/html").await;
    let fields = [
        ("csrf", page.csrf()),
        ("action", "signin".to_owned()),
        ("name", ADMIN.to_owned()),
        ("password", PASSWORD.to_owned()),
    ];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(scene.post(&scene.link, "", &fields).await.status, StatusCode::FORBIDDEN);
    assert!(scene.source.service_principal_list(SOURCE).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_wrong_password_shows_the_form_again_without_it() {
    let scene = scene(false).await;
    let page = scene.get(&scene.link, "", "text/html").await;
    let cookie = format!("__Host-rehome-form={}", page.cookie("__Host-rehome-form").unwrap());
    let csrf = page.csrf();
    let fields = [
        ("csrf", csrf.as_str()),
        ("action", "signin"),
        ("name", ADMIN),
        ("password", "wrong-password-xyz"),
    ];
    let answer = scene.post(&scene.link, &cookie, &fields).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(
        answer.text.contains("is wrong") && !answer.text.contains("wrong-password-xyz"),
        "{}",
        answer.text
    );
    assert!(answer.cookie(SESSION_COOKIE).is_none());
}

#[tokio::test]
async fn the_command_line_reads_the_same_facts_as_json() {
    let scene = scene(false).await;
    let without = scene.get(&scene.link, "", "application/json").await;
    assert_eq!(without.status, StatusCode::UNAUTHORIZED);
    let session = scene.signed_in().await;
    let got = scene.get(&scene.link, &session, "application/json").await;
    let facts: serde_json::Value = serde_json::from_str(&got.text).unwrap();
    assert_eq!(facts["display_name"], "Fabrikam <mover>");
    assert_eq!(facts["home_tenant"], TARGET.to_string());
    let csrf = facts["csrf"].as_str().unwrap();
    let accepted = scene
        .post(&scene.link, &session, &[("csrf", csrf), ("action", "accept")])
        .await;
    assert_eq!(accepted.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn what_bad_links_get() {
    let scene = scene(false).await;
    let session = scene.signed_in().await;
    let app = scene
        .link
        .split("client_id=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap()
        .to_owned();
    let (with, here) = (
        format!("client_id={app}"),
        "authority=https%3A%2F%2Fmail.fabrikam.example",
    );
    let table = [
        (
            "/unknown.example/adminconsent".to_owned(),
            StatusCode::BAD_REQUEST,
            "AADSTS90002",
        ),
        (
            "/contoso.example/adminconsent".to_owned(),
            StatusCode::BAD_REQUEST,
            "AADSTS900144",
        ),
        (
            format!("/contoso.example/adminconsent?{with}"),
            StatusCode::BAD_REQUEST,
            "AADSTS900144",
        ),
        (
            format!("/contoso.example/adminconsent?{with}&redirect_uri=https%3A%2F%2Fevil.example&{here}"),
            StatusCode::BAD_REQUEST,
            "AADSTS50011",
        ),
        (
            format!("/contoso.example/adminconsent?{with}&redirect_uri=https%3A%2F%2Foffice.com"),
            StatusCode::NOT_FOUND,
            "AADSTS700016",
        ),
    ];
    for (link, status, code) in table {
        let got = scene.get(&link, &session, "text/html").await;
        assert!(
            got.status == status && got.text.contains(code),
            "{link}: {} {}",
            got.status,
            got.text
        );
        let got = scene.get(&link, &session, "application/json").await;
        let error: serde_json::Value = serde_json::from_str(&got.text).unwrap();
        assert_eq!(error["error"]["code"], code);
    }
}

#[tokio::test]
async fn who_may_not_consent_is_told_so_before_anything_is_fetched() {
    let scene = scene(false).await;
    let session = scene.signed_in().await;
    let operator = Actor::operator();
    let second = "second@contoso.example";
    scene.source.admin_new(SOURCE, second, &operator, now()).await.unwrap();
    scene
        .source
        .role_group_remove(SOURCE, ORGANIZATION_MANAGEMENT, ADMIN, &operator, now())
        .await
        .unwrap();
    let got = scene.get(&scene.link, &session, "text/html").await;
    assert_eq!(got.status, StatusCode::FORBIDDEN);
    assert!(
        got.text.contains("Need admin approval") && got.text.contains("AADSTS90094"),
        "{}",
        got.text
    );
    assert_eq!(scene.fetcher.fetched.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_authority_that_does_not_answer_is_named() {
    let scene = scene(true).await;
    let session = scene.signed_in().await;
    let got = scene.get(&scene.link, &session, "text/html").await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY);
    assert!(got.text.contains("https://mail.fabrikam.example"), "{}", got.text);
}

#[tokio::test]
async fn long_forms_are_refused() {
    let scene = scene(false).await;
    let long = "x".repeat(70_000);
    let answer = scene
        .post(&scene.link, "", &[("action", "signin"), ("password", &long)])
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let style = scene.get(page::STYLE_PATH, "", "text/css").await;
    assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
}

#[tokio::test]
async fn a_session_of_another_tenant_is_none_here() {
    let scene = scene(false).await;
    let target = scene.fetcher.target.clone();
    let admin = "admin@fabrikam.example";
    let code = target
        .admin_reset(TARGET, admin, &Actor::operator(), now())
        .await
        .unwrap();
    let foreign = target
        .sign_in(
            TARGET,
            admin,
            &code,
            Some(&SecretString::from(PASSWORD)),
            "local",
            now(),
        )
        .await
        .unwrap();
    let cookie = format!("{SESSION_COOKIE}={}", foreign.token.expose_secret());
    let got = scene.get(&scene.link, &cookie, "text/html").await;
    assert!(got.text.contains("Sign in"), "{}", got.text);
    assert_eq!(scene.fetcher.fetched.load(Ordering::SeqCst), 0);
}

//! Two organisations and what their administrators do before mail can move, as the documentation tells them.

use crate::administrator::Administrator;
use crate::deployment::{Deployment, LONG, Settings};
use crate::https::percent;
use crate::interceptor::Interceptor;
use crate::mail::{self, Mailbox};
use rehome_testkit::line::Line;
use rehome_testkit::meter::{Figures, Meter};
use rehome_testkit::wait;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The source's domain.
pub const SOURCE: &str = "contoso.example";
/// The target's domain.
pub const TARGET: &str = "fabrikam.example";
/// The target's endpoint.
pub const ENDPOINT: &str = "contoso";
/// The source's scope group.
pub const GROUP: &str = "leaving";
/// Where consent leads back to.
pub const REDIRECT: &str = "https://office.com";
/// The source's relationship.
pub const TO_TARGET: &str = "fabrikam";
/// How long a small mailbox may take on a busy machine.
pub const MOVE: Duration = Duration::from_secs(180);

/// What stands between target and source.
pub enum Between {
    /// Nothing.
    Nothing,
    /// A TCP line.
    Line(Line),
    /// Someone who holds the source's certificate.
    Interceptor(Interceptor),
    /// Lines that count all that goes between the two.
    Counted(Box<Counted>),
}

/// Everything by which two organisations talk to each other, counted by who asks and how.
pub struct Counted {
    /// From the target to the source's HTTPS.
    pub line: Line,
    /// From the source to the target's HTTPS.
    pub line_back: Line,
    /// The target's requests.
    pub inward: Meter,
    /// The source's requests.
    pub outward: Meter,
    /// Mail that the target offers the source.
    pub mail_inward: Meter,
    /// Mail that the source offers the target.
    pub mail_outward: Meter,
}

impl Counted {
    /// Between two deployments, whose settings lead over it from now on.
    fn between(source: &mut Deployment, target: &mut Deployment) -> Self {
        let to_mail = |deployment: &Deployment, meter: &Meter| {
            Line::measured(SocketAddr::from(([127, 0, 0, 1], deployment.smtp_port)), meter).port()
        };
        let (inward, outward) = (Meter::default(), Meter::default());
        let counted = Self {
            line: Line::measured(source.address(), &inward),
            line_back: Line::measured(target.address(), &outward),
            inward,
            outward,
            mail_inward: Meter::default(),
            mail_outward: Meter::default(),
        };
        let back = counted.line_back.address();
        source.settings.overrides.insert(target.name(), back);
        let mail_outward = to_mail(target, &counted.mail_outward);
        source.settings.routes.insert(TARGET.to_owned(), mail_outward);
        let mail_inward = to_mail(source, &counted.mail_inward);
        target.settings.routes.insert(SOURCE.to_owned(), mail_inward);
        counted
    }

    /// What went between the two in a time: HTTPS of the target's asking, of the source's, mail the same.
    pub fn figures(&self, begin: Instant, end: Instant) -> [(&'static str, Figures); 4] {
        [
            ("target asks source", &self.inward),
            ("source asks target", &self.outward),
            ("target offers mail", &self.mail_inward),
            ("source offers mail", &self.mail_outward),
        ]
        .map(|(what, meter)| (what, meter.between(begin, end)))
    }
}

/// How a pair is made.
pub struct Plan<'a> {
    /// One deployment for both, or one each.
    pub one_authority: bool,
    /// Mailboxes of the source that are in the scope group and have a mail user in the target.
    pub mailboxes: &'a [&'a str],
    /// What stands between: `line`, `interceptor`, `counted` (of two deployments) or nothing.
    pub between: &'a str,
    /// More lines of `[cutover]` on the source's side.
    pub source_cutover: &'a [&'a str],
    /// More lines before the first table on the target's side.
    pub target_top: &'a [&'a str],
    /// The source's platform where that is no Maildirs; its accounts are named as the mailboxes and filled already.
    pub source_platform: Foreign,
    /// The target's platform where that is no Maildirs.
    pub target_platform: Foreign,
}

/// A platform that is a foreign server.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    /// Lines of its table; none: no foreign server.
    pub lines: Vec<String>,
    /// The authority of its certificate.
    pub authority: Option<PathBuf>,
}

impl Foreign {
    fn applies(&self, settings: &mut Settings) {
        settings.platform.clone_from(&self.lines);
        settings.extra_roots.extend(self.authority.clone());
    }
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self {
            one_authority: false,
            mailboxes: &["press"],
            between: "",
            source_cutover: &[],
            target_top: &[],
            source_platform: Foreign::default(),
            target_platform: Foreign::default(),
        }
    }
}

/// Two organisations.
pub struct Pair {
    /// The deployments: the source's, and the target's if it has one of its own.
    deployments: Vec<Deployment>,
    /// What stands between.
    pub between: Between,
    /// The source's administrator.
    pub source: Administrator,
    /// The target's administrator.
    pub target: Administrator,
    /// The mailboxes as they were written, where they are Maildirs.
    pub mailboxes: Vec<Mailbox>,
    /// The application; empty until [`Pair::registers`].
    pub app: String,
    /// Its secret.
    pub secret: String,
    /// The finished consent link.
    pub link: String,
}

/// The source takes its mailboxes into its directory.
fn adopts(source: &Administrator, names: &[&str]) {
    let rows: Vec<String> = names
        .iter()
        .map(|name| format!("{name}@{SOURCE},{name},{name}\n"))
        .collect();
    let file = source.file("import.csv", &format!("EmailAddress,Name,Location\n{}", rows.concat()));
    source.does(&["Import-Mailbox", "-Platform", "mail", "-CSVData", &file]);
}

impl Pair {
    /// Two organisations that know nothing of each other; the source has mailboxes.
    pub fn strangers(plan: &Plan<'_>) -> Self {
        let mut source = Deployment::new("source");
        let mut target = (!plan.one_authority).then(|| Deployment::new("target"));
        let between = match plan.between {
            "" => Between::Nothing,
            "line" => Between::Line(Line::to(source.address())),
            "interceptor" => Between::Interceptor(Interceptor::before(&source)),
            "counted" => {
                let target = target.as_mut().expect("there are two deployments");
                Between::Counted(Box::new(Counted::between(&mut source, target)))
            }
            other => panic!("what is {other}?"),
        };
        source
            .settings
            .cutover
            .extend(plan.source_cutover.iter().map(|line| (*line).to_owned()));
        plan.source_platform.applies(&mut source.settings);
        if let Some(target) = target.as_mut() {
            plan.target_platform.applies(&mut target.settings);
        }
        let target_port = target.as_ref().map_or(source.smtp_port, |target| target.smtp_port);
        source.settings.routes.entry(TARGET.to_owned()).or_insert(target_port);
        let line = |between: &Between| -> Option<SocketAddr> {
            match between {
                Between::Nothing => None,
                Between::Line(line) => Some(line.address()),
                Between::Interceptor(interceptor) => Some(interceptor.address()),
                Between::Counted(counted) => Some(counted.line.address()),
            }
        };
        match target.as_mut() {
            Some(target) => {
                source.settings.extra_roots.push(target.authority());
                target.settings.extra_roots.push(source.authority());
                let source_port = source.smtp_port;
                target.settings.routes.entry(SOURCE.to_owned()).or_insert(source_port);
                target
                    .settings
                    .top
                    .extend(plan.target_top.iter().map(|line| (*line).to_owned()));
                target
                    .settings
                    .overrides
                    .extend(line(&between).map(|to| (source.name(), to)));
            }
            None => {
                source.settings.extra_roots.push(source.authority());
                source.settings.routes.insert(SOURCE.to_owned(), source.smtp_port);
                source
                    .settings
                    .top
                    .extend(plan.target_top.iter().map(|line| (*line).to_owned()));
                source
                    .settings
                    .overrides
                    .extend(line(&between).map(|to| (source.name(), to)));
            }
        }
        let mailboxes = if plan.source_platform.lines.is_empty() {
            mail::write(&source, plan.mailboxes, std::process::id())
        } else {
            Vec::new()
        };
        let mut deployments: Vec<Deployment> = std::iter::once(source).chain(target).collect();
        for deployment in &mut deployments {
            deployment.configure();
            deployment.start();
        }
        let source = deployments[0].tenant(SOURCE);
        // Before there is a second organisation: beside others, one may adopt only what lies below a folder of its name.
        adopts(&source, plan.mailboxes);
        let target = deployments[deployments.len() - 1].tenant(TARGET);
        Self {
            deployments,
            between,
            source,
            target,
            mailboxes,
            app: String::new(),
            secret: String::new(),
            link: String::new(),
        }
    }

    /// Two organisations where everything is ready for a batch.
    pub fn ready(plan: &Plan<'_>) -> Self {
        let mut pair = Self::strangers(plan);
        pair.registers();
        pair.consents();
        pair.makes_endpoint();
        pair.relates();
        for name in plan.mailboxes {
            pair.prepares(name);
        }
        pair
    }

    /// The source's server.
    pub fn source_server(&mut self) -> &mut Deployment {
        &mut self.deployments[0]
    }

    /// The target's server.
    pub fn target_server(&mut self) -> &mut Deployment {
        self.deployments.last_mut().expect("there is one")
    }

    /// The one on the line.
    pub fn interceptor(&self) -> &Interceptor {
        match &self.between {
            Between::Interceptor(interceptor) => interceptor,
            Between::Nothing | Between::Line(_) | Between::Counted(_) => panic!("nobody is on the line"),
        }
    }

    /// The line.
    pub fn line(&self) -> &Line {
        match &self.between {
            Between::Line(line) => line,
            Between::Nothing | Between::Interceptor(_) | Between::Counted(_) => panic!("there is no line"),
        }
    }

    /// The counting lines.
    pub fn counted(&self) -> &Counted {
        match &self.between {
            Between::Counted(counted) => counted,
            Between::Nothing | Between::Line(_) | Between::Interceptor(_) => panic!("nothing is counted"),
        }
    }

    /// The target registers the application, makes a secret and consents in its own organisation.
    pub fn registers(&mut self) {
        let app = &self.target.does(&[
            "New-MgApplication",
            "-DisplayName",
            "Mailbox moves",
            "-SignInAudience",
            "AzureADMultipleOrgs",
            "-RedirectUris",
            REDIRECT,
            "-RequiredPermissions",
            "Mailbox.Migration",
        ])[0];
        self.app = text(app, "AppId");
        self.secret = text(
            &self
                .target
                .does(&["Add-MgApplicationPassword", "-ApplicationId", &self.app])[0],
            "SecretText",
        );
        self.target.does(&[
            "New-MgServicePrincipalAppRoleAssignment",
            "-ServicePrincipalId",
            &self.app,
        ]);
        let authority = if self.deployments.len() > 1 {
            format!("&authority={}", percent(&format!("https://{}", self.target.server)))
        } else {
            String::new()
        };
        self.link = format!(
            "https://{}/{SOURCE}/adminconsent?client_id={}&redirect_uri={}&state=tests{authority}",
            self.source.server,
            self.app,
            percent(REDIRECT)
        );
    }

    /// The source's administrator opens the link and accepts.
    pub fn consents(&self) {
        self.source.does(&["consent", &self.link, "--yes"]);
    }

    /// The words that make the endpoint.
    pub fn endpoint_words(&self, name: &str, remote_tenant: &str, secret: &str) -> Vec<String> {
        let file = self.target.file(
            &format!("{}.json", uuid::Uuid::new_v4()),
            &json!({ "UserName": self.app, "Password": secret }).to_string(),
        );
        [
            "New-MigrationEndpoint",
            "-Name",
            name,
            "-ExchangeRemoteMove",
            "-RemoteServer",
            &self.source.server,
            "-RemoteTenant",
            remote_tenant,
            "-ApplicationId",
            &self.app,
            "--credentials-file",
            &file,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// The target makes its endpoint.
    pub fn makes_endpoint(&self) {
        let words = self.endpoint_words(ENDPOINT, SOURCE, &self.secret);
        self.target.does(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Scope group and a relationship on each side.
    pub fn relates(&self) {
        self.target.does(&[
            "New-OrganizationRelationship",
            "contoso",
            "-DomainNames",
            &self.source.tenant,
            "-Enabled:true",
            "-MailboxMoveEnabled:true",
            "-MailboxMoveCapability",
            "Inbound",
        ]);
        self.source.does(&["New-DistributionGroup", GROUP, "-Type", "Security"]);
        self.source.does(&[
            "New-OrganizationRelationship",
            TO_TARGET,
            "-DomainNames",
            &self.target.tenant,
            "-Enabled:true",
            "-MailboxMoveEnabled:true",
            "-MailboxMoveCapability",
            "RemoteOutbound",
            "-OAuthApplicationId",
            &self.app,
            "-MailboxMovePublishedScopes",
            GROUP,
        ]);
    }

    /// A mailbox of the source, as its administrator sees it.
    pub fn mailbox(&self, name: &str) -> Value {
        self.source
            .asks("Get-Mailbox", &json!({ "Identity": format!("{name}@{SOURCE}") }))[0]
            .clone()
    }

    /// Puts a mailbox into scope and makes its mail user.
    pub fn prepares(&self, name: &str) {
        self.source.does(&[
            "Add-DistributionGroupMember",
            GROUP,
            "-Member",
            &format!("{name}@{SOURCE}"),
        ]);
        self.makes_mail_user(name);
    }

    /// The mail user of a mailbox in the target, with everything that he needs.
    pub fn makes_mail_user(&self, name: &str) {
        let mailbox = self.mailbox(name);
        let (old, new) = (format!("{name}@{SOURCE}"), format!("{name}@{TARGET}"));
        self.target.does(&[
            "New-MailUser",
            name,
            "-ExternalEmailAddress",
            &old,
            "-PrimarySmtpAddress",
            &new,
        ]);
        let proxy = format!("@{{Add=\"x500:{}\"}}", text(&mailbox, "LegacyExchangeDN"));
        self.target.does(&[
            "Set-MailUser",
            name,
            "-EmailAddresses",
            &proxy,
            "-ExchangeGuid",
            &text(&mailbox, "ExchangeGuid"),
        ]);
    }

    /// Makes and starts a batch.
    pub fn starts_batch(&self, batch: &str, names: &[&str], more: &[&str]) {
        let rows: Vec<String> = names.iter().map(|name| format!("{name}@{TARGET}\n")).collect();
        let file = self
            .target
            .file(&format!("{batch}.csv"), &format!("EmailAddress\n{}", rows.concat()));
        let mut words = vec![
            "New-MigrationBatch",
            "-Name",
            batch,
            "-SourceEndpoint",
            ENDPOINT,
            "-CSVData",
            &file,
            "-AutoStart",
        ];
        if !more.contains(&"-TargetDeliveryDomain") {
            words.extend(["-TargetDeliveryDomain", TARGET]);
        }
        words.extend(more);
        self.target.does(&words);
    }

    /// Completes a batch.
    pub fn completes_batch(&self, batch: &str) {
        self.target.does(&["Complete-MigrationBatch", batch]);
    }

    /// A migration user as the target's administrator sees him.
    pub fn user(&self, name: &str) -> Value {
        self.target
            .asks("Get-MigrationUser", &json!({ "Identity": format!("{name}@{TARGET}") }))[0]
            .clone()
    }

    /// Everything that the target says about a user: his row and his figures.
    pub fn everything_about(&self, name: &str) -> Value {
        let statistics = self.target.asks(
            "Get-MigrationUserStatistics",
            &json!({ "Identity": format!("{name}@{TARGET}") }),
        );
        json!([self.user(name), statistics])
    }

    /// Waits until the user's status is one of these; fails at once where he fails otherwise.
    pub fn reaches(&self, name: &str, statuses: &[&str]) -> Value {
        let failures = ["Failed", "IncrementalFailed", "CompletionFailed", "Corrupted"];
        wait::until(&format!("{name} is {statuses:?}"), MOVE, || {
            let user = self.user(name);
            let status = text(&user, "Status");
            if statuses.contains(&status.as_str()) {
                return Ok(user);
            }
            assert!(
                !failures.contains(&status.as_str()),
                "{name} is {status}: {}",
                self.everything_about(name)
            );
            Err(user.to_string())
        })
    }

    /// Waits until the initial copy is done.
    pub fn is_synced(&self, name: &str) -> Value {
        self.reaches(name, &["Synced"])
    }

    /// Waits until the mailbox has moved.
    pub fn is_completed(&self, name: &str) -> Value {
        self.reaches(name, &["Completed"])
    }

    /// Asks for an incremental sync and waits until it is done.
    pub fn syncs_now(&self, batch: &str, name: &str) {
        let before = text(&self.user(name), "LastSuccessfulSyncTime");
        self.target.does(&["Set-MigrationBatch", batch, "-SyncNow"]);
        wait::until(&format!("{name} is synced once more"), MOVE, || {
            let user = self.user(name);
            let again = text(&user, "Status") == "Synced" && text(&user, "LastSuccessfulSyncTime") != before;
            if again { Ok(()) } else { Err(user.to_string()) }
        });
    }

    /// `RecipientTypeDetails` of a recipient on a side.
    pub fn kind(administrator: &Administrator, name: &str) -> String {
        let found = administrator.asks(
            "Get-Recipient",
            &json!({ "Identity": format!("{name}@{}", administrator.domain) }),
        );
        text(&found[0], "RecipientTypeDetails")
    }

    /// The target's Maildir of a moved mailbox.
    pub fn new_maildir(&mut self, name: &str) -> PathBuf {
        let tenant = self.target.tenant.clone();
        let folder = self.target_server().path("mail").join(tenant);
        let prefix = format!("{name}-");
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let found = entries
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        found
            .unwrap_or_else(|| panic!("{} has no {prefix}…", folder.display()))
            .path()
    }

    /// The mailbox as it was written.
    pub fn written(&self, name: &str) -> Mailbox {
        self.mailboxes
            .iter()
            .find(|mailbox| mailbox.name == name)
            .expect("it was written")
            .clone()
    }

    /// The mailbox is in the target whole and once, and exactly one side has it.
    pub fn has_moved(&mut self, name: &str) {
        assert_eq!(Self::kind(&self.source, name), "MailUser", "{name} in the source");
        assert_eq!(Self::kind(&self.target, name), "UserMailbox", "{name} in the target");
        let maildir = self.new_maildir(name);
        self.written(name).must_be(&maildir);
    }

    /// The mailbox is where it was, open and whole.
    pub fn has_stayed(&mut self, name: &str) {
        assert_eq!(Self::kind(&self.source, name), "UserMailbox", "{name} in the source");
        assert_eq!(Self::kind(&self.target, name), "MailUser", "{name} in the target");
        let maildir = self.source_server().path("mail").join(name);
        self.written(name).must_be(&maildir);
    }

    /// The source's row of a mailbox that a partner has opened.
    pub fn outbound(&self, name: &str) -> Option<Value> {
        let all = self.source.asks("Get-OutboundMigration", &json!({}));
        all.into_iter().find(|row| row["Identity"] == name)
    }

    /// Waits until the source's row of a mailbox is in this state.
    pub fn outbound_is(&self, name: &str, state: &str) -> Value {
        wait::until(&format!("{name} is {state} in the source"), LONG * 2, || {
            match self.outbound(name) {
                Some(row) if row["State"] == state => Ok(row),
                other => Err(format!("{other:?}")),
            }
        })
    }
}

/// A property as text; empty where it is null.
pub fn text(object: &Value, name: &str) -> String {
    match &object[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Every error id in an answer.
pub fn error_ids(value: &Value) -> Vec<String> {
    let text = value.to_string();
    let mut ids: Vec<String> = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        let is_id = word.len() > "Exception".len() && word.ends_with("Exception") || word.starts_with("AADSTS");
        if is_id && !ids.iter().any(|id| id == word) {
            ids.push(word.to_owned());
        }
    }
    ids
}

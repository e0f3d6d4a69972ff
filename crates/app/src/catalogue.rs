//! The cmdlets as the command line offers them: found by name, grouped by task.

use crate::failure::Failure;
use rehome_command::{Declaration, render_help};

/// Tasks in the order in which a first migration meets them, with the nouns that belong to each.
const TASKS: &[(&str, &[&str])] = &[
    ("Mailboxes and mail users", &["Mailbox", "MailUser", "Recipient"]),
    ("Groups", &["DistributionGroup", "DistributionGroupMember"]),
    (
        "Applications and consent",
        &[
            "MgApplication",
            "MgApplicationPassword",
            "MgServicePrincipal",
            "MgServicePrincipalAppRoleAssignment",
        ],
    ),
    (
        "Partners",
        &[
            "OrganizationRelationship",
            "MigrationEndpoint",
            "MigrationServerAvailability",
        ],
    ),
    (
        "Moving, as target",
        &[
            "MigrationBatch",
            "MigrationUser",
            "MigrationUserStatistics",
            "MigrationReport",
            "MigrationOutcome",
        ],
    ),
    ("What leaves, as source", &["OutboundMigration"]),
    ("Receipts, on both sides", &["MigrationReceipt"]),
    ("Organisation", &["AcceptedDomain", "OrganizationConfig"]),
];

/// All cmdlets.
pub(crate) fn all() -> impl Iterator<Item = &'static Declaration> {
    rehome_cmdlets::registry().iter().map(|cmdlet| &cmdlet.declaration)
}

/// The cmdlet of this name, case ignored.
///
/// # Errors
/// With the names that come close.
pub(crate) fn find(name: &str) -> Result<&'static Declaration, Failure> {
    if let Some(found) = all().find(|d| d.name().eq_ignore_ascii_case(name)) {
        return Ok(found);
    }
    let wanted = name.to_ascii_lowercase();
    let noun = wanted.split_once('-').map_or(wanted.as_str(), |(_, noun)| noun);
    let mut near: Vec<String> = all()
        .filter(|d| is_near(noun, &d.noun.to_ascii_lowercase()))
        .map(Declaration::name)
        .collect();
    near.sort();
    near.truncate(8);
    let failure = Failure::usage(format!("the term '{name}' is not recognized as a command"));
    Err(if near.is_empty() {
        failure.advice("rehome --help lists the commands.")
    } else {
        failure.advice(format!("Did you mean: {}?", near.join(", ")))
    })
}

/// Whether two nouns may be meant for each other: equal, one begins the other, or they are two edits apart.
fn is_near(one: &str, other: &str) -> bool {
    !one.is_empty() && (other.starts_with(one) || one.starts_with(other) || distance(one, other) <= 2)
}

/// Edits (insert, remove, replace) that turn one text into the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

/// The help page of a cmdlet, with the switches of the command line.
pub(crate) fn help(declaration: &Declaration) -> String {
    format!("{}\n{}", render_help(declaration), client_switches(declaration))
}

fn client_switches(declaration: &Declaration) -> String {
    let mut page = String::from(
        "ON THE COMMAND LINE\n    --profile NAME   whose session is used (else REHOME_PROFILE, else the only one)\n    \
         --json           prints an array of objects\n    --list           prints every property, one a line\n",
    );
    if declaration
        .parameters
        .iter()
        .any(|p| p.kind == rehome_command::ParameterType::Credential)
    {
        page.push_str(
            "    --credentials-file FILE   {\"UserName\", \"Password\"} as JSON, or two lines; - for standard input\n",
        );
    }
    if crate::cmdlet::gives_a_file(declaration) {
        page.push_str("    --out FILE       writes what it gives into a new file\n");
    }
    if crate::wait::goal_of(&declaration.name()).is_some() {
        page.push_str("    --wait           shows progress until the batch has got there\n");
    }
    page
}

/// `rehome --help`.
pub(crate) fn overview() -> String {
    let mut page = String::from(
        "Moves mailboxes from one organisation's tenant to another's.\n\n\
         Usage: rehome [--profile NAME] COMMAND …\n\n\
         On the machine of the server, as its operator (--config FILE, else REHOME_CONFIG, else /etc/rehome/rehome.toml):\n",
    );
    let rows = [
        (
            "certificate new --name HOST --out DIR",
            "makes a trial authority and a certificate",
        ),
        ("key new --out FILE", "makes the key that seals stored secrets"),
        ("config describe", "prints the manual of the configuration"),
        ("config check FILE", "checks a configuration"),
        (
            "tenant new DOMAIN --admin NAME",
            "makes a tenant; prints a one-time sign-in code",
        ),
        ("tenant list", "lists the tenants"),
        (
            "tenant domain add|remove TENANT DOMAIN",
            "changes a tenant's accepted domains",
        ),
        ("admin reset TENANT NAME", "gives an administrator a new one-time code"),
        ("serve", "serves until SIGTERM or SIGINT"),
    ];
    push_rows(&mut page, &rows);
    page.push_str("\nAs an administrator, from anywhere:\n");
    let rows = [
        (
            "login --server HOST[:PORT] --tenant DOMAIN",
            "signs in and keeps the session in a profile",
        ),
        ("whoami", "says who is signed in"),
        ("logout", "forgets a session"),
        ("consent LINK", "shows what a partner's application asks, and answers"),
        ("help COMMAND", "a command's parameters, output and examples"),
    ];
    push_rows(&mut page, &rows);
    page.push_str("\nAnyone, anywhere:\n");
    let rows = [
        (
            "receipt verify FILE --keys KEYS",
            "checks a receipt, alone or against a mailbox",
        ),
        (
            "receipt digest FILE",
            "prints the digest by which receipts know a message",
        ),
    ];
    push_rows(&mut page, &rows);
    page.push_str("\nCommands (upper and lower case do not matter):\n");
    for (task, nouns) in TASKS {
        let declarations: Vec<&Declaration> = nouns
            .iter()
            .flat_map(|noun| all().filter(move |d| d.noun == *noun))
            .collect();
        push_task(&mut page, task, &declarations);
    }
    let others: Vec<&Declaration> = all()
        .filter(|d| !TASKS.iter().any(|(_, nouns)| nouns.contains(&d.noun.as_str())))
        .collect();
    push_task(&mut page, "Other", &others);
    page.push_str(
        "\nSwitches of every command: --profile NAME, --json (data on standard output; messages always on standard error).\n\
         Exit codes: 0 done; 1 refused or failed; 2 not understood, nothing was done. Of receipt verify also: 3 it does not\n\
         verify; 4 it is consistent, but not every signature was checked; 5 the mailbox does not hold what it says.\n",
    );
    page
}

fn push_task(page: &mut String, task: &str, declarations: &[&Declaration]) {
    if declarations.is_empty() {
        return;
    }
    page.push_str(&format!("\n  {task}\n"));
    for declaration in declarations {
        page.push_str(&format!("    {:<40} {}\n", declaration.name(), declaration.synopsis));
    }
}

fn push_rows(page: &mut String, rows: &[(&str, &str)]) {
    for (command, meaning) in rows {
        page.push_str(&format!("  {command:<42} {meaning}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn pages() {
        golden::check("help.txt", &overview());
        golden::check(
            "help-New-MigrationBatch.txt",
            &help(find("new-migrationbatch").unwrap()),
        );
    }

    #[test]
    fn every_cmdlet_belongs_to_a_task() {
        for declaration in all() {
            assert!(
                TASKS
                    .iter()
                    .any(|(_, nouns)| nouns.contains(&declaration.noun.as_str())),
                "{}",
                declaration.name()
            );
        }
    }

    #[test]
    fn slips_are_guessed() {
        let failure = find("Get-MigratonBatch").unwrap_err();
        assert!(failure.advice.contains("Get-MigrationBatch"), "{}", failure.advice);
        assert_eq!(failure.exit, crate::failure::Exit::Usage);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}

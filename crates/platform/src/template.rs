//! Finds Maildirs by how their paths are made, such as `/srv/mail/{domain}/{user}`.

use std::{
    ffi::OsString,
    io,
    path::{Component, Path},
};

/// Most directory entries that are looked at.
const MAX_ENTRIES: usize = 1_000_000;

/// A template of paths below a platform's root: every part is a fixed name, `{domain}` or `{user}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Fixed(String),
    Domain,
    User,
}

/// A text that is no template of this platform's paths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It leads outside the root.
    #[error("the template '{template}' does not lie below the platform's root {root}")]
    Outside {
        /// The template.
        template: String,
        /// The root.
        root: String,
    },
    /// It is not made of what a template has.
    #[error(
        "'{0}' is not a template: {{user}} stands once in it and {{domain}} at most once, each as a whole folder name, and no other folder name begins with a dot or holds a brace"
    )]
    Form(String),
}

/// A folder that fits a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFound {
    /// Below the platform's root, names divided by `/`.
    pub location: String,
    /// What stands for `{user}`.
    pub user: String,
    /// What stands for `{domain}`, where the template has it.
    pub domain: Option<String>,
    /// Why it cannot be a mailbox; none: nothing against it was seen.
    pub refused: Option<&'static str>,
}

impl PathTemplate {
    /// Reads a template: an absolute path below `root`, or one relative to it.
    pub(crate) fn read(text: &str, root: &Path) -> Result<Self, TemplateError> {
        let form = || TemplateError::Form(text.to_owned());
        let given = Path::new(text);
        let below = if given.is_absolute() {
            given.strip_prefix(root).map_err(|_| TemplateError::Outside {
                template: text.to_owned(),
                root: root.display().to_string(),
            })?
        } else {
            given
        };
        let mut parts = Vec::new();
        for component in below.components() {
            let Component::Normal(name) = component else {
                return Err(form());
            };
            parts.push(match name.to_str().ok_or_else(form)? {
                "{domain}" => Part::Domain,
                "{user}" => Part::User,
                fixed if fixed.starts_with('.') || fixed.contains(['{', '}']) => return Err(form()),
                fixed => Part::Fixed(fixed.to_owned()),
            });
        }
        let count = |wanted: &Part| parts.iter().filter(|part| *part == wanted).count();
        if count(&Part::User) == 1 && count(&Part::Domain) <= 1 {
            Ok(Self { parts })
        } else {
            Err(form())
        }
    }

    /// The folders that fit, in order, at most `most`. Links are never followed, and told. Blocking.
    ///
    /// # Errors
    /// When a folder on the way cannot be read, or there are more.
    pub(crate) fn find(&self, root: &Path, most: usize) -> io::Result<Vec<TemplateFound>> {
        let start = TemplateFound {
            location: String::new(),
            user: String::new(),
            domain: None,
            refused: None,
        };
        let mut reached = vec![start];
        let mut budget = MAX_ENTRIES;
        for part in &self.parts {
            let mut next = Vec::new();
            for found in reached {
                if found.refused.is_some() {
                    next.push(found);
                } else {
                    step(root, &found, part, &mut next, &mut budget)?;
                }
                if next.len() > most {
                    let text = format!("more than {most} folders fit the template");
                    return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
                }
            }
            reached = next;
        }
        reached.sort_by(|one, other| one.location.cmp(&other.location));
        Ok(reached)
    }
}

fn step(
    root: &Path,
    at: &TemplateFound,
    part: &Part,
    next: &mut Vec<TemplateFound>,
    budget: &mut usize,
) -> io::Result<()> {
    let names: Vec<OsString> = match part {
        Part::Fixed(name) => vec![name.into()],
        Part::Domain | Part::User => {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(root.join(&at.location))? {
                *budget = budget.checked_sub(1).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::QuotaExceeded, "there are too many folders to look at")
                })?;
                names.push(entry?.file_name());
            }
            names
        }
    };
    for name in names {
        let shown = name.to_string_lossy().into_owned();
        if shown.starts_with('.') {
            continue;
        }
        let mut found = at.clone();
        found.location = if at.location.is_empty() {
            shown.clone()
        } else {
            format!("{}/{shown}", at.location)
        };
        let kind = match std::fs::symlink_metadata(root.join(&at.location).join(&name)) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if kind.is_symlink() {
            found.refused = Some("is a symbolic link, which is not followed");
        } else if !kind.is_dir() {
            continue;
        } else if name.to_str().is_none() {
            found.refused = Some("has a name that is not UTF-8");
        }
        match part {
            Part::Fixed(_) => {}
            Part::Domain => found.domain = Some(shown),
            Part::User => found.user = shown,
        }
        next.push(found);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_templates_there_are() {
        let root = Path::new("/srv/mail");
        for good in [
            "/srv/mail/{domain}/{user}",
            "{domain}/{user}",
            "/srv/mail/{user}",
            "hosts/{domain}/{user}/Maildir",
            "{user}/{domain}",
        ] {
            assert!(PathTemplate::read(good, root).is_ok(), "{good}");
        }
        for outside in ["/srv/mail2/{user}", "/{user}", "/srv/{user}"] {
            let refused = PathTemplate::read(outside, root);
            assert!(matches!(refused, Err(TemplateError::Outside { .. })), "{outside}");
        }
        for form in [
            "",
            "/srv/mail",
            "{domain}",
            "{user}/{user}",
            "{domain}/{domain}/{user}",
            "{user}@{domain}",
            "../{user}",
            "{user}/../..",
            "/srv/mail/../{user}",
            ".rehome/closed/{user}",
            "{User}",
            "x{user}",
        ] {
            let refused = PathTemplate::read(form, root);
            assert!(matches!(refused, Err(TemplateError::Form(_))), "{form}");
        }
    }

    #[test]
    fn what_fits() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in [
            "contoso.example/press/Maildir",
            "contoso.example/orders/Maildir",
            "contoso.example/empty",
            "fabrikam.example/press/Maildir",
            ".rehome/closed/x/Maildir",
            "contoso.example/.hidden/Maildir",
        ] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::write(root.join("contoso.example/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("contoso.example/link")).unwrap();
        let template = PathTemplate::read("{domain}/{user}/Maildir", root).unwrap();
        let found = template.find(root, 100).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|f| {
                (
                    f.location.as_str(),
                    f.user.as_str(),
                    f.domain.as_deref().unwrap(),
                    f.refused.is_some(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("contoso.example/link", "link", "contoso.example", true),
                ("contoso.example/orders/Maildir", "orders", "contoso.example", false),
                ("contoso.example/press/Maildir", "press", "contoso.example", false),
                ("fabrikam.example/press/Maildir", "press", "fabrikam.example", false),
            ]
        );
        assert!(template.find(root, 2).is_err());
    }
}

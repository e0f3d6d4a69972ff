//! Sign-in profiles: which server, which tenant, which session. One terminal can drive both organisations.

use crate::{failure::Failure, files};
use rehome_remote::{
    client::{AdminClient, ConnectorSettings, HttpsConnector},
    tls,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// A session that was signed in.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// Its name.
    pub(crate) name: String,
    /// `host[:port]`.
    pub(crate) server: String,
    /// The tenant as it was named at sign-in.
    pub(crate) tenant: String,
    /// The tenant's GUID.
    pub(crate) tenant_id: String,
    /// The account.
    pub(crate) account: String,
    /// PEM file of a private authority that the server's certificate comes from.
    pub(crate) authority: Option<PathBuf>,
    /// The session.
    pub(crate) token: SecretString,
    /// When it ends.
    pub(crate) expires: jiff::Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    server: String,
    tenant: String,
    tenant_id: String,
    account: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<PathBuf>,
    token: String,
    expires: String,
}

/// The folder of the profiles.
pub(crate) struct Profiles {
    folder: PathBuf,
}

impl Profiles {
    /// `$REHOME_HOME/profiles`, else `$XDG_CONFIG_HOME/rehome/profiles`, else `~/.config/rehome/profiles`.
    ///
    /// # Errors
    /// When the environment names none of them.
    pub(crate) fn of_environment() -> Result<Self, Failure> {
        let variable = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = variable("REHOME_HOME")
            .or_else(|| variable("XDG_CONFIG_HOME").map(|path| path.join("rehome")))
            .or_else(|| variable("HOME").map(|path| path.join(".config").join("rehome")))
            .ok_or_else(|| Failure::usage("no place for sign-in profiles: set HOME or REHOME_HOME"))?;
        Ok(Self {
            folder: home.join("profiles"),
        })
    }

    #[cfg(test)]
    fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn file(&self, name: &str) -> Result<PathBuf, Failure> {
        let fits = (1..=100).contains(&name.len())
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'));
        if fits {
            Ok(self.folder.join(format!("{name}.json")))
        } else {
            Err(Failure::usage(format!(
                "'{name}' is not a profile's name: use letters, digits and - _ . @"
            )))
        }
    }

    /// Names of all profiles, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .into_string()
                    .ok()?
                    .strip_suffix(".json")
                    .map(str::to_owned)
            })
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }

    /// The profile that a command means: the one named, else that of REHOME_PROFILE, else the only one.
    ///
    /// # Errors
    /// When none is meant or it cannot be read.
    pub(crate) fn choose(&self, named: Option<&str>) -> Result<Profile, Failure> {
        let from_environment = env::var("REHOME_PROFILE").ok().filter(|name| !name.is_empty());
        let name = match named.map(str::to_owned).or(from_environment) {
            Some(name) => name,
            None => match self.names().as_slice() {
                [one] => one.clone(),
                [] => {
                    return Err(
                        Failure::usage("nobody is signed in").advice("rehome login --server HOST --tenant DOMAIN")
                    );
                }
                several => {
                    return Err(Failure::usage(format!(
                        "which one? There are several profiles: {}",
                        several.join(", ")
                    ))
                    .advice("Name it with --profile NAME or in REHOME_PROFILE."));
                }
            },
        };
        self.load(&name)
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub(crate) fn load(&self, name: &str) -> Result<Profile, Failure> {
        let file = self.file(name)?;
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::usage(format!(
                    "there is no profile '{name}'; there are: {}",
                    self.names().join(", ")
                ))
                .advice(format!("rehome login --server HOST --tenant DOMAIN --profile {name}")));
            }
            Err(error) => return Err(Failure::while_doing(&file.display().to_string(), &error)),
        };
        // The cause is not told: it would quote the file, which holds the session.
        let damaged = || {
            Failure::failed(format!("{} cannot be read as a profile", file.display())).advice(format!(
                "Sign in again: rehome login --server HOST --tenant DOMAIN --profile {name}"
            ))
        };
        let stored: Stored = serde_json::from_slice(&text).map_err(|_| damaged())?;
        Ok(Profile {
            name: name.to_owned(),
            server: stored.server,
            tenant: stored.tenant,
            tenant_id: stored.tenant_id,
            account: stored.account,
            authority: stored.authority,
            token: stored.token.into(),
            expires: stored.expires.parse().map_err(|_| damaged())?,
        })
    }

    /// Writes a profile, mode 0600 in a folder of mode 0700.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn save(&self, profile: &Profile) -> Result<(), Failure> {
        let file = self.file(&profile.name)?;
        let stored = Stored {
            server: profile.server.clone(),
            tenant: profile.tenant.clone(),
            tenant_id: profile.tenant_id.clone(),
            account: profile.account.clone(),
            authority: profile.authority.clone(),
            token: profile.token.expose_secret().to_owned(),
            expires: profile.expires.to_string(),
        };
        let text = serde_json::to_vec_pretty(&stored).map_err(|error| Failure::of(&error))?;
        files::private_folder(&self.folder)
            .and_then(|()| files::write_private(&file, &text))
            .map_err(|error| Failure::while_doing(&file.display().to_string(), &error))
    }

    /// Removes a profile.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        let file = self.file(name)?;
        fs::remove_file(&file).map_err(|error| Failure::while_doing(&file.display().to_string(), &error))
    }
}

impl Profile {
    /// A client for this profile's tenant.
    ///
    /// # Errors
    /// When the server's name is none or the authority's file cannot be used.
    pub(crate) fn client(&self) -> Result<AdminClient, Failure> {
        client(&self.server, &self.tenant_id, self.authority.as_deref())
    }
}

/// A client for a tenant at a server.
///
/// # Errors
/// When the server's name is none or the authority's file cannot be used.
pub(crate) fn client(server: &str, tenant: &str, authority: Option<&Path>) -> Result<AdminClient, Failure> {
    let roots: Vec<PathBuf> = authority.map(Path::to_owned).into_iter().collect();
    let mut settings = ConnectorSettings::new(tls::client_config(&roots).map_err(|error| Failure::of(&error))?);
    // The administrator names his own server, and it is often on his own machine or network.
    settings.allow_private_addresses = true;
    AdminClient::new(HttpsConnector::new(settings), server, tenant).map_err(|error| Failure::usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn profile(name: &str) -> Profile {
        Profile {
            name: name.to_owned(),
            server: "localhost:8443".to_owned(),
            tenant: "contoso.example".to_owned(),
            tenant_id: "00000000-0000-0000-0000-000000000001".to_owned(),
            account: "admin@contoso.example".to_owned(),
            authority: None,
            token: "t0ken".to_owned().into(),
            expires: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn kept_private_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let profiles = Profiles::in_folder(folder.path().join("profiles"));
        assert!(profiles.choose(Some("source")).is_err());
        profiles.save(&profile("source")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (
                mode(&folder.path().join("profiles")),
                mode(&folder.path().join("profiles/source.json"))
            ),
            (0o700, 0o600)
        );
        let found = profiles.load("source").unwrap();
        assert_eq!(
            (found.account.as_str(), found.token.expose_secret()),
            ("admin@contoso.example", "t0ken")
        );
        assert!(!format!("{found:?}").contains("t0ken"));
        profiles.remove("source").unwrap();
        assert!(profiles.names().is_empty());
    }

    #[test]
    fn names_do_not_leave_the_folder() {
        let profiles = Profiles::in_folder("/nowhere".into());
        for name in ["", "../x", ".hidden", "a/b", "a b"] {
            assert!(profiles.file(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_damaged_profile_is_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("source.json"), r#"{"token":"s3cret"}"#).unwrap();
        let failure = Profiles::in_folder(folder.path().to_owned())
            .load("source")
            .unwrap_err();
        assert!(!failure.to_text().contains("s3cret"));
    }
}

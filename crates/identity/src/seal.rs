//! Sealing of stored secrets that must be used again, with a key from a file.

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey},
    rand,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rehome_domain::id::TenantId;
use secrecy::{ExposeSecret, SecretString};
use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::{Zeroize, Zeroizing};

use crate::jws::CryptographyFailed;

/// First octet of a sealed value: AES-256-GCM-SIV (RFC 8452), then nonce (12), ciphertext, tag (16).
const FORM: u8 = 1;
const NONCE: usize = 12;
const KEY: usize = 32;

/// Why sealing, unsealing or reading the key failed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("the key file {path} cannot be used")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("the key file {path} has mode {mode:04o}: others than its owner may read it; run: chmod 600 {path}")]
    Readable {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a key.
    #[error("the key file {path} does not hold a key: expected 32 octets in base64, as this program writes it")]
    NotAKey {
        /// Which.
        path: PathBuf,
    },
    /// The value was sealed with another key, for another tenant or purpose, or was changed.
    #[error("a sealed value cannot be opened: other key file, or the value was moved or damaged")]
    Sealed,
    /// The random source failed.
    #[error(transparent)]
    Cryptography(#[from] CryptographyFailed),
}

/// The key that seals. Cheap to clone, never shown.
#[derive(Clone)]
pub struct SealKey(Arc<RandomizedNonceKey>);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// A user name with its secret, as in PowerShell's `PSCredential`.
#[derive(Clone)]
pub struct Credential {
    /// The user name; for an application its app id.
    pub user_name: String,
    /// The secret.
    pub secret: SecretString,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

fn associated(tenant: TenantId, purpose: &str) -> Vec<u8> {
    let mut data = b"rehome-seal-1\0".to_vec();
    data.extend_from_slice(tenant.0.as_bytes());
    data.extend_from_slice(purpose.as_bytes());
    data
}

impl SealKey {
    fn from_octets(octets: &[u8]) -> Option<Self> {
        if octets.len() != KEY {
            return None;
        }
        RandomizedNonceKey::new(&AES_256_GCM_SIV, octets)
            .ok()
            .map(|k| Self(Arc::new(k)))
    }

    /// Reads the key from a file that only its owner may read. A file in the folder that systemd names
    /// in `CREDENTIALS_DIRECTORY` may be group-readable, since systemd guards that folder itself.
    ///
    /// # Errors
    /// When it cannot be read, may be read by others, or does not hold a key.
    pub fn load(path: &Path) -> Result<Self, SealError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::load_with(path, credentials.as_deref())
    }

    fn load_with(path: &Path, credentials: Option<&Path>) -> Result<Self, SealError> {
        let failed = |source| SealError::File {
            path: path.to_owned(),
            source,
        };
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        let forbidden = if credentials.is_some_and(|c| path.parent() == Some(c)) {
            0o007
        } else {
            0o077
        };
        if mode & forbidden != 0 {
            return Err(SealError::Readable {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(1024).read_to_string(&mut text).map_err(failed)?;
        let not_a_key = || SealError::NotAKey { path: path.to_owned() };
        let octets = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| not_a_key())?);
        Self::from_octets(&octets).ok_or_else(not_a_key)
    }

    /// Makes a key file (mode 0600) and reads it; an existing file is never overwritten.
    ///
    /// # Errors
    /// When the file exists or cannot be made.
    pub fn generate_file(path: &Path) -> Result<Self, SealError> {
        let failed = |source| SealError::File {
            path: path.to_owned(),
            source,
        };
        let mut octets = Zeroizing::new([0u8; KEY]);
        rand::fill(octets.as_mut()).map_err(|_| CryptographyFailed)?;
        let mut text = Zeroizing::new(STANDARD.encode(octets.as_ref()));
        text.push('\n');
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Self::from_octets(octets.as_ref()).ok_or(SealError::Cryptography(CryptographyFailed))
    }

    /// Seals a value for one tenant and purpose; it opens for no other.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn seal(&self, tenant: TenantId, purpose: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = plaintext.to_vec();
        let done = self
            .0
            .seal_in_place_append_tag(Aad::from(associated(tenant, purpose)), &mut sealed);
        let Ok(nonce) = done else {
            sealed.zeroize();
            return Err(SealError::Cryptography(CryptographyFailed));
        };
        let mut out = vec![FORM];
        out.extend_from_slice(nonce.as_ref());
        out.append(&mut sealed);
        Ok(out)
    }

    /// Opens a sealed value.
    ///
    /// # Errors
    /// [`SealError::Sealed`] when it was sealed with another key, for another tenant or purpose, or was changed.
    pub fn unseal(&self, tenant: TenantId, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (form, rest) = sealed.split_first().ok_or(SealError::Sealed)?;
        if *form != FORM || rest.len() < NONCE {
            return Err(SealError::Sealed);
        }
        let (nonce, ciphertext) = rest.split_at(NONCE);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Sealed)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .0
            .open_in_place(nonce, Aad::from(associated(tenant, purpose)), &mut buffer)
            .map_err(|_| SealError::Sealed)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Seals a user name with its secret.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn seal_credential(
        &self,
        tenant: TenantId,
        purpose: &str,
        credential: &Credential,
    ) -> Result<Vec<u8>, SealError> {
        // The user name's length in four octets, the user name, the secret.
        let length = u32::try_from(credential.user_name.len()).map_err(|_| SealError::Sealed)?;
        let mut plaintext = Zeroizing::new(length.to_be_bytes().to_vec());
        plaintext.extend_from_slice(credential.user_name.as_bytes());
        plaintext.extend_from_slice(credential.secret.expose_secret().as_bytes());
        self.seal(tenant, purpose, &plaintext)
    }

    /// Opens a sealed user name and secret.
    ///
    /// # Errors
    /// As [`Self::unseal`].
    pub fn unseal_credential(&self, tenant: TenantId, purpose: &str, sealed: &[u8]) -> Result<Credential, SealError> {
        let plaintext = self.unseal(tenant, purpose, sealed)?;
        let read = || -> Option<Credential> {
            let (length, rest) = plaintext.split_first_chunk::<4>()?;
            let (user, secret) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            Some(Credential {
                user_name: std::str::from_utf8(user).ok()?.to_owned(),
                secret: SecretString::from(std::str::from_utf8(secret).ok()?),
            })
        };
        read().ok_or(SealError::Sealed)
    }
}

#[cfg(test)]
pub(crate) fn test_key() -> SealKey {
    SealKey::from_octets(&[7; KEY]).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn key_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        assert!(matches!(SealKey::load(&path), Err(SealError::File { .. })));
        let key = SealKey::generate_file(&path).unwrap();
        assert!(
            matches!(SealKey::generate_file(&path), Err(SealError::File { .. })),
            "never overwritten"
        );
        let sealed = key.seal(TenantId::from_u128(1), "a", b"x").unwrap();
        let again = SealKey::load_with(&path, None).unwrap();
        assert_eq!(*again.unseal(TenantId::from_u128(1), "a", &sealed).unwrap(), b"x");
        for (mode, credentials, good) in [
            (0o600, false, true),
            (0o400, false, true),
            (0o640, false, false),
            (0o604, false, false),
            (0o440, true, true),
            (0o444, true, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let folder = credentials.then(|| folder.path());
            assert_eq!(SealKey::load_with(&path, folder).is_ok(), good, "mode {mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "not base64!", "AAAA"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(SealKey::load(&path), Err(SealError::NotAKey { .. })));
        }
    }

    #[test]
    fn sealed_values_cannot_be_swapped() {
        let key = test_key();
        let credential = Credential {
            user_name: "app".into(),
            secret: "s3cret".into(),
        };
        let sealed = key
            .seal_credential(TenantId::from_u128(1), "endpoint:1", &credential)
            .unwrap();
        let back = key
            .unseal_credential(TenantId::from_u128(1), "endpoint:1", &sealed)
            .unwrap();
        assert_eq!(
            (back.user_name.as_str(), back.secret.expose_secret()),
            ("app", "s3cret")
        );
        assert!(!format!("{back:?}").contains("s3cret"));
        for (tenant, purpose) in [(2, "endpoint:1"), (1, "endpoint:2"), (1, "")] {
            assert!(matches!(
                key.unseal(TenantId::from_u128(tenant), purpose, &sealed),
                Err(SealError::Sealed)
            ));
        }
        let other = SealKey::from_octets(&[8; KEY]).unwrap();
        assert!(other.unseal(TenantId::from_u128(1), "endpoint:1", &sealed).is_err());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(plain in proptest::collection::vec(any::<u8>(), 0..80), bit in 0usize..100_000) {
            let key = test_key();
            let tenant = TenantId::from_u128(1);
            let mut sealed = key.seal(tenant, "p", &plain).unwrap();
            prop_assert_eq!(&*key.unseal(tenant, "p", &sealed).unwrap(), &plain);
            let bit = bit % (sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(key.unseal(tenant, "p", &sealed).is_err());
        }
    }
}

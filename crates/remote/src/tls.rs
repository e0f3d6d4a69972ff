//! TLS settings of both ends, from certificate files.

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Protocols that both ends offer, in order of preference (RFC 7301).
pub(crate) const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why certificate files cannot be used. Every text names the file.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file cannot be read, or is not PEM.
    #[error("{path}: cannot be read as PEM: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path}: holds no certificate (expected -----BEGIN CERTIFICATE-----)")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not fit together, or one of them is not usable.
    #[error("{certificate} with key {key}: {source}")]
    Unusable {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// A root cannot be used to verify others.
    #[error("{path}: certificate {number} of the file cannot serve as a root: {source}")]
    Root {
        /// The file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// The cryptography provider refuses the protocol versions that we ask for.
    #[error("TLS 1.2 and 1.3 are not available: {0}")]
    Versions(#[source] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Reads every certificate of a PEM file.
///
/// # Errors
/// When the file cannot be read, is not PEM, or holds no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = |source| CertificateError::Pem {
        path: path.to_owned(),
        source,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(pem)?
        .collect::<Result<_, _>>()
        .map_err(pem)?;
    if certificates.is_empty() {
        return Err(CertificateError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

/// The server's TLS settings from a chain file (leaf first) and a key file.
///
/// # Errors
/// When a file cannot be used; the text names it.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, CertificateError> {
    let chain = read_certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| CertificateError::Pem {
        path: key.to_owned(),
        source,
    })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Versions)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|source| CertificateError::Unusable {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The roots that this deployment believes: the system's and those of `extra_roots` (PEM files).
///
/// # Errors
/// When an extra root cannot be used. A system store that cannot be read is only logged, because partners may be
/// reached by extra roots alone.
pub fn roots(extra_roots: &[PathBuf]) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "a certificate of the system's store cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    for path in extra_roots {
        for (index, certificate) in read_certificates(path)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|source| CertificateError::Root {
                path: path.clone(),
                number: index + 1,
                source,
            })?;
        }
    }
    Ok(roots)
}

/// The client's TLS settings over [`roots`]. Nothing switches verification off.
///
/// # Errors
/// As [`roots`].
pub fn client_config(extra_roots: &[PathBuf]) -> Result<Arc<ClientConfig>, CertificateError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Versions)?
        .with_root_certificates(roots(extra_roots)?)
        .with_no_client_auth();
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.pem");
        assert!(
            read_certificates(&missing)
                .unwrap_err()
                .to_string()
                .contains("missing.pem")
        );

        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "no pem here").unwrap();
        assert!(matches!(
            read_certificates(&empty),
            Err(CertificateError::NoCertificate { .. })
        ));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let one = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["b.example".to_owned()]).unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        std::fs::write(&chain, one.cert.pem()).unwrap();
        std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        let error = server_config(&chain, &key).unwrap_err();
        assert!(matches!(error, CertificateError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("chain.pem"));
        std::fs::write(&key, one.signing_key.serialize_pem()).unwrap();
        assert!(server_config(&chain, &key).is_ok());
    }
}

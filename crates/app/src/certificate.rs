//! `rehome certificate new`: a trial authority with one certificate.

use crate::{failure::Failure, files};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::path::{Path, PathBuf};

/// What was made.
pub(crate) struct TrialCertificate {
    /// The authority's certificate; partners and administrators of the trial believe it.
    pub(crate) authority: PathBuf,
    /// The server's certificate, with the authority's behind it.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// Last day on which it is valid.
    pub(crate) until: Date,
}

/// Makes `ca.pem`, `leaf.pem` and `leaf.key` in a folder. The authority's own key is thrown away, so it certifies nothing else.
///
/// # Errors
/// When a name is none, a file exists already or cannot be written.
pub(crate) fn make(names: &[String], folder: &Path) -> Result<TrialCertificate, Failure> {
    let made = TrialCertificate {
        authority: folder.join("ca.pem"),
        certificate: folder.join("leaf.pem"),
        key: folder.join("leaf.key"),
        until: today().saturating_add(Span::new().days(365)),
    };
    for path in [&made.authority, &made.certificate, &made.key] {
        if path.exists() {
            return Err(Failure::failed(format!(
                "{} exists already and is not overwritten",
                path.display()
            )));
        }
    }
    let (authority, certificate, key) =
        generate(names, made.until).map_err(|error| Failure::while_doing("the certificate cannot be made", &error))?;
    let write = |path: &Path, text: &str, mode| {
        files::write_new(path, text.as_bytes(), mode)
            .map_err(|error| Failure::while_doing(&path.display().to_string(), &error))
    };
    std::fs::create_dir_all(folder).map_err(|error| Failure::while_doing(&folder.display().to_string(), &error))?;
    write(&made.key, &key, 0o600)?;
    write(&made.certificate, &format!("{certificate}{authority}"), 0o644)?;
    write(&made.authority, &authority, 0o644)?;
    Ok(made)
}

fn today() -> Date {
    TimeZone::UTC.to_datetime(Timestamp::now()).date()
}

/// PEM texts of authority, certificate and key.
fn generate(names: &[String], until: Date) -> Result<(String, String, String), rcgen::Error> {
    let name = names.first().map_or("trial", String::as_str);
    let authority = CertifiedIssuer::self_signed(
        with_validity(CertificateParams::new(Vec::new())?, until, |params| {
            params.distinguished_name.push(
                DnType::CommonName,
                format!("Rehome trial authority for {name} (not for production)"),
            );
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        }),
        KeyPair::generate()?,
    )?;
    let key = KeyPair::generate()?;
    let leaf = with_validity(CertificateParams::new(names.to_vec())?, until, |params| {
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    })
    .signed_by(&key, &authority)?;
    Ok((authority.pem(), leaf.pem(), key.serialize_pem()))
}

fn with_validity(
    mut params: CertificateParams,
    until: Date,
    set: impl FnOnce(&mut CertificateParams),
) -> CertificateParams {
    let day = |date: Date| {
        let part = |n: i8| u8::try_from(n).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    // Yesterday, for partners whose clocks are behind.
    params.not_before = day(today().saturating_sub(Span::new().days(1)));
    params.not_after = day(until);
    params.distinguished_name = rcgen::DistinguishedName::new();
    set(&mut params);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_server_can_use_what_is_made_and_a_client_believes_it() {
        let folder = tempfile::tempdir().unwrap();
        let made = make(
            &["localhost".to_owned(), "127.0.0.1".to_owned()],
            &folder.path().join("tls"),
        )
        .unwrap();
        rehome_remote::tls::server_config(&made.certificate, &made.key).unwrap();
        rehome_remote::tls::client_config(std::slice::from_ref(&made.authority)).unwrap();
        assert_eq!(
            std::fs::metadata(&made.key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            rehome_remote::tls::read_certificates(&made.certificate).unwrap().len(),
            2
        );
        let again = make(&["localhost".to_owned()], &folder.path().join("tls"));
        assert!(again.is_err_and(|failure| failure.message.contains("not overwritten")));
    }
}

//! A certificate for servers on loopback, with an authority that clients of a test trust.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// A certificate for `localhost` and `127.0.0.1`, all in PEM.
pub struct Certificate {
    /// What a client must trust.
    pub authority: String,
    /// What the server shows.
    pub certificate: String,
    /// The server's key.
    pub key: String,
}

impl Certificate {
    /// A new one of a new authority.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn for_loopback() -> Self {
        let mut root = CertificateParams::new(Vec::new()).expect("no names are right names");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        root.distinguished_name.push(DnType::CommonName, "Authority of a test");
        let root_key = KeyPair::generate().expect("a key is made");
        let root_certificate = root.self_signed(&root_key).expect("an authority signs itself");
        let issuer = Issuer::new(root, root_key);
        let mut leaf =
            CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("loopback has right names");
        leaf.use_authority_key_identifier_extension = true;
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        let key = KeyPair::generate().expect("a key is made");
        let certificate = leaf.signed_by(&key, &issuer).expect("an authority signs");
        Self {
            authority: root_certificate.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

//! A connection, plain or encrypted.

use crate::settings::TlsPolicy;
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    },
};

/// Octets both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// A connection whose nature does not matter any more.
pub(crate) type Link = Box<dyn Duplex>;

/// TLS as client, by policy.
pub(crate) struct ClientTls {
    verifying: TlsConnector,
    unverified: TlsConnector,
}

impl ClientTls {
    /// `roots` are believed where a certificate is required.
    pub(crate) fn new(roots: Arc<RootCertStore>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            || ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let verifying = builder()?.with_root_certificates(roots).with_no_client_auth();
        let unverified = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(Arc::clone(&provider))))
            .with_no_client_auth();
        Ok(Self {
            verifying: TlsConnector::from(Arc::new(verifying)),
            unverified: TlsConnector::from(Arc::new(unverified)),
        })
    }

    /// Encrypts a connection to `host`; its certificate is checked exactly where `policy` requires TLS.
    pub(crate) async fn connect(&self, policy: TlsPolicy, host: &str, link: Link) -> io::Result<Link> {
        let name = rustls_pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = match policy {
            TlsPolicy::Required => &self.verifying,
            TlsPolicy::Opportunistic | TlsPolicy::None => &self.unverified,
        };
        Ok(Box::new(connector.connect(name, link).await?))
    }
}

/// Encrypts a connection as server.
pub(crate) async fn accept(config: &Arc<ServerConfig>, link: Link) -> io::Result<Link> {
    Ok(Box::new(TlsAcceptor::from(Arc::clone(config)).accept(link).await?))
}

/// Opens a plain connection.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<Link> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// Takes any certificate: opportunistic encryption guards against listeners, not against impostors (RFC 7435).
/// The handshake's signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls_pki_types::CertificateDer<'_>,
        _intermediates: &[rustls_pki_types::CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

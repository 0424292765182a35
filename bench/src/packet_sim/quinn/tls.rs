//! TLS for connections in virtual time: a certificate made when a run begins, whose length is always the same.

use std::sync::Arc;

use quinn_proto::{
    ClientConfig, ServerConfig, TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

/// The name that the certificate is for.
pub(super) const SERVER_NAME: &str = "server.dplab";

/// A certificate, its key, and both ends' settings of TLS.
pub(super) struct Tls {
    client: Arc<QuicClientConfig>,
    server: Arc<QuicServerConfig>,
}

impl Tls {
    /// # Panics
    /// If the system has no randomness, or rustls refuses what it offers itself.
    pub fn new() -> Tls {
        // Ed25519: its signatures have 64 bytes (RFC 8032). Those of ECDSA have 70 to 72, and so a handshake would not be the
        // same twice.
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let mut parameters = CertificateParams::new(vec![SERVER_NAME.to_owned()]).expect("a name");
        // Otherwise it is drawn, and takes a byte less now and then.
        parameters.serial_number = Some(SerialNumber::from(1_u64));
        let certificate: CertificateDer<'static> = parameters.self_signed(&key).expect("a certificate").into();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("the key that was made");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate to trust");
        let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a key for its certificate");
        Tls {
            client: Arc::new(client.try_into().expect("a cipher suite that QUIC knows")),
            server: Arc::new(server.try_into().expect("a cipher suite that QUIC knows")),
        }
    }

    pub fn client(&self, transport: &Arc<TransportConfig>) -> ClientConfig {
        let mut config = ClientConfig::new(self.client.clone());
        config.transport_config(Arc::clone(transport));
        config
    }

    pub fn server(&self, transport: &Arc<TransportConfig>) -> ServerConfig {
        let mut config = ServerConfig::with_crypto(self.server.clone());
        config.transport_config(Arc::clone(transport));
        config
    }
}

//! Keys and certificates, in memory only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_name, ResolvesClientCert, Resumption};
use rustls::crypto::{ring, CryptoProvider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, InconsistentKeys, NamedGroup, RootCertStore, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};

use super::request;
use super::rules::Scope;

/// Names that certificates are kept for.
const MINTED: usize = 1000;

/// What TLS connections are opened with.
#[derive(Default)]
pub struct Secrets {
    servers: HashMap<u16, Arc<CertifiedKey>>,
    authorities: Vec<Authority>,
}

/// In whose name we answer a client.
pub enum Identity<'a> {
    Server(Arc<CertifiedKey>),
    Authority(&'a Authority),
}

/// Makes certificates for whomever a program in the target calls.
pub struct Authority {
    source: String,
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    /// One key for all certificates: they are nobody's but ours.
    key: KeyPair,
    minted: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Secrets {
    /// Reads what was sent; the error says what is wrong, and no more of it than that.
    pub fn new(
        certificates: &[request::Certificate],
        authorities: &[request::Authority],
    ) -> Result<Self, String> {
        let mut servers = HashMap::new();
        for one in certificates {
            let key = certified(&one.certificate, &one.key);
            let key =
                key.map_err(|reason| format!("certificate of port {}: {reason}", one.port))?;
            servers.insert(one.port, Arc::new(key));
        }
        let made = authorities.iter().map(|one| {
            Authority::new(one).map_err(|reason| format!("authority of {}: {reason}", one.source))
        });
        Ok(Self {
            servers,
            authorities: made.collect::<Result<_, _>>()?,
        })
    }

    /// Who we are to clients of this port, where we can be anybody.
    pub fn identity(&self, port: u16, outgoing: bool, scope: &Scope) -> Option<Identity<'_>> {
        if !outgoing {
            return self.servers.get(&port).cloned().map(Identity::Server);
        }
        let mut fitting = self
            .authorities
            .iter()
            .filter(|one| scope.has_source(&one.source));
        fitting.next().map(Identity::Authority)
    }
}

impl Identity<'_> {
    /// How we answer a client who asks for `name`, in the protocol that its server has chosen.
    pub fn answer(&self, name: &str, protocol: Option<&[u8]>) -> Result<Arc<ServerConfig>, String> {
        let key = match self {
            Self::Server(key) => key.clone(),
            Self::Authority(authority) => authority.certificate(name)?,
        };
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = config
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(key)));
        config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Do we know a way to answer this client? Old ones may speak to their server in a way that we
    /// do not know; they had better do so.
    pub fn can_answer(&self, hello: &ClientHello) -> bool {
        let algorithm = match self {
            Self::Server(key) => key.key.algorithm(),
            Self::Authority(_) => SignatureAlgorithm::ECDSA,
        };
        let provider = provider();
        let suites = provider.cipher_suites.iter().filter(|ours| {
            ours.usable_for_signature_algorithm(algorithm)
                && hello.cipher_suites().contains(&ours.suite())
        });
        let groups = |asked: &[NamedGroup]| {
            let mut ours = provider.kx_groups.iter();
            ours.any(|ours| asked.contains(&ours.name()))
        };
        suites.count() > 0 && hello.named_groups().is_none_or(groups)
    }

    /// May we answer in place of a server that has shown this certificate to whom asked for `name`?
    /// A server may have several, of which we were given one.
    pub fn stands_for(&self, name: Option<&str>, shown: &[CertificateDer]) -> bool {
        let (Self::Server(key), Some(name)) = (self, name) else {
            return true;
        };
        let ours = key.cert.first();
        let covers = || {
            let parsed = ParsedCertificate::try_from(ours?).ok()?;
            verify_server_name(&parsed, &ServerName::try_from(name).ok()?).ok()
        };
        ours == shown.first() || covers().is_some()
    }

    /// How we call the server, offering what the client offered; tells whether it asks who we are.
    pub fn call(&self, protocols: Vec<Vec<u8>>) -> Result<(Arc<ClientConfig>, Arc<Asked>), String> {
        let asked = Arc::new(Asked::default());
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let config = match self {
            // It is the target's own, and we are in the target.
            Self::Server(_) => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider()))),
            Self::Authority(authority) => config.with_root_certificates(authority.roots.clone()),
        };
        let mut config = config.with_client_cert_resolver(asked.clone());
        config.alpn_protocols = protocols;
        config.resumption = Resumption::disabled();
        Ok((Arc::new(config), asked))
    }
}

impl Authority {
    fn new(asked: &request::Authority) -> Result<Self, String> {
        let key =
            KeyPair::from_pem(&asked.key).map_err(|_| "its key is no PEM of a private key")?;
        let issuer =
            Issuer::from_ca_cert_pem(&asked.certificate, key).map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(chain(&asked.roots)?);
        Ok(Self {
            source: asked.source.clone(),
            issuer,
            chain: chain(&asked.certificate)?,
            roots: Arc::new(roots),
            key: KeyPair::generate().map_err(|error| error.to_string())?,
            minted: Mutex::default(),
        })
    }

    fn certificate(&self, name: &str) -> Result<Arc<CertifiedKey>, String> {
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = minted.get(name) {
            return Ok(key.clone());
        }
        let key = Arc::new(self.mint(name)?);
        if minted.len() >= MINTED {
            minted.clear();
        }
        minted.insert(name.to_owned(), key.clone());
        Ok(key)
    }

    fn mint(&self, name: &str) -> Result<CertifiedKey, String> {
        let mut params =
            CertificateParams::new(vec![name.to_owned()]).map_err(|error| error.to_string())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // The authority itself lasts no longer than the experiment; a target's clock may be off.
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2099, 1, 1);
        let leaf = params
            .signed_by(&self.key, &self.issuer)
            .map_err(|error| error.to_string())?;
        let mut certificates = vec![leaf.der().clone()];
        certificates.extend(self.chain.iter().cloned());
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(str::to_owned)?;
        let signing = provider().key_provider.load_private_key(key);
        Ok(CertifiedKey::new(
            certificates,
            signing.map_err(|error| error.to_string())?,
        ))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.map_err(|error| match error {
        pem::Error::MissingSectionEnd { .. } => "its certificate is cut off".to_owned(),
        _ => "its certificate is no PEM".to_owned(), // what is there is told to nobody
    })
}

fn certified(certificate: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain = chain(certificate)?;
    if chain.is_empty() {
        return Err("no certificate is in its PEM".to_owned());
    }
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes());
    let der = der.map_err(|_| match key.contains("ENCRYPTED") {
        true => "its key is encrypted: give it without a passphrase",
        false => "its key is no PEM of a private key",
    })?;
    let key = provider().key_provider.load_private_key(der);
    let key = key.map_err(|_| {
        "its key cannot be used: RSA of 2048 to 4096 bits, P-256, P-384 and Ed25519 can"
    })?;
    let found = CertifiedKey::new(chain, key);
    match found.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(found),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("its key is not that of its certificate".to_owned())
        }
        Err(error) => Err(format!("its certificate cannot be used: {error}")),
    }
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Notes whether a server asks for a certificate, which we do not have: only its client has.
#[derive(Debug, Default)]
pub struct Asked(AtomicBool);

impl Asked {
    pub fn was(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        true // or it would not be asked
    }
}

/// Takes any certificate, but wants its holder to have the key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

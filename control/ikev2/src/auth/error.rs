//! Why a proof fails, in words that an operator can act on.

/// Why a proof of identity cannot be made or is refused. Files are called by the names that came with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    // ---- our own files and options
    /// A file without what it is for.
    #[error("{file} holds no {what} in PEM form")]
    Missing {
        /// Its name.
        file: String,
        /// What is missing.
        what: &'static str,
    },
    /// PEM that is cut short or damaged.
    #[error("{file} is damaged: its PEM armour or base64 is wrong")]
    BadPem {
        /// Its name.
        file: String,
    },
    /// DER that is no certificate or revocation list.
    #[error("{file} is not a valid X.509 certificate or revocation list: {why}")]
    Malformed {
        /// Its name.
        file: String,
        /// What the parser says.
        why: String,
    },
    /// A key that is not supported or too weak.
    #[error("{file}: {why}")]
    Key {
        /// Its name.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A private key under a passphrase.
    #[error("the private key in {file} is encrypted; write it in the clear with `openssl pkey -in {file}`")]
    EncryptedKey {
        /// Its name.
        file: String,
    },
    /// A private key of something else.
    #[error("the private key in {key} does not belong to the certificate in {certificate}")]
    KeyMismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        certificate: String,
    },
    /// A certificate that may not sign others stands where CAs are to stand.
    #[error(
        "{subject} in {file} is not a CA certificate (basicConstraints CA:TRUE and, if there is a keyUsage, keyCertSign)"
    )]
    NotCa {
        /// Whose certificate.
        subject: String,
        /// Its file.
        file: String,
    },
    /// A pre-shared key of no octets.
    #[error("the pre-shared key is empty")]
    EmptyPsk,
    /// Text that names nobody.
    #[error("{0:?} is not an identity: write an IP address, a host name, user@host, or C=.., O=.., CN=..")]
    IdentityText(String),
    /// ring would not sign.
    #[error("signing with the key of {0} failed")]
    Signing(String),

    // ---- the peer, and what it sent
    /// An identity that is not understood.
    #[error("the peer's identity (type {kind}) is malformed or of a type that is not supported")]
    PeerIdentity {
        /// The type of RFC 7296, section 3.5.
        kind: u8,
    },
    /// Another key at the other end.
    #[error("PSK does not match: check options:psk on both hosts")]
    WrongPsk,
    /// It authenticates by certificate, we by PSK.
    #[error(
        "the peer authenticates with a certificate, but a PSK is configured here: use options:psk on both hosts or on none"
    )]
    PskWanted,
    /// It authenticates by PSK, we by certificate.
    #[error(
        "the peer authenticates with a PSK, but a certificate is wanted here: use options:psk on both hosts or on none"
    )]
    CertificateWanted,
    /// A method, or an algorithm within it, that is not supported.
    #[error(
        "the peer authenticates by {0}, which is not supported: RSA or ECDSA (P-256, P-384) with SHA-2, or Ed25519 is"
    )]
    UnsupportedSignature(String),
    /// None of the hashes that the peer takes will do.
    #[error("the peer accepts no signature by our {key} key (its hash algorithms: {hashes:?})")]
    NoCommonHash {
        /// The kind of our key.
        key: String,
        /// What the peer sent.
        hashes: Vec<u16>,
    },
    /// The certificate is not the signer's.
    #[error(
        "the signature of {subject} is wrong: the peer does not have the private key of that certificate"
    )]
    WrongSignature {
        /// Whose certificate.
        subject: String,
    },
    /// The same by method 1, where SHA-1 is the likelier reason.
    #[error(
        "the RSA signature of {subject} (method 1) is wrong or made with SHA-1, which is not accepted: let the peer use \
         RFC 7427 signature authentication"
    )]
    OldSignature {
        /// Whose certificate.
        subject: String,
    },
    /// No CERT payload although we asked.
    #[error("the peer sent no certificate: check other_config:certificate and private_key there")]
    NoCertificate,
    /// More CERT payloads than any chain needs.
    #[error("the peer sent {0} certificates, which is more than a chain needs")]
    TooManyCertificates(usize),
    /// A certificate other than the one pinned.
    #[error(
        "the peer presents a certificate ({presented}) of another key than the one in options:remote_cert ({pinned}): copy its present one here"
    )]
    NotPinned {
        /// Whose certificate came.
        presented: String,
        /// Whose was wanted.
        pinned: String,
    },
    /// Its end is past.
    #[error("the certificate of {subject} expired on {date}; renew it")]
    Expired {
        /// Whose certificate.
        subject: String,
        /// Its last day.
        date: String,
    },
    /// Its beginning is to come.
    #[error("the certificate of {subject} is not valid before {date}; check the clocks of both hosts")]
    NotYetValid {
        /// Whose certificate.
        subject: String,
        /// Its first day.
        date: String,
    },
    /// Nobody trusted has signed it.
    #[error("the certificate of {subject} is signed by another CA ({issuer}) than the ones in {files}")]
    UnknownCa {
        /// Whose certificate.
        subject: String,
        /// Who signed it, as it says.
        issuer: String,
        /// Where the trusted ones stand.
        files: String,
    },
    /// Signed by nobody else.
    #[error(
        "the certificate of {subject} is self-signed, not signed by a CA in {files}; to trust it alone, use options:remote_cert"
    )]
    SelfSigned {
        /// Whose certificate.
        subject: String,
        /// Where the trusted CAs stand.
        files: String,
    },
    /// A CA has the right name and another key.
    #[error(
        "the certificate of {subject} is not signed by the key of {issuer} in {files}: another CA has that name, too"
    )]
    ForgedCa {
        /// Whose certificate.
        subject: String,
        /// The CA's name.
        issuer: String,
        /// Where the trusted one stands.
        files: String,
    },
    /// Revoked by a local list.
    #[error("the certificate of {subject}, or of a CA above it, has been revoked")]
    Revoked {
        /// Whose certificate.
        subject: String,
    },
    /// The chain breaks a rule.
    #[error("the certificate of {subject} is refused: {why}")]
    Refused {
        /// Whose certificate.
        subject: String,
        /// Which rule.
        why: String,
    },
    /// The identity that the peer claims is not in its certificate.
    #[error("the peer calls itself {claimed}, but its certificate names {named}")]
    NotNamed {
        /// What the identity payload says.
        claimed: String,
        /// What the certificate says.
        named: String,
    },
    /// The peer is somebody else than the one wanted.
    #[error("the peer names {named}, but options:remote_name is {wanted}")]
    WrongName {
        /// Who it is.
        named: String,
        /// Who it has to be.
        wanted: String,
    },
}

//! What hosts prove themselves with, as the rows name it and the files have it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ikev2::auth::{
    AuthError, Authority, Credential, Identity, OwnCertificate, PeerCertificate, Psk, Source, Trust,
};

use zeroize::Zeroizing;

use super::files::{self, Files, Stamp};
use super::unix_now;
use crate::reconcile::protection::{Auth, Own, Pem, Protection};

/// Ready to be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// How we prove who we are.
    pub credential: Credential,
    /// What we take as proof.
    pub trust: Trust,
    /// Who we say we are, if not what the credential says.
    pub local_id: Option<Identity>,
    /// Whom we expect.
    pub remote_id: Option<Identity>,
}

/// Which files something was made of.
pub type Stamps = Vec<Stamp>;

/// Reads credentials. Every tunnel of a host tends to use the same certificate, which is therefore kept.
#[derive(Debug, Default)]
pub struct Credentials {
    files: Files,
    own: HashMap<(PathBuf, PathBuf), (Stamps, Arc<OwnCertificate>)>,
    authorities: HashMap<(PathBuf, Option<PathBuf>), (Stamps, Arc<Authority>)>,
}

impl Credentials {
    /// Files may have changed since.
    pub fn look_again(&mut self) {
        self.files.forget();
    }

    /// Which files these credentials are made of now.
    pub fn stamps(&mut self, auth: &Auth) -> Stamps {
        files_of(auth).into_iter().map(|path| self.files.stamp(path)).collect()
    }

    /// Reads them. The error says what is wrong with which file or option.
    pub fn load(&mut self, protection: &Protection) -> Result<Loaded, String> {
        let identity = |option: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|e| format!("options:{option}: {e}")),
        };
        let (credential, trust) = match &protection.auth {
            Auth::Psk(psk) => shared("options:psk", psk.reveal().as_bytes())?,
            Auth::PskFile(path) => psk_file(path)?,
            Auth::Pinned { peer, own } => {
                let own = self.own(own)?;
                let peer = match peer {
                    Pem::Inline(pem) => pinned("options:peer_cert", pem.as_bytes())?,
                    Pem::File(path) => pinned(&name(path), &read(path, false)?)?,
                };
                (Credential::Certificate(own), Trust::Pinned(Arc::new(peer)))
            }
            Auth::Authority { authority, revoked, name, own } => {
                let own = self.own(own)?;
                let authority = self.authority(authority, revoked.as_deref())?;
                let name = identity("remote_name", &Some(name.clone()))?;
                (Credential::Certificate(own), Trust::Authority { authority, name })
            }
        };
        Ok(Loaded {
            credential,
            trust,
            local_id: identity("ipsec_leftid", &protection.local_id)?,
            remote_id: identity("ipsec_rightid", &protection.remote_id)?,
        })
    }

    fn own(&mut self, own: &Own) -> Result<Arc<OwnCertificate>, String> {
        let key = (own.certificate.clone(), own.private_key.clone());
        let stamps: Stamps = [&key.0, &key.1].map(|path| self.files.stamp(path)).into();
        if let Some((seen, loaded)) = self.own.get(&key)
            && *seen == stamps
        {
            return Ok(loaded.clone());
        }
        let (certificate, private_key) = (read(&own.certificate, false)?, read(&own.private_key, true)?);
        let loaded = OwnCertificate::load(
            Source { name: &name(&own.certificate), bytes: &certificate },
            Source { name: &name(&own.private_key), bytes: &private_key },
        );
        let loaded = Arc::new(loaded.map_err(words)?);
        self.own.insert(key, (stamps, loaded.clone()));
        Ok(loaded)
    }

    fn authority(&mut self, ca: &Path, revoked: Option<&Path>) -> Result<Arc<Authority>, String> {
        let key = (ca.to_owned(), revoked.map(Path::to_owned));
        let stamps: Stamps = std::iter::once(ca).chain(revoked).map(|path| self.files.stamp(path)).collect();
        if let Some((seen, loaded)) = self.authorities.get(&key)
            && *seen == stamps
        {
            return Ok(loaded.clone());
        }
        let anchors = read(ca, false)?;
        let lists = match revoked {
            None => None,
            Some(path) => Some((name(path), read(path, false)?)),
        };
        let lists: Vec<Source<'_>> = lists.iter().map(|(name, bytes)| Source { name, bytes }).collect();
        let loaded =
            Authority::load(&[Source { name: &name(ca), bytes: &anchors }], &lists).map_err(words)?;
        loaded.warnings(unix_now()).iter().for_each(|warning| tracing::warn!("{warning}"));
        let loaded = Arc::new(loaded);
        self.authorities.insert(key, (stamps, loaded.clone()));
        Ok(loaded)
    }
}

fn files_of(auth: &Auth) -> Vec<&Path> {
    fn own(own: &Own) -> [&Path; 2] {
        [&own.certificate, &own.private_key]
    }
    match auth {
        Auth::Psk(_) => Vec::new(),
        Auth::PskFile(path) => vec![path],
        Auth::Pinned { peer: Pem::Inline(_), own: o } => own(o).into(),
        Auth::Pinned { peer: Pem::File(path), own: o } => {
            own(o).into_iter().chain([path.as_path()]).collect()
        }
        Auth::Authority { authority, revoked, own: o, .. } => {
            own(o).into_iter().chain([authority.as_path()]).chain(revoked.as_deref()).collect()
        }
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>, String> {
    files::read(path, secret).map_err(|why| format!("cannot read {}: {why}", path.display()))
}

fn words(error: AuthError) -> String {
    error.to_string()
}

/// A key that both ends know proves either.
fn shared(name: &str, key: &[u8]) -> Result<(Credential, Trust), String> {
    let psk = Psk::new(key).map_err(|e| format!("{name}: {e}"))?;
    Ok((Credential::Psk(psk.clone()), Trust::Psk(psk)))
}

/// The whole file is the key, but for the newline that editors put at the end.
fn psk_file(path: &Path) -> Result<(Credential, Trust), String> {
    let bytes = read(path, true)?;
    let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    shared(&name(path), key.strip_suffix(b"\r").unwrap_or(key))
}

fn pinned(name: &str, pem: &[u8]) -> Result<PeerCertificate, String> {
    PeerCertificate::load(Source { name, bytes: pem }).map_err(words)
}

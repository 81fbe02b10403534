//! Signatures as Standard Webhooks has them: over `id.timestamp.body`, HMAC-SHA256 (`v1`) or Ed25519 (`v1a`).

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// Bytes of a secret (Standard Webhooks, "Signature scheme").
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Before a secret, a private and a public key as text.
const SECRET_PREFIX: &str = "whsec_";
const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";
/// A PKCS #8 v1 document of an Ed25519 key (RFC 8410 §7), up to its seed.
const PKCS8_V1: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const SEED_BYTES: usize = 32;

/// Why a key file cannot be used. Never its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{}: {problem}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is expected.
        problem: &'static str,
    },
}

/// What signs the calls of one endpoint.
pub struct Keys {
    secret: Option<hmac::Key>,
    pair: Option<Ed25519KeyPair>,
}

/// Without the keys.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("secret", &self.secret.is_some())
            .field("pair", &self.pair.is_some())
            .finish()
    }
}

impl Keys {
    /// From files: a secret `whsec_…` (or its base64 alone), an Ed25519 private key as PEM (PKCS #8) or as `whsk_…` or
    /// base64 of its 32 bytes.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn read(secret: Option<&Path>, private_key: Option<&Path>) -> Result<Self, KeyError> {
        let secret = secret
            .map(|path| {
                let bad = || KeyError::Bad {
                    path: path.to_owned(),
                    problem: "expected whsec_ and 24 to 64 bytes in base64",
                };
                parse_secret(&text(path)?).ok_or_else(bad)
            })
            .transpose()?;
        let pair = private_key
            .map(|path| {
                let bad = || KeyError::Bad {
                    path: path.to_owned(),
                    problem: "expected an Ed25519 private key: PEM (PKCS #8), or 32 bytes in base64",
                };
                parse_private(&text(path)?).ok_or_else(bad)
            })
            .transpose()?;
        Ok(Self { secret, pair })
    }

    /// Whether nothing would be signed.
    pub fn is_empty(&self) -> bool {
        self.secret.is_none() && self.pair.is_none()
    }

    /// What receivers check `v1a` signatures with: `whpk_…`.
    pub fn public_key(&self) -> Option<String> {
        self.pair.as_ref().map(|pair| format!("{PUBLIC_PREFIX}{}", STANDARD.encode(pair.public_key())))
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let mut signed = format!("{id}.{timestamp_s}.").into_bytes();
        signed.extend_from_slice(body);
        let v1 = self.secret.as_ref().map(|key| format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed))));
        let v1a = self.pair.as_ref().map(|pair| format!("v1a,{}", STANDARD.encode(pair.sign(&signed))));
        [v1, v1a].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

fn text(path: &Path) -> Result<String, KeyError> {
    std::fs::read_to_string(path).map_err(|source| KeyError::Io { path: path.to_owned(), source })
}

fn parse_secret(text: &str) -> Option<hmac::Key> {
    let text = text.trim();
    let bytes = STANDARD.decode(text.strip_prefix(SECRET_PREFIX).unwrap_or(text)).ok()?;
    SECRET_BYTES.contains(&bytes.len()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn parse_private(text: &str) -> Option<Ed25519KeyPair> {
    let text = text.trim();
    if let Some(pem) = text.strip_prefix("-----BEGIN PRIVATE KEY-----") {
        let body: String = pem.split("-----END").next()?.split_ascii_whitespace().collect();
        let document = STANDARD.decode(body).ok()?;
        return match document.strip_prefix(&PKCS8_V1) {
            Some(seed) => Ed25519KeyPair::from_seed_unchecked(seed).ok(),
            None => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document).ok(),
        };
    }
    let bytes = STANDARD.decode(text.strip_prefix(PRIVATE_PREFIX).unwrap_or(text)).ok()?;
    match bytes.len() {
        SEED_BYTES => Ed25519KeyPair::from_seed_unchecked(&bytes).ok(),
        // The seed and its public key.
        64 => Ed25519KeyPair::from_seed_and_public_key(&bytes[..SEED_BYTES], &bytes[SEED_BYTES..]).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    /// The same, by `openssl pkcs8`.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";

    fn verifies(public: &[u8], signed: &[u8], signature: &[u8]) -> bool {
        use ring::signature::{ED25519, UnparsedPublicKey};
        UnparsedPublicKey::new(&ED25519, public).verify(signed, signature).is_ok()
    }

    fn keys(secret: Option<&str>, private: Option<&str>) -> Result<Keys, KeyError> {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: Option<&str>| {
            text.map(|text| {
                let path = dir.path().join(name);
                std::fs::write(&path, text).unwrap();
                path
            })
        };
        Keys::read(file("secret", secret).as_deref(), file("key", private).as_deref())
    }

    /// Made with the reference implementation of Standard Webhooks for Python (`standardwebhooks` 1.1.0) and with
    /// `cryptography`.
    #[test]
    fn signatures_are_those_of_others() {
        let keys = keys(Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), Some(SEED)).unwrap();
        let signed = keys.sign("apns:room/1:3-7", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(
            signed,
            "v1,N3elQkAZ1TD4/CmWJpAycU9KzNe0+kAvDJx7m+2FHGc= v1a,+6XeAkLcN+6QqIv3vGwcjFskd0UO4CUU7lXinrdS35trXJYa7ZlAjTY0F2vtOGzuVvXBMqLNd2AxeqLVeZPXCw=="
        );
        let public = keys.public_key().unwrap();
        assert_eq!(public, "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=");
        let public = STANDARD.decode(public.strip_prefix(PUBLIC_PREFIX).unwrap()).unwrap();
        let signature = STANDARD.decode(signed.split_once("v1a,").unwrap().1).unwrap();
        let message = b"apns:room/1:3-7.1614265330.{\"test\": 2432232314}";
        assert!(verifies(&public, message, &signature));
        assert!(!verifies(&public, b"apns:room/1:3-7.1614265331.{}", &signature));
    }

    #[test]
    fn every_form_of_a_key_is_the_same_key() {
        let public = |text: &str| keys(None, Some(text)).unwrap().public_key().unwrap();
        let whsk = format!("whsk_{SEED}");
        assert_eq!(public(SEED), public(&whsk));
        assert_eq!(public(SEED), public(PEM));
        let plain = keys(Some("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), None).unwrap();
        let prefixed = keys(Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), None).unwrap();
        assert_eq!(plain.sign("a", 1, b"b"), prefixed.sign("a", 1, b"b"));
        assert!(plain.public_key().is_none() && !plain.is_empty());
        assert!(keys(None, None).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let short = STANDARD.encode([7; 23]);
        let long = STANDARD.encode([7; 65]);
        for bad in ["", "whsec_", "not base64!", &short, &long] {
            let error = keys(Some(bad), None).unwrap_err().to_string();
            assert!(bad.is_empty() || bad == "whsec_" || !error.contains(bad), "{error}");
        }
        let wrong = SEED.replace('A', "_");
        for bad in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", &short, &wrong] {
            assert!(keys(None, Some(bad)).is_err());
        }
        for bytes in [24, 64] {
            assert!(keys(Some(&STANDARD.encode(vec![1; bytes])), None).is_ok());
        }
        assert!(Keys::read(Some(Path::new("/does/not/exist")), None).is_err());
        assert!(!format!("{:?}", keys(Some(SEED), None).unwrap()).contains(SEED));
    }
}

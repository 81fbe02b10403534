//! JSON Web Tokens (RFC 7519). A key is bound to one algorithm (RFC 8725 §3.1): a token is tried only with keys whose
//! own algorithm is the one its header names, so `none` and a public key used as an HMAC secret have no key at all.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use feedlog_core::command::{Principal, Scopes};
use feedlog_core::ids::{ANONYMOUS_PREFIX, TimeMs, Uid};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use quick_cache::sync::Cache;
use serde::Deserialize;

use super::{AuthError, JwtAlgorithm, JwtConfig, JwtKey, parse_scopes};

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Verified tokens that are remembered, so that a busy caller's signature is checked once.
const VERIFIED_MAX: usize = 4096;
/// How often key files are looked at.
const RELOAD_EVERY_MS: u64 = 1_000;
/// Shortest shared secret (RFC 7518 §3.2: as long as the hash output; this is the shortest of them).
const SECRET_BYTES_MIN: usize = 32;
/// Largest key file.
const KEY_FILE_BYTES_MAX: u64 = 1 << 20;

/// Checks JWTs against keys that follow their files.
pub(super) struct Jwt {
    config: JwtConfig,
    keys: ArcSwap<Keys>,
    looked_ms: AtomicU64,
    looking: AtomicBool,
}

struct Keys {
    files: Vec<Vec<u8>>,
    keys: Vec<Key>,
    // Lives and dies with the keys that verified them.
    verified: Cache<[u8; 32], Arc<Verified>>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

struct Verified {
    principal: Principal,
    expires_ms: TimeMs,
    not_before_ms: TimeMs,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    iss: Option<String>,
    aud: Option<OneOrMany>,
    scope: Option<OneOrMany>,
    scopes: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
        .iter()
        .map(String::as_str)
    }
}

impl Jwt {
    pub(super) fn open(config: JwtConfig, now_ms: TimeMs) -> Result<Self, AuthError> {
        let keys = load(&config)?;
        Ok(Self {
            config,
            keys: ArcSwap::from_pointee(keys),
            looked_ms: AtomicU64::new(now_ms),
            looking: AtomicBool::new(false),
        })
    }

    /// Whose token this is.
    pub(super) fn authenticate(&self, token: &str, now_ms: TimeMs) -> Result<Principal, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Unauthenticated);
        }
        self.follow_files(now_ms);
        let keys = self.keys.load();
        let digest = feedlog_storage::digest(token.as_bytes());
        let verified = match keys.verified.get(&digest) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.verify(&keys.keys, token).ok_or(AuthError::Unauthenticated)?);
                keys.verified.insert(digest, verified.clone());
                verified
            }
        };
        let leeway_ms = self.config.leeway_s.saturating_mul(1000);
        if now_ms >= verified.expires_ms.saturating_add(leeway_ms)
            || now_ms.saturating_add(leeway_ms) < verified.not_before_ms
        {
            return Err(AuthError::Unauthenticated);
        }
        Ok(verified.principal.clone())
    }

    /// Everything that does not depend on the time.
    fn verify(&self, keys: &[Key], token: &str) -> Option<Verified> {
        let header = decode_header(token).ok()?;
        // RFC 7515 §4.1.11: we understand no critical extension.
        if header.crit.is_some() {
            return None;
        }
        let claims = keys
            .iter()
            .filter(|key| key.algorithm == header.alg)
            .filter(|key| match (&key.id, &header.kid) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            })
            .find_map(|key| {
                let mut validation = Validation::new(key.algorithm);
                // Times, audience and issuer are checked below, against our own clock.
                validation.required_spec_claims.clear();
                validation.validate_exp = false;
                validation.validate_nbf = false;
                validation.validate_aud = false;
                decode::<Claims>(token, &key.decoding, &validation).ok()
            })?
            .claims;
        let audience_fits = match &claims.aud {
            None => self.config.audience.is_empty(),
            Some(aud) => aud.iter().any(|aud| self.config.audience.iter().any(|ours| ours == aud)),
        };
        let issuer_fits = self.config.issuer.is_empty()
            || claims.iss.as_ref().is_some_and(|iss| self.config.issuer.contains(iss));
        if !audience_fits || !issuer_fits || claims.sub.starts_with(ANONYMOUS_PREFIX) {
            return None;
        }
        let scopes = match (&claims.scope, &claims.scopes) {
            (None, None) => self.config.default_scopes,
            (one, many) => {
                parse_scopes(one.iter().chain(many).flat_map(OneOrMany::iter).flat_map(str::split_whitespace))
            }
        };
        Some(Verified {
            principal: Principal { uid: Uid::parse(&claims.sub).ok()?, scopes, anonymous: false, via: None },
            expires_ms: millis(claims.exp)?,
            not_before_ms: claims.nbf.map_or(Some(0), millis)?,
        })
    }

    /// Looks at the key files at most once a second. A file that became unusable leaves the keys as they are.
    fn follow_files(&self, now_ms: TimeMs) {
        if now_ms.abs_diff(self.looked_ms.load(Ordering::Relaxed)) < RELOAD_EVERY_MS
            || self.looking.swap(true, Ordering::Acquire)
        {
            return;
        }
        self.looked_ms.store(now_ms, Ordering::Relaxed);
        let same = read_files(&self.config).is_ok_and(|files| files == self.keys.load().files);
        if !same {
            match load(&self.config) {
                Ok(keys) => {
                    tracing::info!(keys = keys.keys.len(), "reloaded the keys of JSON Web Tokens");
                    self.keys.store(Arc::new(keys));
                }
                Err(error) => tracing::warn!(%error, "kept the old keys of JSON Web Tokens"),
            }
        }
        self.looking.store(false, Ordering::Release);
    }
}

fn millis(seconds: f64) -> Option<TimeMs> {
    // Seconds with a fraction are allowed (RFC 7519 §2); the cast saturates.
    (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1000.0) as TimeMs)
}

fn path_of(key: &JwtKey) -> &Path {
    match key {
        JwtKey::Secret { path, .. } | JwtKey::Pem { path, .. } | JwtKey::Jwks { path } => path,
    }
}

fn bad(path: &Path, problem: &'static str) -> AuthError {
    AuthError::BadKeyFile { path: path.to_owned(), problem }
}

fn read_files(config: &JwtConfig) -> Result<Vec<Vec<u8>>, AuthError> {
    config
        .keys
        .iter()
        .map(|key| {
            let path = path_of(key);
            let size = fs::metadata(path).map_err(|_| bad(path, "cannot be read"))?.len();
            if size > KEY_FILE_BYTES_MAX {
                return Err(bad(path, "is too large"));
            }
            fs::read(path).map_err(|_| bad(path, "cannot be read"))
        })
        .collect()
}

fn load(config: &JwtConfig) -> Result<Keys, AuthError> {
    let files = read_files(config)?;
    let mut keys = Vec::new();
    for (key, bytes) in config.keys.iter().zip(&files) {
        let path = path_of(key);
        match key {
            JwtKey::Secret { algorithm, .. } => {
                let secret = bytes.trim_ascii();
                if secret.len() < SECRET_BYTES_MIN {
                    return Err(bad(path, "is shorter than 32 bytes"));
                }
                let algorithm = match algorithm {
                    JwtAlgorithm::Hs256 => Algorithm::HS256,
                    JwtAlgorithm::Hs384 => Algorithm::HS384,
                    JwtAlgorithm::Hs512 => Algorithm::HS512,
                    _ => return Err(bad(path, "a secret goes with HS256, HS384 or HS512")),
                };
                keys.push(Key { id: None, algorithm, decoding: DecodingKey::from_secret(secret) });
            }
            JwtKey::Pem { algorithm, .. } => {
                let (algorithm, decoding) = match algorithm {
                    JwtAlgorithm::Rs256 => (Algorithm::RS256, DecodingKey::from_rsa_pem(bytes)),
                    JwtAlgorithm::Es256 => (Algorithm::ES256, DecodingKey::from_ec_pem(bytes)),
                    JwtAlgorithm::EdDsa => (Algorithm::EdDSA, DecodingKey::from_ed_pem(bytes)),
                    _ => return Err(bad(path, "a public key goes with RS256, ES256 or EdDSA")),
                };
                let decoding = decoding.map_err(|_| bad(path, "is not a public key of its algorithm"))?;
                keys.push(Key { id: None, algorithm, decoding });
            }
            JwtKey::Jwks { .. } => {
                let set: JwkSet = serde_json::from_slice(bytes).map_err(|_| bad(path, "is not a JWKS"))?;
                keys.extend(set.keys.iter().filter_map(jwks_key));
            }
        }
    }
    Ok(Keys { files, keys, verified: Cache::new(VERIFIED_MAX) })
}

/// A key of a JWKS, `None` when it does not verify signatures with an algorithm of ours.
fn jwks_key(jwk: &jsonwebtoken::jwk::Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match (&jwk.algorithm, &jwk.common.key_algorithm) {
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        (AlgorithmParameters::EllipticCurve(ec), None | Some(KeyAlgorithm::ES256))
            if ec.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        (AlgorithmParameters::OctetKeyPair(pair), None | Some(KeyAlgorithm::EdDSA))
            if pair.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        (AlgorithmParameters::OctetKey(_), Some(KeyAlgorithm::HS256)) => Algorithm::HS256,
        (AlgorithmParameters::OctetKey(_), Some(KeyAlgorithm::HS384)) => Algorithm::HS384,
        (AlgorithmParameters::OctetKey(_), Some(KeyAlgorithm::HS512)) => Algorithm::HS512,
        _ => return None,
    };
    let decoding = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { id: jwk.common.key_id.clone(), algorithm, decoding })
}

/// The scopes a service acts with for a user: those of the user.
pub(super) const USER_ONLY: Scopes = Scopes { user: true, send_as: false, audit: false, admin: false };

//! Who is asking: tokens, JWT, development mode; and how often they may.
//!
//! Nothing here prints or returns a credential: errors carry none (I-8).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use feedlog_core::command::{Principal, Scopes};
use feedlog_core::ids::{TimeMs, Uid};

use crate::views::Paged;

/// How callers prove who they are.
#[derive(Clone, Default)]
pub struct AuthConfig {
    /// Any uid is its own token and `admin` is the administrator. For trying things out on loopback only.
    pub dev: bool,
    /// Callers without a credential may use open feeds.
    pub anonymous: bool,
    /// The first administrator's token; never stored.
    pub admin_token: Option<Secret>,
    /// JSON Web Tokens, when accepted.
    pub jwt: Option<JwtConfig>,
    /// Requests per principal.
    pub rate_per_principal: Option<Rate>,
    /// Requests per address.
    pub rate_per_address: Option<Rate>,
}

/// Text that never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a credential.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The credential itself, to be shown once to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which JWTs are accepted.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// The keys that sign.
    pub keys: Vec<JwtKey>,
    /// Accepted `aud`; empty accepts only tokens without `aud`.
    pub audience: Vec<String>,
    /// Accepted `iss`; empty accepts any.
    pub issuer: Vec<String>,
    /// Tolerated difference of clocks, in seconds.
    pub leeway_s: u64,
    /// Tokens without `scope` act with this; by default `user`.
    pub default_scopes: Scopes,
}

/// A key that signs JWTs. The algorithm belongs to the key and is never taken from a token alone.
#[derive(Debug, Clone)]
pub enum JwtKey {
    /// A shared secret in a file (surrounding white space is not part of it).
    Secret {
        /// The file.
        path: PathBuf,
        /// HS256, HS384 or HS512.
        algorithm: JwtAlgorithm,
    },
    /// A public key in a PEM file.
    Pem {
        /// The file.
        path: PathBuf,
        /// RS256, ES256 or EdDSA.
        algorithm: JwtAlgorithm,
    },
    /// A JWKS file; keys without a supported `alg` are left out.
    Jwks {
        /// The file.
        path: PathBuf,
    },
}

/// Supported signature algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // RFC 7518 is the definition
pub enum JwtAlgorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Es256,
    EdDsa,
}

/// A rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Sustained requests per second, at least 1.
    pub per_second: u32,
    /// At once, at least 1.
    pub burst: u32,
}

/// What a caller brought.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// Nothing; `connection` names the connection, unique in this process.
    None {
        /// Becomes `anon:<connection>`.
        connection: &'a str,
    },
    /// A bearer token of whatever kind.
    Token(&'a str),
}

/// Why a credential was not accepted, or an act of administration not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credential where one is needed, or an unknown, expired, revoked or forged one: one answer for all.
    #[error("authentication is required")]
    Unauthenticated,
    /// The principal may not do this.
    #[error("not allowed")]
    Forbidden,
    /// Too many requests.
    #[error("too many requests")]
    RateLimited {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// No such token.
    #[error("no such token")]
    NotFound,
    /// A field is outside its bounds.
    #[error("{field}: {problem}")]
    BadField {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Retry: the store cannot answer now.
    #[error("temporarily unavailable: {0}")]
    Unavailable(&'static str),
    /// A key file cannot be used; only at start.
    #[error("{path}: {problem}")]
    BadKeyFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, without its content.
        problem: &'static str,
    },
}

/// What a new token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Who its bearer is.
    pub uid: Uid,
    /// What its bearer may do.
    pub scopes: Scopes,
    /// When it ends, `None` = never.
    pub expires_ms: Option<TimeMs>,
    /// For people, at most 255 bytes.
    pub note: Option<Arc<str>>,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its name, for listing and revoking.
    pub id: Arc<str>,
    /// Who its bearer is.
    pub uid: Uid,
    /// What its bearer may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_ms: TimeMs,
    /// When it ends.
    pub expires_ms: Option<TimeMs>,
    /// When it was revoked.
    pub revoked_ms: Option<TimeMs>,
    /// For people.
    pub note: Option<Arc<str>>,
}

/// A new token: the only time its secret can be seen.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// All but the secret.
    pub info: TokenInfo,
    /// What the bearer presents.
    pub secret: Secret,
}

/// Checks credentials and rates; makes and revokes tokens. Cheap to clone; see [`crate::Store::auth`].
#[derive(Clone)]
pub struct Auth {}

#[allow(unused_variables, clippy::todo)]
impl Auth {
    /// Whose credential this is. Cheap: cached, at most one point read.
    pub fn authenticate(&self, credential: Credential<'_>) -> Result<Principal, AuthError> {
        todo!()
    }

    /// The principal of a user for whom a service (scope `send_as`) acts; `Forbidden` for others.
    pub fn act_for(&self, service: &Principal, uid: Uid) -> Result<Principal, AuthError> {
        todo!()
    }

    /// Counts one request of a principal; `RateLimited` when it was one too many.
    pub fn check_principal(&self, principal: &Principal) -> Result<(), AuthError> {
        todo!()
    }

    /// Counts one request from an address.
    pub fn check_address(&self, address: IpAddr) -> Result<(), AuthError> {
        todo!()
    }

    /// Makes a token; administrators only. **On `Ok` it is durable.**
    pub async fn create_token(&self, by: &Principal, token: NewToken) -> Result<IssuedToken, AuthError> {
        todo!()
    }

    /// Tokens by id; administrators only.
    pub async fn tokens(
        &self,
        by: &Principal,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<TokenInfo>, AuthError> {
        todo!()
    }

    /// Revokes a token; administrators only; again is `Ok`. **On `Ok` it is durable and in force.**
    pub async fn revoke_token(&self, by: &Principal, id: &str) -> Result<TokenInfo, AuthError> {
        todo!()
    }
}

//! Who is asking: tokens, JWT, development mode; and how often they may.
//!
//! Nothing here prints or returns a credential: errors carry none (I-8).

mod jwt;
mod rate;
mod tokens;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use feedlog_core::command::{Principal, Scopes};
use feedlog_core::event::MENTION_ALL;
use feedlog_core::ids::{ANONYMOUS_PREFIX, TimeMs, Uid};
use feedlog_storage::{Engine, StateKey};
use subtle::ConstantTimeEq;

use crate::append::Appender;
use crate::clock::Clock;
use crate::error::SubmitError;
use crate::views::Paged;
use jwt::{Jwt, USER_ONLY};
use rate::Limiter;
use tokens::Tokens;

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
pub struct Auth(Arc<Inner>);

struct Inner {
    dev: bool,
    anonymous: bool,
    admin_token: Option<[u8; 32]>,
    tokens: Tokens,
    jwt: Option<Jwt>,
    principals: Option<Limiter<Uid>>,
    addresses: Option<Limiter<IpAddr>>,
    clock: Clock,
    appender: Appender,
}

impl Auth {
    pub(crate) fn open(
        config: AuthConfig,
        engine: Arc<dyn Engine>,
        appender: Appender,
        clock: Clock,
    ) -> Result<Self, AuthError> {
        let jwt = config.jwt.map(|jwt| Jwt::open(jwt, clock.now_ms())).transpose()?;
        Ok(Self(Arc::new(Inner {
            dev: config.dev,
            anonymous: config.anonymous || config.dev,
            admin_token: config.admin_token.map(|token| feedlog_storage::digest(token.expose().as_bytes())),
            tokens: Tokens::new(engine),
            jwt,
            principals: config.rate_per_principal.map(Limiter::new),
            addresses: config.rate_per_address.map(Limiter::new),
            clock,
            appender,
        })))
    }

    /// Whose credential this is. Cheap: cached, at most one point read.
    pub fn authenticate(&self, credential: Credential<'_>) -> Result<Principal, AuthError> {
        let token = match credential {
            Credential::Token(token) => token,
            Credential::None { connection } => return self.anonymous(connection),
        };
        match self.issued(token) {
            // One of our own that is wrong or revoked is nobody's name.
            Err(AuthError::Unauthenticated) if self.0.dev && Tokens::parse(token).is_none() => {
                self.in_development(token)
            }
            answer => answer,
        }
    }

    /// As [`Auth::authenticate`] for a token, and in development mode a bare uid is none: where others are asked as well.
    pub fn issued(&self, token: &str) -> Result<Principal, AuthError> {
        if let Some(admin) = &self.0.admin_token {
            let digest = feedlog_storage::digest(token.as_bytes());
            if bool::from(admin.ct_eq(&digest)) {
                return Ok(administrator());
            }
        }
        let now_ms = self.0.clock.now_ms();
        if let Some((id, secret)) = Tokens::parse(token) {
            return self.0.tokens.authenticate(id, &secret, now_ms);
        }
        if let Some(jwt) = &self.0.jwt
            && let Ok(principal) = jwt.authenticate(token, now_ms)
        {
            return Ok(principal);
        }
        Err(AuthError::Unauthenticated)
    }

    /// Whether a token has the form of those that [`Auth::create_token`] makes, good or not.
    pub fn has_own_form(&self, token: &str) -> bool {
        Tokens::parse(token).is_some()
    }

    fn in_development(&self, token: &str) -> Result<Principal, AuthError> {
        if token == ADMIN_UID {
            return Ok(administrator());
        }
        let uid = Uid::parse(token).map_err(|_| AuthError::Unauthenticated)?;
        let uid = ordinary(uid).map_err(|_| AuthError::Unauthenticated)?;
        Ok(Principal { uid, scopes: USER_ONLY, anonymous: false, via: None })
    }

    fn anonymous(&self, connection: &str) -> Result<Principal, AuthError> {
        if !self.0.anonymous {
            return Err(AuthError::Unauthenticated);
        }
        let uid = Uid::parse(&format!("{ANONYMOUS_PREFIX}{connection}"))
            .map_err(|_| AuthError::BadField { field: "connection", problem: "is not a name" })?;
        Ok(Principal { uid, scopes: Scopes::default(), anonymous: true, via: None })
    }

    /// The user whom a client certificate names. The caller has checked the certificate.
    pub fn certified(&self, name: &str) -> Result<Principal, AuthError> {
        let uid = Uid::parse(name).map_err(|_| AuthError::Unauthenticated)?;
        Ok(Principal { uid: ordinary(uid)?, scopes: USER_ONLY, anonymous: false, via: None })
    }

    /// The user whom an authentication webhook of the operator's named, never the administrator. The caller has asked that
    /// webhook.
    pub fn vouched(&self, uid: Uid) -> Result<Principal, AuthError> {
        if uid.as_str() == ADMIN_UID {
            return Err(AuthError::BadField { field: "uid", problem: "is reserved" });
        }
        Ok(Principal { uid: ordinary(uid)?, scopes: USER_ONLY, anonymous: false, via: None })
    }

    /// A service that the operator's own configuration lets in, by this name. The caller has checked what it brought.
    pub fn configured_service(&self, name: &str) -> Result<Principal, AuthError> {
        let uid = Uid::parse(name).map_err(|_| AuthError::Unauthenticated)?;
        let scopes = Scopes { send_as: true, ..Scopes::default() };
        Ok(Principal { uid: ordinary(uid)?, scopes, anonymous: false, via: None })
    }

    /// The principal of a user for whom a service (scope `send_as`) acts; `Forbidden` for others. It may do what that
    /// user may, and not what the service may.
    pub fn act_for(&self, service: &Principal, uid: Uid) -> Result<Principal, AuthError> {
        if !service.scopes.send_as || service.anonymous {
            return Err(AuthError::Forbidden);
        }
        let uid = ordinary(uid)?;
        Ok(Principal { uid, scopes: USER_ONLY, anonymous: false, via: Some(service.uid.clone()) })
    }

    /// Counts one request of a principal; `RateLimited` when it was one too many. Acts for others count for the
    /// service.
    pub fn check_principal(&self, principal: &Principal) -> Result<(), AuthError> {
        let Some(limiter) = &self.0.principals else { return Ok(()) };
        limiter
            .check(principal.via.as_ref().unwrap_or(&principal.uid), self.0.clock.now_ms())
            .map_err(|retry_after_ms| AuthError::RateLimited { retry_after_ms })
    }

    /// Counts one request from an address; of IPv6 a /64 is one address.
    pub fn check_address(&self, address: IpAddr) -> Result<(), AuthError> {
        let Some(limiter) = &self.0.addresses else { return Ok(()) };
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
            v4 => v4,
        };
        limiter
            .check(&address, self.0.clock.now_ms())
            .map_err(|retry_after_ms| AuthError::RateLimited { retry_after_ms })
    }

    /// Makes a token; administrators only. **On `Ok` it is durable.**
    pub async fn create_token(&self, by: &Principal, token: NewToken) -> Result<IssuedToken, AuthError> {
        only_administrators(by)?;
        let token = NewToken { uid: ordinary(token.uid)?, ..token };
        if token.note.as_ref().is_some_and(|note| note.len() > NOTE_BYTES_MAX) {
            return Err(AuthError::BadField { field: "note", problem: "is longer than 255 bytes" });
        }
        let now_ms = self.0.clock.now_ms();
        if token.expires_ms.is_some_and(|end| end <= now_ms) {
            return Err(AuthError::BadField { field: "expires_ms", problem: "is in the past" });
        }
        let (key, value, info, secret) = Tokens::draw(&token, now_ms)?;
        self.write(key, value).await?;
        Ok(IssuedToken { info, secret })
    }

    /// Tokens by id; administrators only.
    pub async fn tokens(
        &self,
        by: &Principal,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<TokenInfo>, AuthError> {
        only_administrators(by)?;
        let (rows, more) = self.0.tokens.list(cursor, limit.clamp(1, TOKENS_PAGE_MAX))?;
        let next = if more { rows.last().map(|info| info.id.to_string()) } else { None };
        Ok(Paged { rows, next })
    }

    /// Revokes a token; administrators only; again is `Ok`. **On `Ok` it is durable and in force.**
    pub async fn revoke_token(&self, by: &Principal, id: &str) -> Result<TokenInfo, AuthError> {
        only_administrators(by)?;
        let (row, info) = self.0.tokens.revoking(id, self.0.clock.now_ms())?;
        if let Some((key, value)) = row {
            self.write(key, value).await?;
        }
        self.0.tokens.forget(id);
        Ok(info)
    }

    async fn write(&self, key: StateKey, value: Bytes) -> Result<(), AuthError> {
        self.0.appender.write_state(vec![(key, Some(value))]).await.map_err(|error| match error {
            SubmitError::Unavailable(why) => AuthError::Unavailable(why),
            _ => AuthError::Unavailable("the outcome is unknown"),
        })
    }
}

/// The uid of the administrator of the configuration and of development mode.
const ADMIN_UID: &str = "admin";
const NOTE_BYTES_MAX: usize = 255;
const TOKENS_PAGE_MAX: usize = 1000;

fn administrator() -> Principal {
    Principal {
        uid: Uid::parse(ADMIN_UID).expect("INVARIANT: `admin` is a valid uid"),
        scopes: Scopes { user: true, send_as: true, audit: true, admin: true },
        anonymous: false,
        via: None,
    }
}

fn only_administrators(by: &Principal) -> Result<(), AuthError> {
    if by.scopes.admin { Ok(()) } else { Err(AuthError::Forbidden) }
}

/// A uid that a person or service can have.
fn ordinary(uid: Uid) -> Result<Uid, AuthError> {
    if uid.as_str().starts_with(ANONYMOUS_PREFIX) || uid.as_str() == MENTION_ALL {
        return Err(AuthError::BadField { field: "uid", problem: "is reserved" });
    }
    Ok(uid)
}

/// Scopes by name (`user`, `send-as` or `send_as`, `audit`, `admin`); other words mean nothing here.
pub fn parse_scopes<'a>(words: impl IntoIterator<Item = &'a str>) -> Scopes {
    let mut scopes = Scopes::default();
    for word in words {
        match word {
            "user" => scopes.user = true,
            "send-as" | "send_as" => scopes.send_as = true,
            "audit" => scopes.audit = true,
            "admin" => scopes.admin = true,
            _ => {}
        }
    }
    scopes
}

#[cfg(test)]
mod tests;

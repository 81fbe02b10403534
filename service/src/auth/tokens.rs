//! Static tokens: `fl_<id>_<secret>`, both hex. Only a digest of the secret is stored.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use feedlog_core::command::{Principal, Scopes};
use feedlog_core::ids::{TimeMs, Uid};
use feedlog_storage::{Engine, EngineError, StateKey, StateTable};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{AuthError, NewToken, Secret, TokenInfo};

/// Tokens that are remembered after their first use.
const CACHED_MAX: usize = 16_384;
const PREFIX: &str = "fl_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// Tokens as stored, with a cache in front.
pub(super) struct Tokens {
    engine: Arc<dyn Engine>,
    cache: Cache<[u8; ID_BYTES], Arc<Known>>,
    // Held from reading a row to remembering it, and while forgetting: so no row that was read before a revocation is
    // remembered after it.
    loading: Mutex<()>,
}

struct Known {
    principal: Principal,
    digest: [u8; 32],
    expires_ms: Option<TimeMs>,
    revoked: bool,
}

/// The stored form, version 1: JSON behind a version byte. Fields are only ever added, with a default.
#[derive(Serialize, Deserialize)]
struct StoredV1 {
    uid: String,
    digest: String,
    user: bool,
    send_as: bool,
    audit: bool,
    admin: bool,
    created_ms: TimeMs,
    #[serde(default)]
    expires_ms: Option<TimeMs>,
    #[serde(default)]
    revoked_ms: Option<TimeMs>,
    #[serde(default)]
    note: Option<String>,
}

const VERSION: u8 = 1;

impl Tokens {
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, cache: Cache::new(CACHED_MAX), loading: Mutex::new(()) }
    }

    /// Whether a text has the form of a static token.
    pub(super) fn parse(text: &str) -> Option<([u8; ID_BYTES], [u8; SECRET_BYTES])> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Some((from_hex(id)?, from_hex(secret)?))
    }

    /// Whose token this is.
    pub(super) fn authenticate(
        &self,
        id: [u8; ID_BYTES],
        secret: &[u8; SECRET_BYTES],
        now_ms: TimeMs,
    ) -> Result<Principal, AuthError> {
        let known = match self.cache.get(&id) {
            Some(known) => known,
            None => {
                let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
                let stored = self.load(&id)?.ok_or(AuthError::Unauthenticated)?;
                let known = Arc::new(stored.known()?);
                self.cache.insert(id, known.clone());
                known
            }
        };
        let digest = feedlog_storage::digest(secret);
        let same: bool = known.digest.ct_eq(&digest).into();
        let live = !known.revoked && known.expires_ms.is_none_or(|end| now_ms < end);
        if same && live { Ok(known.principal.clone()) } else { Err(AuthError::Unauthenticated) }
    }

    /// A new token: the row to be written, what to list, what to show once.
    pub(super) fn draw(
        token: &NewToken,
        now_ms: TimeMs,
    ) -> Result<(StateKey, Bytes, TokenInfo, Secret), AuthError> {
        let mut id = [0; ID_BYTES];
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut id)
            .and_then(|()| getrandom::fill(&mut secret))
            .map_err(|_| AuthError::Unavailable("no randomness"))?;
        let stored = StoredV1 {
            uid: token.uid.as_str().to_owned(),
            digest: to_hex(&feedlog_storage::digest(&secret)),
            user: token.scopes.user,
            send_as: token.scopes.send_as,
            audit: token.scopes.audit,
            admin: token.scopes.admin,
            created_ms: now_ms,
            expires_ms: token.expires_ms,
            revoked_ms: None,
            note: token.note.as_deref().map(str::to_owned),
        };
        let info = stored.info(&id)?;
        let text = Secret::new(&format!("{PREFIX}{}_{}", to_hex(&id), to_hex(&secret)));
        Ok((key(&id), stored.encode(), info, text))
    }

    /// The row that revokes a token, `None` when it is revoked already.
    pub(super) fn revoking(
        &self,
        id: &str,
        now_ms: TimeMs,
    ) -> Result<(Option<(StateKey, Bytes)>, TokenInfo), AuthError> {
        let id: [u8; ID_BYTES] = from_hex(id).ok_or(AuthError::NotFound)?;
        let mut stored = self.load(&id)?.ok_or(AuthError::NotFound)?;
        if stored.revoked_ms.is_some() {
            return Ok((None, stored.info(&id)?));
        }
        stored.revoked_ms = Some(now_ms);
        Ok((Some((key(&id), stored.encode())), stored.info(&id)?))
    }

    /// Forgets what is remembered of a token, so that the next use reads the durable row.
    pub(super) fn forget(&self, id: &str) {
        if let Some(id) = from_hex::<ID_BYTES>(id) {
            let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
            self.cache.remove(&id);
        }
    }

    /// Tokens by id after `cursor`.
    pub(super) fn list(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<TokenInfo>, bool), AuthError> {
        let after = match cursor {
            None => None,
            Some(text) => Some(
                from_hex::<ID_BYTES>(text)
                    .ok_or(AuthError::BadField { field: "cursor", problem: "is not one of ours" })?,
            ),
        };
        let mut rows = self
            .engine
            .states(StateTable::Token, &[], after.as_ref().map(<[u8; ID_BYTES]>::as_slice), limit + 1)
            .map_err(unavailable)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let infos = rows
            .iter()
            .map(|(key, bytes)| {
                let id = key.key.as_slice().try_into().map_err(|_| DAMAGED)?;
                StoredV1::decode(bytes)?.info(&id)
            })
            .collect::<Result<_, _>>()?;
        Ok((infos, more))
    }

    fn load(&self, id: &[u8; ID_BYTES]) -> Result<Option<StoredV1>, AuthError> {
        match self.engine.state(&key(id)).map_err(unavailable)? {
            None => Ok(None),
            Some(bytes) => StoredV1::decode(&bytes).map(Some),
        }
    }
}

const DAMAGED: AuthError = AuthError::Unavailable("a stored token is damaged");

fn unavailable(error: EngineError) -> AuthError {
    tracing::error!(%error, "tokens cannot be read");
    AuthError::Unavailable("tokens cannot be read")
}

fn key(id: &[u8; ID_BYTES]) -> StateKey {
    StateKey { table: StateTable::Token, key: id.to_vec() }
}

impl StoredV1 {
    fn encode(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, self)
            .expect("INVARIANT: strings, numbers and booleans always encode into memory");
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, AuthError> {
        match bytes.split_first() {
            Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|_| DAMAGED),
            _ => Err(DAMAGED),
        }
    }

    fn scopes(&self) -> Scopes {
        Scopes { user: self.user, send_as: self.send_as, audit: self.audit, admin: self.admin }
    }

    fn known(&self) -> Result<Known, AuthError> {
        Ok(Known {
            principal: Principal {
                uid: Uid::parse(&self.uid).map_err(|_| DAMAGED)?,
                scopes: self.scopes(),
                anonymous: false,
                via: None,
            },
            digest: from_hex(&self.digest).ok_or(DAMAGED)?,
            expires_ms: self.expires_ms,
            revoked: self.revoked_ms.is_some(),
        })
    }

    fn info(&self, id: &[u8; ID_BYTES]) -> Result<TokenInfo, AuthError> {
        Ok(TokenInfo {
            id: to_hex(id).into(),
            uid: Uid::parse(&self.uid).map_err(|_| DAMAGED)?,
            scopes: self.scopes(),
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
            revoked_ms: self.revoked_ms,
            note: self.note.as_deref().map(Arc::from),
        })
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (at, pair) in text.chunks_exact(2).enumerate() {
        bytes[at] = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

//! What all connections share: who holds which session, wills that wait, sessions that end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use feedlog_service::{ReadError, Shelf, Store};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::FRONT_END;
use super::acl::{Access, Acl};
use super::config::MqttConfig;
use super::serve::MqttError;
use super::shared::Groups;
use super::stored::{self, SESSIONS, SessionKey, StoredSession, StoredWill, WILLS};
use super::wills;
use crate::failures::Failures;
use crate::im::Im;
use crate::im::proxy::{Proxy, ProxyConfig};
use crate::pb::Ids;

/// Rows that one look at the shelf takes.
const PAGE: usize = 256;
/// How long a connection whose session was taken over may take to let go.
const RELEASE_WAIT: Duration = Duration::from_secs(10);
/// How often sessions are looked at that may have ended.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Broker {
    pub(crate) store: Store,
    pub(crate) shelf: Shelf,
    pub(crate) config: Arc<MqttConfig>,
    pub(crate) failures: Failures,
    pub(crate) groups: Groups,
    pub(crate) im: Im,
    pub(crate) ids: Ids,
    pub(crate) proxy: Option<Proxy>,
    acl: Option<Acl>,
    sessions: Mutex<HashMap<SessionKey, Arc<Handle>>>,
    wills: Mutex<HashMap<SessionKey, AbortHandle>>,
    connections: AtomicU64,
    started_ms: u64,
}

/// The way to one connection from outside.
pub(crate) struct Handle {
    /// Unique in this process.
    pub(crate) connection: u64,
    asked: Mutex<Option<Asked>>,
    pub(crate) bell: Notify,
    /// Closed when the connection has let go of its session.
    gone: Semaphore,
}

/// What a connection is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Another connection takes the session.
    TakenOver,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    pub(crate) fn asked(&self) -> Option<Asked> {
        *lock(&self.asked)
    }

    fn ask(&self, what: Asked) {
        *lock(&self.asked) = Some(what);
        self.bell.notify_one();
    }
}

impl Broker {
    pub(crate) fn new(store: Store, config: MqttConfig) -> Result<Self, MqttError> {
        let proxy = ProxyConfig { hosts: config.proxy_hosts.clone(), ..ProxyConfig::default() };
        let proxy = (!proxy.hosts.is_empty()).then(|| Proxy::new(&proxy)).transpose()?;
        let acl = config.acl_file.as_deref().map(Acl::load).transpose()?;
        Ok(Self {
            shelf: store.shelf(FRONT_END),
            failures: Failures::new(config.auth_failures_per_address_per_minute),
            groups: Groups::default(),
            im: Im { payload_bytes_max: config.payload_bytes_max, clock: store.clock() },
            ids: Ids::new(&store),
            proxy,
            acl,
            sessions: Mutex::default(),
            wills: Mutex::default(),
            connections: AtomicU64::new(0),
            started_ms: store.now_ms(),
            config: Arc::new(config),
            store,
        })
    }

    /// A new connection.
    pub(crate) fn handle(&self) -> Arc<Handle> {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let (asked, bell) = (Mutex::new(None), Notify::new());
        Arc::new(Handle { connection, asked, bell, gone: Semaphore::new(0) })
    }

    /// A name for a connection, unique over restarts.
    pub(crate) fn name(&self, handle: &Handle) -> String {
        format!("{:x}-m{:x}", self.started_ms, handle.connection)
    }

    /// Whether there is an access control file.
    pub(crate) fn has_acl(&self) -> bool {
        self.acl.is_some()
    }

    /// Whether this session may do this with a free topic.
    pub(crate) fn allows(&self, key: &SessionKey, topic: &str, access: Access) -> bool {
        self.acl.as_ref().is_none_or(|acl| acl.allows(key.user.as_deref(), &key.client_id, topic, access))
    }

    /// Makes the connection the holder of the session. One that holds it is told, and has let go of it when this returns
    /// (`[MQTT-3.1.4-2]`); `false` when it does not in time.
    pub(crate) async fn claim(&self, key: &SessionKey, handle: &Arc<Handle>) -> bool {
        let claim = async {
            loop {
                let holder = match lock(&self.sessions).entry(key.clone()) {
                    Entry::Vacant(free) => {
                        free.insert(handle.clone());
                        return;
                    }
                    Entry::Occupied(held) => held.get().clone(),
                };
                holder.ask(Asked::TakenOver);
                // Nobody ever adds a permit: this ends when it is closed.
                let _ = holder.gone.acquire().await;
            }
        };
        tokio::time::timeout(RELEASE_WAIT, claim).await.is_ok()
    }

    /// Lets go of a session. The late end of a connection does not touch a newer one.
    pub(crate) fn release(&self, key: &SessionKey, handle: &Handle) {
        let mut sessions = lock(&self.sessions);
        if sessions.get(key).is_some_and(|holder| holder.connection == handle.connection) {
            sessions.remove(key);
        }
        drop(sessions);
        handle.gone.close();
    }

    pub(crate) fn is_connected(&self, key: &SessionKey) -> bool {
        lock(&self.sessions).contains_key(key)
    }

    /// Publishes a will when it is due, unless the session is resumed before (MQTT5 `[MQTT-3.1.3-9]`).
    pub(crate) fn await_will(self: &Arc<Self>, key: SessionKey, will: StoredWill) {
        let broker = self.clone();
        let due_ms = will.due_ms.unwrap_or(0);
        let wait = Duration::from_millis(due_ms.saturating_sub(self.store.now_ms()));
        let of = key.clone();
        // Held until it is known, so that one which is due at once finds itself.
        let mut wills = lock(&self.wills);
        let task = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if broker.take_will(&key, tokio::task::id()) {
                wills::publish(&broker, &key, &will).await;
            }
        });
        if let Some(earlier) = wills.insert(of, task.abort_handle()) {
            earlier.abort();
        }
    }

    /// Whether this task is the one that publishes the will.
    fn take_will(&self, key: &SessionKey, task: tokio::task::Id) -> bool {
        let mut wills = lock(&self.wills);
        let own = wills.get(key).is_some_and(|waiting| waiting.id() == task);
        if own {
            wills.remove(key);
        }
        own
    }

    /// Takes over the will that waits: whether there is one that nobody else publishes from now on.
    pub(crate) fn take_waiting_will(&self, key: &SessionKey) -> bool {
        match lock(&self.wills).remove(key) {
            Some(task) => {
                task.abort();
                true
            }
            None => false,
        }
    }

    /// As the end of the process would.
    #[cfg(test)]
    pub(crate) fn abort_wills(&self) {
        for (_, task) in lock(&self.wills).drain() {
            task.abort();
        }
    }

    /// After a start: the connections that were open are gone, so their wills are published (MQTT5 §3.1.2.5 allows a
    /// server to do that after a restart).
    pub(crate) async fn publish_left_wills(self: &Arc<Self>) -> Result<(), ReadError> {
        let mut after = None;
        loop {
            let page = self.shelf.scan(WILLS, after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, value) in page {
                let (Some(key), Ok(mut will)) =
                    (SessionKey::parse(&key), stored::decode::<StoredWill>(&value))
                else {
                    tracing::warn!(front_end = "mqtt", "a stored will is damaged and is left alone");
                    continue;
                };
                if self.is_connected(&key) {
                    continue;
                }
                let now_ms = self.store.now_ms();
                will.due_ms.get_or_insert(now_ms + u64::from(will.delay_s) * 1000);
                self.await_will(key, will);
            }
        }
    }

    /// Removes sessions whose time is over, for ever.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            if let Err(error) = self.sweep_once().await {
                tracing::warn!(front_end = "mqtt", %error, "ended sessions could not be looked for");
            }
        }
    }

    pub(crate) async fn sweep_once(&self) -> Result<(), ReadError> {
        let mut after = None;
        loop {
            let page = self.shelf.scan(SESSIONS, after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, value) in page {
                let (Some(key), Ok(session)) =
                    (SessionKey::parse(&key), stored::decode::<StoredSession>(&value))
                else {
                    continue;
                };
                if session.ended_ms.is_none() || has_ended(&session, self.store.now_ms()) {
                    self.end_session(&key).await?;
                }
            }
        }
    }

    /// Removes a session whose time is over. The time of one whose connection ended with the server begins now.
    async fn end_session(&self, key: &SessionKey) -> Result<(), ReadError> {
        // Held like a connection holds it, so that nobody resumes it meanwhile.
        let handle = self.handle();
        match lock(&self.sessions).entry(key.clone()) {
            Entry::Occupied(_) => return Ok(()),
            Entry::Vacant(free) => drop(free.insert(handle.clone())),
        }
        let ended = self.end_held(key).await;
        self.release(key, &handle);
        ended
    }

    async fn end_held(&self, key: &SessionKey) -> Result<(), ReadError> {
        let Some(value) = self.shelf.get(&key.session()).await? else { return Ok(()) };
        let Ok(mut session) = stored::decode::<StoredSession>(&value) else { return Ok(()) };
        let now_ms = self.store.now_ms();
        if has_ended(&session, now_ms) {
            return self.remove(key).await;
        }
        if session.ended_ms.is_none() {
            session.ended_ms = Some(now_ms);
            let row = (key.session(), Some(stored::encode(&session)));
            self.shelf
                .put(vec![row])
                .await
                .map_err(|_| ReadError::Unavailable("the session could not be written"))?;
        }
        Ok(())
    }

    /// Whether the user of a session has as many sessions as one may have.
    pub(crate) async fn has_too_many(&self, key: &SessionKey) -> Result<bool, ReadError> {
        let max = self.config.sessions_per_user_max;
        let page = self.shelf.scan(&key.sessions_of_user(), None, max).await?;
        Ok(page.len() >= max)
    }

    /// Removes all that is stored of a session, but for its will, which has its own end.
    pub(crate) async fn remove(&self, key: &SessionKey) -> Result<(), ReadError> {
        for prefix in [key.subscriptions(), key.sent(), key.received(), key.session()] {
            loop {
                let page = self.shelf.scan(&prefix, None, PAGE).await?;
                if page.is_empty() {
                    break;
                }
                let rows = page.into_iter().map(|(key, _)| (key, None)).collect();
                self.shelf
                    .put(rows)
                    .await
                    .map_err(|_| ReadError::Unavailable("the session could not be removed"))?;
            }
        }
        Ok(())
    }
}

/// Whether a session's time is over. One whose connection ended with the server counts from the first look on.
pub(crate) fn has_ended(session: &StoredSession, now_ms: u64) -> bool {
    session.ended_ms.is_some_and(|ended| ended.saturating_add(u64::from(session.expiry_s) * 1000) <= now_ms)
}

//! The store that many processes share: Redis or Valkey, alone, under Sentinel or as a cluster. One connection, made
//! when it is needed and again when it is lost; every command has a limit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::SentinelClient;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, Script, ServerErrorKind};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{
    MOST_COMPARED, NAMESPACE, SnapshotEntry, SnapshotKey, SnapshotKind, SnapshotStore, StoreError,
    StoreErrorKind, Storing,
};
use crate::clock::{later, socket_now};

/// The longest that one command may take, where nothing else is set.
const COMMAND: Duration = Duration::from_millis(250);
/// The longest that a connection may take to be made: names, TLS, a sentinel's answer.
const CONNECT: Duration = Duration::from_secs(1);
/// The part of it that one node of a cluster may take: all are tried at once and waited for, so one that answers nobody
/// must leave time to ask the others for the slots.
const CONNECT_NODE: Duration = Duration::from_millis(333);
/// The wait before the second attempt to connect; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Compares and sets in one step. What is no snapshot with an order is replaced, as is another type of value.
const SAVE: &str = r"
local size = redis.pcall('STRLEN', KEYS[1])
if type(size) == 'number' and size > 0 and size <= tonumber(ARGV[5]) then
    local text = redis.call('GET', KEYS[1])
    if ARGV[6] and text ~= ARGV[6] then
        return 0
    end
    local ok, kept = pcall(cjson.decode, text)
    if not ARGV[6] and ok and type(kept) == 'table' and type(kept.order) == 'number'
        and kept.order > tonumber(ARGV[2]) and kept.order <= tonumber(ARGV[3]) then
        return 0
    end
end
if ARGV[4] == '' then
    redis.call('SET', KEYS[1], ARGV[1])
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
end
return 1";

/// Snapshots in Redis or Valkey, under `{namespace}:{tenant}:{provider}`, and denials under the same with `#denials`.
///
/// ```no_run
/// # use std::sync::Arc;
/// use jwks_cache::{Registry, RedisStore, redis::cluster::ClusterClient};
///
/// # fn build() -> jwks_cache::Result<Registry> {
/// let cluster = ClusterClient::new(vec!["redis://10.0.0.1:7000", "redis://10.0.0.2:7000"])?;
/// let store = RedisStore::cluster(cluster).namespace("keys");
/// # Ok(
/// Registry::builder().with_store(Arc::new(store)).build()
/// # )
/// # }
/// ```
pub struct RedisStore {
    server: Server,
    namespace: Arc<str>,
    command_limit: Duration,
    link: Mutex<Link>,
    save: Script,
}

enum Server {
    Single(Client),
    Sentinel(Mutex<SentinelClient>),
    Cluster(ClusterClient),
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// The one connection, or since when there is none.
#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    /// Which connection it is, so that who lost an older one does not close it.
    number: u64,
    failures: u32,
    not_before: Option<Instant>,
}

impl RedisStore {
    /// One server, with TLS and an ACL user where the client's URL says so.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self::of(Server::Single(client))
    }

    /// The master that sentinels name. After a failover they are asked again.
    #[must_use]
    pub fn sentinel(client: SentinelClient) -> Self {
        Self::of(Server::Sentinel(Mutex::new(client)))
    }

    /// A cluster. Slots may move.
    #[must_use]
    pub fn cluster(client: ClusterClient) -> Self {
        Self::of(Server::Cluster(client))
    }

    fn of(server: Server) -> Self {
        let namespace = NAMESPACE.into();
        Self { server, namespace, command_limit: COMMAND, link: Mutex::default(), save: Script::new(SAVE) }
    }

    /// The first part of every key, and what signed snapshots are bound to. Default `jwks-cache`; 1–64 of ASCII letters, digits and `-_.:/`. Under another, every
    /// call is refused.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into().into();
        self
    }

    /// The longest that one command may take; what takes longer has failed, and the connection is made anew. Default
    /// 250 ms: many times what a server nearby needs. No lookup waits for it. With 0 every call is refused.
    #[must_use]
    pub const fn command_limit(mut self, limit: Duration) -> Self {
        self.command_limit = limit;
        self
    }

    pub(crate) fn is_namespace(text: &str) -> bool {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b))
    }

    fn key(&self, key: &SnapshotKey) -> Result<String, StoreError> {
        if !Self::is_namespace(&self.namespace) {
            let rule = "the namespace must be 1 to 64 of ASCII letters, digits and `-_.:/`";
            return Err(StoreError::new(StoreErrorKind::Refused, rule));
        }
        if self.command_limit.is_zero() {
            let rule = "command_limit must not be 0: no command is done in no time";
            return Err(StoreError::new(StoreErrorKind::Refused, rule));
        }
        let SnapshotKey { tenant, provider, kind } = key;
        Ok(match kind {
            SnapshotKind::Keys => format!("{}:{tenant}:{provider}", self.namespace),
            // What stands in no other part: with a colon, a namespace that has one could reach here.
            SnapshotKind::Denials => format!("{}:{tenant}:{provider}#denials", self.namespace),
        })
    }

    /// The connection, made anew where there is none. Between attempts that fail there are waits that grow.
    async fn connection(&self) -> Result<(Connection, u64), StoreError> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok((connection.clone(), link.number));
        }
        if link.not_before.is_some_and(|at| socket_now() < at) {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "no connection; the next attempt waits",
            ));
        }
        let wait = FIRST_WAIT.saturating_mul(1 << link.failures.min(8)).min(LONGEST_WAIT);
        link.failures = link.failures.saturating_add(1);
        link.not_before = Some(later(socket_now(), wait));
        let made = timeout(CONNECT, self.connect()).await.map_err(|_| StoreError::out_of_time(CONNECT))?;
        let connection = made.map_err(|error| failed("no connection could be made", error))?;
        link.number += 1;
        link.connection = Some(connection.clone());
        Ok((connection, link.number))
    }

    async fn connect(&self) -> Result<Connection, RedisError> {
        let config = || {
            AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(self.command_limit))
        };
        Ok(match &self.server {
            Server::Single(client) => {
                Connection::Single(client.get_multiplexed_async_connection_with_config(&config()).await?)
            }
            Server::Sentinel(client) => {
                let mut client = client.lock().await;
                Connection::Single(client.get_async_connection_with_config(&config()).await?)
            }
            Server::Cluster(client) => {
                let config = ClusterConfig::new()
                    .set_connection_timeout(CONNECT_NODE)
                    .set_response_timeout(self.command_limit);
                Connection::Cluster(client.get_async_connection_with_config(config).await?)
            }
        })
    }

    /// Does it on the connection. After a failure that is not about the value, the next makes a new one.
    async fn on_connection<T>(
        &self,
        act: impl AsyncFnOnce(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, StoreError> {
        let (mut connection, number) = self.connection().await?;
        let done = match timeout(self.command_limit, act(&mut connection)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(failed("the command failed", error)),
            Err(_) => Err(StoreError::out_of_time(self.command_limit)),
        };
        let mut link = self.link.lock().await;
        match &done {
            Ok(_) => (link.failures, link.not_before) = (0, None),
            Err(error) if error.concerns_content() => {}
            // Also where it is read-only or loads: another may be the master by now.
            Err(_) if link.number == number => link.connection = None,
            Err(_) => {}
        }
        done
    }
}

impl Connection {
    async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisError> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

fn failed(what: &str, error: RedisError) -> StoreError {
    let kind = match error.kind() {
        redis::ErrorKind::Server(ServerErrorKind::ReadOnly) => StoreErrorKind::Refused,
        _ if error.code() == Some("WRONGTYPE") => StoreErrorKind::Corrupt,
        _ if matches!(error.code(), Some("OOM" | "NOPERM" | "MISCONF" | "NOREPLICAS")) => {
            StoreErrorKind::Refused
        }
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, format!("{what}: {error}")).with_cause(error)
}

impl SnapshotStore for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    /// Two commands and a connection: each has a limit of its own, of [`RedisStore::command_limit`] and 1 s.
    fn time_limit(&self) -> Duration {
        self.command_limit.saturating_mul(2).saturating_add(CONNECT)
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn load<'a>(&'a self, key: &'a SnapshotKey, most: u64) -> Storing<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let key = self.key(key)?;
            // One byte more than is allowed: enough to know.
            let mut command = redis::cmd("GETRANGE");
            command.arg(&key).arg(0).arg(most);
            let bytes: Vec<u8> = self
                .on_connection(async |connection: &mut Connection| connection.query(&command).await)
                .await?;
            if bytes.len() as u64 > most {
                let what = format!("{key} has more than {most} bytes");
                return Err(StoreError::new(StoreErrorKind::TooLarge, what));
            }
            Ok((!bytes.is_empty()).then_some(bytes))
        })
    }

    fn save<'a>(&'a self, key: &'a SnapshotKey, entry: &'a SnapshotEntry) -> Storing<'a, bool> {
        Box::pin(async move {
            let key = self.key(key)?;
            let millis =
                |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1_000, 1 << 53);
            let mut script = self.save.prepare_invoke();
            script
                .key(&key)
                .arg(&entry.bytes)
                .arg(entry.order)
                .arg(entry.newest)
                .arg(entry.keep_for.map_or_else(String::new, |time| millis(time).to_string()))
                .arg(MOST_COMPARED)
                // No argument where there is nothing to say.
                .arg(entry.instead_of.as_ref());
            self.on_connection(async |connection: &mut Connection| match connection {
                Connection::Single(connection) => script.invoke_async(connection).await,
                Connection::Cluster(connection) => script.invoke_async(connection).await,
            })
            .await
        })
    }

    fn remove<'a>(&'a self, key: &'a SnapshotKey) -> Storing<'a, ()> {
        Box::pin(async move {
            let mut command = redis::cmd("DEL");
            command.arg(self.key(key)?);
            self.on_connection(async |connection: &mut Connection| connection.query(&command).await).await
        })
    }
}

impl fmt::Debug for RedisStore {
    /// Without the client: its URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_share_a_key() {
        let mut keys = std::collections::BTreeSet::new();
        let mut names = 0;
        for namespace in ["a", "a:b", "a:b:c", "a:b:c:d"] {
            let client = Client::open("redis://localhost").unwrap();
            let store = RedisStore::new(client).namespace(namespace);
            for tenant in ["b", "c", "d"] {
                for provider in ["b", "c", "d", "denials"] {
                    for kind in [SnapshotKind::Keys, SnapshotKind::Denials] {
                        let key = SnapshotKey { tenant: tenant.into(), provider: provider.into(), kind };
                        keys.insert(store.key(&key).unwrap());
                        names += 1;
                    }
                }
            }
        }
        assert_eq!(keys.len(), names);
    }

    #[test]
    fn settings_that_cannot_work_refuse_every_call() {
        let store = || RedisStore::new(Client::open("redis://127.0.0.1:1/").unwrap());
        let key = SnapshotKey { tenant: "a".into(), provider: "b".into(), kind: SnapshotKind::Keys };
        for (store, what) in [
            (store().namespace("{a}"), "namespace"),
            (store().command_limit(Duration::ZERO), "command_limit"),
        ] {
            let refused = store.key(&key).unwrap_err().to_string();
            assert!(refused.contains(what), "{refused}");
        }
        assert!(store().key(&key).is_ok());
    }

    #[test]
    fn a_namespace_decides_no_slot() {
        for (text, is_one) in [
            ("jwks-cache", true),
            ("a:b/c.d_1", true),
            ("", false),
            ("{a}", false),
            ("a b", false),
            ("ä", false),
        ] {
            assert_eq!(RedisStore::is_namespace(text), is_one, "{text:?}");
        }
        assert!(RedisStore::is_namespace(&"x".repeat(64)) && !RedisStore::is_namespace(&"x".repeat(65)));
    }
}

//! The server: binds, serves three planes, reloads, drains. What the planes answer is said in `data`, `control` and
//! `ops`; how one connection is bounded, in `serve/connection.rs`; how one request is, in `serve/request.rs`.

mod admission;
mod connection;
mod listener;
mod request;
pub(crate) mod stock;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use jwks_cache::{Registry, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, Listen, Problems, Tls};
use crate::{control, data, ops};
use listener::{Bound, Listener};

pub use request::{Peer, RequestId};
pub use tls::Identity;

/// How long all required providers are waited for before `/startupz` says that it has begun.
const WARM_UP: Duration = Duration::from_secs(30);

/// How long the last answers of the ops listener may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How far a server is. Each state follows the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Answering.
    Serving,
    /// Letting requests end, and taking none but those about health.
    Draining,
    /// Taking none.
    Closing,
    /// Gone.
    Ended,
}

/// A running server. Dropping it ends it at once; [`Server::shutdown`] lets requests end first.
#[derive(Debug)]
pub struct Server {
    registry: Registry,
    control: control::State,
    config: watch::Sender<Arc<Config>>,
    phase: watch::Sender<Phase>,
    addresses: Addresses,
    /// Reloads are one after another.
    reloading: tokio::sync::Mutex<()>,
    _tasks: JoinSet<()>,
}

/// Where a server listens, with the ports that it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The data plane.
    pub data: Option<Listen>,
    /// The control plane.
    pub control: Option<Listen>,
    /// Health and metrics.
    pub ops: Option<Listen>,
}

/// Why a server does not start, or does not take a new configuration.
#[derive(Debug)]
pub struct StartError {
    /// The field that says so, as in `data.listen`.
    pub field: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl StartError {
    pub(crate) fn new(field: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

impl std::error::Error for StartError {}

impl From<Problems> for StartError {
    fn from(Problems(mut problems): Problems) -> Self {
        match problems.is_empty() {
            true => Self::new("", "the configuration is refused", "run `jwks-cache check`"),
            false => {
                let first = problems.remove(0);
                Self::new(first.field, first.what, first.remedy)
            }
        }
    }
}

impl Server {
    /// Opens the stores, registers the providers with what the stores kept of them, and listens. Keys that are missing are
    /// fetched in the background. Its providers' numbers are told at `/metrics` of its ops listener and in no recorder;
    /// what the server itself counts goes to the recorder of this process.
    ///
    /// # Errors
    /// What cannot be had, with the field that asked for it and what to do. Nothing is left running then.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let config = Arc::new(config);
        let registry = stock::registry(&config)?;
        let control = admission::state(&config, registry.clone()).await?;
        stock::register_all(&registry, config.registrations(), |of| control.denied(of)).await?;
        control.hold().await.restore().await;

        let (in_force, _) = watch::channel(config.clone());
        let (phase, _) = watch::channel(Phase::Serving);
        let (warm, warmed) = watch::channel(false);
        let planes = Planes {
            data: data::router(
                registry.clone(),
                config.data.public_url.as_ref(),
                config.tls_at(&config.data.listen).is_some(),
                Arc::new(SystemClock),
            ),
            control: admission::router(control.clone(), config.control_is_alone()),
            ops: ops::router(ops::State { registry: registry.clone(), phase: phase.subscribe(), warmed }),
        };
        let mut bound = Vec::new();
        for entrance in entrances(&config, planes) {
            bound.push(Bound::open(entrance, &config.limits).await?);
        }
        let at = |listen: &Listen| {
            bound.iter().find(|bound| bound.asked == *listen).map(|bound| bound.given.clone())
        };
        let addresses = Addresses {
            data: at(&config.data.listen),
            control: at(&config.control_listen()),
            ops: at(&config.ops.listen),
        };

        warn_of_the_open(&config);
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(bound, phase.clone(), registry.clone(), config.limits.drain_timeout.0));
        let warming = registry.clone();
        tasks.spawn(async move {
            warming.warm_up(WARM_UP).await;
            let _ = warm.send(true);
        });
        Ok(Self {
            registry,
            control,
            config: in_force,
            phase,
            addresses,
            reloading: tokio::sync::Mutex::default(),
            _tasks: tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The providers it serves.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// Takes a new configuration, or nothing of it. Providers whose settings are what they were are not touched; those that
    /// are not named any more are forgotten. Listeners, limits, stores and logs stay as they are: where those differ, the
    /// configuration is refused. Returns how many providers changed.
    ///
    /// # Errors
    /// Why it is refused, with the field and what to do.
    pub async fn reload(&self, next: Config) -> Result<usize, StartError> {
        let _alone = self.reloading.lock().await;
        next.check()?;
        let old = self.config();
        if let Some(section) = old.needs_restart_for(&next) {
            return Err(StartError::new(
                section,
                "cannot be changed while the server runs",
                "restart it, or change this back",
            ));
        }
        // Nobody registers what the new file has while it is taken.
        let held = self.control.hold().await;
        let changed = stock::exchange(&self.control, &old, &next).await?;
        admission::apply(&self.control, &next);
        // What the file lets go of may have been registered at run time before.
        held.restore().await;
        drop(held);
        self.config.send_replace(Arc::new(next));
        Ok(changed)
    }

    /// Waits until it has ended.
    pub async fn join(&self) {
        // The sender lives as long as this server.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Ended).await;
    }

    /// Takes no more connections, lets requests end for as long as `limits.drain_timeout`, writes what the stores do not
    /// have yet, and returns when that is done. Until then the ops listener, if it is one of its own, says that the server
    /// is not ready.
    pub async fn shutdown(&self) {
        self.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Serving;
            *phase = (*phase).max(Phase::Draining);
            first
        });
        self.join().await;
    }
}

/// Says what others can see who should perhaps not.
fn warn_of_the_open(config: &Config) {
    let beyond = |listen: &Listen| match listen {
        Listen::Tcp(address) => {
            !["127.", "localhost:", "[::1]:"].iter().any(|near| address.starts_with(near))
        }
        _ => false,
    };
    let control = config.control_listen();
    if beyond(&control) && config.tls_at(&control).is_none() {
        tracing::warn!(address = %control, "control.listen has no TLS: whoever is on the way can read the tokens");
    }
    if beyond(&config.ops.listen) && config.ops.listen == config.data.listen {
        tracing::warn!(address = %config.ops.listen, "ops.listen is data.listen: clients can read the names of all tenants");
    }
}

struct Planes {
    data: Router,
    control: Router,
    ops: Router,
}

/// One address, with what is answered there.
struct Entrance {
    /// What it is called in the log and in metrics.
    name: String,
    field: &'static str,
    listen: Listen,
    tls: Option<Tls>,
    router: Router,
    /// When it closes.
    until: Phase,
}

/// The addresses, each once: planes that share one are merged.
fn entrances(config: &Config, planes: Planes) -> Vec<Entrance> {
    let mut entrances: Vec<Entrance> = Vec::new();
    for (name, field, listen, router, until) in [
        ("data", "data.listen", config.data.listen.clone(), planes.data, Phase::Draining),
        ("control", "control.listen", config.control_listen(), planes.control, Phase::Draining),
        ("ops", "ops.listen", config.ops.listen.clone(), planes.ops, Phase::Closing),
    ] {
        if listen == Listen::Off {
            continue;
        }
        match entrances.iter_mut().find(|entrance| entrance.listen == listen) {
            Some(shared) => {
                shared.name = format!("{}+{name}", shared.name);
                shared.router = std::mem::take(&mut shared.router).merge(router);
            }
            None => {
                let (name, tls) = (name.to_owned(), config.tls_at(&listen).cloned());
                entrances.push(Entrance { name, field, listen, tls, router, until });
            }
        }
    }
    entrances
}

/// Runs the listeners until the server is to end, and ends it.
async fn supervise(bound: Vec<Bound>, phase: watch::Sender<Phase>, registry: Registry, drain: Duration) {
    let (mut early, mut late) = (JoinSet::new(), JoinSet::new());
    for bound in bound {
        let set = if bound.until == Phase::Draining { &mut early } else { &mut late };
        set.spawn(Listener::new(bound, phase.subscribe()).run());
    }
    let _ = phase.subscribe().wait_for(|phase| *phase >= Phase::Draining).await;
    finish(early, drain).await;
    registry.shutdown().await;
    phase.send_replace(Phase::Closing);
    finish(late, LAST_WORDS.min(drain)).await;
    phase.send_replace(Phase::Ended);
}

/// Waits for listeners and their connections; what is not done by then is cut.
async fn finish(mut listeners: JoinSet<()>, most: Duration) {
    let all = async { while listeners.join_next().await.is_some() {} };
    if tokio::time::timeout(most, all).await.is_err() {
        tracing::warn!("requests were cut: they did not end within limits.drain_timeout");
        listeners.shutdown().await;
    }
}

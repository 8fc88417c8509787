//! `jwks-cache serve`: the server among the processes of a machine: signals, files that change, systemd.

mod demonstration;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{ServeArgs, SettingsArgs};
use crate::config::{Loaded, Problem, Problems, Source, Stamp};
use crate::serve::{Server, StartError};
use crate::{logs, ops, terminal};
use demonstration::Demonstration;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long the demonstration's provider is waited for.
const WARM_UP: Duration = Duration::from_secs(10);

const REFUSED: &str = "configuration refused; the last good one stays in force";

/// Serves until a signal ends it.
pub(crate) async fn run(args: &ServeArgs) -> ExitCode {
    let mut source = match source(&args.settings) {
        Ok(source) => source,
        Err(problems) => return refused(&problems),
    };
    let demonstration = match args.demo.then(Demonstration::start).transpose() {
        Ok(demonstration) => demonstration,
        Err(error) => {
            terminal::complain(
                &error,
                "the demonstration needs a port on loopback and a folder for temporary files",
            );
            return ExitCode::from(1);
        }
    };
    if let Some(demonstration) = &demonstration {
        source.file = Some(demonstration.config());
    }
    let (server, mut watch) = match start(source).await {
        Ok(started) => started,
        Err(code) => return code,
    };
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            terminal::complain(
                &error,
                "the machine gives no signals to this process; start it in another way",
            );
            return ExitCode::from(1);
        }
    };
    tell(&[NotifyState::Ready]);
    if let Some(demonstration) = &demonstration {
        // Its provider is in this process; who is quick would see it without keys.
        server.registry().warm_up(WARM_UP).await;
        terminal::print(&demonstration.text(server.addresses()));
    }
    loop {
        tokio::select! {
            () = signals.end.recv() => break,
            _ = signals.reload.recv() => watch.reload(&server).await,
            () = watch.changed() => watch.reload(&server).await,
        }
    }
    tell(&[NotifyState::Stopping]);
    tracing::info!("shutting down");
    tokio::select! {
        () = server.shutdown() => {}
        // Who asks twice does not want to wait.
        () = signals.end.recv() => {}
    }
    ExitCode::SUCCESS
}

/// What the arguments and the environment say.
pub(crate) fn source(args: &SettingsArgs) -> Result<Source, Problems> {
    let named = std::env::var_os("JWKS_CACHE_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from);
    let mut source = Source::of_process(args.config.clone().or(named));
    let flags = [
        ("--data", "data.listen", &args.data),
        ("--control", "control.listen", &args.control),
        ("--ops", "ops.listen", &args.ops),
        ("--state-dir", "state_dir", &args.state_dir),
        ("--log-level", "log.level", &args.log_level),
        ("--log-format", "log.format", &args.log_format),
    ];
    let given = flags.into_iter().filter_map(|(flag, field, value)| Some((flag, field, value.clone()?)));
    source.flags.extend(given.map(|(flag, field, value)| (flag.to_owned(), field.to_owned(), value)));
    for set in &args.set {
        let Some((field, value)) = set.split_once('=') else {
            return Err(Problems::from(crate::config::Problem {
                place: Some(crate::config::Place::Flag("--set".into())),
                field: terminal::shown(set, 80),
                what: "has no = between field and value".into(),
                remedy: "write it as in --set limits.connections=100".into(),
            }));
        };
        source.flags.push(("--set".to_owned(), field.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(source)
}

/// Says what is wrong with a configuration.
pub(crate) fn refused(problems: &Problems) -> ExitCode {
    let text: String = problems.0.iter().map(|problem| format!("error: {problem}\n")).collect();
    eprint!("{text}");
    ExitCode::from(1)
}

async fn start(source: Source) -> Result<(Server, Watch), ExitCode> {
    let Loaded { config, files } = source.load().map_err(|problems| refused(&problems))?;
    let watch = Watch { source, seen: Stamp::of(&files), changing: None, files };
    logs::install(&config.log);
    ops::install_metrics();
    metrics::gauge!("jwks_cache_server_config_last_reload_successful").set(1.0);
    let server = Server::bind(config).await.map_err(|error| {
        terminal::complain(&error, &error.remedy);
        ExitCode::from(1)
    })?;
    Ok((server, watch))
}

struct Signals {
    end: End,
    reload: Signal,
}

/// SIGTERM or Ctrl-C.
struct End(Signal, Signal);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            end: End(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?),
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl End {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// The files of the configuration, and how they looked when they were last read.
struct Watch {
    source: Source,
    files: Vec<PathBuf>,
    seen: Stamp,
    /// How they looked a moment ago, if that was new.
    changing: Option<Stamp>,
}

impl Watch {
    /// Waits until files have changed, and stood still for a moment: they may be written one after another.
    async fn changed(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = Stamp::of(&self.files);
            if now == self.seen {
                self.changing = None;
            } else if self.changing.as_ref() == Some(&now) {
                return;
            } else {
                self.changing = Some(now);
            }
        }
    }

    /// Reads everything again, and has the server take it or nothing.
    async fn reload(&mut self, server: &Server) {
        let mut begun = vec![NotifyState::Reloading];
        begun.extend(NotifyState::monotonic_usec_now());
        tell(&begun);
        self.changing = None;
        // Before reading: what changes while it is read is read again.
        self.seen = Stamp::of(&self.files);
        let mut named = Vec::new();
        let loaded = self.source.load_noting(&mut named);
        // Where these are others than before, they look new, and everything is read once more. What is missing may come, and
        // where not all names are known, those of before are as good as any.
        if loaded.is_err() {
            named = self.files.iter().cloned().chain(named).collect();
            let mut seen = BTreeSet::new();
            named.retain(|file| seen.insert(file.clone()));
        }
        self.files = named;
        let taken = match loaded {
            Ok(config) => match server.reload(config).await {
                Ok(changed) => {
                    tracing::info!(changed, "configuration taken");
                    true
                }
                Err(StartError { field, what, remedy }) => {
                    tracing::error!(field, what, remedy, "{REFUSED}");
                    false
                }
            },
            Err(Problems(problems)) => {
                for Problem { place, field, what, remedy } in problems {
                    let place = place.map(|place| place.to_string()).unwrap_or_default();
                    tracing::error!(place, field, what, remedy, "{REFUSED}");
                }
                false
            }
        };
        metrics::gauge!("jwks_cache_server_config_last_reload_successful").set(f64::from(u8::from(taken)));
        let outcome = if taken { "taken" } else { "refused" };
        metrics::counter!("jwks_cache_server_config_reloads_total", "outcome" => outcome).increment(1);
        tell(&[NotifyState::Ready]);
    }
}

/// Tells systemd, where it asked to be told.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

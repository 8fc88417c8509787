//! The server is killed while it is told things: what it acknowledged is there when it starts again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::folder::Folder;
use crate::stage::{Answer, client_at};
use jwks_cache::reqwest::{Client, Method};
use serde_json::{Value, json};

/// How many tell it things at once.
const WRITERS: usize = 4;
/// How many providers each of them has.
const PROVIDERS: usize = 5;

/// One provider as it should be: its lifetime in seconds and what is denied; `None` where it is not registered.
type Held = Option<(u64, BTreeSet<String>)>;

/// What a writer knows: what was acknowledged, and what was asked last and never answered.
#[derive(Default)]
struct Known {
    acknowledged: BTreeMap<String, Held>,
    pending: Option<(String, Held)>,
}

struct Server(Child);

impl Server {
    async fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jwks-cache"));
        command.args(["serve", "--data", "off", "--ops", "off", "--set", "defaults.require_https=false"]);
        command.arg("--state-dir").arg(folder).env_remove("NOTIFY_SOCKET").env_remove("JWKS_CACHE_CONFIG");
        let server = Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let client = client_at(&folder.join("control.sock"));
        for _ in 0..600 {
            if client.get("http://localhost/tenants").send().await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not start");
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn ask(client: &Client, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
    let mut request = client.request(method, format!("http://localhost{path}"));
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let response = request.send().await.ok()?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    // Cut in the middle of an answer, nothing was acknowledged.
    let bytes = response.bytes().await.ok()?;
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Some(Answer { status, headers, body })
}

/// Tells it things until it is dead.
async fn write(
    client: Client,
    writer: usize,
    mut known: Known,
    count: Arc<AtomicUsize>,
    first: u64,
) -> Known {
    for step in first.. {
        let name = format!("p{writer}-{}", step as usize % PROVIDERS);
        let path = format!("/tenants/acme/providers/{name}");
        let now = known.acknowledged.get(&name).cloned().flatten();
        let (method, path, body, next) = match (step / PROVIDERS as u64 % 4, now) {
            (3, Some(_)) if step % 2 == 0 => (Method::DELETE, path, None, None),
            (1 | 2, Some((lifetime, mut denied))) => {
                let id = format!("k/{step}");
                denied.insert(id.clone());
                (Method::POST, format!("{path}/denials"), Some(json!({"id": id})), Some((lifetime, denied)))
            }
            (_, now) => {
                let lifetime = 1_000 + step;
                let body = json!({"jwksUrl": "http://127.0.0.1:1/", "maxTtl": format!("PT{lifetime}S")});
                let denied = now.map(|(_, denied)| denied).unwrap_or_default();
                (Method::PUT, path, Some(body), Some((lifetime, denied)))
            }
        };
        known.pending = Some((name.clone(), next.clone()));
        let Some(answer) = ask(&client, method, &path, body).await else { return known };
        assert!(answer.status < 300, "{answer:?}");
        known.pending = None;
        known.acknowledged.insert(name, next);
        count.fetch_add(1, Ordering::Relaxed);
    }
    known
}

async fn held(client: &Client, name: &str) -> Held {
    let path = format!("/tenants/acme/providers/{name}");
    let shown = ask(client, Method::GET, &path, None).await.unwrap();
    if shown.status == 404 {
        return None;
    }
    let text = shown.body["maxTtl"].as_str().unwrap();
    let lifetime = text.parse::<jiff::SignedDuration>().unwrap().as_secs().unsigned_abs();
    let denials = ask(client, Method::GET, &format!("{path}/denials"), None).await.unwrap();
    let items = denials.body["items"].as_array().unwrap();
    Some((lifetime, items.iter().map(|of| of["id"].as_str().unwrap().to_owned()).collect()))
}

/// Whether it is so. More may be denied: what was forgotten with a provider can come back from the store of the keys, which writes
/// behind. That is the safe side.
fn fits(is: &Held, want: &Held) -> bool {
    match (is, want) {
        (Some((lifetime, denied)), Some((of, want))) => lifetime == of && denied.is_superset(want),
        (is, want) => is == want,
    }
}

/// Kills it so many times, each time at another moment.
async fn survive(kills: u64) {
    let folder = Folder::new();
    let mut all: Vec<Known> = (0..WRITERS).map(|_| Known::default()).collect();
    let (mut acknowledged, mut cut) = (0, 0);
    for round in 0..=kills {
        let server = Server::start(&folder.0).await;
        let client = client_at(&folder.0.join("control.sock"));
        for known in &mut all {
            let pending = known.pending.take();
            let names: BTreeSet<String> =
                known.acknowledged.keys().chain(pending.iter().map(|(name, _)| name)).cloned().collect();
            for name in names {
                let (is, was) =
                    (held(&client, &name).await, known.acknowledged.get(&name).cloned().flatten());
                let asked = pending.as_ref().filter(|(of, _)| *of == name).map(|(_, held)| held);
                let as_asked = asked.is_some_and(|asked| fits(&is, asked));
                assert!(
                    fits(&is, &was) || as_asked,
                    "{name} is {is:?}, acknowledged {was:?}, asked {asked:?}"
                );
                known.acknowledged.insert(name, is);
            }
        }
        if round == kills {
            break;
        }
        let count = Arc::new(AtomicUsize::new(0));
        let first = round * 1_000;
        let writers: Vec<_> = all
            .drain(..)
            .enumerate()
            .map(|(writer, known)| {
                tokio::spawn(write(
                    client_at(&folder.0.join("control.sock")),
                    writer,
                    known,
                    count.clone(),
                    first,
                ))
            })
            .collect();
        // Spread over what follows the answers, not over time.
        let enough = 5 + usize::try_from(round * 37 % 60).unwrap();
        while count.load(Ordering::Relaxed) < enough {
            tokio::task::yield_now().await;
        }
        server.kill();
        for writer in writers {
            let known = writer.await.unwrap();
            cut += usize::from(known.pending.is_some());
            all.push(known);
        }
        acknowledged += count.load(Ordering::Relaxed);
    }
    println!("{kills} kills: {acknowledged} changes acknowledged, none lost; {cut} cut off in the middle");
    assert!(cut > 0);
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    survive(5).await;
}

#[tokio::test]
#[ignore = "a minute; `cargo xtask test kills`"]
async fn what_was_acknowledged_before_a_hundred_kills_is_there_after_them() {
    survive(100).await;
}

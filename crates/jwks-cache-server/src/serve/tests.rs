//! Listeners on real sockets, with routes that a test can hold: bounds, TLS, drain. Waits here end by what happens; only
//! what is about a time limit takes that time.

#[path = "../../tests/folder/mod.rs"]
mod folder;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::Extension;
use axum::body::Bytes;
use axum::routing::{get, post};
use folder::Folder;
use futures_util::FutureExt as _;
use jwks_cache::reqwest::Client;
use jwks_cache_testkit::IdentityProvider;
use jwks_cache_testkit::tls::Authority;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::connection::{Manners, Signals, Work};
use super::*;
use crate::config::{Limits, Source, Span};

const LONG: Duration = Duration::from_secs(30);

/// One listener, and what ends it.
struct Stage {
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
    address: String,
    /// `/held` says that it was entered, and waits to be let go.
    entered: Arc<Notify>,
    let_go: Arc<Notify>,
}

fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

impl Stage {
    async fn open(limits: Limits, tls: Option<Tls>) -> Self {
        Self::on(Listen::Tcp("127.0.0.1:0".into()), limits, tls).await.unwrap()
    }

    async fn on(listen: Listen, limits: Limits, tls: Option<Tls>) -> Result<Self, StartError> {
        let (entered, let_go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (enter, go) = (entered.clone(), let_go.clone());
        let held = move || async move {
            enter.notify_one();
            go.notified().await;
            "held"
        };
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/held", get(held))
            .route("/panic", get(async || if true { panic!("as asked") } else { "" }))
            .route("/body", post(async |body: Bytes| body.len().to_string()))
            .route("/id", get(async |Extension(id): Extension<RequestId>| id.as_str().to_owned()))
            .route(
                "/who",
                get(async |Extension(peer): Extension<Arc<Peer>>| match &peer.identity {
                    Some(identity) => format!("{} {}", identity.sha256, identity.names.join(",")),
                    None => "nobody".to_owned(),
                }),
            );
        let drain = limits.drain_timeout.0;
        let (name, until) = ("data".into(), Phase::Draining);
        let bound =
            Bound::open(Entrance { name, field: "data.listen", listen, tls, router, until }, &limits).await?;
        let address = bound.given.to_string();
        let (phase, _) = watch::channel(Phase::Serving);
        let task = tokio::spawn(supervise(vec![bound], phase.clone(), Registry::new(), drain));
        Ok(Self { phase, task, address, entered, let_go })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// A connection of its own is answered.
    async fn answers(&self) {
        let answer = client().get(self.url("/")).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "hello");
    }

    async fn end(self) {
        self.phase.send_replace(Phase::Draining);
        self.task.await.unwrap();
    }
}

fn client() -> Client {
    let roots = RootCertStore::empty();
    believing(roots, None)
}

/// A client that believes these authorities, and shows that certificate.
fn believing(roots: RootCertStore, shown: Option<(String, String)>) -> Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots);
    let mut tls = match shown {
        None => tls.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
            tls.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Client::builder().no_proxy().timeout(LONG).tls_backend_preconfigured(tls).build().unwrap()
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.pem().as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

/// What comes until the other side closes. A reset is an end too.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server closes") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_request_in_flight_ends_while_nobody_new_gets_in() {
    let stage = Stage::open(Limits::default(), None).await;
    let in_flight = tokio::spawn(client().get(stage.url("/held")).send());
    stage.entered.notified().await;
    let idle = stage.connect().await;
    stage.phase.send_replace(Phase::Draining);
    while TcpStream::connect(&stage.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!stage.task.is_finished(), "the request in flight is waited for");
    stage.let_go.notify_one();
    let answer = in_flight.await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "held"));
    stage.task.await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let stage = Stage::open(Limits { drain_timeout: seconds(0), ..Limits::default() }, None).await;
    let in_flight = tokio::spawn(client().get(stage.url("/held")).send());
    stage.entered.notified().await;
    stage.end().await;
    assert!(in_flight.await.unwrap().is_err());
}

#[tokio::test]
async fn a_request_has_one_sound_id() {
    let stage = Stage::open(Limits::default(), None).await;
    let long = "x".repeat(65);
    for (given, kept) in [
        (vec!["abc-1_2.Z"], true),
        (vec![], false),
        (vec!["a b"], false),
        (vec!["a\"}"], false),
        (vec![&long], false),
        (vec!["a", "b"], false),
        (vec![""], false),
    ] {
        let mut request = client().get(stage.url("/id"));
        for id in &given {
            request = request.header("x-request-id", *id);
        }
        let answer = request.send().await.unwrap();
        let told = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(answer.text().await.unwrap(), told);
        assert_eq!(given.first() == Some(&told.as_str()), kept, "{given:?} {told}");
        assert!(!told.is_empty() && told.len() <= 64);
    }
    stage.end().await;
}

#[tokio::test]
async fn bodies_handlers_and_times_are_bounded() {
    let limits = Limits { body_bytes: 1000, request_timeout: seconds(1), ..Limits::default() };
    let stage = Stage::open(limits, None).await;
    let post = async |body: jwks_cache::reqwest::Body| {
        let answer = client().post(stage.url("/body")).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(post(vec![b'x'; 1000].into()).await, (200, "1000".into()));
    let (status, text) = post(vec![b'x'; 1001].into()).await;
    assert!(status == 413 && text.contains("body_too_large"), "{status} {text}");
    // Of unknown length.
    let mut chunked = stage.connect().await;
    chunked
        .write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n")
        .await
        .unwrap();
    chunked.write_all(&[b'x'; 2000]).await.unwrap();
    chunked.write_all(b"\r\n0\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    chunked.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");

    let answer = client().get(stage.url("/held")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let answer = client().get(stage.url("/panic")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 500);
    stage.answers().await;
    stage.end().await;
}

#[tokio::test]
async fn slow_headers_are_cut_and_hinder_nobody() {
    let limits = Limits { header_timeout: seconds(1), idle_timeout: seconds(2), ..Limits::default() };
    let stage = Stage::open(limits, None).await;
    let mut slow = Vec::new();
    for begin in [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nx: y\r\n",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = stage.connect().await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // One that was answered, and begins its second request slowly.
    let mut second = stage.connect().await;
    second.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    second.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    second.write_all(b"GET / HT").await.unwrap();
    slow.push(second);
    stage.answers().await;
    for mut stream in slow {
        rest(&mut stream).await;
    }
    stage.answers().await;
    stage.end().await;
}

#[tokio::test]
async fn http2_that_rests_or_crawls_is_cut_and_hinders_nobody() {
    let limits = Limits { header_timeout: seconds(1), idle_timeout: seconds(2), ..Limits::default() };
    let stage = Stage::open(limits, None).await;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // Frames (RFC 9113 §4.1): three bytes of length, type, flags, four of the stream.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // GET / over http, by HPACK's static table (RFC 7541, Appendix A), without :authority.
    const HEADERS: &[u8] = &[0, 0, 3, 1, 0b0000_0101, 0, 0, 0, 1, 0x82, 0x84, 0x86];
    // The same without END_HEADERS: the rest is to come in CONTINUATION frames.
    const BEGUN: &[u8] = &[0, 0, 1, 1, 0b0000_0001, 0, 0, 0, 1, 0x82];
    const BEGUN_SECOND: &[u8] = &[0, 0, 1, 1, 0b0000_0001, 0, 0, 0, 3, 0x82];
    // A part of a frame's head.
    const TORN: &[u8] = &[0, 0];
    let mut opened = Vec::new();
    for frames in [
        &[PREFACE][..],
        &[PREFACE, SETTINGS],
        &[PREFACE, SETTINGS, TORN],
        &[PREFACE, SETTINGS, BEGUN],
        &[PREFACE, SETTINGS, HEADERS],
        &[PREFACE, SETTINGS, HEADERS, BEGUN_SECOND],
    ] {
        let mut stream = stage.connect().await;
        stream.write_all(&frames.concat()).await.unwrap();
        opened.push((frames, stream));
    }
    stage.answers().await;
    for (frames, mut stream) in opened {
        let mut bytes = Vec::new();
        let end = tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("it is cut");
        let asked = frames.contains(&HEADERS);
        let answered = bytes.windows(5).any(|bytes| bytes == b"hello");
        assert!(answered == asked || end.is_err(), "{frames:?}");
    }
    stage.answers().await;
    stage.end().await;
}

#[tokio::test]
async fn who_rests_makes_room_for_who_asks() {
    let stage = Stage::open(Limits { connections: 8, ..Limits::default() }, None).await;
    let mut resting = Vec::new();
    for _ in 0..40 {
        resting.push(stage.connect().await);
    }
    stage.answers().await;
    // Work is not cut for that.
    let working = tokio::spawn(client().get(stage.url("/held")).send());
    stage.entered.notified().await;
    for _ in 0..20 {
        resting.push(stage.connect().await);
    }
    stage.answers().await;
    stage.let_go.notify_one();
    assert_eq!(working.await.unwrap().unwrap().status().as_u16(), 200);
    stage.end().await;
}

#[tokio::test]
async fn handshakes_that_rest_make_room_and_who_has_just_come_is_let_ask() {
    let of = Certified::new(None);
    // Long: only who makes room gets another in.
    let limits = Limits { connections: 8, handshake_timeout: seconds(600), ..Limits::default() };
    let stage = Stage::open(limits, Some(of.tls.clone())).await;
    let mut resting = Vec::new();
    for _ in 0..8 {
        resting.push(stage.connect().await);
    }
    let answer = believing(roots(&of.authority), None).get(Certified::url(&stage, "/")).send().await;
    assert_eq!(answer.unwrap().status().as_u16(), 200);
    stage.end().await;
}

#[tokio::test]
async fn who_has_just_come_is_not_asked_to_leave_at_once() {
    let (work, manners) = (Work::default(), Manners::new(&Limits::default()));
    let (press, pressed) = watch::channel(());
    let (_phase, phase) = watch::channel(Phase::Serving);
    let signals = Signals { phase, until: Phase::Draining, pressed };
    let mut going = std::pin::pin!(connection::has_to_go(&work, &manners, signals));
    press.send_replace(());
    assert_eq!(going.as_mut().now_or_never(), None, "it may have come this moment");
    press.send_replace(());
    assert_eq!(going.as_mut().now_or_never(), Some(false));
}

#[tokio::test]
async fn a_mebibyte_of_headers_is_refused() {
    let stage = Stage::open(Limits::default(), None).await;
    let mut stream = stage.connect().await;
    let headers = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    // It may hang up before it has read all of that.
    let _ = stream.write_all(headers.as_bytes()).await;
    let said = rest(&mut stream).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    stage.answers().await;
    stage.end().await;
}

#[tokio::test]
async fn a_pipelined_flood_is_answered_in_turn_and_hinders_nobody() {
    const FLOOD: usize = 5_000;
    let stage = Stage::open(Limits::default(), None).await;
    let (mut read, mut write) = stage.connect().await.into_split();
    let writing = tokio::spawn(async move {
        write.write_all("GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(FLOOD).as_bytes()).await.unwrap();
        write
    });
    stage.answers().await;
    let (mut seen, mut bytes) = (0, Vec::new());
    let mut chunk = vec![0; 64 << 10];
    while seen < FLOOD {
        let length = read.read(&mut chunk).await.unwrap();
        assert!(length > 0, "closed after {seen}");
        bytes.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        seen += text.matches("HTTP/1.1 200").count();
        // What may be the start of the next one stays.
        bytes = bytes.split_off(bytes.len().saturating_sub(11));
    }
    stage.answers().await;
    drop(writing.await.unwrap());
    stage.end().await;
}

struct Certified {
    folder: Folder,
    authority: Authority,
    tls: Tls,
}

impl Certified {
    fn new(client_ca: Option<&Authority>) -> Self {
        let (folder, authority) = (Folder::new(), Authority::new("servers"));
        let certificate = authority.server(&["localhost", "127.0.0.1"]);
        let tls = Tls {
            certificate: folder.write("cert.pem", &certificate.chain_pem()),
            key: folder.write("key.pem", &certificate.key_pem()),
            client_ca: client_ca.map(|authority| folder.write("clients.pem", &authority.pem())),
        };
        Self { folder, authority, tls }
    }

    fn url(stage: &Stage, path: &str) -> String {
        let (_, port) = stage.address.rsplit_once(':').unwrap();
        format!("https://localhost:{port}{path}")
    }
}

#[tokio::test]
async fn tls_speaks_http2_and_garbage_is_sent_away() {
    let of = Certified::new(None);
    let stage =
        Stage::open(Limits { handshake_timeout: seconds(1), ..Limits::default() }, Some(of.tls.clone()))
            .await;
    let url = Certified::url(&stage, "/");
    let hello = async || {
        let answer = believing(roots(&of.authority), None).get(&url).send().await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_2, 200));
    };
    hello().await;
    let mut bad = Vec::new();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0xff; 4096], &[0x16, 0x03, 0x01, 0x40], b""] {
        let mut stream = stage.connect().await;
        let _ = stream.write_all(bytes).await;
        bad.push(stream);
    }
    hello().await;
    for mut stream in bad {
        assert!(!rest(&mut stream).await.contains("HTTP/1.1 200"));
    }
    hello().await;
    stage.end().await;
}

#[tokio::test]
async fn planes_that_share_an_address_share_its_tls() {
    let (of, idp) = (Certified::new(None), IdentityProvider::start());
    let text = format!(
        "state_dir = {:?}\ndata.listen = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificate = {:?}, key = {:?} }}\n\
         [defaults]\nrequire_https = false\nprivate_networks = \"allow\"\n[tenants.acme.providers.main]\n\
         jwks_url = \"{}\"\nissuer = \"https://id.example.com\"\nrequire_https = false\n",
        of.folder.0.join("state"),
        of.tls.certificate,
        of.tls.key,
        idp.jwks_url(),
    );
    let file = Some(of.folder.write("c.toml", &text));
    let server = Server::bind(Source { file, ..Source::default() }.load().unwrap().config).await.unwrap();
    let Some(Listen::Tcp(address)) = &server.addresses().data else { panic!("it listens") };
    let base = format!("https://localhost:{}", address.rsplit_once(':').unwrap().1);
    let path = "/tenants/acme/providers/main/.well-known/openid-configuration";
    let asked = believing(roots(&of.authority), None).get(format!("{base}{path}")).send().await.unwrap();
    let text = asked.text().await.unwrap();
    assert!(text.contains(&format!("\"{base}/tenants/acme/providers/main/jwks\"")), "{text}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    // What was refused is seen in its count; no other test of this process changes a certificate.
    crate::ops::install_metrics();
    let of = Certified::new(None);
    let stage = Stage::open(Limits::default(), Some(of.tls.clone())).await;
    let url = Certified::url(&stage, "/");
    let asked =
        async |authority: &Authority| believing(roots(authority), None).get(&url).send().await.is_ok();
    assert!(asked(&of.authority).await);
    let next = Authority::new("next");
    let certificate = next.server(&["localhost"]);
    // Not the key of this certificate yet: the old pair stays in force until both are there.
    of.folder.write("cert.pem", &certificate.chain_pem());
    assert!(asked(&of.authority).await);
    of.folder.write("key.pem", &certificate.key_pem());
    while !asked(&next).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refusals = || {
        let text = jwks_cache::metrics::prometheus_handle().unwrap().render();
        let counted = text.lines().find_map(|line| {
            line.strip_prefix("jwks_cache_server_certificate_reloads_total{")?
                .contains("outcome=\"refused\"")
                .then(|| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        });
        counted.unwrap_or_default()
    };
    let before = refusals();
    of.folder.write("cert.pem", "nothing of use");
    while refusals() == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(asked(&next).await);
    stage.end().await;
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_and_its_names_are_told() {
    let (ours, theirs) = (Authority::new("clients"), Authority::new("others"));
    let of = Certified::new(Some(&ours));
    let stage = Stage::open(Limits::default(), Some(of.tls.clone())).await;
    let url = Certified::url(&stage, "/who");
    let ask = async |shown| believing(roots(&of.authority), shown).get(&url).send().await;
    let pair = |authority: &Authority| {
        let certificate = authority.client("deployer.example");
        Some((certificate.chain_pem(), certificate.key_pem()))
    };
    assert!(ask(None).await.is_err());
    assert!(ask(pair(&theirs)).await.is_err());
    let shown = pair(&ours);
    let leaf = CertificateDer::from_pem_slice(shown.as_ref().unwrap().0.as_bytes()).unwrap();
    let told = ask(shown).await.unwrap().text().await.unwrap();
    let (sha256, names) = told.split_once(' ').unwrap();
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &leaf);
    assert_eq!(sha256, digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(names, "dns:deployer.example", "and no common name beside it");
    stage.end().await;
    // Without alternative names, its common name is what it has.
    let bare = ours.server(&[]);
    let leaf = CertificateDer::from_pem_slice(bare.chain_pem().as_bytes()).unwrap();
    assert_eq!(tls::identity(Some(&[leaf])).unwrap().names, ["cn:leaf of a test"]);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_with_its_field() {
    let of = Certified::new(None);
    let other = of.authority.server(&["localhost"]);
    let tls = |certificate: &Path, key: &Path, client_ca: Option<&Path>| Tls {
        certificate: certificate.into(),
        key: key.into(),
        client_ca: client_ca.map(Into::into),
    };
    let (empty, foreign) = (of.folder.write("empty.pem", ""), of.folder.write("other.pem", &other.key_pem()));
    let missing = of.folder.0.join("missing.pem");
    let Tls { certificate, key, .. } = &of.tls;
    for (tls, field) in [
        (tls(&missing, key, None), "data.tls.certificate"),
        (tls(&empty, key, None), "data.tls.certificate"),
        (tls(certificate, &missing, None), "data.tls.key"),
        (tls(certificate, &empty, None), "data.tls.key"),
        (tls(certificate, &foreign, None), "data.tls.key"),
        (tls(certificate, key, Some(&empty)), "data.tls.client_ca"),
        (tls(certificate, key, Some(&missing)), "data.tls.client_ca"),
    ] {
        let listen = Listen::Tcp("127.0.0.1:0".into());
        let refused = Stage::on(listen, Limits::default(), Some(tls)).await.err().unwrap();
        assert_eq!(refused.field, field, "{refused}");
        assert!(!refused.remedy.is_empty());
    }
}

#[tokio::test]
async fn a_socket_is_for_its_owner_replaces_a_stale_one_and_goes_with_the_server() {
    let folder = Folder::new();
    let path = folder.0.join("new/of.sock");
    let listen = Listen::Unix(path.clone());
    let open = async || Stage::on(listen.clone(), Limits::default(), None).await;
    let stage = open().await.unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.ends_with("hello"), "{said}");

    let refused = open().await.err().unwrap();
    assert!(refused.what.contains("another process listens there"), "{refused}");
    stage.end().await;
    assert!(!path.exists());

    // As a process leaves it that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let stage = open().await.unwrap();
    stage.end().await;
    std::fs::write(&path, "mine").unwrap();
    let refused = open().await.err().unwrap();
    assert!(refused.what.contains("something else is there"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

//! Client certificates and their times: every route with one that is good, and with ones that are not, at the handshake or
//! after it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use jwks_cache::{Clock as _, SystemClock};
use jwks_cache_server::{Listen, Server, Source};
use jwks_cache_testkit::IdentityProvider;
use jwks_cache_testkit::tls::{Authority, Certificate};
use serde_json::json;

use crate::access::{ROUTES, about_main};
use crate::folder::Folder;
use crate::stage::{Caller, client_showing, settings, token};

/// A server whose control plane asks for client certificates of one authority, and knows `deployer.example`, beside the
/// token `all-write`.
struct Stage {
    server: Server,
    /// Its files.
    _folder: Folder,
    idp: IdentityProvider,
    servers: Authority,
    clients: Authority,
    url: String,
}

impl Stage {
    async fn open() -> Self {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let (folder, idp) = (Folder::new(), IdentityProvider::start());
        let certificate = servers.server(&["127.0.0.1"]);
        let text = format!(
            "state_dir = {:?}\ndata.listen = \"off\"\nops.listen = \"off\"\n\
             [defaults]\nrequire_https = false\nprivate_networks = \"allow\"\n\
             [control]\nlisten = \"127.0.0.1:0\"\n\
             tls = {{ certificate = {:?}, key = {:?}, client_ca = {:?} }}\n\
             [[control.clients]]\nname = \"deployer\"\nidentity = \"dns:deployer.example\"\naccess = \"write\"\n\
             [[control.tokens]]\nname = \"all-write\"\ntoken_file = {:?}\naccess = \"write\"\n",
            folder.0.join("state"),
            folder.write("cert.pem", &certificate.chain_pem()),
            folder.write("key.pem", &certificate.key_pem()),
            folder.write("clients.pem", &clients.pem()),
            folder.write("token", &token("all-write")),
        );
        let file = Some(folder.write("c.toml", &text));
        let loaded = Source { file, ..Source::default() }.load().unwrap();
        let server = Server::bind(loaded.config).await.unwrap();
        let Some(Listen::Tcp(address)) = &server.addresses().control else { panic!("it listens") };
        let url = format!("https://{address}");
        Self { server, _folder: folder, idp, servers, clients, url }
    }

    /// Somebody with this certificate and a connection of their own.
    fn caller(&self, shown: &Certificate, http2: bool) -> Caller {
        let client = client_showing(shown, &self.servers, http2);
        Caller { client, url: self.url.clone(), token: None }
    }

    /// The provider and its denied key, which the routes are asked about.
    async fn set_up(&self, good: &Caller) {
        let main = "/tenants/acme/providers/main";
        let put = good.put(main, &settings(&self.idp)).await;
        let denied = good.post(&format!("{main}/denials"), &json!({"id": "k9"})).await;
        assert!(put.status == 202 && denied.status < 300, "{put:?} {denied:?}");
    }

    async fn end(self) {
        self.server.shutdown().await;
    }
}

const LONG: Duration = Duration::from_secs(30);

const NAME: &str = "deployer.example";

fn hours_from_now(hours: i64) -> DateTime<Utc> {
    SystemClock.wall() + chrono::TimeDelta::hours(hours)
}

#[tokio::test]
async fn no_route_answers_a_certificate_that_is_not_good_at_the_handshake() {
    let stage = Stage::open().await;
    let good = stage.caller(&stage.clients.client(NAME), true);
    let foreign = Authority::new("clients");
    let during = |from, to| stage.clients.client_during(NAME, hours_from_now(from)..=hours_from_now(to));
    let bad = [
        ("expired", during(-48, -1)),
        ("not good yet", during(1, 48)),
        ("another authority's of the same name", foreign.client(NAME)),
        ("a server's", stage.clients.server(&[NAME])),
    ];
    for (method, route, _, status) in ROUTES {
        stage.set_up(&good).await;
        let (path, body) = about_main(method, route, &stage.idp);
        for (what, certificate) in &bad {
            for token in [None, Some(token("all-write"))] {
                let caller = Caller { token, ..stage.caller(certificate, false) };
                let asked = caller.try_to_ask(method, &path, body.as_ref(), &[]).await;
                assert!(asked.is_err(), "{method} {route}, {what}: {asked:?}");
            }
        }
        // The same, asked by who may.
        let answer = good.ask(method, &path, body.as_ref()).await;
        assert_eq!(answer.status, status, "{method} {route}: {answer:?}");
    }
    stage.end().await;
}

#[tokio::test]
async fn no_route_answers_on_a_connection_whose_certificate_has_expired_meanwhile() {
    let stage = Stage::open().await;
    let good = stage.caller(&stage.clients.client(NAME), true);
    stage.set_up(&good).await;
    for http2 in [false, true] {
        let (soon, callers) = connected(&stage, http2).await;
        while SystemClock.wall().timestamp() <= soon.timestamp() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for (at, (method, route, ..)) in ROUTES.into_iter().enumerate() {
            let (path, body) = about_main(method, route, &stage.idp);
            // A token does not mend it: with the certificate of now there would be no connection to send it on.
            let token = (at % 2 == 1).then(|| token("all-write"));
            let caller = Caller { token, ..callers[at].clone() };
            let refused = caller.ask(method, &path, body.as_ref()).await;
            let what = format!("{method} {route}: {refused:?}");
            assert_eq!((refused.status, &refused.body["error"]), (401, &json!("unauthenticated")), "{what}");
            assert!(refused.body["detail"].as_str().unwrap().contains("expired"), "{what}");
            assert!(refused.header("www-authenticate").starts_with("Bearer"), "{what}");
            // It was the last answer on that connection, and there is no other.
            let turned_away = async {
                while caller.try_to_ask("GET", "/tenants", None, &[]).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(LONG, turned_away).await.expect("the connection ends");
        }
        assert_eq!(good.get("/tenants/acme/providers/main").await.status, 200, "nothing was done");
    }
    stage.end().await;
}

/// As many callers as there are routes, each on an open connection, and the last second of their certificate. The machine
/// may be slow: it is one that lives as long as it takes to connect them.
async fn connected(stage: &Stage, http2: bool) -> (DateTime<Utc>, Vec<Caller>) {
    'longer: for seconds in [2, 4, 8, 16, 32, 64] {
        let soon = SystemClock.wall() + chrono::TimeDelta::seconds(seconds);
        let certificate = stage.clients.client_during(NAME, hours_from_now(-1)..=soon);
        let mut callers = Vec::new();
        for _ in ROUTES {
            let caller = stage.caller(&certificate, http2);
            match caller.try_to_ask("GET", "/tenants", None, &[]).await {
                Ok(answer) if answer.status == 200 => callers.push(caller),
                _ => continue 'longer,
            }
        }
        return (soon, callers);
    }
    panic!("a minute is too short to connect {} callers", ROUTES.len());
}

//! The examples as they are printed, beside the demo's provider: real processes on real sockets.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "../../jwks-cache/examples/tonic_service/greeter.rs"]
#[allow(dead_code, reason = "the side of a service is in it too")]
mod greeter;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use jwks_cache_acceptance::built;
use serde::Deserialize;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response};

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts what was built beside this test.
fn start(program: &str, args: &[&str]) -> (Process, BufReader<std::process::ChildStdout>) {
    let mut child =
        Command::new(built(program, "services")).args(args).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (Process(child), stdout)
}

#[derive(Deserialize)]
struct Provider {
    issuer: String,
    token: String,
}

/// The demo's provider.
fn provider() -> (Process, Provider) {
    let (process, stdout) = start("jwks-cache", &["demo", "--serve", "--port", "0", "--json"]);
    let mut documents = serde_json::Deserializer::from_reader(stdout).into_iter();
    (process, documents.next().unwrap().unwrap())
}

/// An example for tokens of that issuer, and its address.
fn example(name: &str, issuer: &str) -> (Process, String) {
    let (process, stdout) = start(&format!("examples/{name}"), &[issuer, "127.0.0.1:0"]);
    let line = stdout.lines().next().unwrap().unwrap();
    (process, line.strip_prefix("listening on ").unwrap().to_owned())
}

async fn get(client: &reqwest::Client, url: &str, token: Option<&str>) -> (u16, String) {
    let request = client.get(url);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn each_service_greets_whom_the_demo_gave_a_token_and_nobody_else() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (_provider, Provider { issuer, token }) = provider();
    for name in ["axum_service", "tower_service", "actix_service"] {
        let (_service, address) = example(name, &issuer);
        let url = format!("http://{address}/");
        assert_eq!(get(&client, &url, Some(&token)).await, (200, "hello ada\n".to_owned()), "{name}");
        for bad in [None, Some("x"), Some(&token[..token.len() - 4])] {
            let (status, body) = get(&client, &url, bad).await;
            assert!(status == 401 && body.contains("error"), "{name}: {status} {body}");
        }
        if name == "tower_service" {
            assert_eq!(get(&client, &format!("{url}healthz"), None).await, (200, "ok\n".to_owned()));
        }
    }
    let (_service, address) = example("tonic_service", &issuer);
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let call = async |token: &str| {
        let mut request = Request::new("hello".to_owned());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        greeter::greet(channel.clone(), request).await.map(Response::into_inner)
    };
    assert_eq!(call(&token).await.unwrap(), "hello ada");
    assert_eq!(call("x").await.unwrap_err().code(), Code::Unauthenticated);
}

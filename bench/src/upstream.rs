//! Identity providers by number, in a process of their own, so that what they cost is not counted: `/n` is a
//! set of four RSA keys (1.8 kB) that no other number has.
//!
//! The moduli are random odd numbers. That is all a parser looks at; nobody can sign for them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The argument that makes this program the upstream.
pub const ARGUMENT: &str = "--be-upstream";

pub const KEYS: usize = 4;

/// The running process; it ends when this is dropped.
pub struct Upstream {
    process: Child,
    port: u16,
}

impl Upstream {
    pub fn start() -> Self {
        let program = std::env::current_exe().expect("a running program has a path");
        let mut process = Command::new(program)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let output = process.stdout.take().expect("it was piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("it tells its port");
        Self { process, port: line.trim().parse().expect("it tells its port") }
    }

    pub fn url(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}/{number}", self.port)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The kid of one key of provider `number`.
pub fn kid(number: usize, key: usize) -> String {
    format!("{key}f3a9c1d2e4b57680-{number:06}")
}

/// The document of provider `number`, the same in every process.
pub fn document(number: usize) -> String {
    let mut dice = fastrand::Rng::with_seed(number as u64);
    let keys: Vec<String> = (0..KEYS)
        .map(|key| {
            let kid = kid(number, key);
            let n = modulus(&mut dice);
            format!(r#"{{"kty":"RSA","use":"sig","alg":"RS256","kid":"{kid}","e":"AQAB","n":"{n}"}}"#)
        })
        .collect();
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// 2048 bits in base64url: the highest and the lowest are set.
fn modulus(dice: &mut fastrand::Rng) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut digit = |of: std::ops::Range<usize>| char::from(DIGITS[dice.usize(of)]);
    let mut text = String::with_capacity(342);
    text.push(digit(32..64));
    text.extend((1..341).map(|_| digit(0..64)));
    text.push('Q');
    text
}

/// Serves until its standard input closes.
pub fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the machine can start threads");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        println!("{}", listener.local_addr().expect("it is bound").port());
        let _ = std::io::stdout().flush();
        std::thread::spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            std::process::exit(0);
        });
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket));
        }
    });
}

async fn answer(mut socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let mut asked = Vec::new();
    loop {
        while !asked.ends_with(b"\r\n\r\n") {
            match socket.read_buf(&mut asked).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let path = String::from_utf8_lossy(&asked);
        let path = path.split(' ').nth(1).and_then(|path| path.split('?').next()).unwrap_or_default();
        let body = document(path.trim_start_matches('/').parse().unwrap_or(0));
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: max-age=3600\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        asked.clear();
    }
}

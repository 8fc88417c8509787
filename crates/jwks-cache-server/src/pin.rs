//! `jwks-cache pin`: which keys vouch for a server, ready to be pasted as pins. What is verified, and how, is the
//! library's affair.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jwks_cache::{Error, Material, PathCertificate, TlsSettings, certificate_path};
use serde_json::{Value, json};
use url::Url;

use crate::cli::PinArgs;
use crate::terminal::{self, Paint, Table};

/// The exit code when there is nothing to pin.
const NOTHING: u8 = 2;
/// Longer than any handshake that is worth waiting for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the server that `args` name, and prints the pins of its certificate path.
pub(crate) async fn run(args: &PinArgs) -> ExitCode {
    let Some(url) = url_of(&args.host) else {
        let name = terminal::shown(&args.host, 200);
        terminal::complain(
            &*Box::<dyn std::error::Error>::from(format!("{name} is not a host")),
            "give a host, with a port if it is not 443, as in id.example.com:8443",
        );
        return ExitCode::from(NOTHING);
    };
    let mut tls = TlsSettings::default();
    tls.ca = args.ca.as_ref().map(|path: &PathBuf| Material::file(path));
    match certificate_path(&url, &tls, PATIENCE).await {
        Ok(path) => {
            let said = if args.json { terminal::json(&as_json(&path)) } else { as_text(&url, &path) };
            terminal::print(&said);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let remedy = match &error {
                Error::Validation { .. } => "correct what the message names",
                _ => "check host and port; if the provider has an authority of its own, name it with --ca",
            };
            terminal::complain(&error, remedy);
            ExitCode::from(NOTHING)
        }
    }
}

/// The server's URL: of a host, with or without a port, or of any https URL there.
fn url_of(host: &str) -> Option<Url> {
    let url = if host.contains("://") { host.to_owned() } else { format!("https://{host}/") };
    let bare = |url: &Url| url.username().is_empty() && url.password().is_none();
    Url::parse(&url).ok().filter(|url| url.has_host() && bare(url))
}

/// The place of the certificate at `index` of `count`.
fn role(index: usize, count: usize) -> &'static str {
    match index {
        0 => "server",
        _ if index + 1 == count => "root",
        _ => "intermediate",
    }
}

fn pin_text(certificate: &PathCertificate) -> String {
    format!("{:?}", certificate.pin)
}

fn as_json(path: &[PathCertificate]) -> Value {
    let of = |(index, one): (usize, &PathCertificate)| json!({"role": role(index, path.len()), "name": one.name, "pin": pin_text(one)});
    json!({"path": path.iter().enumerate().map(of).collect::<Vec<_>>()})
}

fn as_text(url: &Url, path: &[PathCertificate]) -> String {
    let paint = Paint::for_stdout();
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let mut lines = vec![format!("Certificate path of {host}:{port}, verified"), String::new()];
    let mut table = Table::new(["CERTIFICATE", "PIN (SHA-256 OF ITS PUBLIC KEY)", "NAME"]);
    for (index, one) in path.iter().enumerate() {
        table.push([role(index, path.len()).into(), pin_text(one), terminal::shown(&one.name, 60)]);
    }
    lines.extend(table.lines(|row, _, cell| if row == 0 { paint.dim(cell) } else { cell.to_owned() }));
    let pins = |from: usize| {
        let pins: Vec<_> =
            path.iter().skip(from).take(1).map(|one| json!(pin_text(one)).to_string()).collect();
        format!("\"pinned_spki\": [{}]", pins.join(", "))
    };
    lines.extend([
        String::new(),
        "One pin on the path is enough, so the widest one that you list decides:".to_owned(),
        "  server        the strictest; ends when the provider changes its key, so also list its next one".to_owned(),
        "  intermediate  outlives renewals; whoever else it certifies for this host passes too".to_owned(),
        "  root          outlives changes of intermediates; the least that a pin can say".to_owned(),
        "Always list a second pin that you can change over to, and try pins with \"pin_mode\": \"report_only\".".to_owned(),
        String::new(),
        format!("  {}", paint.bold(&pins(0))),
    ]);
    if path.len() > 1 {
        lines.push(format!("  {}", paint.bold(&pins(1))));
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_have_a_port_and_may_be_a_url() {
        let check = |given: &str, want: Option<&str>| {
            assert_eq!(url_of(given).map(|url| url.to_string()).as_deref(), want, "{given}");
        };
        check("id.example.com", Some("https://id.example.com/"));
        check("id.example.com:8443", Some("https://id.example.com:8443/"));
        check("[::1]:8443", Some("https://[::1]:8443/"));
        check("https://id.example.com/jwks", Some("https://id.example.com/jwks"));
        for none in ["", "a b", "user@id.example.com", "id.example.com:port"] {
            check(none, None);
        }
    }
}

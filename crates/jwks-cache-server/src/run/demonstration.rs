//! `jwks-cache serve --demo`: an identity provider of our own behind the server, and five lines to try it with.

use std::io;
use std::path::{Path, PathBuf};

use jwks_cache_testkit::IdentityProvider;

use crate::config::Listen;
use crate::serve::Addresses;
use crate::terminal::Paint;

/// A provider, and a folder with the configuration that names it; both go when this is dropped.
pub(super) struct Demonstration {
    idp: IdentityProvider,
    folder: PathBuf,
}

impl Demonstration {
    /// Starts the provider, and writes the configuration.
    pub(super) fn start() -> io::Result<Self> {
        let idp = IdentityProvider::builder().cache_control("max-age=60").try_start()?;
        let folder = std::env::temp_dir().join(format!("jwks-cache-serve-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let demonstration = Self { idp, folder };
        std::fs::write(demonstration.config(), demonstration.settings())?;
        Ok(demonstration)
    }

    /// The file of settings. Flags and variables count more.
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("jwks-cache.toml")
    }

    fn settings(&self) -> String {
        format!(
            "# Change it while the server runs: it is read again.\n\
             state_dir = {:?}\nlog.level = \"warn\"\n\n\
             [defaults]\nrequire_https = false   # the demonstration's provider speaks http, on loopback\n\
             private_networks = {{ deny_except = [\"127.0.0.1\"] }}\n\n\
             [tenants.acme.providers.main]\njwks_url = \"{}\"\nissuer = \"{}\"\nrequire_https = false\n",
            self.folder.join("state"),
            self.idp.jwks_url(),
            self.idp.issuer(),
        )
    }

    /// What to try, for a server at these addresses.
    pub(super) fn text(&self, at: &Addresses) -> String {
        let paint = Paint::for_stdout();
        let curl = |listen: &Option<Listen>, more: &str, path: &str| match listen {
            Some(Listen::Tcp(address)) => format!("curl -sS {more}http://{address}{path}"),
            Some(Listen::Unix(socket)) => {
                format!("curl -sS --unix-socket {} {more}http://localhost{path}", quoted(socket))
            }
            Some(Listen::Off) | None => format!("# not listened for: {path}"),
        };
        let url = self.idp.jwks_url();
        let registration = format!(
            "-X PUT -H 'content-type: application/json' -d '{{\"jwksUrl\":\"{url}\",\"requireHttps\":false}}' "
        );
        let denial = "-H 'content-type: application/json' -d '{\"id\":\"k1\",\"reason\":\"trying it out\"}' ";
        let main = "/tenants/acme/providers/main";
        let lines = [
            ("The keys, for any service", curl(&at.data, "", &format!("{main}/jwks"))),
            ("Ready?", curl(&at.ops, "", "/readyz")),
            ("How the provider is doing", curl(&at.control, "", &format!("{main}/status"))),
            (
                "Another tenant, at run time",
                curl(&at.control, &registration, "/tenants/globex/providers/main"),
            ),
            ("Switch a key off, at once", curl(&at.control, denial, &format!("{main}/denials"))),
        ];
        let mut text =
            format!("A server with a provider to try, until you press Ctrl-C: {}\n", self.config().display());
        for (what, line) in lines {
            text.push_str(&format!("\n  {}\n  {line}\n", paint.dim(what)));
        }
        text
    }
}

impl Drop for Demonstration {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

//! What a registration says about dialling, made ready for an exchange: files read, clients at hand.
//!
//! Files are looked at again for each exchange, never for a reader of keys. They are small, and exchanges are minutes
//! apart, so their content is compared; times of change lie where links are swapped, as Kubernetes does.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};

use super::caller::{Caller, Callers};
use super::identity::{ClientPem, Identity};
use super::notes::{Note, Notes};
use super::pins::Pins;
use super::settings::{ClientCertificate, Material, Transport, bearer};
use super::tls;
use crate::security::SpkiFingerprint;
use crate::sync::{Mutex, lock};

/// Ten times a machine's bundle of roots.
const MOST_BYTES: u64 = 1 << 20;

/// How a provider is dialled, and what of that is ready.
#[derive(Default)]
pub(crate) struct Dial {
    settings: Arc<Transport>,
    pins: Pins,
    held: Mutex<Held>,
    turn: Arc<Turns<()>>,
}

/// What the last exchange used.
#[derive(Default)]
struct Held {
    ca: Kept<Arc<[u8]>>,
    client_certificate: Kept<Arc<ClientPem>>,
    token: Kept<HeaderValue>,
    home: Option<Arc<Caller>>,
    away: Option<Arc<Caller>>,
}

/// What one exchange dials and sends.
#[derive(Clone)]
pub(crate) struct Present {
    /// Towards the registered origin.
    pub(crate) home: Arc<Caller>,
    /// Towards any other.
    pub(crate) away: Arc<Caller>,
    pub(crate) sent: SentHeaders,
}

impl Present {
    /// Who asks the registered origin, or any other.
    pub(crate) fn caller(&self, at_home: bool) -> &Arc<Caller> {
        if at_home { &self.home } else { &self.away }
    }
}

/// What each request carries besides what makes it one of ours.
#[derive(Clone, Default)]
pub(crate) struct SentHeaders {
    /// Headers and token, for the registered origin alone.
    pub(crate) secret: HeaderMap,
    pub(crate) user_agent: Option<HeaderValue>,
}

/// A setting cannot be used, and never could be.
#[derive(Debug)]
pub(crate) struct Unready {
    pub(crate) setting: &'static str,
    pub(crate) reason: String,
}

impl Dial {
    pub(crate) fn new(settings: Arc<Transport>, pins: Pins) -> Self {
        Self { settings, pins, ..Self::default() }
    }

    /// The settings of its own that a registration has over these; these themselves if it has none.
    pub(crate) fn under(self: &Arc<Self>, own: Transport, pins: Pins) -> Arc<Self> {
        if own == Transport::default() && pins.is_empty() {
            return self.clone();
        }
        Arc::new(Self::new(Arc::new(own.over(&self.settings)), pins))
    }

    /// As [`Transport::check`].
    ///
    /// # Errors
    /// As [`Transport::check`].
    pub(crate) fn check(&self) -> crate::Result<()> {
        self.settings.check()
    }

    /// As [`Transport::check_proxy`].
    ///
    /// # Errors
    /// As [`Transport::check_proxy`].
    pub(crate) fn check_proxy(&self) -> crate::Result<()> {
        self.settings.check_proxy()
    }

    /// Feeds everything that makes what it brings different from what another brings.
    pub(crate) fn identify(&self, hasher: &mut impl Hasher) {
        self.settings.hash(hasher);
        self.pins.hash(hasher);
    }

    fn has_pins(&self) -> bool {
        !self.pins.is_empty()
    }

    /// The first setting that is a matter of the client's, and so of no use with one that was handed in. Such a one
    /// may follow redirects, and takes along what it does not know to be secret: all headers but `Authorization`.
    pub(crate) fn for_our_client_only(&self) -> Option<&'static str> {
        let Transport { tls, proxy, connect_timeout, private_networks, headers, .. } = &*self.settings;
        let stays_home = |name: &String| name.eq_ignore_ascii_case(header::AUTHORIZATION.as_str());
        let set = [
            ("pinned_spki", self.has_pins()),
            ("tls", *tls != super::TlsSettings::default()),
            ("proxy", proxy.is_some()),
            ("connect_timeout", connect_timeout.is_some()),
            ("private_networks", !private_networks.is_open()),
            ("headers", !headers.keys().all(stays_home)),
        ];
        set.into_iter().find_map(|(name, set)| set.then_some(name))
    }

    /// The first setting that goes into requests, and so is of no use with a fetcher that was handed in.
    pub(crate) fn for_our_requests_only(&self) -> Option<&'static str> {
        let Transport { headers, bearer_token, user_agent, .. } = &*self.settings;
        let set = [
            ("headers", !headers.is_empty()),
            ("bearer_token", bearer_token.is_some()),
            ("user_agent", user_agent.is_some()),
        ];
        set.into_iter().find_map(|(name, set)| set.then_some(name))
    }

    /// Whether going from `self` to `next` believes fewer servers, or others, or asks as somebody else: then what is
    /// held must go. Servers at fewer addresses are fewer.
    pub(crate) fn is_tightened_by(&self, next: &Self) -> bool {
        let (old, new) = (&self.settings.tls, &next.settings.tls);
        // Roots that are added to the machine's loosen, and so does going back to the machine's beside the same.
        let roots_loosened = !new.replace_roots && (old.ca.is_none() || old.ca == new.ca);
        let roots_changed = (&old.ca, old.replace_roots) != (&new.ca, new.replace_roots);
        self.pins.is_tightened_by(&next.pins)
            || (roots_changed && !roots_loosened)
            || old.client_certificate != new.client_certificate
            || !self.settings.private_networks.is_loosened_by(&next.settings.private_networks)
    }

    /// What [`Self::is_tightened_by`] compares. Files count by their names: what is in them may be renewed.
    pub(crate) fn trust(&self) -> serde_json::Value {
        let tls = &self.settings.tls;
        let shown = tls.client_certificate.as_ref().map(|certificate| &certificate.chain);
        let pins: Vec<&[u8; 32]> = self.pins.enforced().iter().map(SpkiFingerprint::as_bytes).collect();
        serde_json::json!((pins, &tls.ca, tls.replace_roots, shown, self.settings.private_networks.all()))
    }

    /// What is ready as it is, if nothing has to be read or built.
    pub(crate) fn at_hand(&self) -> Option<Present> {
        if self.settings.reads_files() {
            return None;
        }
        // Whoever holds it is building what is wanted here, and that takes a while.
        let held = self.held.try_lock().ok()?;
        let present = self.present(&held).ok().flatten()?;
        (present.home.is_built() && present.away.is_built()).then_some(present)
    }

    /// Waits until nobody else is at [`Dial::ready`] or [`Dial::headers`] with files: those waiting there would each
    /// keep a thread.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// Reads what has to be read, and builds what is not there yet. It blocks: see [`Dial::turn`].
    ///
    /// # Errors
    /// [`Unready`] for a file that has never been good, or a client that cannot be built.
    pub(crate) fn ready(&self, callers: &Callers, notes: &Notes) -> Result<Present, Unready> {
        let mut guard = lock(&self.held);
        let held = &mut *guard;
        self.read(held, notes)?;
        let identity = self.identity(held);
        if held.home.as_ref().is_none_or(|home| *home.identity != identity) {
            let away = identity.towards_strangers();
            held.home = Some(callers.intern(identity));
            held.away = Some(callers.intern(away));
        }
        if let Some(home) = &held.home {
            // The one copy of what may be large is the identity's.
            if let (Some(own), Some(shared)) = (&mut held.ca.good, &home.identity.ca) {
                own.clone_from(shared);
            }
        }
        for caller in held.home.iter().chain(&held.away) {
            caller.clients().map_err(|reason| Unready { setting: "tls", reason })?;
        }
        self.present(held)?.ok_or_else(|| Unready { setting: "tls", reason: "no client".to_owned() })
    }

    /// The headers alone, for a client that was handed in. It blocks.
    ///
    /// # Errors
    /// As [`Dial::ready`].
    pub(crate) fn headers(&self, notes: &Notes) -> Result<SentHeaders, Unready> {
        let mut held = lock(&self.held);
        self.read_token(&mut held, notes)?;
        self.sent(&held)
    }

    /// The headers alone, where no file has to be read for them.
    pub(crate) fn headers_at_hand(&self) -> Option<SentHeaders> {
        let inline = !matches!(self.settings.bearer_token, Some(Material::File(_)));
        inline.then(|| self.headers(&Notes::default()).ok()).flatten()
    }

    fn present(&self, held: &Held) -> Result<Option<Present>, Unready> {
        let (Some(home), Some(away)) = (&held.home, &held.away) else { return Ok(None) };
        Ok(Some(Present { home: home.clone(), away: away.clone(), sent: self.sent(held)? }))
    }

    fn sent(&self, held: &Held) -> Result<SentHeaders, Unready> {
        let invalid = |setting| move |reason| Unready { setting, reason };
        let mut secret =
            self.settings.headers().map_err(|error| error.to_string()).map_err(invalid("headers"))?;
        if let Some(token) = &held.token.good {
            secret.insert(header::AUTHORIZATION, token.clone());
        }
        let user_agent = self.settings.user_agent.as_deref().map(HeaderValue::from_str).transpose();
        let user_agent = user_agent.map_err(|error| error.to_string()).map_err(invalid("user_agent"))?;
        Ok(SentHeaders { secret, user_agent })
    }

    fn identity(&self, held: &Held) -> Identity {
        Identity {
            ca: held.ca.good.clone(),
            replace_roots: self.settings.tls.replace_roots,
            client_certificate: held.client_certificate.good.clone(),
            min_version: self.settings.tls.min_version.unwrap_or_default(),
            pins: self.pins.clone(),
            proxy: self.settings.proxy.clone(),
            connect_timeout: self.settings.connect_timeout(),
            private_networks: self.settings.private_networks.clone(),
        }
    }

    fn read(&self, held: &mut Held, notes: &Notes) -> Result<(), Unready> {
        if let Some(ca) = &self.settings.tls.ca {
            held.ca.renew("tls.ca", &[ca], notes, |texts| {
                let [pem] = texts else { return Err("is not there".to_owned()) };
                tls::roots(pem)?;
                Ok(pem.as_slice().into())
            })?;
        }
        if let Some(ClientCertificate { chain, key }) = &self.settings.tls.client_certificate {
            held.client_certificate.renew("tls.client_certificate", &[chain, key], notes, |texts| {
                let [chain, key] = texts else { return Err("is not there".to_owned()) };
                tls::certified(chain, key)?;
                Ok(Arc::new(ClientPem { chain: chain.clone(), key: key.clone() }))
            })?;
        }
        self.read_token(held, notes)
    }

    fn read_token(&self, held: &mut Held, notes: &Notes) -> Result<(), Unready> {
        let Some(token) = &self.settings.bearer_token else { return Ok(()) };
        held.token.renew("bearer_token", &[token], notes, |texts| {
            let [token] = texts else { return Err("is not there".to_owned()) };
            bearer(token)
        })
    }
}

impl Transport {
    fn reads_files(&self) -> bool {
        let mut materials: Vec<_> = self.tls.ca.iter().chain(&self.bearer_token).collect();
        if let Some(ClientCertificate { chain, key }) = &self.tls.client_certificate {
            materials.extend([chain, key]);
        }
        materials.iter().any(|material| matches!(material, Material::File(_)))
    }
}

/// Says nothing: it holds keys and tokens.
impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dial")
    }
}

/// The last good reading of a setting, and what was looked at last.
struct Kept<T> {
    good: Option<T>,
    /// The digest of what was read last, or why it could not be read.
    seen: Option<Result<[u8; 32], String>>,
    /// What is wrong with that.
    wrong: Option<String>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { good: None, seen: None, wrong: None }
    }
}

impl<T> Kept<T> {
    /// Looks again at where a setting comes from. What cannot be used leaves the last good reading in force, and is
    /// noted once.
    fn renew(
        &mut self,
        setting: &'static str,
        from: &[&Material],
        notes: &Notes,
        parse: impl FnOnce(&[Vec<u8>]) -> Result<T, String>,
    ) -> Result<(), Unready> {
        let read: Result<Vec<_>, _> = from.iter().map(|material| text(material)).collect();
        let seen = read.as_ref().map(|texts| digest(texts)).map_err(Clone::clone);
        if self.seen.as_ref() != Some(&seen) {
            self.seen = Some(seen);
            match read.and_then(|texts| parse(&texts)) {
                Ok(good) => (self.good, self.wrong) = (Some(good), None),
                Err(wrong) => {
                    let reason = match from.iter().find_map(|material| path(material)) {
                        Some(path) => format!("{} {wrong}", path.display()),
                        None => wrong,
                    };
                    if self.good.is_some() {
                        notes.add(Note::OldKept { setting, reason: reason.clone() });
                    }
                    self.wrong = Some(reason);
                }
            }
        }
        match (&self.good, &self.wrong) {
            (None, Some(reason)) => Err(Unready { setting, reason: reason.clone() }),
            _ => Ok(()),
        }
    }
}

fn path(material: &Material) -> Option<&Path> {
    match material {
        Material::File(path) => Some(path),
        Material::Inline(_) => None,
    }
}

fn text(of: &Material) -> Result<Vec<u8>, String> {
    match of {
        Material::File(path) => read_file(path),
        Material::Inline(text) => Ok(text.expose().as_bytes().to_vec()),
    }
}

/// Reads a file that is one: a pipe would be waited for without end. It blocks.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    read_at_most(path, MOST_BYTES)
}

/// The same, of at most so many bytes.
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let cannot = |error| format!("cannot be read: {error}");
    let about = fs::metadata(path).map_err(cannot)?;
    if !about.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut read = Vec::new();
    let opened = File::open(path);
    opened.and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut read)).map_err(cannot)?;
    if read.len() as u64 > most {
        return Err(format!("is larger than {most} bytes"));
    }
    Ok(read)
}

fn digest(texts: &[Vec<u8>]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dial::PinMode;
    use crate::security::SpkiFingerprint;

    fn dial(change: impl FnOnce(&mut Transport)) -> Dial {
        let mut settings = Transport::default();
        change(&mut settings);
        Dial::new(Arc::new(settings), Pins::default())
    }

    #[test]
    fn ten_thousand_equal_providers_share_one_caller_which_goes_with_the_last() {
        let callers = Callers::default();
        let seconds = |n: u64| move |of: &mut Transport| of.connect_timeout = Some(Duration::from_secs(n));
        let mut equal: Vec<_> = (0..10_000).map(|_| dial(seconds(2))).collect();
        // What is sent per request makes no other caller; nor does the default, spelt out or not.
        equal.push(dial(|of| of.user_agent = Some("other/1".into())));
        equal.push(dial(|of| drop(of.headers.insert("x-key".into(), "1".into()))));
        for dial in &equal {
            dial.ready(&callers, &Notes::default()).unwrap();
        }
        assert_eq!(callers.count(), 1);
        let others: Vec<_> = (3..13).map(|n| dial(seconds(n))).collect();
        for dial in &others {
            dial.ready(&callers, &Notes::default()).unwrap();
        }
        assert_eq!(callers.count(), 11);
        drop(others);
        assert_eq!(callers.count(), 1);
        drop(equal);
        assert_eq!(callers.count(), 0);
    }

    #[test]
    fn pins_and_their_mode_make_another_caller() {
        let callers = Callers::default();
        let pins = [SpkiFingerprint::of(b"key")];
        let modes = [PinMode::Enforce, PinMode::ReportOnly];
        let mut dials: Vec<_> = modes.map(|mode| Dial::new(Arc::default(), Pins::new(&pins, mode))).into();
        dials.push(Dial::default());
        for dial in &dials {
            dial.ready(&callers, &Notes::default()).unwrap();
        }
        assert_eq!(callers.count(), 3);
    }

    #[test]
    fn what_cannot_be_used_leaves_the_old_in_force_and_is_noted_once() {
        let (mut kept, notes) = (Kept::default(), Notes::default());
        let mut renew = |text: &str| {
            let token = Material::inline(text);
            let outcome = kept.renew("bearer_token", &[&token], &notes, |texts| bearer(&texts[0]));
            (outcome.map_err(|unready| unready.reason), kept.good.clone(), notes.take().len())
        };
        let good = |text| Some(HeaderValue::from_static(text));
        let (outcome, none, noted) = renew(" ");
        assert!(outcome.unwrap_err().contains("not empty"));
        assert_eq!((none, noted), (None, 0));
        assert_eq!(renew("a\n"), (Ok(()), good("Bearer a"), 0));
        assert_eq!(renew("a b"), (Ok(()), good("Bearer a"), 1));
        assert_eq!(renew("a b"), (Ok(()), good("Bearer a"), 0));
        assert_eq!(renew("c"), (Ok(()), good("Bearer c"), 0));
        assert_eq!(renew(""), (Ok(()), good("Bearer c"), 1));
    }

    #[test]
    fn roots_and_client_certificates_that_change_tighten_unless_they_only_add_roots() {
        let tls = |ca: Option<&'static str>, replace_roots| {
            dial(|of| (of.tls.ca, of.tls.replace_roots) = (ca.map(Material::file), replace_roots))
        };
        let (machine, added, alone) = (tls(None, false), tls(Some("a"), false), tls(Some("a"), true));
        for (old, new, tightened) in [
            (&machine, &added, false),
            (&machine, &alone, true),
            (&added, &alone, true),
            (&added, &machine, true),
            (&alone, &added, false),
            (&alone, &machine, true),
            (&alone, &tls(Some("b"), true), true),
            (&alone, &tls(Some("b"), false), true),
            (&added, &added, false),
        ] {
            assert_eq!(old.is_tightened_by(new), tightened, "{:?} {:?}", old.settings, new.settings);
        }
        let shown = |name: &str| {
            let material = Material::file(name);
            let certificate = ClientCertificate { chain: material.clone(), key: material };
            dial(|of| of.tls.client_certificate = Some(certificate))
        };
        assert!(machine.is_tightened_by(&shown("a")) && shown("a").is_tightened_by(&shown("b")));
        assert!(shown("a").is_tightened_by(&machine) && !shown("a").is_tightened_by(&shown("a")));
    }

    #[test]
    fn what_is_trusted_has_one_text_and_other_trust_another() {
        type Change = fn(&mut Transport);
        let changes: [Change; 7] = [
            |_| {},
            |of| of.tls.ca = Some(Material::file("a")),
            |of| of.tls.ca = Some(Material::inline("a")),
            |of| (of.tls.ca, of.tls.replace_roots) = (Some(Material::file("a")), true),
            |of| of.private_networks = jwks_cache_core::address::PrivateNetworks::Deny.into(),
            |of| {
                let (chain, key) = (Material::file("chain"), Material::file("key"));
                of.tls.client_certificate = Some(ClientCertificate { chain, key });
            },
            |of| of.tls.client_certificate = None,
        ];
        let pinned = |pins: &[u8], mode| {
            let pins: Vec<_> = pins.iter().map(|byte| SpkiFingerprint::of(&[*byte])).collect();
            Dial::new(Arc::default(), Pins::new(&pins, mode))
        };
        let (enforced, reported) = (PinMode::Enforce, PinMode::ReportOnly);
        let all: Vec<Dial> = changes
            .map(dial)
            .into_iter()
            .chain([pinned(&[1], enforced), pinned(&[1, 2], enforced), pinned(&[2, 1], enforced)])
            .chain([pinned(&[1], reported), dial(|of| of.user_agent = Some("other".to_owned()))])
            .collect();
        for old in &all {
            for new in &all {
                let tightened = old.is_tightened_by(new) || new.is_tightened_by(old);
                assert_eq!(old.trust() != new.trust(), tightened, "{} {}", old.trust(), new.trust());
            }
        }
    }

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let folder = std::env::temp_dir().join(format!("jwks-cache-material-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let large = folder.join("large");
        fs::write(&large, vec![b'a'; MOST_BYTES as usize + 1]).unwrap();
        let refused = |path: &Path, why: &str| {
            let reason = read_file(path).unwrap_err();
            assert!(reason.contains(why), "{reason}");
        };
        refused(&large, "larger");
        refused(&folder, "not a regular file");
        refused(&folder.join("none"), "cannot be read");
        fs::remove_dir_all(&folder).unwrap();
    }
}

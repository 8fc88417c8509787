//! Who may do what: tokens and client certificates, each with its tenants and its rights. How they come here, over which
//! socket, is not known here; nor what the routes do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What a token must have at least to be looked at.
pub const SHORTEST: usize = crate::config::SHORTEST_TOKEN;

/// A token's SHA-256, which is all that configuration keeps of it.
///
/// A fast hash is enough, because a token has 256 random bits: nobody finds one by trying, so there is nothing to slow down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

/// A guess can be checked by it: it is not for logs.
impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(hidden)")
    }
}

/// A new token: `jwkc_` and 32 random bytes.
///
/// # Errors
/// When the machine has no randomness to give.
pub fn new_token() -> Result<String, Unspecified> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(format!("jwkc_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Look.
    Read,
    /// Look, register, refresh, remove, deny and allow.
    Write,
}

/// In which tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In all, those that come later too.
    All,
    /// In these.
    Tenants(BTreeSet<String>),
}

impl Reach {
    pub(super) fn covers(&self, tenant: &str) -> bool {
        match self {
            Self::All => true,
            Self::Tenants(tenants) => tenants.contains(tenant),
        }
    }
}

/// Who somebody is to us, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What the audit log calls them.
    pub name: String,
    /// In which tenants.
    pub tenants: Reach,
    /// What they may do there.
    pub right: Right,
}

/// A client certificate that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of its DER.
    pub sha256: [u8; 32],
    /// What its authority vouches for, each with its kind: `uri:`, `dns:`, `email:`, `cn:`.
    pub names: Vec<String>,
}

/// Who is at the other end of a connection, before anything was said. The listener puts it into each request's extensions;
/// where it does not, it is [`Peer::Anyone`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// Nobody that we know.
    #[default]
    Anyone,
    /// Whoever may open a Unix socket of mode 0600 that leads to the control plane alone: may do everything, as long as nobody
    /// else is known. Once there are credentials, they count here too.
    Owner,
    /// Who showed this certificate.
    Certificate(Identity),
}

/// Which client certificate is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Any of this name with its kind, as in `dns:deployer.example`; its authority says who may have it.
    Named(String),
    /// The one of this SHA-256.
    Exactly([u8; 32]),
}

/// Who is let in. Default [`Peer::Owner`], who is so only while nobody else is.
#[derive(Clone, Debug, Default)]
pub struct Access {
    tokens: Vec<(TokenHash, Arc<Grant>)>,
    certificates: Vec<(Certificate, Arc<Grant>)>,
}

impl Access {
    /// Lets in who sends the token of this hash.
    #[must_use]
    pub fn token(mut self, hash: TokenHash, grant: Grant) -> Self {
        self.tokens.push((hash, Arc::new(grant)));
        self
    }

    /// Lets in who shows this certificate.
    #[must_use]
    pub fn certificate(mut self, which: Certificate, grant: Grant) -> Self {
        self.certificates.push((which, Arc::new(grant)));
        self
    }

    /// Who that is. A token counts before a certificate: who sends a wrong one is not let in by what a connection has.
    pub(super) fn who(&self, token: Presented<'_>, peer: &Peer) -> Result<Arc<Grant>, Stranger> {
        match (token, peer) {
            (Presented::Unreadable, _) => Err(Stranger::WrongToken),
            (Presented::Token(token), _) => self.of_token(token).ok_or(Stranger::WrongToken),
            (Presented::Nothing, Peer::Owner) if self.is_empty() => {
                let (name, tenants) = ("owner of the socket".to_owned(), Reach::All);
                Ok(Arc::new(Grant { name, tenants, right: Right::Write }))
            }
            (Presented::Nothing, Peer::Certificate(of)) => {
                let fits = |which: &Certificate| match which {
                    Certificate::Named(name) => of.names.contains(name),
                    Certificate::Exactly(sha256) => *sha256 == of.sha256,
                };
                let found = self.certificates.iter().find(|(which, _)| fits(which));
                found.map(|(_, grant)| grant.clone()).ok_or(Stranger::WithoutToken)
            }
            (Presented::Nothing, Peer::Anyone | Peer::Owner) => Err(Stranger::WithoutToken),
        }
    }

    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.certificates.is_empty()
    }

    /// Looks at every hash to its end, so that the time says neither which one nor how much of it fits.
    fn of_token(&self, token: &str) -> Option<Arc<Grant>> {
        let TokenHash(hash) = TokenHash::of(token);
        let mut found = None;
        for (kept, grant) in &self.tokens {
            if verify_slices_are_equal(&kept.0, &hash).is_ok() {
                found = Some(grant);
            }
        }
        found.filter(|_| token.len() >= SHORTEST).cloned()
    }
}

/// What a request has in `Authorization`.
pub(super) enum Presented<'a> {
    Nothing,
    Token(&'a str),
    /// Something that is no bearer token, or several.
    Unreadable,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    WithoutToken,
    WrongToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert!(one.len() >= SHORTEST + 16 && one != other);
    }

    #[test]
    fn a_token_that_a_person_chose_lets_nobody_in() {
        let grant = || Grant { name: "x".to_owned(), tenants: Reach::All, right: Right::Read };
        let access = Access::default().token(TokenHash::of("admin"), grant());
        assert_eq!(access.who(Presented::Token("admin"), &Peer::Anyone), Err(Stranger::WrongToken));
        let long = "admin".repeat(8);
        let access = access.token(TokenHash::of(&long), grant());
        assert!(access.who(Presented::Token(&long), &Peer::Anyone).is_ok());
    }
}

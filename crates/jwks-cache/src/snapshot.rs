//! A key set as it is stored: the promised JSON, and the rules it must keep to come back.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::registration::IdentityProviderRegistration;

/// How far in the future a snapshot may lie, for machines whose clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// A provider's keys outside the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PersistentSnapshot {
    /// The tenant it belongs to.
    pub tenant_id: String,
    /// The provider it belongs to.
    pub provider_id: String,
    /// The published document, without keys that carry private members.
    pub jwks_json: String,
    /// The `ETag` it came with.
    pub etag: Option<String>,
    /// The `Last-Modified` it came with.
    #[serde(default)]
    pub last_modified: Option<DateTime<Utc>>,
    /// Fresh until.
    pub expires_at: DateTime<Utc>,
    /// When the provider last answered with it, by a 200 or a 304.
    pub persisted_at: DateTime<Utc>,
}

impl PersistentSnapshot {
    /// Checks that it belongs to `registration` and keeps its bounds.
    ///
    /// # Errors
    /// [`Error::Validation`] naming the snapshot's field.
    pub fn validate(&self, registration: &IdentityProviderRegistration) -> Result<()> {
        if self.tenant_id != registration.tenant_id {
            return Err(Error::validation("tenant_id", "the snapshot belongs to another tenant"));
        }
        if self.provider_id != registration.provider_id {
            return Err(Error::validation("provider_id", "the snapshot belongs to another provider"));
        }
        if self.jwks_json.len() as u64 > registration.max_response_bytes {
            let most = registration.max_response_bytes;
            return Err(Error::validation("jwks_json", format!("has more than {most} bytes")));
        }
        if self.etag.as_ref().is_some_and(|etag| !etag.is_ascii()) {
            return Err(Error::validation("etag", "must be ASCII"));
        }
        if self.expires_at < self.persisted_at {
            return Err(Error::validation("expires_at", "must not be before persisted_at"));
        }
        Ok(())
    }

    /// How old it is by the wall clock.
    pub(crate) fn age(&self, wall: DateTime<Utc>) -> Result<Duration> {
        match (wall - self.persisted_at).to_std() {
            Ok(age) => Ok(age),
            Err(_) if (self.persisted_at - wall).to_std().is_ok_and(|ahead| ahead <= CLOCK_SKEW) => {
                Ok(Duration::ZERO)
            }
            Err(_) => Err(Error::validation("persisted_at", "lies more than 60 s in the future")),
        }
    }
}

//! A key set as it is stored: the promised JSON, and the rules it must keep to come back.

use std::time::Duration;

use chrono::{DateTime, Utc};
use jwks_cache_core::snapshot::{Belongs, DenialLog, Envelope, FORMAT, KeyRing};
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
        self.is_named(&registration.tenant_id, &registration.provider_id)?;
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

    pub(crate) fn is_named(&self, tenant: &str, provider: &str) -> Result<()> {
        if self.tenant_id != tenant {
            return Err(Error::validation("tenant_id", "the snapshot belongs to another tenant"));
        }
        if self.provider_id != provider {
            return Err(Error::validation("provider_id", "the snapshot belongs to another provider"));
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

/// A snapshot as stores keep it: what is promised, and what stands around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredKeys {
    #[serde(flatten)]
    pub(crate) snapshot: PersistentSnapshot,
    #[serde(flatten)]
    pub(crate) envelope: Envelope,
}

/// The denials of a provider as stores keep them, which outlive its keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredDenials {
    pub(crate) tenant_id: String,
    pub(crate) provider_id: String,
    pub(crate) format: u32,
    pub(crate) order: u64,
    pub(crate) denials: DenialLog,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
}

/// Something that is stored with a code over all the rest of it.
pub(crate) trait Sealed: Serialize {
    fn format(&self) -> Option<u32>;
    fn mac(&mut self) -> &mut Option<String>;

    /// As it is stored; signed where there is a ring.
    ///
    /// # Errors
    /// [`Error::Json`] where it cannot be written, which no value of ours causes.
    fn seal(mut self, ring: Option<&KeyRing>, belongs: &Belongs<'_>) -> Result<Vec<u8>>
    where
        Self: Sized,
    {
        *self.mac() = None;
        let body = serde_json::to_vec(&self)?;
        let Some(ring) = ring else { return Ok(body) };
        *self.mac() = ring.sign(belongs, &body);
        Ok(serde_json::to_vec(&self)?)
    }

    /// Whether only who has the ring can have written it. The code is over what was read, written once more: what was
    /// not understood counts for nothing.
    ///
    /// # Errors
    /// [`Error::Validation`]: another format; or there is a ring, and none of its secrets signed this.
    fn unseal(&mut self, ring: Option<&KeyRing>, belongs: &Belongs<'_>) -> Result<bool>
    where
        Self: Sized,
    {
        if let Some(format) = self.format().filter(|format| *format != FORMAT) {
            return Err(Error::validation("format", format!("is {format}; this version reads {FORMAT}")));
        }
        let mac = self.mac().take();
        let Some(ring) = ring else { return Ok(false) };
        let Some(mac) = mac else {
            return Err(Error::validation("mac", "is missing, and snapshots must be signed here"));
        };
        if ring.verifies(belongs, &serde_json::to_vec(self)?, &mac) {
            Ok(true)
        } else {
            Err(Error::validation("mac", "no secret of the ring signed this for this provider"))
        }
    }
}

impl Sealed for StoredKeys {
    fn format(&self) -> Option<u32> {
        self.envelope.format
    }

    fn mac(&mut self) -> &mut Option<String> {
        &mut self.envelope.mac
    }
}

impl Sealed for StoredDenials {
    fn format(&self) -> Option<u32> {
        Some(self.format)
    }

    fn mac(&mut self) -> &mut Option<String> {
        &mut self.mac
    }
}

/// Microseconds since 1970, as orders are counted. What lies before counts as 1970, and what scripts of a store could
/// not tell apart as the last they can.
pub(crate) fn order_of(wall: DateTime<Utc>) -> u64 {
    const EXACT_IN_SCRIPTS: u64 = (1 << 53) - 1;
    u64::try_from(wall.timestamp_micros()).unwrap_or(0).min(EXACT_IN_SCRIPTS)
}

/// The order above which it comes from a clock that was wrong.
pub(crate) fn newest_order(wall: DateTime<Utc>) -> u64 {
    order_of(wall).saturating_add(u64::try_from(CLOCK_SKEW.as_micros()).unwrap_or(u64::MAX))
}

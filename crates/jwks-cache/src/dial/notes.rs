//! What happens while dialling that an operator wants to know, though the exchange may well succeed.

use std::sync::Arc;

use crate::security::SpkiFingerprint;
use crate::sync::{Mutex, lock};

/// Collects notes for whoever asked for the exchange.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<Note>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// No key on the verified path is pinned.
    PinMismatch { enforced: bool, path: Vec<SpkiFingerprint> },
    /// New content of a file cannot be used; the old stays in force.
    OldKept { setting: &'static str, reason: String },
}

impl Notes {
    pub(crate) fn add(&self, note: Note) {
        lock(&self.0).push(note);
    }

    /// What was noted since.
    pub(crate) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut lock(&self.0))
    }
}

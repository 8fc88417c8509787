//! The door that every flight passes: how many fetch at once, and who is next.

use std::collections::HashMap;
use std::sync::Arc;

use jwks_cache_core::admission::{Admission, Limits, Request, Ticket, Urgency};
use tokio::sync::oneshot;

use crate::sync::{Mutex, lock};

/// Admits flights within the limits, fairly.
#[derive(Debug)]
pub(crate) struct Gate(Mutex<State>);

#[derive(Debug)]
struct State {
    admission: Admission,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { admission: Admission::new(limits), waiting: HashMap::new() })))
    }

    /// Takes a place in the queue.
    pub(crate) fn queue(self: &Arc<Self>, request: Request) -> Place {
        let (admitted, turn) = oneshot::channel();
        let mut state = lock(&self.0);
        let ticket = state.admission.ask(request);
        state.waiting.insert(ticket, admitted);
        state.admit();
        drop(state);
        Place { gate: self.clone(), ticket, turn: Some(turn) }
    }

    /// Somebody who is in more of a hurry joined the flight.
    pub(crate) fn promote(&self, ticket: Ticket, urgency: Urgency) {
        let mut state = lock(&self.0);
        state.admission.promote(ticket, urgency);
        state.admit();
    }
}

impl State {
    fn admit(&mut self) {
        while let Some(ticket) = self.admission.grant() {
            if let Some(admitted) = self.waiting.remove(&ticket) {
                // A place that was given up meanwhile leaves in its own `Drop`.
                let _ = admitted.send(());
            }
        }
    }
}

/// A place in the queue, and then the right to fetch. Dropping it lets the next one in.
pub(crate) struct Place {
    gate: Arc<Gate>,
    pub(crate) ticket: Ticket,
    turn: Option<oneshot::Receiver<()>>,
}

impl Place {
    /// Waits until it is this flight's turn.
    pub(crate) async fn admitted(&mut self) {
        if let Some(turn) = self.turn.take() {
            // The sender is dropped only by sending, or with the gate that this place keeps alive.
            let _ = turn.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.gate.0);
        state.waiting.remove(&self.ticket);
        state.admission.leave(self.ticket);
        state.admit();
    }
}

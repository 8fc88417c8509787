//! Everything that our crates trace, as it was given: before any formatter could escape it.

use std::cell::RefCell;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Once};

use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// What was traced in this thread since it began to listen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(Arc<watch::Sender<Vec<Record>>>);

/// A span that was opened, or an event.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) span: Option<u64>,
    pub(crate) name: &'static str,
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Record {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
    }
}

impl Records {
    /// Listens at TRACE, in this thread, until the guard is dropped.
    ///
    /// One subscriber serves the whole process: with one per thread, a call site that another thread passes
    /// first may be switched off for all.
    pub(crate) fn listen() -> (Self, Listening) {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Ours)).unwrap();
        });
        let records = Self::default();
        LISTENER.set(Some(records.clone()));
        (records, Listening(()))
    }

    pub(crate) fn all(&self) -> Vec<Record> {
        self.0.borrow().clone()
    }

    /// Waits until what was traced is so.
    pub(crate) async fn wait_for(&self, is_so: impl FnMut(&Vec<Record>) -> bool) {
        self.0.subscribe().wait_for(is_so).await.unwrap();
    }

    /// All values of all fields.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for record in self.all() {
            for (name, value) in record.fields {
                let _ = writeln!(text, "{name}={value}");
            }
        }
        text
    }

    fn push(&self, record: Record) {
        self.0.send_modify(|records| records.push(record));
    }
}

thread_local! {
    static LISTENER: RefCell<Option<Records>> = const { RefCell::new(None) };
}

/// Ends listening when it is dropped.
pub(crate) struct Listening(());

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENER.set(None);
    }
}

/// Hands what our crates trace to the listener of the thread.
struct Ours;

fn heard(act: impl FnOnce(&Records)) {
    LISTENER.with_borrow(|listener| listener.as_ref().map(act));
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("jwks_cache") && !metadata.target().starts_with("jwks_cache_testkit")
}

impl<S: Subscriber> Layer<S> for Ours {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_ours(metadata)
    }

    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::default();
        span.record(&mut fields);
        heard(|records| {
            records.push(Record { span: Some(id.into_u64()), name: span.metadata().name(), fields: fields.0 })
        });
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        heard(|records| {
            records.0.send_modify(|records| {
                if let Some(span) = records.iter_mut().rev().find(|record| record.span == Some(id.into_u64()))
                {
                    span.fields.extend(fields.0);
                }
            });
        });
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        heard(|records| records.push(Record { span: None, name: event.metadata().name(), fields: fields.0 }));
    }
}

#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

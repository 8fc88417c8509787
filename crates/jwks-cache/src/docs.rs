//! Pages that belong to no single item.

#[doc = include_str!("docs/trust.md")]
pub mod trust {}

#[doc = include_str!("docs/providers.md")]
pub mod providers {}

#[doc = include_str!("docs/stores.md")]
pub mod stores {}

//! Which tenant and provider names are legal.

use crate::policy::{Broken, broken};

const LONGEST: usize = 64;

/// Checks a tenant id: 1–64 ASCII letters, digits and `-`.
///
/// # Errors
/// [`Broken`] naming `tenant_id`.
pub fn check_tenant_id(id: &str) -> Result<(), Broken> {
    check("tenant_id", id, |c| c.is_ascii_alphanumeric() || c == b'-', "ASCII letters, digits and '-'")
}

/// Checks a provider id: 1–64 ASCII letters, digits, `-` and `_`.
///
/// # Errors
/// [`Broken`] naming `provider_id`.
pub fn check_provider_id(id: &str) -> Result<(), Broken> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    check("provider_id", id, legal, "ASCII letters, digits, '-' and '_'")
}

fn check(field: &'static str, id: &str, legal: impl Fn(u8) -> bool, letters: &str) -> Result<(), Broken> {
    if id.is_empty() || id.len() > LONGEST || !id.bytes().all(legal) {
        return Err(broken(field, format!("must be 1 to {LONGEST} of {letters}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_only_the_letters_they_may() {
        for good in ["a", "A-9", &"x".repeat(64)] {
            assert!(check_tenant_id(good).is_ok() && check_provider_id(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "a:b", "ä", "{a}", "a\n", &"x".repeat(65)] {
            assert_eq!(check_tenant_id(bad).unwrap_err().field, "tenant_id");
            assert_eq!(check_provider_id(bad).unwrap_err().field, "provider_id");
        }
        assert!(check_tenant_id("a_b").is_err() && check_provider_id("a_b").is_ok());
    }
}

//! Which hosts a provider may be fetched from. Names only: addresses are checked when dialled.

/// A DNS name in the one form we compare: trimmed, lower case, without the trailing dot.
/// `None` when nothing is left.
#[must_use]
pub fn canonicalize_dns_name(value: &str) -> Option<String> {
    let name = value.trim();
    let name = name.strip_suffix('.').unwrap_or(name).trim().to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

/// Canonical names without duplicates, in their order; blank entries are dropped.
#[must_use]
pub fn normalize_allowlist(domains: Vec<String>) -> Vec<String> {
    let mut names = Vec::with_capacity(domains.len());
    for name in domains.iter().filter_map(|domain| canonicalize_dns_name(domain)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether `host` is one of the domains or below one of them, on label borders only.
/// An empty list allows every host.
#[must_use]
pub fn host_is_allowed(host: &str, allowed_domains: &[String]) -> bool {
    if allowed_domains.is_empty() {
        return true;
    }
    let Some(host) = canonicalize_dns_name(host) else { return false };
    allowed_domains.iter().filter_map(|domain| canonicalize_dns_name(domain)).any(|domain| {
        host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Whether every host that `old` allowed is allowed by `new` too.
#[must_use]
pub fn is_loosening(old: &[String], new: &[String]) -> bool {
    new.is_empty() || (!old.is_empty() && old.iter().all(|domain| host_is_allowed(domain, new)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_allows_itself_and_its_subdomains_on_label_borders_only() {
        let allowed = list(&["Example.com.", "id.example.org"]);
        for host in ["example.com", "EXAMPLE.COM.", "a.b.example.com", "id.example.org"] {
            assert!(host_is_allowed(host, &allowed), "{host}");
        }
        for host in ["badexample.com", "example.com.evil.net", "example.org", "com", "", "."] {
            assert!(!host_is_allowed(host, &allowed), "{host}");
        }
        assert!(host_is_allowed("anything.net", &[]));
    }

    #[test]
    fn lists_become_canonical_without_duplicates_in_order() {
        let listed = normalize_allowlist(list(&[" B.example. ", "a.example", "", "b.EXAMPLE", "."]));
        assert_eq!(listed, list(&["b.example", "a.example"]));
    }

    #[test]
    fn only_lists_that_allow_at_least_as_much_are_a_loosening() {
        let (narrow, wide) = (list(&["id.example.com"]), list(&["example.com"]));
        assert!(is_loosening(&narrow, &wide) && is_loosening(&narrow, &[]) && is_loosening(&narrow, &narrow));
        assert!(!is_loosening(&wide, &narrow) && !is_loosening(&[], &wide));
    }
}

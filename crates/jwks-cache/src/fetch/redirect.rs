//! Whether a hop may be taken. Checked before it is dialled.

use http::{HeaderMap, StatusCode, header};
use url::Url;

use super::{FetchRequest, NotFetched};
use crate::security::{enforce_host, enforce_https};

/// Whether `status` sends us elsewhere (RFC 9110 §15.4).
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The URL a redirect leads to, if it may be followed as hop number `hop` (counted from 1).
pub(super) fn next(
    request: &FetchRequest,
    from: &Url,
    headers: &HeaderMap,
    hop: u32,
) -> Result<Url, NotFetched> {
    if hop > u32::from(request.max_redirects) {
        let most = request.max_redirects;
        return Err(NotFetched::refused(format!("more than max_redirects ({most}) redirects")));
    }
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(mut to) = location.and_then(|location| from.join(location).ok()) else {
        return Err(NotFetched::new("redirect", "a redirect without a usable Location"));
    };
    to.set_fragment(None);
    if !to.username().is_empty() || to.password().is_some() {
        return Err(NotFetched::refused("a redirect to a URL with credentials"));
    }
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(NotFetched::refused("a redirect from https to something else"));
    }
    check(request, &to).map_err(|reason| NotFetched::refused(format!("redirect: {reason}")))?;
    Ok(to)
}

/// Whether the registration's rules allow `url` to be dialled.
pub(crate) fn check(request: &FetchRequest, url: &Url) -> Result<(), String> {
    if request.require_https {
        enforce_https(url).map_err(|error| error.to_string())?;
    } else if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("scheme {} is not http or https", url.scheme()));
    }
    let host = url.host_str().unwrap_or_default();
    for list in &request.allowed_domains {
        enforce_host(host, list, "the").map_err(|error| error.to_string())?;
    }
    if request.allowed_domains.iter().all(Vec::is_empty) && url.host_str() != request.host.as_deref() {
        return Err(format!("{host} is another host, and there are no allowed_domains that hold it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(require_https: bool, allowed: &[&str], from: &str, location: &str) -> Result<String, String> {
        let request = FetchRequest {
            url: "https://id.example.com/jwks".parse().unwrap(),
            if_none_match: None,
            if_modified_since: None,
            bypass_caches: false,
            require_https,
            allowed_domains: vec![allowed.iter().map(ToString::to_string).collect()],
            max_redirects: 3,
            max_response_bytes: 1,
            host: Some("id.example.com".into()),
            home: None,
            sent: Default::default(),
            dial: Default::default(),
            notes: Default::default(),
        };
        let headers = HeaderMap::from_iter([(header::LOCATION, location.parse().unwrap())]);
        next(&request, &from.parse().unwrap(), &headers, 1)
            .map(|url| url.to_string())
            .map_err(|refused| refused.message)
    }

    #[test]
    fn without_a_list_a_redirect_stays_on_the_registered_host() {
        let from = "https://id.example.com/jwks";
        assert_eq!(follow(true, &[], from, "/other#x").unwrap(), "https://id.example.com/other");
        assert!(follow(true, &[], from, "https://cdn.example.com/").is_err());
    }

    #[test]
    fn each_hop_is_in_the_list() {
        let from = "https://id.example.com/jwks";
        assert!(follow(true, &["example.com"], from, "https://cdn.example.com/keys").is_ok());
        assert!(follow(true, &["example.com"], from, "https://example.com.evil.net/").is_err());
    }

    #[test]
    fn https_is_never_downgraded_and_other_schemes_are_never_followed() {
        let secure = "https://id.example.com/jwks";
        assert!(follow(false, &["example.com"], secure, "http://id.example.com/").is_err());
        assert!(follow(false, &[], "http://id.example.com/", "http://id.example.com/x").is_ok());
        assert!(follow(true, &[], "http://id.example.com/", "http://id.example.com/x").is_err());
        for location in ["file:///etc/passwd", "gopher://id.example.com/", "https://u:p@id.example.com/"] {
            assert!(follow(false, &[], "http://id.example.com/", location).is_err(), "{location}");
        }
    }
}

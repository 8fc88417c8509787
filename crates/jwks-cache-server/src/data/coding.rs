//! Which content coding a client takes (RFC 9110 §12.5.3). There are two to choose from: gzip, and none.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// Whether gzip may be sent, and nothing is wanted more.
pub(super) fn prefers_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for line in headers.get_all(ACCEPT_ENCODING) {
        let Ok(line) = line.to_str() else { continue };
        for member in line.split(',') {
            let mut parts = member.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let Some(weight) = weight(parts.next()) else { continue };
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                gzip = Some(weight);
            } else if name == "*" {
                any = Some(weight);
            } else if name.eq_ignore_ascii_case("identity") {
                identity = Some(weight);
            }
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    // Who does not speak of `identity` takes it, and named what is wanted more.
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

/// `q=` and a number from 0 to 1; 1 where nothing is said, nothing where it is no such number.
fn weight(parameter: Option<&str>) -> Option<f32> {
    let Some(parameter) = parameter else { return Some(1.0) };
    let (name, value) = parameter.split_once('=')?;
    let weight: f32 = value.trim().parse().ok()?;
    (name.trim().eq_ignore_ascii_case("q") && (0.0..=1.0).contains(&weight)).then_some(weight)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_sent_to_who_takes_it_and_wants_nothing_more() {
        let table: [(&[&str], bool); 18] = [
            (&[], false),
            (&[""], false),
            (&["gzip"], true),
            (&["GZip"], true),
            (&["x-gzip"], true),
            (&["deflate, gzip, br"], true),
            (&["br", "gzip;q=0.001"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000, *"], false),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["identity"], false),
            (&["identity;q=0.5, gzip"], true),
            (&["gzip;q=0.5, identity"], false),
            (&["gzip;q=0.5, identity;q=0.5"], true),
            (&["gzip;q=2"], false),
            (&["gzip;q=nan", "gzipped"], false),
            (&["gzip;level=9, br"], false),
        ];
        for (lines, want) in table {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(prefers_gzip(&headers), want, "{lines:?}");
        }
    }
}

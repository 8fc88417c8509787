//! Which tests of the suite are not for us, and why. Every other one is.

/// Tests that do not apply, by group or by id.
pub(crate) struct Outside {
    pub(crate) why: &'static str,
    pub(crate) groups: &'static [&'static str],
    pub(crate) ids: &'static [&'static str],
}

/// How many tests the suite has. Another number is another suite: its new tests are to be judged first.
pub(crate) const TESTS: usize = 355;

/// Groups with tests that apply.
pub(crate) const GROUPS: &[&str] = &[
    "age-parse",
    "cc-freshness",
    "cc-parse",
    "cc-response",
    "conditional-inm",
    "expires",
    "expires-parse",
    "headers",
    "heuristic",
    "other",
    "stale",
    "status",
    "update304",
    "vary",
    "vary-parse",
];

pub(crate) const OUTSIDE: &[Outside] = &[
    Outside {
        why: "directives and conditions of a client: whoever reads our keys sends no HTTP request",
        groups: &["cc-request", "pragma", "conditional-lm"],
        ids: &[
            "cc-resp-immutable-stale",
            "conditional-304-etag",
            "conditional-etag-forward",
            "conditional-etag-forward-unquoted",
            "conditional-etag-precedence",
            "conditional-etag-quoted-respond-unquoted",
            "conditional-etag-strong-respond",
            "conditional-etag-strong-respond-multiple-first",
            "conditional-etag-strong-respond-multiple-last",
            "conditional-etag-strong-respond-multiple-second",
            "conditional-etag-strong-respond-obs-text",
            "conditional-etag-unquoted-respond-quoted",
            "conditional-etag-unquoted-respond-unquoted",
            "conditional-etag-weak-respond",
            "conditional-etag-weak-respond-backslash",
            "conditional-etag-weak-respond-lowercase",
            "conditional-etag-weak-respond-omit-slash",
        ],
    },
    Outside {
        why: "we send GET and nothing else, and never a range or credentials that a cache keys by",
        groups: &["method", "invalidation", "partial", "updateHEAD", "auth"],
        ids: &[],
    },
    Outside {
        why: "our requests to one source are all alike, so none of the fields that Vary names ever differs",
        groups: &[],
        ids: &[
            "conditional-etag-vary-headers-mismatch",
            "vary-2-match",
            "vary-2-match-omit",
            "vary-2-no-match",
            "vary-3-match",
            "vary-3-no-match",
            "vary-3-omit",
            "vary-3-order",
            "vary-cache-key",
            "vary-invalidate",
            "vary-match",
            "vary-no-match",
            "vary-normalise-combine",
            "vary-normalise-lang-case",
            "vary-normalise-lang-order",
            "vary-normalise-lang-select",
            "vary-normalise-lang-space",
            "vary-normalise-space",
            "vary-omit",
            "vary-omit-stored",
        ],
    },
    Outside {
        why: "speaks to shared caches, and we are a private one (RFC 9111 §5.2.2.7, §5.2.2.8, §5.2.2.10)",
        groups: &["surrogate-control"],
        ids: &[
            "cc-resp-private-shared",
            "freshness-max-age-s-maxage-shared-longer",
            "freshness-max-age-s-maxage-shared-longer-multiple",
            "freshness-max-age-s-maxage-shared-longer-reversed",
            "freshness-max-age-s-maxage-shared-shorter",
            "freshness-max-age-s-maxage-shared-shorter-expires",
            "freshness-s-maxage-shared",
            "stale-close-proxy-revalidate",
            "stale-close-s-maxage=2",
        ],
    },
    Outside {
        why: "only a 200 is a key set, so no other status is ever kept",
        groups: &[],
        ids: &[
            "heuristic-203-cached",
            "heuristic-204-cached",
            "heuristic-404-cached",
            "heuristic-405-cached",
            "heuristic-410-cached",
            "heuristic-414-cached",
            "heuristic-501-cached",
            "heuristic-599-cached",
            "status-203-fresh",
            "status-204-fresh",
            "status-299-fresh",
            "status-301-fresh",
            "status-302-fresh",
            "status-303-fresh",
            "status-307-fresh",
            "status-308-fresh",
            "status-400-fresh",
            "status-404-fresh",
            "status-410-fresh",
            "status-499-fresh",
            "status-500-fresh",
            "status-502-fresh",
            "status-503-fresh",
            "status-504-fresh",
            "status-599-fresh",
        ],
    },
    Outside {
        why: "heuristic freshness is optional (RFC 9111 §4.2.2): default_ttl is our own, and off in http_strict",
        groups: &[],
        ids: &["heuristic-200-cached"],
    },
    Outside {
        why: "contradicts RFC 9111 §5.1, which is younger: the first member of Age counts, and one that is no \
              number is ignored; no cache whose results the suite brings passes all of them",
        groups: &[],
        ids: &[
            "age-parse-dup-0",
            "age-parse-dup-0-twoline",
            "age-parse-dup-old",
            "age-parse-float",
            "age-parse-negative",
            "age-parse-nonnumeric",
            "age-parse-numeric-parameter",
            "age-parse-parameter",
            "age-parse-prefix-twoline",
        ],
    },
    Outside {
        why: "a 304 with another ETag names the new one for the body we hold, and our next request uses it",
        groups: &[],
        ids: &["304-etag-update-response-ETag"],
    },
];

/// Required tests in which the origin hangs up and the cache must not answer from its store. The suite looks
/// for the origin's count in the answer, which nobody can give, so it fails every cache; what these must show
/// instead is a client whose connection ended without an answer.
pub(crate) const MUST_END_WITHOUT_ANSWER: &[&str] = &["stale-close-must-revalidate", "stale-close-no-cache"];

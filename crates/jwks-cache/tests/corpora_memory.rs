//! The largest bombs of the shared corpora cost bounded memory, too. One test in a process of its own, because
//! it reads the process's peak.
#![allow(clippy::unwrap_used, reason = "a corpus that cannot be read must fail")]
#![cfg(target_os = "linux")]

#[path = "../../jwks-cache-core/tests/corpora/mod.rs"]
mod corpora;
mod stage;

use corpora::corpora;
use jwks_cache_testkit::Reply;
use stage::peak;

#[tokio::test]
async fn no_bomb_of_the_corpora_costs_more_than_4_mib() {
    let Some(folder) = corpora() else { return };
    for file in ["d42-whitespace-64MiB.json.gz", "d43-gzip-bomb-1GiB.json.gz"] {
        let bomb = std::fs::read(folder.join("bad").join(file)).unwrap();
        let reply = Reply::json("").body(bomb).header("Content-Encoding", "gzip");
        peak::check(file, "too_large", reply).await;
    }
}

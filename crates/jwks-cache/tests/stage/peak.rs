//! The most memory that this process has held, as the kernel counts it, and what one answer adds to it.

use jwks_cache_testkit::Reply;

use super::served::{HELD, JWKS, Stage, reason};

/// The most that one hostile answer may add to the peak.
const MOST_KIB: u64 = 4 * 1024;

/// Gives `reply` to a cache that holds a good set: it must be refused for this reason, and cost little.
///
/// What else runs in the process counts, too: one test only in each that calls this.
pub(crate) async fn check(name: &str, expected: &str, reply: Reply) {
    let stage = Stage::new();
    let mut registration = stage.registration();
    registration.retry_policy.max_retries = 0;
    stage.register(registration).await;
    stage.hold().await;
    stage.origin.set(JWKS, reply);
    check_on(&stage, name, expected).await;
}

/// The same with a stage that holds a good set, whose next answer is hostile.
pub(crate) async fn check_on(stage: &Stage, name: &str, expected: &str) {
    let before = peak_from_now();
    let error = stage.refresh().await.unwrap_err();
    let growth = peak().saturating_sub(before);
    println!("peak memory: {name}: {growth} KiB");
    assert_eq!(reason(&error), expected, "{name}: {error}");
    assert_eq!(stage.kids().await, HELD, "{name}");
    assert!(growth < MOST_KIB, "{name}: {growth} KiB");
}

/// Forgets the peak so far and gives the one from now on, which is what is resident.
pub(crate) fn peak_from_now() -> u64 {
    // It needs no privilege for the own process. Under an old peak, growth would be understated.
    std::fs::write("/proc/self/clear_refs", "5").expect("the kernel forgets the peak");
    peak()
}

/// The peak in KiB.
pub(crate) fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

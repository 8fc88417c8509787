//! A registry gives its memory back. One test in a process of its own, because nothing that was replaced is freed while
//! somebody looks into any registry.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::mem::forget;

use allocation_counter::measure;
use jwks_cache::{IdentityProviderRegistration, Registry};
use stage::at_once;

fn fill(providers: usize) -> Registry {
    let registry = Registry::new();
    for number in 0..providers {
        let url = "https://id.example.com/jwks.json";
        let registration =
            IdentityProviderRegistration::new(format!("tenant-{number}"), "main", url).unwrap();
        at_once(registry.register(registration)).unwrap();
    }
    registry
}

#[test]
fn a_registry_gives_its_memory_back_when_it_goes() {
    // What a thread needs once is there from now on. Nothing large is left for later: to free it would hide what is.
    drop(fill(1));
    let kept = measure(|| forget(fill(500))).bytes_current;
    let left = measure(|| drop(fill(500))).bytes_current;
    println!("{left} of {kept} bytes are left");
    assert!(kept > 500_000, "{kept} bytes");
    assert!(left < kept / 100, "{left} bytes of {kept} are left");
}

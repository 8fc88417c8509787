//! What README prints is what is tested.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[test]
fn the_service_in_readme_is_the_example_and_has_thirty_lines_at_most() {
    let readme = include_str!("../../../README.md");
    let example = include_str!("../examples/axum_service.rs");
    let printed: Vec<_> =
        readme.split("```rust,ignore\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(printed, [example]);
    assert!(example.lines().count() <= 30, "{} lines", example.lines().count());
}

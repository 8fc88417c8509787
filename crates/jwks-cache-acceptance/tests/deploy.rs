//! What `deploy/` ships: linted by those who read it, and no promise in it that the server does not keep.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use jwks_cache_acceptance::built;

const INSTALL: &str = "run `cargo xtask test deploy --yes`";

/// Of 10, as `systemd-analyze security` counts; below 2 is "OK".
const MOST_EXPOSED: &str = "--threshold=15";

/// The libraries of the image that the server runs in.
const THERE: &[&str] = &[
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "linux-vdso.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

/// Runs a tool, which must be content. What it says.
fn content(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; {INSTALL}", program.display()));
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}\n{said}", program.display());
    said
}

/// Something that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("jwks-cache-deploy-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_dockerfile_has_no_lint_and_its_server_needs_nothing_that_the_image_lacks() {
    let file = deploy("Dockerfile").display().to_string();
    assert_eq!(content("hadolint", &["--failure-threshold", "style", &file]), "");
    let server = built("jwks-cache", "deploy").display().to_string();
    for line in content("ldd", &[&server]).lines() {
        let name = line.split_whitespace().next().unwrap().rsplit('/').next().unwrap();
        assert!(THERE.contains(&name), "the image has no {name}");
    }
}

#[test]
fn the_unit_is_sound_and_leaves_little_open() {
    let unit = std::fs::read_to_string(deploy("jwks-cache.service")).unwrap();
    let folder = Folder::new("unit");
    // Whether the command is there is asked of the one that was built.
    let here = built("jwks-cache", "deploy").display().to_string();
    let unit = folder.write("jwks-cache.service", &unit.replace("/usr/bin/jwks-cache", &here));
    assert_eq!(content("systemd-analyze", &["verify", &unit]), "");
    let said = content("systemd-analyze", &["security", "--offline=yes", "--no-pager", MOST_EXPOSED, &unit]);
    println!("{}", said.lines().last().unwrap_or_default());
}

#[test]
fn the_example_configuration_is_good_with_and_without_what_it_only_offers() {
    let text = std::fs::read_to_string(deploy("jwks-cache.toml")).unwrap();
    // A setting that is offered has no space after its #, as prose has.
    let offered = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = text.lines().map(offered).collect();
    assert!(
        all.iter().filter(|line| !text.contains(&format!("\n{line}\n"))).count() > 5,
        "it offers settings"
    );
    let folder = Folder::new("example");
    for (name, text, providers) in [("as-it-is.toml", text.clone(), 0), ("all.toml", all.join("\n"), 1)] {
        let file = folder.write(name, &text);
        let said = content(built("jwks-cache", "deploy"), &["check", "--config", &file]);
        assert!(said.contains(&format!("{providers} providers")), "{name}: {said}");
    }
}

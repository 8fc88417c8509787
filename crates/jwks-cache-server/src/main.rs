//! The binary `jwks-cache`. Everything it does is in the library beside it.

fn main() -> std::process::ExitCode {
    jwks_cache_server::main()
}

//! How a token gets in: from standard input, or typed where nobody sees it. What it is worth is not known here.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use jwks_cache_core::token::DEFAULT_MAX_TOKEN_BYTES;

/// The token that the argument names: itself, `-`, or none, and then one is asked for.
pub(crate) fn get(argument: Option<&str>) -> io::Result<String> {
    match argument {
        Some("-") => piped(),
        None if !io::stdin().is_terminal() => piped(),
        None => typed(),
        Some(token) => {
            let told =
                "warning: a token on the command line stands in the shell's history; use - or the prompt\n";
            let _ = io::stderr().lock().write_all(told.as_bytes());
            Ok(without_scheme(token))
        }
    }
}

fn piped() -> io::Result<String> {
    let mut text = String::new();
    // One more than is taken tells what is too long; and room for line breaks.
    let most = u64::try_from(DEFAULT_MAX_TOKEN_BYTES).unwrap_or(u64::MAX).saturating_add(1024);
    io::stdin().lock().take(most).read_to_string(&mut text)?;
    Ok(without_scheme(&text))
}

#[cfg(unix)]
fn typed() -> io::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

    let stdin = rustix::stdio::stdin();
    let before = tcgetattr(stdin)?;
    let mut silent = before.clone();
    // Nothing shown; and no lines made by the terminal, which would cut them at 4,096 bytes. Ctrl-C is ours then, so
    // that the terminal is left as it was.
    silent.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(stdin, OptionalActions::Flush, &silent)?;
    // Asked when nothing that is typed is shown or lost.
    ask();
    let typed = read_line(io::stdin().lock());
    tcsetattr(stdin, OptionalActions::Now, &before)?;
    let _ = io::stderr().lock().write_all(b"\n");
    typed.map(|text| without_scheme(&text))
}

#[cfg(not(unix))]
fn typed() -> io::Result<String> {
    ask();
    read_line(io::stdin().lock()).map(|text| without_scheme(&text))
}

fn ask() {
    let mut out = io::stderr().lock();
    let _ = out.write_all(b"Token (not shown): ").and_then(|()| out.flush());
}

/// What is typed until the end of the line; keys that take back or give up do.
fn read_line(from: impl io::BufRead) -> io::Result<String> {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    const BACK: u8 = 8;
    const DELETE: u8 = 127;
    let mut line = Vec::new();
    for byte in from.bytes() {
        match byte? {
            b'\n' | b'\r' | CTRL_D => break,
            CTRL_C => return Err(io::ErrorKind::Interrupted.into()),
            BACK | DELETE => drop(line.pop()),
            byte => line.push(byte),
        }
    }
    String::from_utf8(line).map_err(io::Error::other)
}

/// Without what is copied along with a token.
fn without_scheme(text: &str) -> String {
    let text = text.trim();
    let scheme = text.get(.."bearer ".len()).filter(|start| start.eq_ignore_ascii_case("bearer "));
    text.get(scheme.map_or(0, str::len)..).unwrap_or(text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_ends_with_the_line_and_can_be_taken_back() {
        for (typed, want) in
            [("a.b.c\nrest", "a.b.c"), ("a.x\x7fb\r", "a.b"), ("ab\x04", "ab"), ("ab", "ab"), ("", "")]
        {
            assert_eq!(read_line(typed.as_bytes()).unwrap(), want, "{typed:?}");
        }
        assert_eq!(read_line(&b"abc\x03"[..]).unwrap_err().kind(), io::ErrorKind::Interrupted);
        let long = "x".repeat(20_000);
        assert_eq!(read_line(format!("{long}\n").as_bytes()).unwrap(), long);
    }

    #[test]
    fn what_is_copied_along_is_no_part_of_the_token() {
        for (text, want) in [
            (" a.b.c\n", "a.b.c"),
            ("Bearer a.b.c", "a.b.c"),
            ("bearer  a\n", "a"),
            ("bear", "bear"),
            ("", ""),
            ("ä", "ä"),
        ] {
            assert_eq!(without_scheme(text), want, "{text:?}");
        }
    }
}

//! Our reading of headers and keys against that of two libraries, over generated inputs. Every difference is
//! a row of a table that says who is right: the row writes a quirk into an input, and says in plain terms, which
//! both read alike, what we take it for. What no row explains fails; so does a row that nothing hit.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test may fail by panicking")]

mod headers;
mod keys;

use std::cell::RefCell;
use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// A way in which the two readings differ.
pub struct Difference<W> {
    pub rule: &'static str,
    pub who_is_right: Right,
    pub why: &'static str,
    /// Writes the quirk into the first; makes the second say plainly what we take it for.
    pub quirk: fn(&mut W, &mut W),
}

/// Where the other is right alone we have a bug to mend, and no row.
#[derive(Clone, Copy, Debug)]
pub enum Right {
    Ours,
    /// The standard leaves it open.
    Both,
}

/// Compares two readings of inputs with up to two quirks each.
fn compare<W: Clone + Debug, R: PartialEq + Debug>(
    what: &str,
    table: &[Difference<W>],
    plain: impl Strategy<Value = W>,
    ours: fn(&W) -> R,
    theirs: fn(&W) -> R,
) {
    let cases = std::env::var("PROPTEST_CASES").map_or(10_000, |cases| cases.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let hits = RefCell::new(vec![0_u64; table.len()]);
    let alike = RefCell::new(0_u64);
    let written = |plain: &W, quirks: &[usize]| {
        let (mut written, mut meaning) = (plain.clone(), plain.clone());
        quirks.iter().for_each(|row| (table[*row].quirk)(&mut written, &mut meaning));
        (written, meaning)
    };
    let quirks = prop::sample::subsequence((0..table.len()).collect::<Vec<_>>(), 0..=2);
    let result = TestRunner::new(config).run(&(plain, quirks), |(plain, quirks)| {
        let (text, meaning) = written(&plain, &quirks);
        let read = ours(&text);
        prop_assert_eq!(&read, &theirs(&meaning), "no rule explains {:?}, taken for {:?}", &text, &meaning);
        *alike.borrow_mut() += u64::from(read == theirs(&text));
        for row in quirks {
            let (alone, _) = written(&plain, &[row]);
            hits.borrow_mut()[row] += u64::from(ours(&alone) != theirs(&alone));
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{what}: {failure}");
    }
    println!("{what}: {cases} inputs, {} read alike; the others differ by these rules:", alike.borrow());
    for (difference, hits) in table.iter().zip(hits.borrow().iter()) {
        let Difference { rule, who_is_right, why, .. } = difference;
        println!("{hits:>6}  {rule}; right: {who_is_right:?}, {why}");
        assert!(*hits > 0, "nothing differed by the rule `{rule}`: it explains nothing");
    }
}

//! Replays the committed fuzz corpus (`tests/fuzz/corpus/<target>/`) through the invariants of `ringmq_protocol::fuzz`.

use std::path::Path;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use ringmq_protocol::fuzz::TARGETS;

struct Entry {
    target: usize,
    name: String,
    bytes: Vec<u8>,
}

static CORPUS: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
    let mut corpus = Vec::new();
    for (target, (folder, _)) in TARGETS.iter().enumerate() {
        let folder = root.join(folder);
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            corpus.push(Entry { target, name: path.display().to_string(), bytes: std::fs::read(&path).unwrap() });
        }
    }
    corpus.sort_by(|one, other| one.name.cmp(&other.name));
    corpus
});

/// Goal: inputs that once were interesting stay harmless. Method: every file of every target, and every prefix of it.
#[test]
fn corpus_holds_every_invariant() {
    for entry in CORPUS.iter() {
        for end in 0..=entry.bytes.len() {
            let outcome = std::panic::catch_unwind(|| TARGETS[entry.target].1(&entry.bytes[..end]));
            assert!(outcome.is_ok(), "{} cut to {end} bytes", entry.name);
        }
    }
    for (index, target) in TARGETS.iter().enumerate() {
        assert!(
            CORPUS.iter().filter(|entry| entry.target == index).count() > 5,
            "the corpus of {} is missing",
            target.0
        );
    }
}

proptest! {
    /// Goal: what is near an interesting input is harmless too. Method: a few bytes of a file are changed, then a piece is
    /// cut out.
    #[test]
    fn mutations_hold_every_invariant(
        file in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(0x80)]), 0..5),
        cut in option::of((any::<prop::sample::Index>(), 1..6usize)),
    ) {
        let entry = file.get(&CORPUS);
        let mut bytes = entry.bytes.clone();
        if !bytes.is_empty() {
            for (at, byte) in changes {
                *at.get_mut(&mut bytes) = byte;
            }
            if let Some((at, length)) = cut {
                let start = at.index(bytes.len());
                bytes.drain(start..bytes.len().min(start + length));
            }
        }
        TARGETS[entry.target].1(&bytes);
    }
}

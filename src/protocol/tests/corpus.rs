//! Replays the committed fuzz corpus (`tests/fuzz/corpus/<target>/`) through the invariants of `ringmq_protocol::fuzz`.

use std::path::Path;

use ringmq_protocol::fuzz::TARGETS;

/// Goal: inputs that once were interesting stay harmless. Method: every file of every target, and every prefix of it.
#[test]
fn corpus_holds_every_invariant() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
    for (name, target) in TARGETS {
        let folder = root.join(name);
        let mut files = 0;
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            for end in 0..=bytes.len() {
                let outcome = std::panic::catch_unwind(|| target(&bytes[..end]));
                assert!(outcome.is_ok(), "{} cut to {end} bytes", path.display());
            }
            files += 1;
        }
        assert!(files > 5, "the corpus of {name} is missing");
    }
}

//! Files in the tree that are generated: each is compared with what the program says now.

use std::path::Path;

use ringmq_tuning::catalogue::Catalogue;
use ringmq_tuning::{export, report};

/// Compares a file of the crate with its text; with `RINGMQ_TUNING_WRITE=1` writes it instead.
pub fn compare(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("RINGMQ_TUNING_WRITE").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
        std::fs::write(&file, text).expect("written");
    }
    let present = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(present == text, "{path} is stale: run with RINGMQ_TUNING_WRITE=1 and look at the difference");
}

#[test]
fn generated_catalogue_page_is_fresh() {
    // Goal: the page tells what the program does. Method: generate and compare.
    compare("CATALOGUE.md", &report::reference(&Catalogue::embedded().expect("sound")));
}

#[test]
fn generated_exports_are_fresh() {
    // Goal: the files for operators without the tool are those of the catalogue. Method: generate and compare.
    let catalogue = Catalogue::embedded().expect("sound");
    let program = "/usr/bin/ringmq";
    compare("systemd/ringmq.service", &export::broker_unit(&catalogue, None, program));
    compare("systemd/ringmq-tune.service", &export::tune_unit("latency", program, "--config /etc/ringmq/ringmq.toml"));
    for name in ["latency", "throughput"] {
        let profile = catalogue.profile(name).expect("exists");
        for file in export::files(&catalogue, profile, None, program, "") {
            if !file.path.starts_with("systemd/system/") {
                compare(&format!("exported/{name}/{}", file.path), &file.text);
            }
        }
    }
}

#[test]
fn evidence_files_exist() {
    // Goal: what is called measured can be read. Method: each file that an entry names is there and small.
    for tunable in Catalogue::embedded().expect("sound").tunables() {
        use ringmq_tuning::catalogue::Evidence::{Measured, NoGain};
        if let Measured { file, .. } | NoGain { file, .. } = &tunable.evidence {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("evidence").join(file);
            let size = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).len();
            assert!(size > 0 && size < 64 * 1024, "{file}: {size} bytes");
        }
    }
}

//! The published result set and the README's section that is made from it.

use std::path::PathBuf;

use ringmq_bench::report::section;
use ringmq_bench::result::{ResultDirectory, SetKind, SetStatus, sha256_hex};

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn results() -> ResultDirectory {
    ResultDirectory::open(root().join("bench/results"))
}

#[test]
fn the_readme_says_what_the_set_says() {
    // Goal: no figure in the README that is not in the published set, and none left out. Method: the section is made anew and
    // compared; `RINGMQ_BENCH_WRITE_README=1` writes it instead.
    let readme = root().join("README.md");
    let page = std::fs::read_to_string(&readme).expect("the README");
    let directory = results();
    let set = directory.read_result().expect("a result");
    let environment = directory.read_environment().expect("an environment");
    let text = section::text(Some((&set, &environment)));
    if std::env::var_os("RINGMQ_BENCH_WRITE_README").is_some() {
        std::fs::write(&readme, section::replace(&page, &text).expect("a place for the section"))
            .expect("it is written");
        return;
    }
    let present = section::find(&page).expect("a place for the section");
    assert!(
        present == text,
        "the section is stale: RINGMQ_BENCH_WRITE_README=1 cargo test -p ringmq-bench --test published"
    );
}

#[test]
fn the_page_says_what_the_set_says() {
    // Goal: no figure on the published page that is not in the set, and none left out. Method: the page is made anew and compared.
    let directory = results();
    let (set, environment) = (directory.read_result().unwrap(), directory.read_environment().unwrap());
    let present = std::fs::read_to_string(directory.file(ringmq_bench::report::PAGE_NAME)).unwrap();
    let page = ringmq_bench::report::page_text(&set, &environment);
    assert!(present == page, "the page is stale: ringmq-bench publish --from bench/results");
    // What is named is there.
    let named = set
        .runs
        .iter()
        .flat_map(|run| [&run.hlog, &run.phases_hlog])
        .chain(set.systems.iter().flat_map(|system| &system.files));
    for name in named.filter(|name| !name.is_empty()) {
        assert!(directory.file(name).is_file(), "{name} is named and absent");
    }
}

#[test]
fn the_set_is_whole() {
    // Goal: a published set is complete, unchanged and small, and names no folder of the host it was made on. Method: its sums
    // and sizes, and a search for absolute paths in its texts.
    let directory = results();
    let set = directory.read_result().unwrap();
    assert_eq!((set.kind, &set.status), (SetKind::Publish, &SetStatus::Complete));
    let sums = std::fs::read_to_string(directory.file("SHA256SUMS")).unwrap();
    let mut bytes = 0;
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let content = std::fs::read(directory.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(sha256_hex(&content), sum, "{name}");
        bytes += content.len();
        let text = String::from_utf8_lossy(&content);
        for folder in ["/home/", concat!("/ro", "ot/"), env!("CARGO_MANIFEST_DIR")] {
            assert!(!text.contains(folder), "{name} names a folder below {folder}");
        }
    }
    assert!(bytes < 3 << 20, "{bytes} bytes");
    let environment = std::fs::read(directory.file("env.json")).unwrap();
    assert_eq!(sha256_hex(&environment), set.environment_sha256);
}

//! Files in the tree that are generated: each is compared with what the program says now.

use std::path::Path;

use serde_json::{Value, json};

use ringmq_tuning::catalogue::Catalogue;
use ringmq_tuning::export::{self, Exporting, Service};
use ringmq_tuning::plan::Choices;
use ringmq_tuning::report;

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
    let (service, choices) = (Service::standard("/usr/bin/ringmq"), Choices::default());
    compare("systemd/ringmq.service", &export::broker_unit(&catalogue, None, &service));
    compare("systemd/ringmq-tune.service", &export::tune_unit("latency", &service));
    for name in ["latency", "throughput"] {
        let profile = catalogue.profile(name).expect("exists");
        let exporting = Exporting { catalogue: &catalogue, profile, choices: &choices, on: None, service: &service };
        for file in export::files(&exporting) {
            if !file.path.starts_with("systemd/system/") {
                compare(&format!("exported/{name}/{}", file.path), &file.text);
            }
        }
    }
}

#[test]
fn evidence_decides_what_is_proven() {
    // Goal: rule T13 is computed and not claimed. Method: judge the runs of each file that an entry names, again.
    for tunable in Catalogue::embedded().expect("sound").tunables() {
        use ringmq_tuning::catalogue::Evidence::{Measured, NoGain};
        let (Measured { file, .. } | NoGain { file, .. }) = &tunable.evidence else { continue };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("evidence").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.len() < 16 * 1024, "{file}: {} bytes", text.len());
        let result: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let ids = result["ids"].as_array().expect("ids");
        assert!(ids.iter().any(|id| id == tunable.id.as_str()), "{file} is not about {}", tunable.id);
        // Results of before invalid runs were left out prove nothing.
        let is_sound = result["repeated_runs"].is_object() && result["seconds"].as_f64() >= Some(3.0);
        let is_proven = is_sound && is_proven(&result["metrics"]);
        assert_eq!(is_proven, tunable.evidence.is_proven(), "{}: {file}", tunable.id);
    }
}

#[test]
fn a_loss_within_the_scatter_speaks_against_a_gain() {
    // Goal: rule T13 is taken at its word. Method: a clear gain alone, with a loss whose intervals overlap, with one of less
    // than 3 %, and with too few pairs.
    let (gain, steady) = (
        json!({"without": [10, 11, 10, 11, 10], "with": [5, 6, 5, 6, 5]}),
        json!({"without": [9, 9, 9, 9, 9], "with": [9, 9, 9, 9, 9]}),
    );
    let judged = |other: Value| is_proven(&json!({"sync_response_p99_us": gain, "response_p99_9_us": other}));
    assert!(judged(steady));
    assert!(!judged(json!({"without": [10, 90, 20, 70, 30], "with": [40, 20, 95, 15, 90]})));
    assert!(judged(json!({"without": [100, 100, 100, 100, 100], "with": [102, 102, 102, 102, 102]})));
    assert!(!is_proven(&json!({"response_p99_us": {"without": [10, 11, 10, 11], "with": [5, 6, 5, 6]}})));
    assert!(!is_proven(&json!({"response_p50_us": gain})), "the median alone is not judged");
    assert!(!is_proven(&json!({"seconds": gain})), "nor is how long a run took");
}

/// At least five pairs, a gain of more than 3 % with intervals of 95 % that do not overlap, and no mean that is worse by more
/// than 3 %.
fn is_proven(metrics: &Value) -> bool {
    let (mut gain, mut loss) = (false, false);
    for (name, metric) in metrics.as_object().expect("metrics") {
        let [without, with] = ["without", "with"].map(|side| {
            let runs = metric[side].as_array().expect("runs").iter();
            runs.map(|value| value.as_f64().expect("a number").max(1e-9).ln()).collect::<Vec<f64>>()
        });
        let ((mean, half), (mean_with, half_with)) = (interval(&without), interval(&with));
        let apart = (mean - mean_with).abs() > half + half_with;
        let ratio = (mean_with - mean).exp();
        let is_judged = ["response_p99_us", "cpu_us_per_message"].iter().any(|judged| name.ends_with(judged));
        gain |= apart && ratio < 0.97 && is_judged && without.len() >= 5 && with.len() >= 5;
        loss |= ratio > 1.03;
    }
    gain && !loss
}

/// Mean, and half of the 95 % interval (Student).
fn interval(values: &[f64]) -> (f64, f64) {
    const T: [f64; 9] = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26];
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, T[(values.len() - 2).min(T.len() - 1)] * (variance / count).sqrt())
}

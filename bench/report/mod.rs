//! Plots and the page of a result directory, made from its `result.json` and `env.json` and from nothing else.
//!
//! Invariant: the same files give the same bytes, so a report can be made again and compared.

mod axis;
mod chart;
pub mod command;
mod conditions;
pub mod groups;
mod page;
mod plots;
mod rates;
pub mod section;
mod tables;

pub use plots::class_name;
pub use tables::share_at_knee;

use crate::result::{EnvironmentRecord, ResultDirectory, ResultError, ResultSet};

/// Name of the page in a result directory.
pub const PAGE_NAME: &str = "report.html";

/// Makes the plots, the page and the checksums of a result directory. Returns the path of the page.
///
/// # Errors
/// The result cannot be read, or a file cannot be written.
pub fn write(directory: &ResultDirectory) -> Result<std::path::PathBuf, ResultError> {
    let set = directory.read_result()?;
    let environment = directory.read_environment()?;
    let charts = plots::charts(&set);
    for chart in &charts {
        directory.write(&format!("plots/{}.svg", chart.name), chart.file().as_bytes())?;
    }
    let page = page::page(&set, &environment, &charts);
    directory.write(PAGE_NAME, page.as_bytes())?;
    directory.write_sums()?;
    Ok(directory.file(PAGE_NAME))
}

/// The text of the page alone.
pub fn page_text(set: &ResultSet, environment: &EnvironmentRecord) -> String {
    page::page(set, environment, &plots::charts(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: a report is made from the files alone, twice the same, without references to the network, with every losing and
    /// unfinished run named. Method: the example set is written and reported twice.
    #[test]
    fn report_of_the_example() {
        let folder = tempfile::tempdir().unwrap();
        let directory = ResultDirectory::create(folder.path()).unwrap();
        let mut set = example::result_set();
        set.environment_sha256 = directory.write_environment(&example::environment()).unwrap();
        directory.write_result(&set).unwrap();
        let page = write(&directory).unwrap();
        let first = std::fs::read_to_string(&page).unwrap();
        let sums = std::fs::read_to_string(directory.file("SHA256SUMS")).unwrap();
        assert!(sums.contains("plots/curve-"));
        write(&directory).unwrap();
        assert_eq!(std::fs::read_to_string(&page).unwrap(), first);
        assert_eq!(std::fs::read_to_string(directory.file("SHA256SUMS")).unwrap(), sums);
        for wanted in [
            "the broker closed the connection",
            "2 messages lost",
            "Example CPU &lt;2 cores&gt;",
            "ringmq-bench: versus",
            "<pre>./target/release/ringmq-bench versus ringmq java</pre>",
            "no cpufreq (VM)",
            "Apache RocketMQ 5.3.3",
            "survive kill -9",
        ] {
            assert!(first.contains(wanted), "{wanted}");
        }
        for forbidden in ["src=", "href=\"http", "@import", "url("] {
            assert!(!first.contains(forbidden), "{forbidden}");
        }
    }
}

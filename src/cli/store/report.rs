//! What the commands of `store` print.

use std::io::{self, BufWriter, Write};

use ringmq_shards::queue::limits::ENTRY_BYTES;
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::recovery::adopt::{Plan, Remark};
use ringmq_shards::recovery::audit::{Audit, AuditOptions, Finding, Severity};
use ringmq_shards::recovery::repair::Repaired;
use serde_json::{Value, json};

use super::{Failure, Format, Parts};
use crate::process::ExitStatus;

/// Standard output, buffered; a reader who has seen enough is no error.
pub struct Output(BufWriter<io::Stdout>, bool);

impl Output {
    /// Opens it.
    pub fn new() -> Self {
        Self(BufWriter::new(io::stdout()), false)
    }

    /// Writes a line; false when nobody reads any more.
    pub fn line(&mut self, text: &str) -> Result<bool, Failure> {
        if !self.1 {
            self.outcome(|out| writeln!(out, "{text}"))?;
        }
        Ok(!self.1)
    }

    /// Writes everything out.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.outcome(|out| out.flush())
    }

    fn outcome(&mut self, write: impl FnOnce(&mut BufWriter<io::Stdout>) -> io::Result<()>) -> Result<(), Failure> {
        match write(&mut self.0) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.1 = true,
            Err(error) => {
                let text = format!("cannot write to standard output: {error}");
                return Err(Failure(ExitStatus::Failure, text));
            }
            Ok(()) => {}
        }
        Ok(())
    }
}

/// Prints lines, or a JSON value.
pub fn print(format: Format, lines: &[String], value: &Value) -> Result<(), Failure> {
    let mut out = Output::new();
    match format {
        Format::Text => {
            for line in lines {
                if !out.line(line)? {
                    break;
                }
            }
        }
        Format::Json => {
            out.line(&format!("{value:#}"))?;
        }
    }
    out.finish()
}

fn finding_line(finding: &Finding) -> String {
    let mut place = finding.path.display().to_string();
    if let Some(position) = finding.position {
        place.push_str(&format!(" byte {position}"));
    }
    if let Some(offset) = finding.offset {
        place.push_str(&format!(" (log offset {offset})"));
    }
    format!("{:8} {}: {place}: {}", finding.severity.name(), finding.area, finding.text)
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.name(),
        "area": finding.area,
        "path": finding.path.display().to_string(),
        "position": finding.position,
        "offset": finding.offset,
        "text": finding.text,
    })
}

fn findings_json(audit: &Audit) -> Vec<Value> {
    audit.findings.kept.iter().map(finding_json).collect()
}

fn figures_json(audit: &Audit) -> Value {
    let figures = &audit.figures;
    json!({
        "segments": figures.segments,
        "segmentBytes": figures.segment_bytes,
        "logMin": figures.log_min,
        "logEnd": figures.log_end,
        "records": figures.records,
        "recordsBehindDamage": figures.records_behind_damage,
        "damagedBytes": figures.damaged_bytes,
        "lastStoreTimestampMs": figures.last_store_timestamp_ms,
        "queues": figures.queues,
        "queueEntries": figures.queue_entries,
        "indexFiles": figures.index_files,
        "indexEntries": figures.index_entries,
        "wasClean": figures.was_clean,
        "durablePoint": figures.durable_point,
        "firstDamage": audit.first_damage.map(|offset| offset.0),
    })
}

fn figures_lines(audit: &Audit) -> Vec<String> {
    let figures = &audit.figures;
    let durable = figures.durable_point.map_or_else(|| "none".to_string(), |offset| offset.to_string());
    let stop = if figures.was_clean { "in order" } else { "not in order" };
    vec![
        format!(
            "log      {} files of {} bytes, offsets {} to {}, {} records, durable point {durable}",
            figures.segments, figures.segment_bytes, figures.log_min, figures.log_end, figures.records
        ),
        format!("queues   {} queues, {} entries point to their records", figures.queues, figures.queue_entries),
        format!("index    {} files, {} entries point to their records", figures.index_files, figures.index_entries),
        format!("stopped  {stop}"),
    ]
}

fn findings_lines(audit: &Audit, lines: &mut Vec<String>) {
    lines.extend(audit.findings.kept.iter().map(finding_line));
    if audit.findings.dropped > 0 {
        lines.push(format!("         and {} findings more", audit.findings.dropped));
    }
}

fn verdict(status: ExitStatus) -> &'static str {
    match status {
        ExitStatus::Ok => "sound",
        ExitStatus::NeedsRepair => "needs repair",
        _ => "damaged",
    }
}

/// The answer of `verify`.
pub fn verified(format: Format, paths: &StorePaths, audit: &Audit, status: ExitStatus) -> Result<(), Failure> {
    let mut lines = figures_lines(audit);
    findings_lines(audit, &mut lines);
    lines.push(match (status, audit.findings.worst()) {
        (ExitStatus::Ok, _) => "the store is sound".to_string(),
        (ExitStatus::NeedsRepair, _) => {
            "the log is sound, files that follow from it are not: 'ringmq store repair --write' makes them anew"
                .to_string()
        }
        (_, Some(Severity::Damage)) if audit.first_damage.is_some() => {
            "the log is damaged; 'ringmq store repair --write --cut-log' would cut it there".to_string()
        }
        _ => "the store is damaged".to_string(),
    });
    let value = json!({
        "store": paths.root.display().to_string(),
        "verdict": verdict(status),
        "exitCode": status as u8,
        "figures": figures_json(audit),
        "findings": findings_json(audit),
        "findingsDropped": audit.findings.dropped,
    });
    print(format, &lines, &value)
}

/// What `repair` without `--write` says.
pub fn repair_plan(format: Format, audit: &Audit, parts: Parts) -> Result<(), Failure> {
    let mut lines = Vec::new();
    findings_lines(audit, &mut lines);
    let mut steps = Vec::new();
    let cuts = audit.first_damage.filter(|_| parts.cut_log);
    match (audit.first_damage, parts.cut_log) {
        (Some(damage), false) => {
            steps.push(format!("nothing: the log is damaged at offset {damage}, and --cut-log is not given"));
        }
        (damage, _) => {
            if let Some(damage) = damage {
                let lost = audit.figures.records_behind_damage;
                steps.push(format!(
                    "save what is behind offset {damage} aside, {lost} valid records among it, and cut there"
                ));
            }
            if parts.queues || cuts.is_some() {
                steps.push("make all queue files anew from the log and put the old ones aside".to_string());
            }
            if parts.index || cuts.is_some() {
                steps.push("make the index anew from the log and put the old one aside".to_string());
            }
        }
    }
    lines.extend(steps.iter().map(|step| format!("would    {step}")));
    lines.push("nothing was changed; --write does it".to_string());
    let value =
        json!({ "written": false, "steps": steps, "figures": figures_json(audit), "findings": findings_json(audit) });
    print(format, &lines, &value)
}

/// What `repair --write` did.
pub fn repaired(format: Format, repaired: &Repaired, after: &Audit, status: ExitStatus) -> Result<(), Failure> {
    let mut lines: Vec<String> = repaired.messages.iter().map(|message| format!("note     {message}")).collect();
    for saved in &repaired.saved {
        lines.push(format!("saved    {} is now {}", saved.from.display(), saved.to.display()));
    }
    if let Some(cut) = &repaired.cut {
        let place = cut.saved_to.display();
        lines.push(format!("cut      the log at {}; the {} bytes behind it are in {place}", cut.from, cut.bytes));
    }
    if repaired.queues > 0 {
        lines.push(format!("made     {} queues with {} entries", repaired.queues, repaired.queue_entries));
    }
    if repaired.indexed_records > 0 {
        lines.push(format!("made     the index of {} records", repaired.indexed_records));
    }
    if let Some(path) = &repaired.instructions {
        lines.push(format!("{} says how to go back", path.display()));
    }
    findings_lines(after, &mut lines);
    lines.push(format!("the store is now: {}", verdict(status)));
    let saved = |from: &std::path::Path, to: &std::path::Path| json!({ "from": from.display().to_string(), "to": to.display().to_string() });
    let value = json!({
        "written": true,
        "saved": repaired.saved.iter().map(|aside| saved(&aside.from, &aside.to)).collect::<Vec<_>>(),
        "cut": repaired.cut.as_ref().map(|cut| json!({
            "offset": cut.from.0,
            "bytes": cut.bytes,
            "savedTo": cut.saved_to.display().to_string(),
        })),
        "queues": repaired.queues,
        "queueEntries": repaired.queue_entries,
        "indexedRecords": repaired.indexed_records,
        "messages": repaired.messages,
        "instructions": repaired.instructions.as_ref().map(|path| path.display().to_string()),
        "verdict": verdict(status),
        "figures": figures_json(after),
        "findings": findings_json(after),
    });
    print(format, &lines, &value)
}

/// The answer of `adopt --check`, for a start with the sizes that are `configured`.
pub fn adoption(
    format: Format,
    paths: &StorePaths,
    plan: &Plan,
    audit: &Audit,
    configured: AuditOptions,
) -> Result<(), Failure> {
    let sections: [(&str, &[Remark]); 5] = [
        ("fits", &plan.fits),
        ("changes", &plan.changes),
        ("kept", &plan.left_alone),
        ("unknown", &plan.unknown),
        ("refused", &plan.blockers),
    ];
    let mut lines = Vec::new();
    for (name, remarks) in sections {
        lines.extend(remarks.iter().map(|remark| format!("{name:8} {}: {}", remark.path.display(), remark.text)));
    }
    lines.push(match plan.blockers.is_empty() {
        true => "RingMQ can open this store; a RocketMQ broker can open it again afterwards".to_string(),
        false => "RingMQ cannot open this store as it is".to_string(),
    });
    let figures = &audit.figures;
    let queue_size = format!("mappedFileSizeConsumeQueue={}", figures.queue_file_bytes);
    if plan.blockers.is_empty() && figures.segments > 0 {
        let queues = if figures.queue_file_bytes > 0 { format!(" and {queue_size}") } else { String::new() };
        lines.push(format!("start it with mappedFileSizeCommitLog={}{queues}", figures.segment_bytes));
    } else if ![0, configured.queue_file_entries * ENTRY_BYTES].contains(&figures.queue_file_bytes) {
        lines.push(format!(
            "most queue files have {} bytes: look again with --set {queue_size}",
            figures.queue_file_bytes
        ));
    }
    let remark = |remark: &Remark| json!({ "path": remark.path.display().to_string(), "text": remark.text });
    let list = |remarks: &[Remark]| remarks.iter().map(remark).collect::<Vec<_>>();
    let value = json!({
        "store": paths.root.display().to_string(),
        "adoptable": plan.blockers.is_empty(),
        "segmentBytes": audit.figures.segment_bytes,
        "queueFileBytes": audit.figures.queue_file_bytes,
        "fits": list(&plan.fits),
        "changes": list(&plan.changes),
        "leftAlone": list(&plan.left_alone),
        "unknown": list(&plan.unknown),
        "refused": list(&plan.blockers),
        "figures": figures_json(audit),
    });
    print(format, &lines, &value)
}

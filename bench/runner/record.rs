//! Turns what a run left behind into its record.

use super::{Finished, RunSpec};
use crate::clock::rfc3339;
use crate::engine::Outcome;
use crate::host::broker_metrics::{Sample, events, syncs_per_s};
use crate::host::pinning::format_cores;
use crate::host::process::is_virtual_machine;
use crate::result::{
    Distribution, Durability, EndToEnd, GeneratorRecord, HiccupRecord, LoopKind, OperationRecord, PhaseRecord,
    ResourceCost, RunParameters, RunRecord, RunStatus, Validity, hlog_name, phases_hlog_name,
};
use ringmq_protocol::frame::SerializeType;

/// From the engine's start to the measured phase.
pub(super) fn measure_offset_ns(finished: &Finished) -> u64 {
    finished.outcome.measure_start_ns.saturating_sub(finished.outcome.began_ns)
}

#[expect(clippy::cast_precision_loss, reason = "counts and times of a run are far below 2^53")]
fn ratio(value: u64, by: u64) -> f64 {
    if by == 0 { 0.0 } else { value as f64 / by as f64 }
}

/// Makes the record; it is not judged yet.
pub(super) fn make(
    spec: &RunSpec<'_>,
    finished: &Finished,
    samples: &[Sample],
    plan_sha256: String,
    started_ms: u64,
) -> RunRecord {
    let Finished { books, outcome, .. } = finished;
    let load = &spec.workload.load;
    let (planned, acknowledged, failed) = books.recorder.counts();
    let [response, service, lag, error] = books.recorder.distributions();
    let measured_ns = outcome.measure_end_ns - outcome.measure_start_ns;
    // The last answer of a load that is kept up with comes one undisturbed response time after the end of the plan. The median is
    // not that: where a queue grows it grows too, and the shortfall would not show.
    let answered_ns = books
        .recorder
        .last_answer_ns()
        .saturating_sub(outcome.measure_start_ns)
        .saturating_sub(response.min_ns)
        .max(measured_ns);
    let achieved_rate_per_s = match load.loop_kind {
        LoopKind::Open => ratio(acknowledged, answered_ns) * 1e9,
        LoopKind::Closed => ratio(acknowledged, measured_ns) * 1e9,
    };
    let batch = if finished.operation == "send" { load.batch } else { 1 };
    let messages = acknowledged * u64::from(batch);
    let end_to_end = books.recorder.end_to_end();
    let has_receipts = end_to_end.count > 0 || books.recorder.negative() > 0;
    let was_read = outcome.was_read_to_the_end && outcome.status == RunStatus::Complete;
    RunRecord {
        id: spec.id.clone(),
        system: spec.system.to_owned(),
        workload: spec.workload.name.clone(),
        durability: spec.durability,
        role: spec.role,
        round: spec.round,
        started: rfc3339(started_ms),
        status: outcome.status.clone(),
        parameters: RunParameters {
            loop_kind: load.loop_kind,
            arrivals: match load.loop_kind {
                LoopKind::Open => load.arrivals.clone(),
                LoopKind::Closed => "closed loop".to_owned(),
            },
            target_rate_per_s: (load.loop_kind == LoopKind::Open).then(|| {
                if load.rate_per_s > 0.0 && load.arrivals == "uniform" {
                    load.rate_per_s
                } else {
                    ratio(planned, measured_ns.max(1)) * 1e9
                }
            }),
            seed: load.seed,
            plan_sha256,
            message_bytes: load.message_bytes as u64,
            batch,
            connections: load.connections,
            depth: load.depth,
            topics: load.topics,
            queues: load.queues,
            consumer_groups: spec.workload.consumers.as_ref().map_or(0, |consumers| consumers.groups),
            idle_connections: load.idle_connections,
            preload_bytes: load.preload_bytes,
            header: match (finished.operation, spec.header) {
                ("append" | "read", _) => "none",
                (_, SerializeType::Json) => "json",
                (_, SerializeType::RocketMq) => "rocketmq",
            }
            .to_owned(),
            measure_s: load.measure_s,
            scale: spec.scale,
        },
        phases: phases(outcome, finished.connect_ns),
        measured_ns,
        achieved_rate_per_s,
        messages_per_s: achieved_rate_per_s * f64::from(batch),
        operations: vec![OperationRecord {
            name: finished.operation.to_owned(),
            planned,
            acknowledged,
            errors: failed,
            error_kinds: books.recorder.error_kinds(),
            response,
            service,
            lag,
            error,
        }],
        end_to_end: has_receipts.then(|| EndToEnd { distribution: end_to_end, negative: books.recorder.negative() }),
        integrity: books.ledger.close(was_read),
        hiccups: finished
            .hiccups
            .iter()
            .map(|(core, role, histogram)| HiccupRecord {
                core: *core,
                role: (*role).to_owned(),
                distribution: Distribution::of(histogram),
            })
            .collect(),
        steal_share: finished
            .steal
            .map(|(before, after)| ratio(after.1.saturating_sub(before.1), after.0.saturating_sub(before.0))),
        generator: GeneratorRecord {
            core: finished.place.core(),
            broker_cores: format_cores(&spec.layout.broker),
            shares_cores: spec.layout.shares_cores(),
            busy_share: outcome.busy_share,
            virtual_machine: is_virtual_machine(),
            own_lag: books.recorder.own_lags(),
            allocations: outcome.allocations,
        },
        cost: cost(spec, finished, messages, samples),
        validity: Validity::default(),
        series: books.recorder.series(),
        events: events(samples, outcome.measure_start_ns, outcome.measure_end_ns),
        hlog: hlog_name(&spec.id),
        phases_hlog: phases_hlog_name(&spec.id),
    }
}

fn phases(outcome: &Outcome, connect_ns: u64) -> Vec<PhaseRecord> {
    let connect = PhaseRecord { name: "connect".to_owned(), start_ns: 0, duration_ns: connect_ns, note: String::new() };
    let later =
        outcome.phases.iter().map(|phase| PhaseRecord { start_ns: phase.start_ns + connect_ns, ..phase.clone() });
    std::iter::once(connect).chain(later).collect()
}

fn cost(spec: &RunSpec<'_>, finished: &Finished, messages: u64, samples: &[Sample]) -> ResourceCost {
    let outcome = &finished.outcome;
    let message_bytes = spec.workload.load.message_bytes as u64;
    let syncs_each_group = spec.durability == Some(Durability::D2);
    let mut cost = ResourceCost {
        syncs_per_s: syncs_per_s(samples, outcome.measure_start_ns, outcome.measure_end_ns, syncs_each_group),
        syscalls_absent: finished.syscalls_absent.clone(),
        ..ResourceCost::default()
    };
    let Some((before, after, elapsed_ns)) = &finished.usage else { return cost };
    let difference = |before: Option<u64>, after: Option<u64>| Some(after?.saturating_sub(before?));
    let per_message =
        |before, after| difference(before, after).filter(|_| messages > 0).map(|used| ratio(used, messages));
    cost.cpu_ns_per_message = per_message(before.cpu_ns, after.cpu_ns);
    cost.cpu_cores = difference(before.cpu_ns, after.cpu_ns).map(|used| ratio(used, *elapsed_ns));
    cost.instructions_per_message = per_message(before.instructions, after.instructions);
    cost.syscalls_per_message = per_message(before.syscalls, after.syscalls);
    cost.voluntary_switches_per_message = per_message(before.voluntary_switches, after.voluntary_switches);
    cost.involuntary_switches_per_message = per_message(before.involuntary_switches, after.involuntary_switches);
    cost.write_amplification = difference(before.written_bytes, after.written_bytes)
        .filter(|_| messages > 0)
        .map(|written| ratio(written, messages * message_bytes));
    cost.resident_bytes = after.resident_bytes;
    cost.resident_anonymous_bytes = after.resident_anonymous_bytes;
    cost
}

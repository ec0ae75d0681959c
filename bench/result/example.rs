//! An example set for tests: RingMQ beside a slower system with both floors, three rounds at a fixed rate, one curve
//! each, an invalid run, a partial run, and a run that lost messages. The numbers are made up and follow from a small formula.

use hdrhistogram::Histogram;

use super::*;

/// A plausible distribution: a body around `median_ns` and a tail of one in fifty that is `tail` times as slow.
pub fn distribution(median_ns: u64, tail: u64, count: u64) -> Distribution {
    let mut histogram = Histogram::<u32>::new_with_bounds(100, 3_600_000_000_000, 3).unwrap();
    for index in 0..count {
        let spread = median_ns / 2 + median_ns * (index * 7919 % 1000) / 1000;
        let value = if index % 50 == 49 { spread * (1 + tail * (index * 104_729 % 100) / 100) } else { spread };
        histogram.record(value).unwrap();
    }
    Distribution::of(&histogram)
}

/// An environment of a few facts, one of which could not be read.
pub fn environment() -> EnvironmentRecord {
    let fact = |section: &str, name: &str, value: Option<&str>, note: &str| EnvironmentFact {
        section: section.to_owned(),
        name: name.to_owned(),
        value: value.map(str::to_owned),
        note: note.to_owned(),
    };
    EnvironmentRecord {
        schema: ENVIRONMENT_SCHEMA.to_owned(),
        captured: "2026-11-21T05:00:00Z".to_owned(),
        host_hash: "5f0c6a1be2d84c39".to_owned(),
        facts: vec![
            fact("kernel", "release", Some("6.18.0"), ""),
            fact("cpu", "model", Some("Example CPU <2 cores>"), ""),
            fact("cpu", "governor", None, "no cpufreq (VM)"),
            fact("memory", "vm.swappiness", Some("60"), ""),
            fact("build", "commit", Some("0123456789ab"), "clean"),
        ],
    }
}

/// A run of `system` at `rate` whose latencies follow `median_ns`.
pub fn run(system: &str, round: u32, role: RunRole, rate: f64, median_ns: u64) -> RunRecord {
    let count = 20_000;
    let response = distribution(median_ns, 20, count);
    let series = (0..10)
        .map(|second| SecondPoint {
            second,
            acknowledged: count / 10,
            errors: 0,
            received: count / 10,
            response_p50_ns: response.p50_ns,
            response_p99_ns: response.p99_ns + u64::from(second) * 1000,
            response_max_ns: response.max_ns,
            lag_max_ns: 9_000,
            end_to_end_p99_ns: response.p99_ns * 2,
            end_to_end_max_ns: response.max_ns * 2,
        })
        .collect();
    let role_name = format!("{role:?}").to_lowercase();
    let id = format!("{system}-steady-1k-10k-D1-{role_name}-{rate:.0}-{round}");
    RunRecord {
        hlog: hlog_name(&id),
        phases_hlog: phases_hlog_name(&id),
        id,
        system: system.to_owned(),
        workload: "steady-1k-10k".to_owned(),
        durability: (system != "null").then_some(Durability::D1),
        role,
        round,
        started: "2026-11-21T05:00:10Z".to_owned(),
        status: RunStatus::Complete,
        parameters: RunParameters {
            loop_kind: LoopKind::Open,
            arrivals: "uniform".to_owned(),
            target_rate_per_s: Some(rate),
            seed: 1,
            plan_sha256: "ab".repeat(32),
            message_bytes: 1024,
            batch: 1,
            connections: 4,
            depth: 256,
            topics: 1,
            queues: 8,
            consumer_groups: 1,
            idle_connections: 0,
            preload_bytes: 0,
            header: "json".to_owned(),
            measure_s: 10.0,
            scale: 1.0,
        },
        phases: [("connect", 0, 5), ("probe", 5, 20), ("warm-up", 25, 10_000), ("measure", 10_025, 10_000)]
            .into_iter()
            .chain([("drain", 20_025, 3), ("verify", 20_028, 900)])
            .map(|(name, start_ms, duration_ms)| PhaseRecord {
                name: name.to_owned(),
                start_ns: start_ms * 1_000_000,
                duration_ns: duration_ms * 1_000_000,
                note: if name == "warm-up" { "steady".to_owned() } else { String::new() },
            })
            .collect(),
        measured_ns: 10_000_000_000,
        achieved_rate_per_s: rate,
        messages_per_s: rate,
        operations: vec![OperationRecord {
            name: "send".to_owned(),
            planned: count,
            acknowledged: count,
            errors: 0,
            error_kinds: Vec::new(),
            service: distribution(median_ns * 9 / 10, 20, count),
            lag: distribution(800, 3, count),
            error: Distribution::default(),
            response,
        }],
        end_to_end: Some(EndToEnd { distribution: distribution(median_ns * 3 / 2, 20, count), negative: 0 }),
        integrity: IntegrityRecord {
            checked: true,
            sent: count * 2,
            acknowledged: count * 2,
            received: count * 2,
            overtaken: 3,
            ..IntegrityRecord::default()
        },
        hiccups: vec![
            HiccupRecord { core: 0, role: "broker".to_owned(), distribution: distribution(2_000, 100, 1000) },
            HiccupRecord { core: 1, role: "generator".to_owned(), distribution: distribution(500, 100, 1000) },
        ],
        steal_share: Some(0.001),
        generator: GeneratorRecord {
            core: Some(1),
            broker_cores: "0".to_owned(),
            shares_cores: false,
            busy_share: 0.31,
            virtual_machine: None,
            own_lag: distribution(800, 3, count),
            allocations: 0,
        },
        cost: ResourceCost {
            cpu_ns_per_message: Some(median_ns as f64 / 20.0),
            cpu_cores: Some(0.4),
            resident_bytes: Some(64 << 20),
            ..ResourceCost::default()
        },
        validity: Validity::default(),
        series,
        events: vec![
            BrokerEvent { second: 3, kind: BrokerEventKind::Sync, count: 2 },
            BrokerEvent { second: 7, kind: BrokerEventKind::SegmentRoll, count: 1 },
        ],
    }
}

/// The whole set.
pub fn result_set() -> ResultSet {
    let mut runs =
        vec![run("null", 1, RunRole::Floor, 10_000.0, 30_000), run("file", 1, RunRole::Floor, 10_000.0, 12_000)];
    for round in 1..=3 {
        runs.push(run("ringmq", round, RunRole::Measured, 10_000.0, 60_000 + u64::from(round) * 1_000));
        runs.push(run("java", round, RunRole::Measured, 10_000.0, 400_000 + u64::from(round) * 9_000));
    }
    let mut curves = Vec::new();
    for (system, median_ns, knee) in [("ringmq", 60_000, 80_000.0), ("java", 400_000, 10_000.0)] {
        let mut points = Vec::new();
        for (step, factor) in [0.25, 0.5, 1.0, 1.25].into_iter().enumerate() {
            let rate = knee * factor;
            let median_ns = if factor > 1.0 { median_ns * 50 } else { median_ns * (step as u64 + 4) / 4 };
            let mut step = run(system, 1, RunRole::SweepStep, rate, median_ns);
            let held = factor <= 1.0;
            if !held {
                step.validity.invalid.push("reached 90.1 % of the target rate".to_owned());
            }
            let reason = if held { String::new() } else { "p99 24 ms > 1 ms".to_owned() };
            points.push(CurvePoint { rate_per_s: rate, run: step.id.clone(), held, reason });
            runs.push(step);
        }
        curves.push(Curve {
            system: system.to_owned(),
            workload: "steady-1k-10k".to_owned(),
            durability: Some(Durability::D1),
            round: 1,
            slo: Slo { p99_ns: Some(1_000_000), errors: Some(0), ..Slo::default() },
            points,
            knee_rate_per_s: Some(knee),
            confirmed: true,
            is_cut_short: false,
        });
    }
    let mut partial = run("java", 4, RunRole::Measured, 10_000.0, 500_000);
    partial.status = RunStatus::Partial { reason: "measure: the broker closed the connection".to_owned() };
    partial.integrity.lost = 2;
    runs.push(partial);
    let system = |name: &str, title: &str, durability| SystemRecord {
        name: name.to_owned(),
        title: title.to_owned(),
        durability,
        configuration: vec![("flushDiskType".to_owned(), "ASYNC_FLUSH".to_owned())],
        command: Vec::new(),
        runtime: String::new(),
        profile: "none".to_owned(),
        files: Vec::new(),
        exits: Vec::new(),
    };
    ResultSet {
        schema: RESULT_SCHEMA.to_owned(),
        kind: SetKind::Versus,
        created: "2026-11-21T05:00:00Z".to_owned(),
        status: SetStatus::Complete,
        tool: ToolRecord { version: "0.1.0".to_owned(), profile: "release".to_owned() },
        command: ["ringmq-bench", "versus", "ringmq", "java"].map(str::to_owned).to_vec(),
        environment_sha256: "cd".repeat(32),
        systems: vec![
            system("null", "echo floor", None),
            system("file", "append floor", Some(Durability::D1)),
            system("ringmq", "RingMQ 0.1.0", Some(Durability::D1)),
            system("java", "Apache RocketMQ 5.3.3", Some(Durability::D1)),
        ],
        workloads: vec![WorkloadRecord {
            name: "steady-1k-10k".to_owned(),
            models: "a service that sends 10,000 messages of 1 KiB per second".to_owned(),
            hides: "bursts".to_owned(),
            definition: "name = \"steady-1k-10k\"\n".to_owned(),
        }],
        slo: Some(Slo { p99_ns: Some(1_000_000), errors: Some(0), ..Slo::default() }),
        runs,
        curves,
        headroom: vec![Headroom {
            workload: "steady-1k-10k".to_owned(),
            null_rate_per_s: 640_000.0,
            highest_used_rate_per_s: 80_000.0,
            highest_fixed_rate_per_s: 10_000.0,
            fastest_closed_loop_per_s: 0.0,
            highest_knee_per_s: 80_000.0,
        }],
        goals: vec![Goal {
            id: "P3".to_owned(),
            rule: "p99 of steady-1k-10k in D1 at most 500 us".to_owned(),
            wanted: 500.0,
            measured: Some(410.0),
            unit: "µs".to_owned(),
            at_least: false,
            failure: String::new(),
            cause: String::new(),
        }],
        distances: vec![Distance {
            row: "steady-1k-10k at 10,000/s, D1, p99".to_owned(),
            goal: "P3".to_owned(),
            wanted: Some(500.0),
            measured: 410.0,
            floor: 100.0,
            floor_is: "echo and append".to_owned(),
            unit: "µs".to_owned(),
            ratio: 4.1,
            cause: String::new(),
        }],
    }
}

/// The paths of all members of a value.
fn members(value: &serde_json::Value, path: &str, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{path}.{name}");
                members(value, &path, found);
                found.insert(path);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| members(value, path, found)),
        _ => {}
    }
}

/// Goal: whoever adds or takes away a member makes a new schema id, for earlier programs refuse members that they do not know.
/// Method: the members of the example with everything in it are those of the file that has the id's number in its name; a
/// new number gets its file from `RINGMQ_BENCH_WRITE_EXAMPLE=1`, an old one is not written again.
#[test]
fn a_new_member_has_a_new_schema() {
    let mut set = result_set();
    set.curves[0].is_cut_short = true;
    set.slo = Some(set.curves[0].slo.clone());
    set.goals[0].failure = "x".to_owned();
    set.goals[0].cause = "x".to_owned();
    set.runs[0].cost.syscalls_absent = "x".to_owned();
    set.runs[0].generator.virtual_machine = Some(true);
    set.runs[0].operations[0].error_kinds =
        vec![ErrorCount { kind: "timeout".to_owned(), count: 1, example: String::new() }];
    set.systems[0].exits = vec![ExitRecord { start: "x".to_owned(), status: "x".to_owned(), is_in_order: true }];
    let mut found = std::collections::BTreeSet::new();
    members(&serde_json::to_value(&set).unwrap(), "", &mut found);
    let text = found.into_iter().map(|path| path + "\n").collect::<String>();
    let number = RESULT_SCHEMA.rsplit('/').next().unwrap();
    let path = format!("{}/result/testdata/members-{number}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("RINGMQ_BENCH_WRITE_EXAMPLE").is_some() && !std::path::Path::new(&path).exists() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "other members need another schema id");
}

/// Goal: the committed example is of the present form, so that a change of the types is seen in review. Method: it is
/// compared with some runs of the set above; `RINGMQ_BENCH_WRITE_EXAMPLE=1` writes it anew.
#[test]
fn committed_example_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/result/testdata/example");
    let directory = ResultDirectory::open(path);
    let mut set = result_set();
    set.curves.truncate(1);
    set.runs
        .retain(|run| run.system == "null" || run.status != RunStatus::Complete || !run.validity.invalid.is_empty());
    if std::env::var_os("RINGMQ_BENCH_WRITE_EXAMPLE").is_some() {
        std::fs::create_dir_all(path).unwrap();
        directory.write_environment(&environment()).unwrap();
        directory.write_result(&set).unwrap();
    }
    assert_eq!(directory.read_result().unwrap(), set);
    assert_eq!(directory.read_environment().unwrap(), environment());
}

//! The program as a user meets it: exit codes, messages, partial results. Speeds are never looked at.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ringmq_bench::result::{ResultDirectory, ResultSet, RunStatus, SetStatus};

fn bench(arguments: &[&str], out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmq-bench"))
        .args(arguments)
        .args(["--allow-shared-cores", "--out"])
        .arg(out)
        .output()
        .expect("the program starts")
}

fn result(out: &Path) -> ResultSet {
    ResultDirectory::open(out).read_result().expect("a result")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("no exit code: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A run that sends more messages than the faulty one is behind. On a machine that has no time for the server a short run may
/// not come that far: then another one is made.
fn sending_enough(arguments: &[&str], out: &Path) -> (Output, ResultSet) {
    for _ in 0..20 {
        let _ = std::fs::remove_dir_all(out);
        let output = bench(arguments, out);
        let set = result(out);
        if set.runs[0].integrity.sent > 40 {
            return (output, set);
        }
    }
    panic!("no run sends 40 messages");
}

const SHORT: [&str; 4] = ["--seconds", "0.3", "--warm-up", "0"];

#[test]
fn faults_are_caught() {
    // Goal: a broker that loses, doubles, reorders, damages or invents a message fails the run with exit code 4, and the class
    // is named. Method: the null server commits each fault once.
    let folder = tempfile::tempdir().unwrap();
    type Look = fn(&ResultSet) -> u64;
    let classes: [(&str, Look); 5] = [
        ("loss", |set| set.runs[0].integrity.lost),
        ("duplicate", |set| set.runs[0].integrity.duplicated),
        ("reorder", |set| set.runs[0].integrity.reordered),
        ("corruption", |set| set.runs[0].integrity.corrupt),
        ("phantom", |set| set.runs[0].integrity.phantom),
    ];
    for (class, look) in classes {
        let out = folder.path().join(class);
        let target = format!("null:{class}");
        let arguments = [&["run", "rtt-1k", "--target", &target, "--json"][..], &SHORT].concat();
        let (output, set) = sending_enough(&arguments, &out);
        assert_eq!(code(&output), 4, "{class}");
        assert_eq!(look(&set), 1, "{class}: {:?}", set.runs[0].integrity);
        let text = String::from_utf8(output.stdout).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).expect("nothing but JSON");
        assert_eq!(json["exit_code"], 4);
    }
}

#[test]
fn faults_are_caught_by_consumers() {
    // Goal: faults are caught where consumers read while the load runs, too. Method: each fault once, under a
    // workload with a group. But for a changed order: a consumer at the end of its queue has read the first of two before they
    // change places.
    let folder = tempfile::tempdir().unwrap();
    type Look = fn(&ResultSet) -> u64;
    let classes: [(&str, Look); 4] = [
        ("loss", |set| set.runs[0].integrity.lost),
        ("duplicate", |set| set.runs[0].integrity.duplicated),
        ("corruption", |set| set.runs[0].integrity.corrupt),
        ("phantom", |set| set.runs[0].integrity.phantom),
    ];
    for (class, look) in classes {
        let out = folder.path().join(class);
        let target = format!("null:{class}");
        let arguments = [&["run", "end-to-end", "--target", &target][..], &SHORT].concat();
        let (output, set) = sending_enough(&arguments, &out);
        assert_eq!(code(&output), 4, "{class}: {:?}", set.runs[0].integrity);
        assert!(set.runs[0].parameters.consumer_groups > 0 && set.runs[0].end_to_end.is_some());
        assert!(look(&set) >= 1, "{class}: {:?}", set.runs[0].integrity);
    }
}

#[test]
fn a_faultless_server_is_not_accused() {
    // Goal: no false alarm, with consumers, batches, many queues and binary headers. Method: the null server keeps everything.
    let folder = tempfile::tempdir().unwrap();
    for (workload, more) in [
        ("rtt-1k", &["--header", "rocketmq"][..]),
        ("ordered", &[]),
        ("batch-32", &["--rate", "50"]),
        ("fanout-10", &["--rate", "50"]),
        ("topics-1000", &["--rate", "200"]),
        ("size-4m-max", &["--rate", "20"]),
    ] {
        let out = folder.path().join(workload);
        let arguments = [&["run", workload, "--target", "null:keep"][..], &SHORT, more].concat();
        let output = bench(&arguments, &out);
        // A busy machine may make it invalid, which is 3.
        assert!([0, 3].contains(&code(&output)), "{workload}: {}", String::from_utf8_lossy(&output.stdout));
        let run = &result(&out).runs[0];
        assert_eq!(run.status, RunStatus::Complete, "{workload}");
        assert!(run.integrity.checked && !run.integrity.is_violated(), "{workload}: {:?}", run.integrity);
        assert!(run.integrity.received > 0, "{workload}");
        assert_eq!(run.generator.allocations, 0, "{workload}: the generator allocates while it measures");
        let operation = &run.operations[0];
        assert_eq!(operation.planned, operation.acknowledged + operation.errors, "{workload}");
        assert_eq!(run.end_to_end.is_some(), run.parameters.consumer_groups > 0, "{workload}");
    }
}

#[test]
fn a_dying_broker_leaves_a_marked_result() {
    // Goal: what was measured before a broker died is kept, marked, and explained. Method: the null server closes all
    // connections after some sends; result and report must be there.
    let folder = tempfile::tempdir().unwrap();
    let output = bench(&["run", "rtt-1k", "--target", "null:die", "--seconds", "60", "--warm-up", "0"], folder.path());
    assert_eq!(code(&output), 3);
    let set = result(folder.path());
    let RunStatus::Partial { reason } = &set.runs[0].status else { panic!("it is partial") };
    assert!(reason.starts_with("measure: ") && reason.contains("closed the connection"), "{reason}");
    assert!(matches!(set.status, SetStatus::Partial { .. }));
    let operation = &set.runs[0].operations[0];
    assert!(operation.acknowledged > 0 && operation.errors > 0, "{operation:?}");
    assert_eq!(operation.error_kinds[0].kind, "connection");
    for file in ["report.html", "SHA256SUMS", "env.json", &set.runs[0].hlog] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
}

#[test]
fn an_interrupt_leaves_a_marked_result() {
    // Goal: Ctrl-C ends a run in order. Method: interrupt a run of a minute once its result directory is there.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("r");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"))
        .args(["run", "rtt-1k", "--target", "null:keep", "--seconds", "60", "--allow-shared-cores", "--out"])
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !out.join("result.json").is_file() {
        assert!(child.try_wait().unwrap().is_none(), "it runs");
        std::thread::yield_now();
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let set = result(&out);
    assert_eq!(set.status, SetStatus::Partial { reason: "interrupted".to_owned() });
    let is_partial = |run: &ringmq_bench::result::RunRecord| matches!(run.status, RunStatus::Partial { .. });
    assert!(set.runs.iter().all(is_partial), "{:?}", set.runs.iter().map(|run| &run.status).collect::<Vec<_>>());
}

#[test]
fn wrong_use_is_explained() {
    // Goal: exit code 2 and a sentence that helps. Method: a list of mistakes.
    let folder = tempfile::tempdir().unwrap();
    let mistakes: [(&[&str], &str); 17] = [
        (&["versus"], "BROKER"),
        (&["versus", "ringmq"], "BROKER"),
        (&["run", "rtt-1k", "--target", "nothing"], "file-read-direct"),
        (&["run", "rtt-1k", "--target", "null", "--scale", "0.5"], "rtt-1k has neither"),
        (&["run", "rtt-2k", "--target", "null"], "there is no workload"),
        (&["run", "rtt-1k", "--target", "nothing"], "none of remoting://HOST:PORT"),
        (&["run", "rtt-1k", "--target", "remoting://nohost"], "no address HOST:PORT"),
        (&["run", "rtt-1k", "--target", "null", "--rate", "5"], "closed loop"),
        (&["sweep", "rtt-1k", "--target", "null", "--slo", "p99<=1ms"], "no rate to sweep"),
        (&["run", "rtt-1k", "--target", "null", "--broker-cores", "1000"], "there is no core 1000"),
        (&["sweep", "steady-1k-1k", "--target", "null", "--slo", "p99<=1ms", "--from", "0"], "no rate above 0"),
        (&["run", "rtt-1k", "--target", "null", "--slo", "p98<=1ms"], "p98<=1ms"),
        (&["report", "/nowhere"], "/nowhere is no result directory"),
        (&["publish", "--from", "/nowhere"], "/nowhere is no result directory"),
        (&["versus", "ringmq", "java", "--resume", "/nowhere"], "/nowhere is no result directory"),
        (&["versus", "ringmq", "kafka"], "neither ringmq nor java"),
        (&["run", "delay-level", "--target", "ringmq"], "does not serve yet"),
    ];
    for (index, (arguments, part)) in mistakes.into_iter().enumerate() {
        let output = bench(arguments, &folder.path().join(index.to_string()));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(&output), 2, "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}

#[test]
fn readers_may_go() {
    // Goal: a reader that goes away (`| head`) ends no command with a panic, and a measured run keeps its result and its code; output that
    // is lost while somebody waits for it is no success. Method: pipes whose readers are gone from the start, for standard output and
    // error; then a device that is always full.
    let folder = tempfile::tempdir().unwrap();
    let without_reader = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let run = [&["run", "rtt-1k", "--target", "null"][..], &SHORT].concat();
    let run_json = [&run[..], &["--json"]].concat();
    for (index, arguments) in [
        &["list"][..],
        &["list", "--json"],
        &["explain", "catchup"],
        &["env"],
        &["report", "/nowhere"],
        &["report", "/nowhere", "--json"],
        &["--help"],
        &run,
        &run_json,
    ]
    .into_iter()
    .enumerate()
    {
        let out = folder.path().join(index.to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"));
        command.args(arguments).args(["--allow-shared-cores", "--out"]).arg(&out).stdout(without_reader());
        let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let both = command.stdout(without_reader()).stderr(without_reader());
        if arguments[0] == "run" {
            let set = result(&out);
            assert_eq!((&set.status, &set.runs[0].status), (&SetStatus::Complete, &RunStatus::Complete));
            assert!(out.join("report.html").is_file());
            // A busy machine may make it invalid, which is 3.
            let wanted = if set.runs[0].validity.invalid.is_empty() { 0 } else { 3 };
            assert_eq!(code(&output), wanted, "{arguments:?}: {said}");
            std::fs::remove_dir_all(&out).unwrap();
            assert!([Some(0), Some(3)].contains(&both.status().unwrap().code()), "{arguments:?}");
            assert_eq!(result(&out).runs[0].status, RunStatus::Complete);
            continue;
        }
        let wanted = if arguments[0] == "report" { 2 } else { 0 };
        assert_eq!(code(&output), wanted, "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        assert_eq!(both.status().unwrap().code(), Some(wanted), "{arguments:?}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut list = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"));
    let output = list.arg("list").stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code(&output) == 3 && said.lines().count() == 1 && said.contains("standard output"), "{said}");
}

#[test]
fn exit_codes_do_not_depend_on_the_form() {
    // Goal: a mistake that is noticed late has the same code with and without --json. Method: a trace that is not there.
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["run", "steady-1k-1k", "--target", "null", "--arrivals", "trace(nowhere.txt)"];
    for (name, more) in [("plain", &[][..]), ("json", &["--json"])] {
        let output = bench(&[&arguments[..], more].concat(), &folder.path().join(name));
        assert_eq!(code(&output), 2, "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_missing_broker_is_named() {
    // Goal: the address and what to look at are in the message, whether or not cores may be shared, and nothing is said of topics or
    // left as a result. Method: a port that nobody listens on, and that nobody else gets meanwhile: one end of a connection has it.
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = connected.local_addr().unwrap().port();
    let target = format!("remoting://127.0.0.1:{port}");
    let out = folder.path().join("out");
    for arguments in [
        &["run", "rtt-1k", "--target", &target, "--allow-shared-cores", "--out", out.to_str().unwrap()][..],
        &["run", "rtt-1k", "--target", &target, "--out", out.to_str().unwrap()],
        &["sweep", "steady-1k-1k", "--target", &target, "--slo", "p99<=1ms", "--out", out.to_str().unwrap()],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmq-bench")).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(&output), 3, "{text}");
        assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("is the broker running"), "{text}");
        assert!(!text.contains("topics") && !out.exists(), "{text}");
    }
}

#[test]
fn conditions_decide_the_exit_code() {
    // Goal: a missed condition is 1, a met one is 0, an invalid run is 3 whatever was asked. Method: conditions that cannot hold
    // and cannot fail; a run that this machine spoiled must say so, and is made again, some times.
    let folder = tempfile::tempdir().unwrap();
    for (conditions, wanted) in [("p50<=1ns", 1), ("p50<=1m,errors=0", 0)] {
        for attempt in 0..20 {
            let out = folder.path().join(format!("{wanted}-{attempt}"));
            let arguments = [&["run", "rtt-1k", "--target", "null", "--slo", conditions][..], &SHORT].concat();
            let code = code(&bench(&arguments, &out));
            let validity = &result(&out).runs[0].validity;
            let is_valid = validity.invalid.is_empty();
            assert_eq!(code, if is_valid { wanted } else { 3 }, "{conditions}: {validity:?}");
            if is_valid {
                break;
            }
        }
    }
}

#[test]
fn floors_connections_and_lists() {
    // Goal: the other drivers and the plain commands work. Method: each once.
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().to_str().unwrap();
    for (name, arguments) in [
        ("file", &["run", "rtt-1k", "--target", "file-fdatasync", "--store", store][..]),
        ("storm", &["run", "conn-storm-1k", "--target", "null", "--rate", "100"]),
    ] {
        let out = folder.path().join(name);
        // One operation is enough, and takes what it takes.
        let mut seconds = 0.3;
        loop {
            let timing = [format!("--seconds={seconds}"), "--warm-up=0".to_owned()];
            let timing: Vec<&str> = timing.iter().map(String::as_str).collect();
            let output = bench(&[arguments, &timing].concat(), &out);
            assert!([0, 3].contains(&code(&output)), "{name}");
            let operation = &result(&out).runs[0].operations[0];
            assert_eq!(operation.errors, 0, "{name}: {operation:?}");
            if operation.acknowledged > 0 {
                break;
            }
            std::fs::remove_dir_all(&out).unwrap();
            seconds *= 4.0;
            assert!(seconds < 60.0, "{name}: nothing is acknowledged");
        }
    }
    for arguments in [&["list"][..], &["explain", "catchup"], &["env"], &["list", "--json"]] {
        let output = bench(arguments, folder.path());
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn texts_fit_a_terminal() {
    // Goal: what people read ends within 100 columns, and help of commands that measure nothing has no options for measuring, which are
    // taken all the same. Method: the texts that are made of sentences; help of each such command.
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["list"][..], &["explain", "catchup"], &["explain", "retention"]] {
        let output = bench(arguments, folder.path());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{arguments:?}: {text}");
    }
    for command in ["compare", "report", "env", "list", "explain", "run"] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmq-bench")).args([command, "--help"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_measuring = command == "run";
        assert!(text.contains("--json"), "{command}: {text}");
        for option in ["--java-heap", "--broker-cores", "--generator-core", "--count-syscalls"] {
            assert_eq!(text.contains(option), is_measuring, "{command}: {text}");
        }
    }
}

#[test]
fn many_connections_need_no_ulimit() {
    // Goal: a soft limit of open files below what a workload needs is raised, and a hard one is named as what it is. Method: a shell
    // that lowers each; 300 idle connections to a server in the same process.
    let folder = tempfile::tempdir().unwrap();
    for (limit, is_enough) in [("-Sn", true), ("-n", false)] {
        let out = folder.path().join(limit);
        let command = format!("ulimit {limit} 256 && exec \"$0\" \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &command, env!("CARGO_BIN_EXE_ringmq-bench")])
            .args(["run", "conn-10k-idle", "--target", "null", "--scale", "0.03", "--allow-shared-cores", "--out"])
            .arg(&out)
            .args(SHORT)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        if is_enough {
            assert!([0, 3].contains(&code(&output)), "{text}");
            assert_eq!(result(&out).runs[0].parameters.idle_connections, 300, "{text}");
        } else {
            assert_eq!(code(&output), 3, "{text}");
            assert!(text.contains("no more than 256 files") && !text.contains("is the broker running"), "{text}");
        }
    }
}

#[test]
fn conditions_on_receipts() {
    // Goal: end-to-end conditions decide a run, are refused by name where nobody receives or the name is wrong, and are explained.
    // Method: a condition that no receipt can meet, under a workload with consumers and one without; a misspelled one; help texts.
    let folder = tempfile::tempdir().unwrap();
    let slow = ["--target", "null:keep", "--slo", "e2e.p99<=1ns,errors=0"];
    let output = bench(&[&["run", "end-to-end"][..], &slow, &SHORT].concat(), &folder.path().join("a"));
    // A busy machine may make it invalid, which is 3.
    assert!([1, 3].contains(&code(&output)), "{}", String::from_utf8_lossy(&output.stdout));
    let set = result(&folder.path().join("a"));
    assert_eq!(set.slo.as_ref().and_then(|slo| slo.e2e_p99_ns), Some(1));
    let run = &set.runs[0];
    assert!(
        folder.path().join("a").join(&run.phases_hlog).is_file() && run.phases_hlog != run.hlog,
        "{}",
        run.phases_hlog
    );
    for (workload, slo, told) in [
        ("rtt-1k", "e2e.p99<=2ms", "e2e.p99 needs consumers, and the workload rtt-1k has none"),
        ("end-to-end", "p99<=1ms,e2e.p98<=2ms", "the condition \"e2e.p98<=2ms\": there is no \"e2e.p98\""),
    ] {
        let output = bench(&["run", workload, "--target", "null:keep", "--slo", slo], &folder.path().join("b"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(code(&output) == 2 && said.contains(told), "{said}");
        assert!(!folder.path().join("b").exists(), "nothing is measured");
    }
    for arguments in [&["run", "--help"][..], &["sweep", "--help"], &["explain", "rtt-1k"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmq-bench")).args(arguments).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("e2e.NAME<=TIME"), "{arguments:?}");
    }
}

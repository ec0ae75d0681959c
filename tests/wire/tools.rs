//! The commands `ringmq produce` and `ringmq consume` against the real broker.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};

use super::broker::{Broker, Store, wait_for};

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(broker: &Broker, arguments: &[&str]) -> Output {
    let output = tool(arguments).args(["--namesrv", &broker.name_server()]).output().expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(output: &Output) -> Vec<String> {
    text(&output.stdout).lines().map(str::to_owned).collect()
}

/// Waits for the line with which `consume --verbose` says that it reads.
fn wait_until_reading(child: &mut Child) {
    let mut errors = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut line = String::new();
    errors.read_line(&mut line).expect("a line");
    assert!(line.contains("reading"), "{line}");
    child.stderr = Some(errors.into_inner());
}

fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: kill has no memory effects; the child has not been waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
}

#[test]
fn without_a_server_the_tools_say_so() {
    // Goal: the first mistake of a new user is explained. Method: both commands at a port where nothing listens.
    for arguments in [&["produce", "--topic", "t", "body"][..], &["consume", "--topic", "t"]] {
        let output = tool(arguments).args(["--namesrv", "127.0.0.1:9"]).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(8));
        assert_eq!(text(&output.stderr), "ringmq: nothing listens at 127.0.0.1:9\n");
    }
}

#[test]
fn what_produce_sends_consume_prints() {
    // Goal: the two commands work together from the first message on. Method: send a body, repeated bodies and lines of
    // input to a topic that does not exist; print all of them, then those with a tag, with a key, and verbosely.
    let mut store = Store::new();
    let broker = store.start(&[]);
    let receipts = run(&broker, &["produce", "--topic", "tools", "--tag", "red", "--key", "k1", "hello"]);
    let receipt = &lines(&receipts)[0];
    assert!(receipt.starts_with("queue ") && receipt.contains(" offset 0 id 7F000001"), "{receipt}");
    assert_eq!(lines(&run(&broker, &["produce", "--topic", "tools", "--count", "3", "again"])).len(), 3);
    let mut child = tool(&["produce", "--topic", "tools", "--namesrv", &broker.name_server()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("stdin is piped").write_all(b"one\n\ntwo\r\nlast").expect("written");
    let output = child.wait_with_output().expect("a child");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(lines(&output).len(), 3);

    let all = run(&broker, &["consume", "--topic", "tools", "--from", "earliest", "--count", "7"]);
    let mut bodies = lines(&all);
    bodies.sort_unstable();
    assert_eq!(bodies, ["again", "again", "again", "hello", "last", "one", "two"]);
    for filter in [["--tag", "red"], ["--key", "k1"]] {
        let mut arguments = vec!["consume", "--topic", "tools", "--from", "earliest", "--count", "1", "--verbose"];
        arguments.extend(filter);
        let printed = lines(&run(&broker, &arguments));
        assert!(printed[0].ends_with("/0 tags=red keys=k1\thello"), "{printed:?}");
    }
    assert_eq!(lines(&run(&broker, &["consume", "--topic", "tools", "--from", "0", "--count", "7"])).len(), 7);
}

#[test]
fn consume_waits_for_new_messages_and_ends_on_a_signal() {
    // Goal: without a count the command goes on, begins at the end, and stops in order. Method: an old message, then a
    // running consume, then a new message; interrupt.
    let mut store = Store::new();
    let broker = store.start(&[]);
    run(&broker, &["produce", "--topic", "tools", "old"]);
    let mut child = tool(&["consume", "--topic", "tools", "--verbose", "--namesrv", &broker.name_server()])
        .spawn()
        .expect("the binary runs");
    wait_until_reading(&mut child);
    run(&broker, &["produce", "--topic", "tools", "new"]);
    let mut printed = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut line = String::new();
    printed.read_line(&mut line).expect("a line");
    assert!(line.ends_with("\tnew\n"), "{line}");
    interrupt(&child);
    let mut rest = String::new();
    printed.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "");
    assert_eq!(child.wait().expect("a child").code(), Some(0));
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    // Goal: with a group nothing is printed twice or left out. Method: print two of five messages, then the rest, ending
    // once by count and once by a signal; a third run finds nothing but new ones.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("grouped", 1);
    run(&broker, &["produce", "--topic", "grouped", "--count", "5", "old"]);
    let group = ["consume", "--topic", "grouped", "--group", "wire", "--from", "earliest", "--verbose"];
    let with = |more: &[&'static str]| [&group[..], more].concat();
    let first = lines(&run(&broker, &with(&["--count", "2"])));
    assert_eq!(first, ["0/0\told", "0/1\told"]);
    let queue = broker.queue("grouped", 0);
    let mut client = broker.client();
    assert_eq!(client.query_offset("wire", &queue).expect("an answer"), Some(2));

    let mut child = tool(&group).args(["--namesrv", &broker.name_server()]).spawn().expect("the binary runs");
    let mut printed = BufReader::new(child.stdout.take().expect("stdout is piped"));
    for offset in 2..5 {
        let mut line = String::new();
        printed.read_line(&mut line).expect("a line");
        assert_eq!(line, format!("0/{offset}\told\n"));
    }
    interrupt(&child);
    assert_eq!(child.wait().expect("a child").code(), Some(0));
    assert_eq!(client.query_offset("wire", &queue).expect("an answer"), Some(5));
    wait_for("the empty group", || client.consumer_ids(&broker.address(), "wire").is_err().then_some(()));

    run(&broker, &["produce", "--topic", "grouped", "new"]);
    assert_eq!(lines(&run(&broker, &with(&["--count", "1"]))), ["0/5\tnew"]);
}

#[test]
fn refusals_are_told() {
    // Goal: a person learns what was wrong. Method: a topic that does not exist, a topic with a bad name, a tag that
    // cannot be written.
    let mut store = Store::new();
    let broker = store.start(&[]);
    for (arguments, code, said) in [
        (&["consume", "--topic", "nowhere"][..], 8, "there is no topic nowhere"),
        (&["produce", "--topic", "a b", "x"], 8, "with code 29"),
        (&["produce", "--topic", "t", "--tag", "\u{1}", "x"], 2, "property \"TAGS\""),
    ] {
        let output = tool(arguments).args(["--namesrv", &broker.name_server()]).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}

#[test]
fn consume_outlives_a_restart_of_the_broker() {
    // Goal: a running consumer comes back by itself. Method: start it, stop the broker in order, start it again, send;
    // the message is printed, and the group's offset is committed at the end.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("restarted", 1);
    let mut child = tool(&["consume", "--topic", "restarted", "--group", "wire", "--verbose"])
        .args(["--namesrv", &broker.name_server()])
        .spawn()
        .expect("the binary runs");
    wait_until_reading(&mut child);
    assert_eq!(broker.stop(&[]).code(), Some(0));
    let broker = store.start(&[]);
    run(&broker, &["produce", "--topic", "restarted", "new"]);
    let mut printed = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut line = String::new();
    printed.read_line(&mut line).expect("a line");
    assert_eq!(line, "0/0\tnew\n");
    interrupt(&child);
    assert_eq!(child.wait().expect("a child").code(), Some(0));
    let committed = broker.client().query_offset("wire", &broker.queue("restarted", 0)).expect("an answer");
    assert_eq!(committed, Some(1));
}

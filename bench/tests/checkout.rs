//! The broker that is built from the same sources before it is measured. The cargo that builds it is a script.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Notes what it was asked for, names the workspace, and "builds" by copying a file to where brokers are built.
const CARGO: &str = r#"#!/bin/sh
echo "in $PWD: $*" >>"$RECORD"
case $1 in
metadata) printf '{"packages":[],"workspace_root":"%s","target_directory":"%s"}' "$WORKSPACE" "$TARGET" ;;
build) echo "Compiling a broker"; test -z "$BUILT" || cp "$BUILT" "$WORKSPACE/target/release/ringmq"; exit "$STATUS" ;;
esac
"#;

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    /// A workspace with this program in its target folder, and no broker.
    fn new() -> Case {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let case = Case { folder };
        std::fs::create_dir_all(case.path("target/release")).expect("a folder");
        std::fs::create_dir_all(case.path("bench")).expect("a folder");
        // By another process (see write_script), and no link: Linux does not let users link the files of others (protected_hardlinks).
        let mut copy = Command::new("cp");
        assert!(copy.arg(env!("CARGO_BIN_EXE_ringmq-bench")).arg(case.program()).status().expect("cp").success());
        case.write_script("cargo", CARGO);
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("the folder").join(name)
    }

    fn program(&self) -> PathBuf {
        self.path("target/release/ringmq-bench")
    }

    fn write_script(&self, name: &str, text: &str) {
        // A file that this process has open for writing cannot be started: neither while another thread's child still has its copy.
        let write = r#"printf %s "$1" >"$0" && chmod 755 "$0""#;
        let mut shell = Command::new("sh");
        assert!(shell.args(["-c", write]).arg(self.path(name)).arg(text).status().expect("a shell").success());
    }

    /// The program as `cargo run` starts it.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command.args(arguments).args(["--allow-shared-cores", "--out"]).arg(self.path("out"));
        command.arg("--store").arg(self.folder.path());
        command.env("CARGO", self.path("cargo")).env("CARGO_MANIFEST_DIR", self.path("bench"));
        command.env("RECORD", self.path("record")).env("WORKSPACE", self.path("")).env("TARGET", self.path("target"));
        command.env("BUILT", "").env("STATUS", "0");
        command
    }

    /// What cargo was asked for.
    fn record(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("record")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The program ends with 3, says `why`, and has measured nothing.
    fn assert_refused(&self, output: &Output, why: &str) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(output.stdout.is_empty() && !self.path("out").exists(), "{said}");
    }
}

fn causes() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("causes.toml").display().to_string()
}

#[test]
fn a_broker_is_built_before_anything_is_measured() {
    // Goal: every command that starts RingMQ from its usual place has it built first, in this program's profile, and measures nothing
    // if that fails. Method: a cargo that fails.
    for arguments in [
        &[][..],
        &["run", "rtt-1k", "--target", "ringmq"],
        &["sweep", "steady-1k-1k", "--target", "ringmq", "--slo", "p99<=1s"],
        &["versus", "ringmq", "java"],
        &["versus", "java", "ringmq"],
        &["publish", "--causes", &causes()],
    ] {
        let case = Case::new();
        let output = case.command(arguments).env("STATUS", "101").output().expect("it starts");
        case.assert_refused(&output, "Compiling a broker");
        case.assert_refused(&output, "RingMQ cannot be built: `cargo build` ended with exit status: 101");
        let (package, workspace) = (case.path("bench"), case.path(""));
        let wanted = [
            format!("in {}: metadata --no-deps --format-version 1 --locked", package.display()),
            format!(
                "in {}: build --release --locked --bin ringmq",
                workspace.display().to_string().trim_end_matches('/')
            ),
        ];
        assert_eq!(case.record(), wanted, "{arguments:?}");
    }
}

#[test]
fn what_was_built_is_measured() {
    // Goal: a broker that is older than its sources is not measured. Method: one lies there, and cargo builds another one; both say who
    // they are and end.
    let case = Case::new();
    let broker = |name: &str, status: i32| case.write_script(name, &format!("#!/bin/sh\necho \"$0\"\nexit {status}\n"));
    broker("target/release/ringmq", 8);
    broker("new", 9);
    let mut command = case.command(&["run", "rtt-1k", "--target", "ringmq"]);
    let output = command.env("BUILT", case.path("new")).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("ringmq ended with exit status: 9"), "{said}");
}

#[test]
fn nothing_is_built_for_others() {
    // Goal: a program that cargo did not start, that lies elsewhere, or that was told of its broker, has none built, and says at once if
    // there is none. Method: each of them without a broker, in the commands that would measure floors first.
    for arguments in [&[][..], &["versus", "ringmq", "java"], &["publish", "--causes", &causes()]] {
        let case = Case::new();
        let mut command = case.command(arguments);
        let output = command.env_remove("CARGO").env_remove("CARGO_MANIFEST_DIR").output().expect("it starts");
        case.assert_refused(&output, "there is no `ringmq` beside this program");
        let output = case.command(arguments).env("TARGET", case.path("bench")).output().expect("it starts");
        case.assert_refused(&output, "there is no `ringmq` beside this program");
        assert_eq!(case.record().len(), 1, "{:?}", case.record());
        let output = case.command(arguments).args(["--broker-binary", "/nowhere"]).output().expect("it starts");
        case.assert_refused(&output, "there is no broker at /nowhere");
        assert_eq!(case.record().len(), 1, "{:?}", case.record());
    }
    // What starts no RingMQ needs none.
    let case = Case::new();
    let mut command = case.command(&["run", "rtt-1k", "--target", "null", "--seconds", "0.1", "--warm-up", "0"]);
    // A busy machine may make it invalid, which is 3.
    assert!([Some(0), Some(3)].contains(&command.status().expect("it starts").code()));
    assert!(case.record().is_empty() && case.path("out/result.json").is_file());
}

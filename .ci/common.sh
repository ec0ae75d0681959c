# What .ci/run and .ci/nightly share: tools, steps with a time limit, and the count at the end. Sourced, never run.
#
# A step fails when its command fails or its time is up; the later steps still run, so that one run shows everything.

NOBODY=65534
LOGS=$(mktemp -d "${TMPDIR:-/tmp}/ringmq-ci.XXXXXX")
COPY=
BEGAN=$SECONDS
STEPS_PASSED=0
STEPS_FAILED=()

die() {
    echo "FAILED: $*" >&2
    exit 1
}

cleanup() {
    rm -rf "$LOGS"
    if [[ -n $COPY ]]; then rm -rf "$COPY"; fi
}
trap cleanup EXIT

# need COMMAND PACKAGE: a missing command is installed with apt where that is possible; otherwise the run ends.
need() {
    if command -v "$1" >/dev/null; then return; fi
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        echo "tool $1 is missing: installing the package $2"
        if [[ ! -e $LOGS/apt-updated ]]; then
            timeout 300 apt-get update -q >"$LOGS/apt-update.log" 2>&1 || tail -n 20 "$LOGS/apt-update.log"
            touch "$LOGS/apt-updated"
        fi
        DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -q --no-install-recommends "$2" >"$LOGS/apt.log" 2>&1 ||
            { tail -n 20 "$LOGS/apt.log"; die "the package $2 cannot be installed, it holds the tool $1"; }
    fi
    hash -r
    command -v "$1" >/dev/null || die "the tool $1 is missing (Debian package $2)"
}

# tools: everything that the steps use, or the run ends here.
tools() {
    if [[ -d ${HOME:-/root}/.cargo/bin ]]; then PATH=$PATH:${HOME:-/root}/.cargo/bin; fi
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup (https://rustup.rs), version as in rust-toolchain.toml"
    # The C library under glommio is compiled from source.
    need cc gcc
    need make make
    need git git
    need setpriv util-linux
    need python3 python3
    need javac openjdk-17-jdk-headless
    need mvn maven
    need go golang-go
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        command -v rustup >/dev/null || die "rustfmt or clippy is missing and rustup is not there to add it"
        echo "adding the components rustfmt and clippy"
        rustup component add rustfmt clippy || die "rustup could not add rustfmt and clippy"
    fi
    local disabled=/proc/sys/kernel/io_uring_disabled
    if [[ -r $disabled && $(<"$disabled") != 0 ]]; then
        die "io_uring is switched off for ordinary users: sysctl kernel.io_uring_disabled=0"
    fi
    echo "tools: $(cargo --version); $(javac -version 2>&1); $(go version); $(nproc) processors"
}

# as_nobody COMMAND...: without privileges, with 8 MiB of locked memory, HOME and TMPDIR of its own. Who is not root
# already has none.
as_nobody() {
    local home status=0
    home=$(mktemp -d "${TMPDIR:-/tmp}/ringmq-user.XXXXXX")
    (
        ulimit -l 8192 2>/dev/null || true
        if [[ $(id -u) == 0 ]]; then
            chown "$NOBODY:$NOBODY" "$home"
            exec setpriv --reuid="$NOBODY" --regid="$NOBODY" --clear-groups --inh-caps=-all --bounding-set=-all \
                --no-new-privs env HOME="$home" TMPDIR="$home" USER=nobody "$@"
        fi
        exec env HOME="$home" TMPDIR="$home" "$@"
    ) || status=$?
    rm -rf "$home"
    return "$status"
}

# readable_source: goes on in a copy when an ordinary user cannot read the place where the source lies.
readable_source() {
    if as_nobody test -r "$PWD/Cargo.toml" 2>/dev/null; then return; fi
    COPY=$(mktemp -d /var/tmp/ringmq-ci.XXXXXX)
    echo "an ordinary user cannot read $PWD: going on in a copy below /var/tmp"
    mkdir "$COPY/source"
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
        tar --null --files-from=- --create | tar --extract --no-same-owner --directory="$COPY/source"
    chmod -R a+rX "$COPY"
    cd "$COPY/source"
}

# step NAME LIMIT_SECONDS FUNCTION-OR-COMMAND...: runs it with its output in a log; one line when it is over.
step() {
    local name=$1 limit=$2 began=$SECONDS status=0 log
    shift 2
    log=$LOGS/step-$((STEPS_PASSED + ${#STEPS_FAILED[@]})).log
    # A function needs a shell of its own under `timeout`; its definitions travel by the environment.
    timeout --kill-after=30 "$limit" bash -euo pipefail -c '"$@"' step "$@" >"$log" 2>&1 </dev/null || status=$?
    if ((status == 0)); then
        STEPS_PASSED=$((STEPS_PASSED + 1))
        echo "ok      $((SECONDS - began)) s  $name$(counted "$log")"
    else
        STEPS_FAILED+=("$name")
        if ((status == 124 || status == 137)); then echo "---- $name ran longer than $limit s"; fi
        grep -E -A 6 '^(error\[|error: |FAILED|FAIL |failed stage)|\.\.\. FAILED|panicked at' "$log" | head -n 120 | cut -c 1-300 || true
        echo "---- end of the log of: $name"
        tail -n 40 "$log" | cut -c 1-300
        echo "----"
        echo "FAILED  $((SECONDS - began)) s  $name (status $status)$(counted "$log")"
    fi
    cat "$log" >>"$LOGS/all.log"
}

# passed_in LOG / failed_in LOG: tests of cargo, and scenarios and stages of the interop runner.
passed_in() {
    awk '/^test result:/ { sum += $4 } /^PASS / { sum += 1 } END { print sum + 0 }' "$1"
}

# ignored_in LOG: tests that were left out on purpose. `cargo test` shows them, so they cannot be hidden here.
ignored_in() {
    awk '/^test result:/ { sum += $8 } END { print sum + 0 }' "$1"
}

failed_in() {
    awk '/^test result:/ { sum += $6 } /^FAIL / || /^FAILED: / { sum += 1 } END { print sum + 0 }' "$1"
}

# counted LOG: how many tests a step ran, as text; nothing if it ran none.
counted() {
    local passed failed
    passed=$(passed_in "$1")
    failed=$(failed_in "$1")
    if ((passed + failed > 0)); then echo ": $passed passed, $failed failed"; fi
}

# test_binaries: builds the tests; a line per program: package folder, blank, path. Fails unless there are as many as
# cargo names to people, so that no program is left out without a word.
test_binaries() {
    local list named
    list=$(cargo test --workspace --locked --no-run --message-format=json | python3 -c '
import json, os, sys

for line in sys.stdin:
    message = json.loads(line) if line.startswith("{") else {}
    if message.get("reason") == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
        print(os.path.dirname(message["manifest_path"]), message["executable"])
')
    named=$(cargo test --workspace --locked --no-run 2>&1 | grep -c '^ *Executable ')
    if [[ $(grep -c . <<<"$list") != "$named" ]]; then
        echo "error: cargo names $named test programs, its JSON lists others:" >&2
        echo "$list" >&2
        return 1
    fi
    echo "$list"
}

# tests_as_nobody: the programs of `cargo test`, run by an ordinary user.
tests_as_nobody() {
    local folder program failed=0 list
    list=$(test_binaries) || return 1
    # The tests keep their stores in cargo's folder for that.
    mkdir -p target/tmp
    chmod 1777 target/tmp
    while read -r folder program; do
        echo "Running $program"
        (cd "$folder" && as_nobody env CARGO_MANIFEST_DIR="$folder" "$program") || failed=1
    done <<<"$list"
    return "$failed"
}

# finish: the last line counts tests; the status is 0 when every step passed.
finish() {
    local failed
    failed=$(failed_in "$LOGS/all.log")
    echo "steps: $STEPS_PASSED passed, ${#STEPS_FAILED[@]} failed${STEPS_FAILED[0]:+: ${STEPS_FAILED[*]}}"
    # A step that failed without a failed test counts as one, so that the last line never looks better than the run.
    if ((failed < ${#STEPS_FAILED[@]})); then failed=${#STEPS_FAILED[@]}; fi
    echo "$(passed_in "$LOGS/all.log") passed, $failed failed, $(ignored_in "$LOGS/all.log") ignored in $((SECONDS - BEGAN)) s"
    ((${#STEPS_FAILED[@]} == 0))
}

export -f as_nobody test_binaries tests_as_nobody
export NOBODY

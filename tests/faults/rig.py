"""What all scenarios with real disks share: a client, the broker as a process, and a disk that fails when told to."""
import contextlib, ctypes, json, os, re, select, signal, socket, struct, subprocess, sys, time, uuid

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = int(os.environ.get("RINGMQ_FAULTS_PORT", "13702"))
SETS = ["metrics_listen=off", "mappedFileSizeCommitLog=1 MiB", "maxMessageSize=64 KiB", "log_ring_bytes=16 MiB",
        "zero_ahead_bytes=0", "mappedFileSizeConsumeQueue=2000", "maxHashSlotNum=1000", "maxIndexNum=20000"]


class Failed(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failed(text)


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(done.returncode == 0, f"{' '.join(command)}: {done.stdout}")
    return done.stdout.strip()


def until(what, seconds, ask):
    deadline = time.monotonic() + seconds
    while not ask():
        check(time.monotonic() < deadline, f"{what} did not come within {seconds} s")
        time.sleep(0.02)


class Termination:
    """What SIGTERM does: it ends the program by way of every `finally`, but not between the start of a process and the note of it."""
    is_late = is_asked = False


def terminate(*_):
    if Termination.is_late:
        Termination.is_asked = True
    else:
        sys.exit(143)


@contextlib.contextmanager
def undivided():
    """SIGTERM waits for the end of this block."""
    Termination.is_late = True
    try:
        yield
    finally:
        Termination.is_late = False
        if Termination.is_asked:
            sys.exit(143)


# Brokers and images whose end nobody has seen to yet. A scenario may end before it holds what it has started.
LEFT = []


def let_go(thing):
    if thing in LEFT:
        LEFT.remove(thing)


def take_down_what_is_left():
    """Newest first, so brokers go before the disks under them."""
    while LEFT:
        LEFT.pop().take_down()


class Client:
    """One connection, requests with JSON headers."""

    def __init__(self, timeout=10, port=PORT):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.opaque = 0

    def ask(self, code, fields, body=b""):
        self.opaque += 1
        header = json.dumps({"code": code, "language": "OTHER", "version": 479, "opaque": self.opaque, "flag": 0,
                             "extFields": {key: str(value) for key, value in fields.items()}}).encode()
        self.socket.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
        while True:
            length, = struct.unpack(">I", self.exactly(4))
            frame = self.exactly(length)
            size = struct.unpack_from(">I", frame)[0] & 0xFFFFFF
            answer = json.loads(frame[4:4 + size])
            # The broker has requests of its own for consumers.
            if answer["flag"] & 1:
                return answer, frame[4 + size:]

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("closed")
            data += more
        return data

    def send(self, number, size=4000, topic="T"):
        fields = {"a": "faults", "b": topic, "c": "TBW102", "d": 1, "e": 0, "f": 0, "g": int(time.time() * 1000), "h": 0,
                  "i": "", "j": 0, "k": "false", "m": "false"}
        return self.ask(310, fields, body(number, size))[0]

    def delete_topic(self, topic):
        return self.ask(215, {"topic": topic})[0]["code"]

    def pull(self, offset, topic="T", hold_ms=0):
        fields = {"consumerGroup": "g", "topic": topic, "queueId": 0, "queueOffset": offset, "maxMsgNums": 32,
                  "sysFlag": 6 if hold_ms else 4, "commitOffset": 0, "suspendTimeoutMillis": hold_ms,
                  "subscription": "*", "subVersion": 0, "expressionType": "TAG"}
        return self.ask(11, fields)

    def heartbeat(self, name, group=None):
        consumers = [{"groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
                      "subscriptionDataSet": [{"topic": "T", "subString": "*"}]}] if group else []
        text = json.dumps({"clientID": name, "producerDataSet": [{"groupName": "senders"}], "consumerDataSet": consumers})
        return self.ask(34, {}, text.encode())[0]["code"]

    def commit(self, offset):
        fields = {"consumerGroup": "g", "topic": "T", "queueId": 0, "commitOffset": offset}
        return self.ask(15, fields)[0]["code"]

    def committed(self):
        return self.ask(14, {"consumerGroup": "g", "topic": "T", "queueId": 0})[0]["extFields"]["offset"]


def body(number, size=4000):
    return (f"{number:010}" * (size // 10)).encode()


# What a start says after a kill, and what a process says whose disk is full or fails.
AFTER_A_KILL = ["was not stopped in order", "discarded", "cut queue entries"]
NO_SPACE = ["no space for the next log segment", "No space left on device", "the disk is too full: sends are refused"]
# The name server of the same process ends with it, maybe before the broker has signed off there.
DISK_FAILED = ["the process ends", "a name server cannot be reached", "queue-flushed cannot be taken back", "Input/output error", "Read-only file system"]


class Broker:
    """A process. Its log may hold warnings and errors only with these texts; with None the scenario looks for itself."""

    def __init__(self, binary, data, log, *sets, wait=True, before=None, prefix=(), expected=()):
        self.log, self.expected = log, expected
        self.begins = os.path.getsize(log) if os.path.exists(log) else 0
        arguments = [*prefix, binary, "start", "--data", data, "--broker-port", str(PORT), "--namesrv-port", str(PORT + 2)]
        for one in SETS + list(sets):
            arguments += ["--set", one]
        self.out = open(log, "a")
        with undivided():
            self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=self.out, text=True, stdin=subprocess.DEVNULL,
                                            preexec_fn=before)
            LEFT.append(self)
        if wait:
            self.ready()

    def ready(self):
        line = self.process.stdout.readline()
        if not line.startswith("ringmq ready"):
            self.expected = None
            raise Failed(f"not ready: exit {self.process.wait()}: {self.text()[-2000:]}")

    def text(self):
        """What this process has logged."""
        with open(self.log) as file:
            file.seek(self.begins)
            return file.read()

    def check_log(self):
        expected, self.expected = self.expected, None
        if expected is not None:
            loud = [line for line in self.text().splitlines() if " WARN " in line or " ERROR " in line or "panicked" in line]
            odd = [line for line in loud if not any(text in line for text in expected)]
            check(not odd, f"unexpected lines in the log: {odd[:3]}")

    def end(self, seconds):
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"it still runs after {seconds} s")
        self.check_log()
        return status

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.end(20)

    def kill(self, image=None):
        """With an image whose power is cut: its threads wait for the disk, and can end only when that answers, with errors."""
        if self.process.poll() is None:
            self.process.kill()
            if image:
                image.command("dead")
            self.process.wait()
        self.process.stdout.close()
        self.out.close()
        let_go(self)
        # A scenario that has failed already has a better reason.
        if sys.exc_info()[0] is None:
            self.check_log()

    def take_down(self):
        """When the scenario is over: without a look at the log, and without waiting for a disk that does not answer."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.stdout.close()
        self.out.close()

    def processor_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) << 10


def verify(stored):
    """Every confirmed message is there, at its offset, whole; and nothing that is no message."""
    client, offset = Client(), 0
    want = {receipt: number for receipt, number in stored}
    while True:
        answer, data = client.pull(offset)
        if answer["code"] == 19:
            break
        if answer["code"] == 21:
            offset = int(answer["extFields"]["nextBeginOffset"])
            continue
        check(answer["code"] == 0, f"pull at {offset}: {answer}")
        at = 0
        while at < len(data):
            size, = struct.unpack_from(">I", data, at)
            queue_offset, = struct.unpack_from(">q", data, at + 20)
            length, = struct.unpack_from(">I", data, at + 84)
            text = data[at + 88:at + 88 + length]
            check(text == body(int(text[:10]), length), f"wrong bytes at {queue_offset}")
            if queue_offset in want:
                check(want.pop(queue_offset) == int(text[:10]), f"another message at {queue_offset}")
            at += size
            offset = queue_offset + 1
    return want


def send_many(client, stored, count, first=0):
    codes = {}
    for number in range(first, first + count):
        answer = client.send(number)
        codes[answer["code"]] = codes.get(answer["code"], 0) + 1
        if answer["code"] == 0:
            stored.append((int(answer["extFields"]["queueOffset"]), number))
    return codes


def fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 9):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                pass


def unmounted(path):
    return subprocess.run(["umount", path], stderr=subprocess.DEVNULL).returncode == 0


class Image:
    """ext4 on a loop device on the faulty file system. With a seed its power can be cut."""

    def __init__(self, folder, megabytes=96, seed=None):
        self.folder, self.loop, self.mounted = folder, None, False
        self.backing, self.fuse, self.point = (os.path.join(folder, name) for name in ("backing", "fuse", "disk"))
        self.command_file = os.path.join(folder, "command")
        self.command("ok")
        if not os.path.exists(self.backing):
            with open(self.backing, "wb") as file:
                file.truncate(megabytes << 20)
            run("mkfs.ext4", "-q", "-F", self.backing)
        for path in (self.fuse, self.point):
            os.makedirs(path, exist_ok=True)
        seeds = [] if seed is None else [str(seed)]
        with undivided():
            self.daemon = subprocess.Popen([sys.executable, os.path.join(HERE, "faulty_image.py"), self.fuse, self.backing,
                                            self.command_file, *seeds], stdout=subprocess.PIPE, text=True)
            LEFT.append(self)
        check(self.daemon.stdout.readline() == "ready\n", "the faulty file system is not mounted")
        try:
            with undivided():
                self.loop = run("losetup", "--find", "--show", os.path.join(self.fuse, "image"))
                run("mount", "-t", "ext4", self.loop, self.point)
                self.mounted = True
        except BaseException:
            self.close()
            raise

    def command(self, text):
        with open(self.command_file + ".new", "w") as file:
            file.write(text)
        os.rename(self.command_file + ".new", self.command_file)

    def cut(self, command="cut", patience=None):
        """Takes the power, and gives the time when it went; with a number of operations only if they come in time."""
        self.command(command)
        if patience is not None and not select.select([self.daemon.stdout], [], [], patience)[0]:
            self.command("cut")
        word, time_text = self.daemon.stdout.readline().split()
        check(word == "cut", "the power is not cut")
        return float(time_text)

    def close_after_cut(self):
        """Takes everything down, once nobody uses the image; gives how many writes were kept, and of how many."""
        self.command("dead")
        # The kernel lets go of a dead process's files a little later.
        until("the end of the mount", 20, lambda: unmounted(self.point))
        self.mounted = False
        backing = f"/sys/block/{os.path.basename(self.loop)}/loop/backing_file"
        run("losetup", "--detach", self.loop)
        # Nothing may survive in the cache of a device that is still attached.
        until("the end of the loop device", 10, lambda: not os.path.exists(backing))
        self.loop = None
        run("umount", self.fuse)
        kept, count = re.fullmatch(r"kept (\d+) of (\d+) writes\n", self.daemon.stdout.readline()).groups()
        check(self.daemon.wait(10) == 0, "the faulty file system failed")
        let_go(self)
        return int(kept), int(count)

    def close(self):
        """Takes down what there is, in every state; what a dead process still holds for a moment is waited for."""
        self.command("ok" if self.daemon.poll() is None else "dead")
        with contextlib.suppress(Failed):
            if self.mounted:
                until("the end of the mount", 10, lambda: unmounted(self.point))
        if self.loop:
            subprocess.run(["losetup", "--detach", self.loop], stderr=subprocess.DEVNULL)
        with contextlib.suppress(Failed):
            if self.daemon.poll() is None:
                until("the end of the faulty file system", 10, lambda: unmounted(self.fuse) or self.daemon.poll() is not None)
        try:
            self.daemon.wait(10)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        let_go(self)

    take_down = close


def own_mounts():
    """A mount namespace of our own: nothing that is mounted here is seen, or left behind, elsewhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private_below = 0x20000, 1 << 18 | 1 << 14
    if libc.unshare(new_namespace) != 0 or libc.mount(b"none", b"/", None, private_below, None) != 0:
        sys.exit(f"no mount namespace: {os.strerror(ctypes.get_errno())}")


BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Kernel:
    """The kernel's boot id as brokers see it. After a power cut the kernel would be another; here it is the same one, so only
    its name changes."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "boot_id")
        self.restart()
        run("mount", "--bind", self.path, BOOT_ID)

    def restart(self):
        with open(self.path, "w") as file:
            file.write(f"{uuid.uuid4()}\n")

    def close(self):
        subprocess.run(["umount", BOOT_ID], stderr=subprocess.DEVNULL)

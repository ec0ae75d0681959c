"""How long a start takes after `kill -9` under load, with much in the log.

The log grows to each size of GOALS. Then, in each flush mode in turn, the broker is killed while messages arrive, and started again: it must be
ready, and have answered a send, within the time of that size, and have everything that it acknowledged.
"""
import os, shutil, struct, tempfile, threading, time

from load import Link, pull_fields
from rig import AFTER_A_KILL, Broker, check, until

# GiB of log, and seconds.
GOALS = [(5, 1.0), (20, 2.0)]
STARTS = 3
TOPIC, QUEUES, BATCH, BODY_BYTES, WINDOW = "T", 4, 50, 1024, 16
# The largest log, what arrives between the starts, queue files and index.
ROOM_GIB = 32
SETS = ["mappedFileSizeCommitLog=1 GiB", "mappedFileSizeConsumeQueue=6000000", "maxHashSlotNum=5000000", "maxIndexNum=20000000",
        "maxMessageSize=4 MiB", "log_ring_bytes=64 MiB", "zero_ahead_bytes=64 MiB", "diskMaxUsedSpaceRatio=95",
        "cleanFileForciblyEnable=false"]


def frame(link, number):
    """A batch for one queue, every message with a key of its own."""
    def message(index):
        properties = f"KEYS\x01key-{number}-{index}\x02".encode()
        body = b"%08d" % index * (BODY_BYTES // 8)
        size = 22 + len(body) + len(properties)
        return struct.pack(">iiiii", size, 0, 0, 0, len(body)) + body + struct.pack(">h", len(properties)) + properties

    fields = {"a": "ready", "b": TOPIC, "c": "TBW102", "d": str(QUEUES), "e": str(number % QUEUES), "f": "0", "g": "1", "h": "0",
              "i": "", "j": "0", "k": "false", "m": "true"}
    return link.request(320, fields, b"".join(message(index) for index in range(BATCH)))[1]


class Load(threading.Thread):
    """Sends batches until the broker is gone, and notes what was acknowledged: the end of each queue, and the end of the log."""

    def __init__(self, ends):
        super().__init__(daemon=True)
        self.ends, self.log_end, self.error = ends, 0, None
        self.link = Link()
        self.frames = [frame(self.link, number) for number in range(64)]
        self.start()

    def run(self):
        try:
            number = 0
            while True:
                for _ in range(WINDOW):
                    self.link.socket.sendall(self.frames[number % len(self.frames)])
                    number += 1
                left = WINDOW
                while left > 0:
                    for header, _ in self.link.answers():
                        self.note(header)
                        left -= 1
        except (ConnectionError, BrokenPipeError):
            pass
        except Exception as error:
            self.error = error

    def note(self, header):
        # 10: written, and a slow disk has not synced it in time; that is no promise.
        check(header["code"] in (0, 10), f"{header}")
        if header["code"] == 0:
            fields = header["extFields"]
            queue = int(fields["queueId"])
            self.ends[queue] = max(self.ends[queue], int(fields["queueOffset"]) + BATCH)
            self.log_end = max(self.log_end, int(fields["msgId"].rsplit(",", 1)[-1][16:32], 16))

    def check_alive(self):
        check(self.is_alive(), f"the sender has ended: {self.error}")

    def finish(self):
        self.join(30)
        check(not self.is_alive() and not self.error, f"the sender: {self.error or 'waits for ever'}")


def ask(link, code, fields, body=b""):
    link.socket.sendall(link.request(code, fields, body)[1])
    return link.answers()[0][0]


def check_kept(ends):
    """The end of each queue is no less than what was acknowledged, and its last message is served."""
    link = Link()
    for queue, end in enumerate(ends):
        there = int(ask(link, 30, {"topic": TOPIC, "queueId": str(queue)})["extFields"]["offset"])
        check(there >= end, f"queue {queue} ends at {there}, {end} messages were acknowledged")
        answer = ask(link, 11, pull_fields(TOPIC, queue, end - 1))
        check(answer["code"] == 0, f"the last message of queue {queue}: {answer}")


def check_room(folder):
    """The log stays whole: the index reads what it lacks of it, and after a kill it may lack much."""
    there = os.statvfs(folder)
    free = there.f_bavail * there.f_frsize >> 30
    check(free >= ROOM_GIB, f"{folder} has {free} GiB free and {ROOM_GIB} are needed: name a folder in RINGMQ_RETENTION_FOLDER")


def ready(binary, folder):
    room = os.environ.get("RINGMQ_RETENTION_FOLDER") or folder
    check_room(room)
    data = tempfile.mkdtemp(prefix="ringmq-ready.", dir=room)
    log, ends = os.path.join(folder, "broker.log"), [0] * QUEUES
    start = lambda flush, **more: Broker(binary, data, log, *SETS, f"flushDiskType={flush}", expected=AFTER_A_KILL, **more)
    broker = start("ASYNC_FLUSH")
    try:
        for gibibytes, limit in GOALS:
            load = Load(ends)
            while load.log_end < gibibytes << 30:
                time.sleep(0.2)
                load.check_alive()
            for flush in ("ASYNC_FLUSH", "SYNC_FLUSH"):
                times = []
                for _ in range(STARTS):
                    broker.kill()
                    load.finish()
                    began = time.monotonic()
                    broker = start(flush)
                    ready_after = time.monotonic() - began
                    load = Load(ends)
                    until("an answered send", 10, lambda: load.log_end > 0 or load.check_alive())
                    times.append((ready_after, time.monotonic() - began))
                    check_kept(ends)
                    time.sleep(1)
                slowest, slowest_answer = (max(part) for part in zip(*times))
                print(f"figures: log_gib={gibibytes} mode={flush} starts={STARTS} ready_ms={1000 * slowest:.0f} "
                      f"first_answer_ms={1000 * slowest_answer:.0f}", flush=True)
                check(slowest_answer <= limit, f"with {gibibytes} GiB a send is answered {slowest_answer:.2f} s after a start in {flush}")
            broker.kill()
            load.finish()
            broker = start("ASYNC_FLUSH")
        check(broker.stop() == 0, "a clean stop")
    finally:
        broker.kill()
        shutil.rmtree(data, ignore_errors=True)


SCENARIOS = {"ready": ready}

"""Files of the log go while the broker is under load: what readers are told, and what senders and readers feel.

`retention 16 MiB` asks for correctness: nobody reads what is gone, and everybody is told where to go on. `retention 1 GiB` takes
latencies of one load without and with files of 1 GiB going. Times depend on the machine, so the second are held against the
first, generously: an unlink of 1 GiB that a shard has to wait for takes longer than that. Its RINGMQ_RETENTION_FOLDER is where the store lies (4 GiB of files and 2 GiB ahead; the temporary folder if not set).
"""
import multiprocessing, os, shutil, struct, tempfile, threading, time

from load import Link, pull_fields
from rig import Broker, Client, check, until

HOURS = ";".join(f"{hour:02}" for hour in range(24))
GONE_SOON = {"fileReservedTime": "0", "deleteWhen": HOURS, "deleteCommitLogFilesInterval": "100", "cleanResourceInterval": "100"}
BULK_BYTES = 60_000

# How much longer a request may take while files go: so many times the time without, and so many milliseconds, for a machine with
# other things to do.
STALL_FACTOR, STALL_MS = 10, {"p99": 15, "max": 75}


def check_stall(what, without, during):
    for name, spare_ms in STALL_MS.items():
        limit = STALL_FACTOR * without[name] + spare_ms
        check(during[name] <= limit, f"{what}: {name} is {during[name]} ms while files go, {without[name]} ms without; the limit is {limit:.0f} ms")


def bulk_body(number):
    return b"%010d" % number * (BULK_BYTES // 10)


def send_fields(topic, queue=0):
    return {"a": "retention", "b": topic, "c": "TBW102", "d": "1", "e": str(queue), "f": "0", "g": str(int(time.time() * 1000)),
            "h": "0", "i": "", "j": "0", "k": "false", "m": "false"}


def bulk(topic, bytes_total, bytes_per_second, stop):
    """Sends bodies of 60 kB, eight under way, until all are sent or it is told to stop; no faster than asked."""
    link, sent, answered, began = Link(), 0, 0, time.monotonic()
    body = bulk_body(7)
    while not stop.is_set() and (sent * BULK_BYTES < bytes_total or answered < sent):
        while sent - answered < 8 and sent * BULK_BYTES < bytes_total:
            wait = sent * BULK_BYTES / bytes_per_second - (time.monotonic() - began)
            if wait > 0:
                if answered < sent:
                    break
                time.sleep(min(wait, 0.05))
                break
            link.socket.sendall(link.request(310, send_fields(topic), body)[1])
            sent += 1
        if answered < sent:
            for header, _ in link.answers():
                check(header["code"] == 0, f"{header}")
                answered += 1


def probe(seconds, results):
    """Each 4 ms a message of 1 kB, and each answer is read back. Latencies count from when the request was due."""
    link, sends, pulls = Link(), [], []
    began, number = time.monotonic(), 0
    body = b"p" * 1000
    while (due := began + 0.004 * number) < began + seconds:
        number += 1
        time.sleep(max(0.0, due - time.monotonic()))
        link.socket.sendall(link.request(310, send_fields("probe"), body)[1])
        header = link.answers()[0][0]
        check(header["code"] == 0, f"{header}")
        sent = time.monotonic()
        sends.append(sent - due)
        link.socket.sendall(link.request(11, pull_fields("probe", 0, header["extFields"]["queueOffset"]))[1])
        check(link.answers()[0][0]["code"] == 0, "the message is there")
        pulls.append(time.monotonic() - sent)
    results.put((sends, pulls))


def quantiles(values):
    values = sorted(values)
    return {name: round(1000 * values[min(len(values) - 1, int(share * len(values)))], 2)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1))}


def measure(seconds, bytes_per_second):
    """Latencies in milliseconds of the probe, beside a steady load."""
    results, stop = multiprocessing.Queue(), multiprocessing.Event()
    load = multiprocessing.Process(target=bulk, args=("bulk", 1 << 60, bytes_per_second, stop))
    prober = multiprocessing.Process(target=probe, args=(seconds, results))
    load.start(), prober.start()
    try:
        sends, pulls = results.get(timeout=seconds + 60)
    finally:
        stop.set()
        load.join(20), prober.join(20)
        load.kill(), prober.kill()
    return quantiles(sends), quantiles(pulls)


def configure(**values):
    body = "\n".join(f"{key}={value}" for key, value in values.items()).encode()
    answer = ask_once(25, {}, body)
    check(answer["code"] == 0, f"{answer}")


def ask_once(code, fields, body=b""):
    link = Link()
    link.socket.sendall(link.request(code, fields, body)[1])
    return link.answers()[0][0]


def log_files(data):
    return [name for name in os.listdir(os.path.join(data, "commitlog")) if name.isdigit()]


def large(binary, folder):
    place = os.environ.get("RINGMQ_RETENTION_FOLDER") or folder
    for flush in ("ASYNC_FLUSH", "SYNC_FLUSH"):
        data = tempfile.mkdtemp(prefix="ringmq-retention.", dir=place)
        broker = Broker(binary, data, os.path.join(folder, f"broker-{flush}.log"), "mappedFileSizeCommitLog=1 GiB",
                        "mappedFileSizeConsumeQueue=6000000", "maxHashSlotNum=5000000", "maxIndexNum=20000000",
                        "maxMessageSize=4 MiB", "log_ring_bytes=64 MiB", "zero_ahead_bytes=64 MiB", f"flushDiskType={flush}",
                        "diskMaxUsedSpaceRatio=95", "cleanFileForciblyEnable=false", "deleteWhen=", "cleanResourceInterval=100")
        try:
            stop = multiprocessing.Event()
            began = time.monotonic()
            fill = multiprocessing.Process(target=bulk, args=("bulk", int(3.2 * (1 << 30)), 1 << 40, stop))
            fill.start()
            fill.join()
            check(fill.exitcode == 0, "the store could not be filled")
            print(f"  {flush}: filled in {time.monotonic() - began:.0f} s")
            measure(2, 20 << 20)
            before = len(log_files(data))
            quiet = measure(8, 20 << 20)
            configure(**GONE_SOON)
            busy = measure(8, 20 << 20)
            gone = before - len(log_files(data))
            check(gone >= 3, f"only {gone} files went")
            left = [name for name in os.listdir(os.path.join(data, "ringmq")) if name.endswith(".removed")]
            for what, without, during in (("send", quiet[0], busy[0]), ("pull", quiet[1], busy[1])):
                print(f"  {flush} {what}, ms: without {without}, while {gone} files of 1 GiB go {during}")
                print(f"figures: mode={flush} what={what} p99_ms={without['p99']} p99_while_files_go_ms={during['p99']} "
                      f"max_ms={without['max']} max_while_files_go_ms={during['max']}")
            for what, without, during in (("send", quiet[0], busy[0]), ("pull", quiet[1], busy[1])):
                check_stall(f"{flush} {what}", without, during)
            print(f"figures: mode={flush} files={gone} unfinished={len(left)}")
            check(broker.stop() == 0, "a clean stop")
        finally:
            broker.kill()
            shutil.rmtree(data, ignore_errors=True)


def small(binary, folder):
    """Files of 16 MiB that go as soon as they may, for 20 s of load; readers begin at the front again and again."""
    data, log = os.path.join(folder, "data"), os.path.join(folder, "broker.log")
    sets = [f"{key}={value}" for key, value in GONE_SOON.items()]
    broker = Broker(binary, data, log, "mappedFileSizeCommitLog=16 MiB", "mappedFileSizeConsumeQueue=6000", "log_ring_bytes=16 MiB",
                    "flushIntervalConsumeQueue=100", "shards=2", *sets)
    over, failures, counts = threading.Event(), [], {"sent": 0, "read": 0, "moved": 0, "passed over": 0, "empty": 0}

    def sender():
        link, number, began = Link(), 0, time.monotonic()
        while not over.is_set():
            # Four files a second: retention pauses behind each file, so it takes no more than ten.
            time.sleep(max(0.0, began + number / 1000 - time.monotonic()))
            for _ in range(8):
                link.socket.sendall(link.request(310, send_fields("T"), bulk_body(number))[1])
                number += 1
            answers = []
            while len(answers) < 8:
                answers += link.answers()
            check(all(header["code"] == 0 for header, _ in answers), f"{answers}")
            counts["sent"] = number

    def reader():
        link = Link()

        def ask(code, fields):
            link.socket.sendall(link.request(code, fields)[1])
            return link.answers()[0]

        def queue_begin():
            return int(ask(31, {"topic": "T", "queueId": "0"})[0]["extFields"]["offset"])

        until("messages", 10, lambda: counts["sent"] > 100)
        while not over.is_set():
            offset = 0
            for _ in range(20):
                minimum = queue_begin()
                answer, received = ask(11, pull_fields("T", 0, offset))
                if answer["code"] == 0:
                    check(offset >= minimum, f"a pull at {offset} is answered although the queue begins at {minimum}")
                    at = 0
                    while at < len(received):
                        size, = struct.unpack_from(">I", received, at)
                        number, = struct.unpack_from(">q", received, at + 20)
                        length, = struct.unpack_from(">I", received, at + 84)
                        check(received[at + 88:at + 88 + length] == bulk_body(number), f"wrong bytes at {number}")
                        if number != offset:
                            # As in RocketMQ, messages whose file is gone are passed over, and queues begin behind them when the
                            # round is over: ten files with a pause of 100 ms behind each.
                            check(at == 0 and number > offset, f"{number} comes where {offset} should")
                            until(f"a queue that begins behind {offset}, which was passed over,", 5, lambda: offset < queue_begin())
                            counts["passed over"] += number - offset
                        at, offset = at + size, number + 1
                        counts["read"] += 1
                elif answer["code"] == 21:
                    check(int(answer["extFields"]["nextBeginOffset"]) >= minimum, f"{answer} below {minimum}")
                    offset = int(answer["extFields"]["nextBeginOffset"])
                    counts["moved"] += 1
                else:
                    # Everything that was asked for went in between, or the end is reached.
                    check(answer["code"] in (19, 20), f"{answer}")
                    counts["empty"] += 1
                    break

    def guarded(work):
        try:
            work()
        except Exception as error:
            failures.append(error)
            over.set()

    try:
        threads = [threading.Thread(target=guarded, args=(work,)) for work in (sender, reader, reader)]
        for thread in threads:
            thread.start()
        over.wait(20)
        over.set()
        for thread in threads:
            thread.join(30)
        if failures:
            raise failures[0]
        client = Client()
        minimum = int(client.ask(31, {"topic": "T", "queueId": 0})[0]["extFields"]["offset"])
        answer = client.pull(0)[0]
        check(answer["code"] == 21 and int(answer["extFields"]["nextBeginOffset"]) >= minimum, f"a pull of what is gone: {answer}")
        files = counts["sent"] * BULK_BYTES >> 24
        check(files > 10 and minimum > counts["sent"] // 2, f"{counts}, minimum {minimum}: too little went")
        until("the end of the files", 10, lambda: len(log_files(data)) < 10)
        check(broker.stop() == 0, "a clean stop")
        lines = [line for line in broker.text().splitlines() if " ERROR " in line or " WARN " in line]
        check(not lines, f"lines in the log: {lines[:3]}")
        print(f"figures: files_of_16_mib={files} sent={counts['sent']} read={counts['read']} told_to_move={counts['moved']} "
              f"passed_over={counts['passed over']} wrong=0")
    finally:
        over.set()
        broker.kill()


SCENARIOS = {"retention 16 MiB": small, "retention 1 GiB": large}

"""What surrounds the broker: the limit of open files, signals, clocks."""
import os, random, resource, socket, time

from load import QUEUES, TOPIC, Consumer, Producer, read_everything
from rig import PORT, Broker, Client, check, send_many, until, verify

SETS = ["cleanFileForciblyEnable=false", "diskMaxUsedSpaceRatio=95", "shards=2"]


def limit_files(count):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


# A crowd takes the last open files for a moment before it is turned away; what needs one then is tried again.
EXHAUSTED = ["connections are refused", "could not be indexed; it is tried again error=create index file",
             "too many open files for the next log segment"]


def open_files(binary, folder):
    """More connections than the process may have open files: those who are in are served, files of the log among them; the rest is
    turned away without spinning, and let in when others leave."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    data, log = os.path.join(folder, "data"), os.path.join(folder, "broker.log")
    broker, crowd = Broker(binary, data, log, *SETS, before=limit_files(1024), expected=EXHAUSTED), []
    stored, number = [], 0
    try:
        client = Client()
        check(send_many(client, stored, 100) == {0: 100} and client.pull(0)[0]["code"] == 0, "stored and read")
        for cycle in range(5):
            for _ in range(1100):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", PORT))
                crowd.append(one)
            time.sleep(1)
            worked, began = broker.processor_seconds(), time.monotonic()
            time.sleep(3)
            share = (broker.processor_seconds() - worked) / (time.monotonic() - began)
            files = len(os.listdir(f"/proc/{broker.process.pid}/fd"))
            # Ten segments and their queue files: they need files of their own.
            for _ in range(2):
                number += 10_000
                check(send_many(client, stored, 1300, number) == {0: 1300}, "those who are connected are served")
            check(client.commit(cycle + 1) == 0, "those who are connected commit offsets")
            check(client.send(number, 200, f"new{cycle}")["code"] == 0, "those who are connected make topics")
            for one in crowd:
                one.close()
            crowd, freed = [], time.monotonic()

            def is_served():
                try:
                    return send_many(Client(timeout=1), stored, 1, number + 5000).get(0) == 1
                except OSError:
                    return False
            until("service for new connections", 5, is_served)
            print(f"  cycle {cycle}: {files} open files, {100 * share:.1f} % of a processor, "
                  f"new connections served after {1000 * (time.monotonic() - freed):.0f} ms")
            check(share < 0.05, "it spins")
        check(not verify(stored), "messages are missing")
        check(broker.stop() == 0, "a clean stop")
        lines = [line for line in broker.text().splitlines() if " ERROR " in line or " WARN " in line]
        check(any(EXHAUSTED[0] in line for line in lines) and len(lines) < 30, f"{len(lines)} lines: {lines[:3]}")
    finally:
        for one in crowd:
            one.close()
        broker.kill()


def stops(binary, folder, flush):
    """SIGTERM under load, again and again: status 0 within 5 s, no mark of a crash, the next start finds nothing to repair, and
    everything acknowledged is there."""
    data, acknowledged, chance = os.path.join(folder, "data"), {}, random.Random(time.time_ns())
    count, slowest = int(os.environ.get("RINGMQ_STOPS", "20")), 0.0
    ends = {(TOPIC, queue): 0 for queue in range(QUEUES)}
    broker = None
    try:
        for round_number in range(1, count + 1):
            log = os.path.join(folder, f"broker-{round_number}.log")
            broker = Broker(binary, data, log, *SETS, f"flushDiskType={flush}")
            first = 1_000_000 * round_number
            windows = [chance.choice([1, 8, 32]) for _ in range(3)]
            workers = [Producer(first + 100_000 * index, window, TOPIC, QUEUES) for index, window in enumerate(windows)]
            workers.append(Consumer(ends))
            time.sleep(chance.uniform(0.0, 0.5))
            began = time.monotonic()
            check(broker.stop() == 0, "the status of a stop under load")
            slowest = max(slowest, time.monotonic() - began)
            for worker in workers:
                worker.finish()
            for worker in workers[:-1]:
                check(set(worker.codes) <= {0, 2, 10, 14}, f"answers {worker.codes}")
                acknowledged.update({place: message for place, message, _, _ in worker.acknowledged})
            acknowledged.update({place: message for place, message, *_ in workers[-1].shown})
            ends.update(workers[-1].next)
            check(not os.path.exists(os.path.join(data, "abort")), "the mark of a crash is left")
            lines = [line for line in broker.text().splitlines() if " ERROR " in line or " WARN " in line]
            check(not lines, f"lines in the log: {lines[:3]}")
        broker = Broker(binary, data, os.path.join(folder, "broker-last.log"), *SETS, f"flushDiskType={flush}")
        there, _ = read_everything({TOPIC: QUEUES})
        missing = [place for place, number in acknowledged.items() if there.get(place, (None,))[0] != number]
        check(not missing, f"{len(missing)} messages are missing, the first {missing[:1]}")
        check(broker.stop() == 0, "a clean stop")
        check(slowest < 5, f"a stop took {slowest:.1f} s")
        print(f"figures: stops={count} acknowledged={len(acknowledged)} lost=0 slowest_stop_ms={1000 * slowest:.0f}")
    finally:
        if broker:
            broker.kill()


def clocks(binary, folder):
    """Each start finds another monotonic clock, as after a boot of the machine, ahead or behind: requests are answered, pulls that
    wait are answered in their time, and nothing is missing."""
    data, stored, waits = os.path.join(folder, "data"), [], []
    for number, days in enumerate((0, 400, 1, 4000, 0)):
        prefix = ["unshare", "--time", f"--monotonic={86400 * days}", f"--boottime={86400 * days}"]
        broker = Broker(binary, data, os.path.join(folder, f"broker-{number}.log"), *SETS, prefix=prefix)
        try:
            client = Client()
            check(send_many(client, stored, 50, 100 * number) == {0: 50}, "stored")
            began = time.monotonic()
            answer = client.pull(50 * (number + 1), hold_ms=1000)[0]
            waits.append(time.monotonic() - began)
            check(answer["code"] == 19 and 0.9 < waits[-1] < 2.5, f"a pull that waits for 1 s: {answer} after {waits[-1]:.1f} s")
            check(not verify(stored), "messages are missing")
            check(broker.stop() == 0, "a clean stop")
            lines = [line for line in broker.text().splitlines() if " ERROR " in line or " WARN " in line]
            check(not lines, f"lines in the log: {lines[:3]}")
        finally:
            broker.kill()
    print(f"  a wait of 1 s took {1000 * min(waits):.0f} to {1000 * max(waits):.0f} ms")


SCENARIOS = {"open-files": open_files, "clocks": clocks}
for flush in ("ASYNC_FLUSH", "SYNC_FLUSH"):
    SCENARIOS[f"stops {flush}"] = lambda binary, folder, flush=flush: stops(binary, folder, flush)

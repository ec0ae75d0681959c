"""What surrounds the broker: the limit of open files, signals, clocks."""
import mmap, os, random, resource, socket, struct, time

from load import QUEUES, TOPIC, Consumer, Offsets, Producer, read_everything
from rig import AFTER_A_KILL, PORT, Broker, Client, check, run, send_many, until, verify

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
    """SIGTERM under load, again and again: status 0 within 5 s, no mark of a crash, the next start finds nothing to repair,
    everything acknowledged is there, nothing that was refused, and each group's offset is the last one that it has committed."""
    data, acknowledged, chance = os.path.join(folder, "data"), {}, random.Random(time.time_ns())
    offsets, refused = Offsets(), set()
    count, slowest = int(os.environ.get("RINGMQ_STOPS", "20")), 0.0
    ends = {(TOPIC, queue): 0 for queue in range(QUEUES)}
    broker = None
    try:
        for round_number in range(1, count + 1):
            log = os.path.join(folder, f"broker-{round_number}.log")
            broker = Broker(binary, data, log, *SETS, f"flushDiskType={flush}")
            if round_number > 1:
                offsets.judge(dict.fromkeys(ends, 1 << 62), in_order=True)
            first = 1_000_000 * round_number
            windows = [chance.choice([1, 8, 32]) for _ in range(3)]
            producers = [Producer(first + 100_000 * index, window, TOPIC, QUEUES) for index, window in enumerate(windows)]
            consumer, committers = Consumer(ends), offsets.begin(is_quiet=round_number % 2 == 0)
            time.sleep(chance.uniform(0.0, 0.5))
            began = time.monotonic()
            check(broker.stop() == 0, "the status of a stop under load")
            slowest = max(slowest, time.monotonic() - began)
            for worker in (*producers, consumer, *committers):
                worker.finish()
            for producer in producers:
                check(set(producer.codes) <= {0, 2, 10, 14}, f"answers {producer.codes}")
                acknowledged.update({place: message for place, message, _, _ in producer.acknowledged})
                refused.update(producer.refused)
            for committer in committers:
                offsets.harvest(committer)
            acknowledged.update({place: message for place, message, *_ in consumer.shown})
            ends.update(consumer.next)
            check(not os.path.exists(os.path.join(data, "abort")), "the mark of a crash is left")
            lines = [line for line in broker.text().splitlines() if " ERROR " in line or " WARN " in line]
            check(not lines, f"lines in the log: {lines[:3]}")
        broker = Broker(binary, data, os.path.join(folder, "broker-last.log"), *SETS, f"flushDiskType={flush}")
        there, ends = read_everything({TOPIC: QUEUES}, refused)
        offsets.judge(ends, in_order=True)
        missing = [place for place, number in acknowledged.items() if there.get(place, (None,))[0] != number]
        check(not missing, f"{len(missing)} messages are missing, the first {missing[:1]}")
        check(broker.stop() == 0, "a clean stop")
        check(slowest < 5, f"a stop took {slowest:.1f} s")
        print(f"figures: stops={count} acknowledged={len(acknowledged)} lost=0 refused={len(refused)} commits={offsets.count} "
              f"slowest_stop_ms={1000 * slowest:.0f}")
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


# Stands before the C library: the wall clock is ahead by as many seconds as a file says at the moment.
WALL_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static int (*original)(clockid_t, struct timespec *);
static const volatile long *ahead_seconds;

__attribute__((constructor)) static void prepare(void) {
    original = dlsym(RTLD_NEXT, "clock_gettime");
    ahead_seconds = mmap(0, sizeof *ahead_seconds, PROT_READ, MAP_SHARED, open(getenv("WALL_CLOCK_FILE"), O_RDONLY), 0);
    if (!original || ahead_seconds == MAP_FAILED) abort();
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = original(clock, now);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead_seconds;
    return status;
}
"""
HOUR, DAY = 3600, 86400
# How far the clock is ahead: in each life at the start, and then while it is used. The last two are a second that comes twice.
STEPS = [HOUR, 0, -HOUR, 0, DAY, 0, -DAY, HOUR, -HOUR, DAY, -DAY, 0, -1, 0]


def store_times(client):
    """The store times of the topic's one queue, in the order of its offsets."""
    times, offset = [], 0
    while True:
        answer, data = client.pull(offset)
        if answer["code"] == 19:
            return times
        check(answer["code"] == 0, f"pull at {offset}: {answer}")
        at = 0
        while at < len(data):
            size, = struct.unpack_from(">I", data, at)
            times.append(struct.unpack_from(">q", data, at + 56)[0])
            at += size
            offset += 1


def wall_clock(binary, folder):
    """The wall clock jumps by an hour and by a day, ahead and back, within a life and between two, by kill and by stop: store
    times never fall, requests are answered, pulls that wait are answered in their time, and nothing is missing."""
    library, clock = os.path.join(folder, "wall_clock.so"), os.path.join(folder, "clock")
    with open(library + ".c", "w") as file:
        file.write(WALL_CLOCK)
    run("cc", "-O1", "-shared", "-fPIC", "-o", library, library + ".c", "-ldl")
    with open(clock, "wb") as file:
        file.write(bytes(8))
    data, stored, waits, number = os.path.join(folder, "data"), [], [], 0
    prefix = ["env", f"LD_PRELOAD={library}", f"WALL_CLOCK_FILE={clock}"]
    with open(clock, "r+b") as file, mmap.mmap(file.fileno(), 8) as shown:
        def use(client, ahead):
            nonlocal number
            shown[:] = struct.pack("=q", ahead)
            check(send_many(client, stored, 50, number) == {0: 50}, "stored")
            number += 50
            began = time.monotonic()
            answer = client.pull(number, hold_ms=300)[0]
            waits.append(time.monotonic() - began)
            check(answer["code"] == 19 and 0.25 < waits[-1] < 2, f"a pull that waits for 0.3 s: {answer} after {waits[-1]:.1f} s")

        for life, (first, second) in enumerate(zip(STEPS[::2], STEPS[1::2])):
            shown[:] = struct.pack("=q", first)
            is_killed, was_killed = life % 2 == 1, life > 0 and life % 2 == 0
            broker = Broker(binary, data, os.path.join(folder, f"broker-{life}.log"), *SETS, prefix=prefix,
                            expected=AFTER_A_KILL if was_killed else ())
            try:
                client = Client()
                use(client, first)
                use(client, second)
                times = store_times(client)
                check(len(times) == number and times == sorted(times), f"store times fall: {times[-100:]}")
                check(not verify(stored), "messages are missing")
                if not is_killed:
                    check(broker.stop() == 0, "a clean stop")
            finally:
                broker.kill()
        now_ms = time.time() * 1000
        check(times[-1] > now_ms + 1000 * (DAY - HOUR), "the clock of the process did not jump")
    print(f"figures: clock_steps={len(STEPS)} store_times={number} fell=0 longest_wait_of_300_ms={1000 * max(waits):.0f}")


SCENARIOS = {"open-files": open_files, "clocks": clocks, "wall-clock": wall_clock}
for flush in ("ASYNC_FLUSH", "SYNC_FLUSH"):
    SCENARIOS[f"stops {flush}"] = lambda binary, folder, flush=flush: stops(binary, folder, flush)

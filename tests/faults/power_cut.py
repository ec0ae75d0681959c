"""Power cuts of the real binary: the disk forgets what was not synced, the broker is killed, everything starts again.

The disk (`faulty_image.py`) undoes all writes since the last sync that it completed, or keeps a random part of them. Then:

- In both modes: offsets without a gap, every message whole, at most once, in its sender's order; what survived one cut survives
  all later ones.
- SYNC_FLUSH: everything acknowledged and everything that a consumer saw is there, at its offset, unchanged.
- ASYNC_FLUSH: what is lost is the end of the log, by physical offset, and no older than BOUND. The flush thread begins a sync
  `flushIntervalCommitLog` after the beginning of the last one, up to 50 ms late because it looks so often, later by what it
  has at hand then (queue files, segments, state files), and what it syncs is safe when the disk has done it. The last two are
  the disk's time: DISK covers them on this slow one.

The moments: at random under load; in place of a random sync; with one request in flight, at a random write or sync; soon after a start that followed
`kill -9`, which owes a sync; and again during the start after a cut, so that recoveries are cut as well.
"""
import json, os, random, socket, struct, threading, time

from rig import PORT, Broker, Client, Failed, Image, Kernel, check

TOPIC, QUEUES = "T", 4
INTERVAL, BEAT, DISK = 0.5, 0.05, 0.45
BOUND = INTERVAL + BEAT + DISK
AFTER_A_CUT = ("was not stopped in order", "discarded", "cut queue entries")
SETS = ["cleanFileForciblyEnable=false", "diskMaxUsedSpaceRatio=95", "shards=2", f"flushIntervalCommitLog={int(1000 * INTERVAL)}"]


def size_of(number):
    mixed = number * 2654435761 & 0xFFFFFFFF
    spread = mixed >> 8
    return 10 * (1 + (spread % 3000 if mixed % 20 == 0 else spread % 400 if mixed % 20 < 5 else spread % 20))


def body_of(number):
    return b"%010d" % number * (size_of(number) // 10)


class Link:
    """A connection with many requests under way."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=20)
        self.input, self.opaque = bytearray(), 0

    def request(self, code, fields, body=b""):
        self.opaque += 1
        header = json.dumps({"code": code, "language": "OTHER", "version": 479, "opaque": self.opaque, "flag": 0,
                             "extFields": fields}).encode()
        return self.opaque, struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body

    def answers(self):
        """All whole answers that have arrived; waits for the first."""
        found = []
        while not found:
            more = self.socket.recv(1 << 18)
            if not more:
                raise ConnectionError("closed")
            self.input += more
            at = 0
            while len(self.input) - at >= 4:
                length, = struct.unpack_from(">I", self.input, at)
                if len(self.input) - at - 4 < length:
                    break
                size = struct.unpack_from(">I", self.input, at + 4)[0] & 0xFFFFFF
                header = json.loads(self.input[at + 8:at + 8 + size])
                found.append((header, bytes(self.input[at + 8 + size:at + 4 + length])))
                at += 4 + length
            del self.input[:at]
        return found


def pull_fields(topic, queue, offset):
    return {"consumerGroup": "g", "topic": topic, "queueId": str(queue), "queueOffset": str(offset), "maxMsgNums": "32",
            "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
            "expressionType": "TAG"}


def messages(data, topic, queue, offset):
    """The numbers and physical offsets in an answer to a pull at `offset`, checked to be what was sent, without a gap."""
    at, found = 0, []
    while at < len(data):
        size, = struct.unpack_from(">I", data, at)
        queue_offset, physical = struct.unpack_from(">qq", data, at + 20)
        length, = struct.unpack_from(">I", data, at + 84)
        text = data[at + 88:at + 88 + length]
        check(queue_offset == offset, f"{topic}/{queue}: {queue_offset} comes where {offset} should")
        number = int(text[:10])
        check(text == body_of(number), f"wrong bytes at {topic}/{queue}/{queue_offset}")
        found.append((number, physical))
        at += size
        offset += 1
    return found


class Worker(threading.Thread):
    """Works until the broker is gone. An error that is not that is kept for whoever joins."""

    def __init__(self):
        super().__init__(daemon=True)
        self.error = None
        self.start()

    def run(self):
        try:
            self.work(Link())
        except (ConnectionError, BrokenPipeError):
            pass
        except Exception as error:
            self.error = error

    def finish(self):
        self.join(60)
        check(not self.is_alive(), "a client waits for ever")
        if self.error:
            raise self.error


class Producer(Worker):
    def __init__(self, first, window, topic, queues):
        self.next, self.window, self.topic, self.queues = first, window, topic, queues
        self.chance, self.acknowledged, self.codes = random.Random(first), [], {}
        super().__init__()

    def work(self, link):
        under_way = {}
        while True:
            frames = b""
            while len(under_way) < self.window:
                queue = self.chance.randrange(self.queues)
                fields = {"a": "cut", "b": self.topic, "c": "TBW102", "d": str(self.queues), "e": str(queue), "f": "0",
                          "g": str(int(time.time() * 1000)), "h": "0", "i": "", "j": "0", "k": "false", "m": "false"}
                opaque, frame = link.request(310, fields, body_of(self.next))
                under_way[opaque] = (queue, self.next)
                frames += frame
                self.next += 1
            if frames:
                link.socket.sendall(frames)
            for header, _ in link.answers():
                now = time.monotonic()
                queue, number = under_way.pop(header["opaque"])
                self.codes[header["code"]] = self.codes.get(header["code"], 0) + 1
                if header["code"] == 0:
                    fields = header["extFields"]
                    place = (self.topic, queue, int(fields["queueOffset"]))
                    self.acknowledged.append((place, number, now, int(fields["msgId"][16:32], 16)))


class Consumer(Worker):
    def __init__(self, ends):
        self.next, self.shown = dict(ends), []
        super().__init__()

    def work(self, link):
        while True:
            asked = {}
            for (topic, queue), offset in self.next.items():
                opaque, frame = link.request(11, pull_fields(topic, queue, offset))
                asked[opaque] = (topic, queue, offset)
                link.socket.sendall(frame)
            is_idle = True
            while asked:
                for header, data in link.answers():
                    topic, queue, offset = asked.pop(header["opaque"])
                    if header["code"] == 0:
                        is_idle = False
                        found = messages(data, topic, queue, offset)
                        self.shown += [((topic, queue, offset + index), *one) for index, one in enumerate(found)]
                        self.next[topic, queue] = offset + len(found)
                    else:
                        check(header["code"] in (17, 19), f"pull of {topic}/{queue} at {offset}: {header}")
            if is_idle:
                time.sleep(0.002)


def read_everything(topics):
    """All messages by place."""
    link, survivors, senders = Link(), {}, {}
    state = {(topic, queue): 0 for topic, queues in topics.items() for queue in range(queues)}
    asked = {}

    def ask(topic, queue):
        opaque, frame = link.request(11, pull_fields(topic, queue, state[topic, queue]))
        asked[opaque] = (topic, queue)
        link.socket.sendall(frame)

    for topic, queue in state:
        ask(topic, queue)
    while asked:
        for header, data in link.answers():
            topic, queue = asked.pop(header["opaque"])
            offset = state[topic, queue]
            if header["code"] != 0:
                check(header["code"] in (17, 19), f"pull of {topic}/{queue} at {offset}: {header}")
                continue
            for number, physical in messages(data, topic, queue, offset):
                sender = (topic, queue, number // 100_000)
                check(senders.get(sender, -1) < number, f"{number} comes after {senders.get(sender)} in {topic}/{queue}")
                senders[sender] = number
                survivors[topic, queue, state[topic, queue]] = (number, physical)
                state[topic, queue] += 1
            ask(topic, queue)
    numbers = [number for number, _ in survivors.values()]
    check(len(set(numbers)) == len(numbers), "a message is there twice")
    return survivors, state


class Trial:
    """One store that goes through many cuts, and everything that was promised about it."""

    def __init__(self, binary, folder, flush, path, seed):
        self.binary, self.folder, self.is_sync = binary, folder, flush == "SYNC_FLUSH"
        prefix = "sync" if self.is_sync else "async"
        self.sets = [*SETS, f"flushDiskType={flush}", f"{prefix}_write_path={path}"]
        self.chance, self.kernel = random.Random(seed), Kernel(folder)
        self.image = self.broker = None
        self.round, self.topics = 0, {TOPIC: QUEUES}
        self.ends = {(TOPIC, queue): 0 for queue in range(QUEUES)}
        self.promises = {}  # place -> (number, time of the acknowledgement, physical offset)
        self.acknowledged = self.shown = self.lost = self.cuts = self.kills = self.writes = self.dropped = 0
        self.oldest = 0.0
        self.attach()

    def attach(self):
        self.image = Image(self.folder, 512, seed=self.chance.randrange(1 << 30))

    def start(self, wait=True):
        self.log = os.path.join(self.folder, f"broker-{self.round}.log")
        data = os.path.join(self.image.point, "data")
        self.broker = Broker(self.binary, data, self.log, *self.sets, wait=wait)

    def load(self, producers):
        """Starts clients: (window, topic, queues) for each producer, and a consumer."""
        self.round += 1
        workers = [Producer(self.round * 1_000_000 + index * 100_000, *one) for index, one in enumerate(producers)]
        return workers + [Consumer(self.ends)]

    def harvest(self, workers):
        for worker in workers:
            worker.finish()
            if isinstance(worker, Consumer):
                self.shown += len(worker.shown)
                for place, number, physical in worker.shown:
                    known = self.promises.setdefault(place, (number, time.monotonic(), physical))
                    check(known[0] == number, f"a consumer saw {number} at {place}, which held {known[0]}")
            else:
                self.acknowledged += len(worker.acknowledged)
                check(set(worker.codes) <= {0, 2, 10, 14}, f"answers {worker.codes}")
                for place, number, at, physical in worker.acknowledged:
                    known = self.promises.get(place, (number,))
                    check(known[0] == number, f"{number} was acknowledged at {place}, where {known[0]} was seen")
                    self.promises[place] = (number, at, physical)

    def cut(self, command="cut", patience=None):
        """The power goes. Gives the time."""
        at = self.image.cut(command, patience)
        self.broker.kill(self.image)
        self.cuts += 1
        return at

    def restore(self):
        kept, writes = self.image.close_after_cut()
        self.writes, self.dropped = self.writes + writes, self.dropped + writes - kept
        self.kernel.restart()
        self.attach()

    def compare(self, cut_at):
        """Reads everything, and compares it with what was promised."""
        survivors, self.ends = read_everything(self.topics)
        lost = []
        for place, (number, at, physical) in self.promises.items():
            if place not in survivors:
                lost.append((physical, place, number, at))
            else:
                check(survivors[place][0] == number, f"{place} held {number} and now {survivors[place][0]}")
        if self.is_sync:
            check(not lost, f"{len(lost)} messages are lost, the first {min(lost)[1:3] if lost else ''}")
        elif lost:
            last = max((physical for _, physical in survivors.values()), default=-1)
            check(min(lost)[0] > last, f"{min(lost)} is lost, and a message at {last} is there")
            oldest = cut_at - min(at for _, _, _, at in lost)
            check(oldest <= BOUND, f"a message is lost that was acknowledged {1000 * oldest:.0f} ms before the cut")
            self.oldest = max(self.oldest, oldest)
            self.lost += len(lost)
        self.promises = {place: (number, 0, physical) for place, (number, physical) in survivors.items()}
        with open(self.log) as file:
            lines = [line for line in file if " WARN " in line or " ERROR " in line]
        odd = [line for line in lines if not any(known in line for known in AFTER_A_CUT)]
        check(not odd, f"unexpected lines in the log: {odd[:3]}")

    def one_cut(self, kind):
        window = self.chance.choice([1, 8, 32])
        fresh = f"fresh{self.round}"
        self.topics[fresh] = 1
        many = [(window, TOPIC, QUEUES)] * 2 + [(1, TOPIC, QUEUES), (2, fresh, 1)]
        if kind == "one request":
            workers = self.load([(1, self.chance.choice([TOPIC, fresh]), 1)])
            time.sleep(self.chance.uniform(0.0, 0.2))
            at = self.cut(f"cut-after-{self.chance.randrange(30)}", 2)
        elif kind == "a sync":
            workers = self.load(many)
            time.sleep(self.chance.uniform(0.0, 0.4))
            at = self.cut(f"cut-at-sync-after-{self.chance.randrange(60)}", 2)
        else:
            workers = self.load(many)
            time.sleep(self.chance.uniform(0.03, 1.0))
            if kind == "killed before":
                self.broker.kill()
                self.harvest(workers)
                self.kills += 1
                self.start()
                # What the process left in the page cache is synced by the next one, so that is when its time begins.
                ready = time.monotonic()
                self.promises = {place: (number, max(at, ready), physical) for place, (number, at, physical) in self.promises.items()}
                self.ends = read_everything(self.topics)[1]
                workers = self.load(many)
                time.sleep(self.chance.uniform(0.0, 0.6))
            at = self.cut()
        self.harvest(workers)
        self.restore()
        if kind == "the start as well":
            self.start(wait=False)
            time.sleep(self.chance.uniform(0.0, 0.15))
            self.cut(self.chance.choice(["cut", f"cut-after-{self.chance.randrange(40)}"]), 0.3)
            self.restore()
        self.start()
        self.compare(at)

    def go(self, cuts):
        kinds = ["load", "a sync", "one request", "killed before", "the start as well"]
        self.start()
        try:
            while self.cuts < cuts:
                kind = kinds[self.round % len(kinds)]
                try:
                    self.one_cut(kind)
                except Failed as failure:
                    raise Failed(f"cut {self.cuts} ({kind}): {failure}")
            check(self.broker.stop() == 0, "a clean stop")
        finally:
            self.close()

    def close(self):
        if self.broker:
            self.broker.kill(self.image)
        if self.image:
            self.image.close()
        self.kernel.close()


def power_cut(binary, folder, flush):
    cuts = int(os.environ.get("RINGMQ_POWER_CUTS", "20"))
    seed = int(os.environ.get("RINGMQ_POWER_SEED", str(time.time_ns() % 1_000_000)))
    print(f"  RINGMQ_POWER_SEED={seed}")
    totals = {}
    for path in ("direct", "page_cache"):
        below = os.path.join(folder, path)
        os.mkdir(below)
        trial = Trial(binary, below, flush, path, seed)
        trial.go(cuts)
        print(f"  {path}: {trial.cuts} cuts, {trial.kills} kills, {trial.acknowledged} acknowledged, {trial.shown} shown to a consumer, "
              f"{trial.lost} lost, at most {1000 * trial.oldest:.0f} ms old; {trial.dropped} of {trial.writes} unsynced writes dropped")
        check(trial.acknowledged > 50 * cuts, "too little load")
        check(trial.is_sync or trial.lost > 0, "nothing is lost in ASYNC_FLUSH, so this proves nothing")
        for name in ("cuts", "kills", "acknowledged", "shown", "lost", "dropped"):
            totals[name] = totals.get(name, 0) + getattr(trial, name)
        totals["oldest_lost_ms"] = max(totals.get("oldest_lost_ms", 0), round(1000 * trial.oldest))
    print("figures: " + " ".join(f"{name}={value}" for name, value in totals.items()))


def lying(binary, folder):
    """The check itself is checked: a disk whose syncs keep nothing must be found out."""
    noticed = 0
    for number, path in enumerate(("direct", "page_cache")):
        below = os.path.join(folder, path)
        os.mkdir(below)
        trial = Trial(binary, below, "SYNC_FLUSH", path, number)
        try:
            trial.start()
            workers = trial.load([(8, TOPIC, QUEUES)] * 2)
            time.sleep(0.3)
            trial.image.command("lie")
            time.sleep(0.7)
            at = trial.cut()
            trial.harvest(workers)
            trial.restore()
            try:
                trial.start()
                trial.compare(at)
            except Failed as failure:
                check("are lost" in str(failure) or "exit 6" in str(failure), f"noticed for another reason: {failure}")
                print(f"  {path}: {failure}"[:300])
                noticed += 1
        finally:
            trial.close()
    check(noticed == 2, "a disk that lies goes unnoticed")
    print(f"figures: lying_disks={noticed} noticed={noticed}")


SCENARIOS = {f"power-cut {flush}": lambda binary, folder, flush=flush: power_cut(binary, folder, flush)
             for flush in ("SYNC_FLUSH", "ASYNC_FLUSH")}
SCENARIOS["power-cut lying"] = lying

"""Power cuts of the real binary: the disk forgets what was not synced, the broker is killed, everything starts again.

The disk (`faulty_image.py`) undoes all writes since the last sync that it completed, or keeps a random part of them. Then:

- In both modes: offsets without a gap, every message whole, at most once, in its sender's order; what survived one cut survives
  all later ones.
- SYNC_FLUSH: everything acknowledged and everything that a consumer saw is there, at its offset, unchanged.
- A kill without a cut loses nothing in either mode, on a slow disk as well.
- What was refused before it was written is nowhere.
- The offset that a group has committed is one that it did commit, and never behind what an earlier start has told of it; when the end
  of a queue is lost, which ASYNC_FLUSH allows, it is lowered to what is left.
- At the end the store doctor (`ringmq store verify`) finds nothing wrong.
- ASYNC_FLUSH: what is lost is the end of the log, by physical offset, and no older than BOUND. The flush thread begins a sync
  `flushIntervalCommitLog` after the beginning of the last one, up to 50 ms late because it looks so often, later by what it
  has at hand then (queue files, segments, state files), and what it syncs is safe when the disk has done it. The last two are
  the disk's time: DISK covers them on this slow one.

The moments: at random under load; in place of a random sync; with one request in flight, at a random write or sync; soon after a start that followed
`kill -9`, which owes a sync; and again during the start after a cut, so that recoveries are cut as well.
"""
import os, random, time

from load import QUEUES, TOPIC, Committer, Consumer, Offsets, Producer, read_everything
import rig
from rig import Broker, Failed, Image, Kernel, check, run

INTERVAL, BEAT, DISK = 0.5, 0.05, 0.45
BOUND = INTERVAL + BEAT + DISK
# The last: between the two renames of a new state file the name is free.
AFTER_A_CUT = ("was not stopped in order", "discarded", "cut queue entries", "a state file cannot be used, its backup is")
# Ways of writing the log. Zeroing ahead is the default of SYNC_FLUSH; here it is kept to a part of a file, so that it goes on all the time.
PATHS = {
    "ASYNC_FLUSH": {"direct": ["async_write_path=direct"], "page_cache": ["async_write_path=page_cache"]},
    "SYNC_FLUSH": {"direct": ["sync_write_path=direct"], "page_cache": ["sync_write_path=page_cache"],
                   "zeroing-ahead": ["sync_write_path=direct", "zero_ahead_bytes=256 KiB"]},
}
LOWERED = "a committed offset lay above its queue's end and was lowered"
SETS = ["cleanFileForciblyEnable=false", "diskMaxUsedSpaceRatio=95", "shards=2", "flushConsumerOffsetInterval=100",
        f"flushIntervalCommitLog={int(1000 * INTERVAL)}"]


class Trial:
    """One store that goes through many cuts, and everything that was promised about it."""

    def __init__(self, binary, folder, flush, path, seed):
        self.binary, self.folder, self.is_sync = binary, folder, flush == "SYNC_FLUSH"
        self.sets = [*SETS, f"flushDiskType={flush}", *PATHS[flush][path]]
        self.chance, self.kernel = random.Random(seed), Kernel(folder)
        self.image = self.broker = None
        self.round, self.topics = 0, {TOPIC: QUEUES}
        self.ends = {(TOPIC, queue): 0 for queue in range(QUEUES)}
        self.promises = {}  # place -> (number, when it was acknowledged or shown, whichever was first, physical offset)
        self.acknowledged = self.shown = self.lost = self.cuts = self.kills = self.writes = self.dropped = 0
        self.oldest, self.refused, self.faults, self.offsets = 0.0, set(), 0, Offsets()
        self.attach()

    def attach(self):
        self.image = Image(self.folder, 512, seed=self.chance.randrange(1 << 30))

    def start(self, wait=True):
        self.log = os.path.join(self.folder, f"broker-{self.round}.log")
        data = os.path.join(self.image.point, "data")
        self.broker = Broker(self.binary, data, self.log, *self.sets, wait=wait, expected=None)

    def load(self, producers):
        """Starts clients: (window, topic, queues) for each producer, and a consumer."""
        self.round += 1
        workers = [Producer(self.round * 1_000_000 + index * 100_000, *one) for index, one in enumerate(producers)]
        return workers + [Consumer(self.ends), *self.offsets.begin()]

    def harvest(self, workers):
        for worker in workers:
            worker.finish()
            if isinstance(worker, Consumer):
                self.shown += len(worker.shown)
                self.promise("shown", worker.shown)
            elif isinstance(worker, Committer):
                self.offsets.harvest(worker)
            else:
                self.acknowledged += len(worker.acknowledged)
                self.refused.update(worker.refused)
                self.faults += worker.faults
                check(set(worker.codes) <= {0, 2, 10, 14}, f"answers {worker.codes}")
                self.promise("acknowledged", worker.acknowledged)

    def promise(self, what, messages):
        """Notes messages that a client knows of, with the first moment when one did: it was appended no later than that."""
        for place, number, at, physical in messages:
            known = self.promises.get(place, (number, at))
            check(known[0] == number, f"{number} was {what} at {place}, which held {known[0]}")
            self.promises[place] = (number, min(at, known[1]), physical)

    def cut(self, command="cut", patience=None):
        """The power goes. Gives the time."""
        at = self.image.cut(command, patience)
        self.broker.kill(self.image)
        self.check_log()
        self.cuts += 1
        return at

    def check_log(self):
        """What the processes of this round have logged until now."""
        with open(self.log) as file:
            lines = [line for line in file if " WARN " in line or " ERROR " in line or "panicked" in line]
        known_lines = AFTER_A_CUT if self.is_sync else (*AFTER_A_CUT, LOWERED)
        odd = [line for line in lines if not any(known in line for known in known_lines)]
        check(not odd, f"unexpected lines in the log: {odd[:3]}")

    def restore(self):
        kept, writes = self.image.close_after_cut()
        self.writes, self.dropped = self.writes + writes, self.dropped + writes - kept
        self.kernel.restart()
        self.attach()

    def compare(self, cut_at):
        """Reads everything, and compares it with what was promised. Without the time of a cut there was none: nothing is lost."""
        survivors, self.ends = read_everything(self.topics, self.refused)
        self.offsets.judge(self.ends, may_be_lowered=not self.is_sync and cut_at is not None)
        lost = []
        for place, (number, at, physical) in self.promises.items():
            if place not in survivors:
                lost.append((physical, place, number, at))
            else:
                check(survivors[place][0] == number, f"{place} held {number} and now {survivors[place][0]}")
        if self.is_sync or cut_at is None:
            check(not lost, f"{len(lost)} messages are lost, the first {min(lost)[1:3] if lost else ''}")
        elif lost:
            last = max((physical for _, physical in survivors.values()), default=-1)
            check(min(lost)[0] > last, f"{min(lost)} is lost, and a message at {last} is there")
            oldest = cut_at - min(at for _, _, _, at in lost)
            check(oldest <= BOUND, f"a message is lost that was acknowledged or shown {1000 * oldest:.0f} ms before the cut")
            self.oldest = max(self.oldest, oldest)
            self.lost += len(lost)
        self.promises = {place: (number, 0, physical) for place, (number, physical) in survivors.items()}
        self.check_log()

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
            before = set(self.promises)
            if kind == "killed before" and self.chance.random() < 0.5:
                self.image.command("delay-100")
            workers = self.load(many)
            time.sleep(self.chance.uniform(0.03, 1.0))
            if kind == "killed before":
                self.broker.kill()
                self.check_log()
                self.image.command("ok")
                self.harvest(workers)
                self.kills += 1
                self.start()
                ready = time.monotonic()
                self.compare(None)
                # What the process left in the page cache is synced by the next one, so that is when its time begins.
                for place in self.promises.keys() - before:
                    number, _, physical = self.promises[place]
                    self.promises[place] = (number, ready, physical)
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
            self.check_log()
            self.audit()
        finally:
            self.close()

    def audit(self):
        """The store doctor finds nothing wrong with what all the cuts have left."""
        sets = [word for one in [*rig.SETS, *self.sets] for word in ("--set", one)]
        run(self.binary, "store", "verify", "--data", os.path.join(self.image.point, "data"), *sets)

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
    for path in PATHS[flush]:
        below = os.path.join(folder, path)
        os.mkdir(below)
        trial = Trial(binary, below, flush, path, seed)
        trial.go(cuts)
        print(f"  {path}: {trial.cuts} cuts, {trial.kills} kills, {trial.acknowledged} acknowledged, "
              f"{trial.shown} shown to a consumer, {trial.lost} lost, at most {1000 * trial.oldest:.0f} ms old; "
              f"{trial.dropped} of {trial.writes} unsynced writes dropped")
        check(trial.acknowledged > 50 * cuts, "too little load")
        check(trial.is_sync or trial.lost > 0, "nothing is lost in ASYNC_FLUSH, so this proves nothing")
        check(trial.faults > 0 and trial.offsets.count > 0, "nothing was refused, or no group has committed")
        for name in ("cuts", "kills", "acknowledged", "shown", "lost", "dropped"):
            totals[name] = totals.get(name, 0) + getattr(trial, name)
        totals["refused"] = totals.get("refused", 0) + trial.faults + len(trial.refused)
        totals["commits"] = totals.get("commits", 0) + trial.offsets.count
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

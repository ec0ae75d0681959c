"""Disks that are full, fail, are slow, hang, or turn read-only."""
import errno, os, re, subprocess, threading, time
from datetime import datetime, timezone

from rig import AFTER_A_KILL, DISK_FAILED, NO_SPACE, Broker, Client, Failed, Image, check, fill, run, send_many, until, verify


def full_disk(binary, folder, place):
    """Fill a file system of 64 MiB from outside; sends get 14, everything else goes on; free it; service within a second."""
    data, log, filler = os.path.join(place, "data"), os.path.join(folder, "broker.log"), os.path.join(place, "filler")
    sets = ["cleanFileForciblyEnable=false", "diskMaxUsedSpaceRatio=95"]
    broker = Broker(binary, data, log, *sets, expected=NO_SPACE)
    stored, number = [], 0
    try:
        client = Client()
        codes = send_many(client, stored, 100)
        check(codes == {0: 100}, f"{codes}")
        for cycle in range(20):
            fill(filler)
            number += 1000
            until("code 14", 20, lambda: send_many(client, stored, 1, number)
                  .get(14) == 1)
            answer = client.send(number + 1)
            check(answer["code"] == 14 and ("full" in answer["remark"] or "space" in answer["remark"]), f"{answer}")
            check(client.pull(0)[0]["code"] == 0, "pulls go on")
            check(client.commit(cycle + 1) == 0 and int(client.committed()) == cycle + 1, "offsets are committed")
            os.remove(filler)
            freed = time.monotonic()
            until("service", 1.0, lambda: send_many(client, stored, 1, number + 2).get(0) == 1)
            print(f"  cycle {cycle}: served {1000 * (time.monotonic() - freed):.0f} ms after there was room")
        check(broker.process.poll() is None, "it ended")
        missing = verify(stored)
        check(not missing, f"{len(missing)} confirmed messages are missing")
        time.sleep(6)
        check(broker.stop() == 0, "a clean stop")
        broker = Broker(binary, data, log, *sets)
        check(not verify(stored), "messages are missing after the restart")
        check(int(Client().committed()) == 20, "the committed offset is missing after the restart")
        check(broker.stop() == 0, "a clean stop")
    finally:
        broker.kill()


def failing(binary, folder, fault, flush, *sets):
    image = Image(folder)
    data, log = os.path.join(image.point, "data"), os.path.join(folder, "broker.log")
    stored, broker = [], None
    try:
        broker = Broker(binary, data, log, f"flushDiskType={flush}", *sets, expected=DISK_FAILED)
        client = Client()
        check(send_many(client, stored, 200) == {0: 200}, "stored")
        if flush == "ASYNC_FLUSH":
            time.sleep(2)  # Longer than the flush interval: what is confirmed now is on the disk.
        on_disk = len(stored)
        if fault == "read-only":
            # Files that are open for writing keep a mount from being remounted: an error makes ext4 do it by itself.
            run("mount", "-o", "remount,errors=remount-ro", image.point)
            with open(f"/sys/fs/ext4/{os.path.basename(image.loop)}/trigger_fs_error", "w") as file:
                file.write("1")
        else:
            image.command(fault)
        failed_at = None
        try:
            for number in range(200, 100_000):
                answer = client.send(number)
                if answer["code"] == 0:
                    check(failed_at is None, f"code 0 after an error: {number}")
                    stored.append((int(answer["extFields"]["queueOffset"]), number))
                else:
                    failed_at = number
        except (ConnectionError, OSError):
            pass
        status, ended = broker.end(5), datetime.now(timezone.utc)
        check(status == 5, f"exit code {status} instead of 5: {broker.text()[-1500:]}")
        errors = [line for line in broker.text().splitlines() if " ERROR " in line]
        check(len(errors) == 1 and "the process ends" in errors[0], f"one line says why: {broker.text()[-1500:]}")
        number = errno.EROFS if fault == "read-only" else errno.EIO
        check(os.path.join(image.point, "data") in errors[0], f"the file: {errors[0]}")
        check(f"(os error {number})" in errors[0] or f"(os error {errno.EROFS})" in errors[0], f"the error number: {errors[0]}")
        check("the log failed" not in errors[0] or re.search(r"/commitlog/\d{20} at offset \d+: ", errors[0]), f"the place: {errors[0]}")
        failed = datetime.fromisoformat(next(word for word in errors[0].split() if word.endswith("Z")))
        milliseconds = (ended - failed).total_seconds() * 1000
        print(f"  {len(stored) - on_disk} more stored, then: {errors[0].split('error=')[-1]}; the end {milliseconds:.0f} ms later")
        image.close()
        image = Image(folder)
        data = os.path.join(image.point, "data")
        try:
            broker = Broker(binary, data, log, f"flushDiskType={flush}", *sets, expected=AFTER_A_KILL)
        except Failed as refused:
            check("exit 6" in str(refused), str(refused))
            print("  the next start refuses")
            return
        sure = stored if flush == "SYNC_FLUSH" else stored[:on_disk]
        missing = verify(sure)
        check(not missing, f"{len(missing)} of {len(sure)} messages are missing")
        check(send_many(Client(), stored, 10, 200_000) == {0: 10}, "it takes messages again")
        check(broker.stop() == 0, "a clean stop")
    finally:
        if broker:
            broker.kill()
        image.close()


def slow(binary, folder):
    """Each sync waits 200 ms: SYNC_FLUSH senders wait, memory is bounded, others are served; back to normal afterwards."""
    image = Image(folder)
    broker = None
    try:
        broker = Broker(binary, os.path.join(image.point, "data"), os.path.join(folder, "broker.log"),
                        "flushDiskType=SYNC_FLUSH", "syncFlushTimeout=1000")
        client, other, stored = Client(), Client(), []
        check(send_many(client, stored, 50) == {0: 50}, "stored")
        # A group that does not exist is made and written first; that would be the time of the disk, not of the broker.
        check(other.pull(0)[0]["code"] == 0 and other.commit(1) == 0, "others are served")
        before = broker.resident()
        image.command("delay-200")
        codes, slowest, until_time, number = {}, 0, time.monotonic() + 8, 1000
        while time.monotonic() < until_time:
            number += 1
            for code, count in send_many(client, stored, 1, number).items():
                codes[code] = codes.get(code, 0) + count
            began = time.monotonic()
            other.commit(1)
            check(other.pull(0)[0]["code"] == 0, "others are served")
            slowest = max(slowest, time.monotonic() - began)
        print(f"  codes {codes}, slowest other request {1000 * slowest:.0f} ms, {(broker.resident() - before) >> 20} MiB more")
        check(set(codes) <= {0, 2, 10}, f"{codes}")
        check(slowest <= 1.0, "others wait too long")
        check(broker.resident() - before < 64 << 20, "memory grows")
        image.command("ok")
        time.sleep(1)
        began = time.monotonic()
        check(send_many(client, stored, 100, 5000) == {0: 100}, "back to normal")
        check(time.monotonic() - began < 5, "still slow")
        check(not verify(stored), "messages are missing")
        check(broker.stop() == 0, "a clean stop")
    finally:
        if broker:
            broker.kill()
        image.close()


def full_and_killed(binary, folder, place):
    """Topics are deleted on a full disk, and the broker is killed and started there: it starts or says that there is no room,
    what was confirmed is there, and what a deleted topic held does not come back in a topic of the same name."""
    data, log, filler = os.path.join(place, "data"), os.path.join(folder, "broker.log"), os.path.join(place, "filler")
    sets = ["cleanFileForciblyEnable=false", "diskMaxUsedSpaceRatio=95", "shards=2"]
    broker = Broker(binary, data, log, *sets, expected=NO_SPACE)
    stored = []
    try:
        for cycle in range(5):
            client, topic, number = Client(), f"gone{cycle}", 1000 * (cycle + 1)
            check(send_many(client, stored, 50, number) == {0: 50}, "stored")
            for part in range(50):
                check(client.send(part, 200, topic)["code"] == 0, "stored")
            fill(filler)
            until("code 14", 20, lambda: send_many(client, stored, 1, number + 100).get(14) == 1)
            check(client.delete_topic(topic) == 0, "topics are deleted")
            check(client.pull(0, topic)[0]["code"] != 0, "a deleted topic is not read")
            # What was given back meanwhile; the deletion is confirmed, so it must survive a kill.
            fill(filler + ".rest")
            check(client.send(number + 101)["code"] == 14, "sends are refused")
            broker.kill()
            fill(filler + ".more")
            try:
                broker = Broker(binary, data, log, *sets, expected=NO_SPACE + AFTER_A_KILL)
                print(f"  cycle {cycle}: started on the full disk")
                check(Client().send(number + 102)["code"] == 14, "sends are refused after a start on a full disk")
            except Failed as refused:
                check("exit 1:" in str(refused) and "No space left" in str(refused), str(refused))
                print(f"  cycle {cycle}: the start on the full disk is refused with the reason")
                os.remove(filler)
                broker = Broker(binary, data, log, *sets, expected=NO_SPACE + AFTER_A_KILL)
            for path in (filler, filler + ".rest", filler + ".more"):
                if os.path.exists(path):
                    os.remove(path)
            client = Client()
            until("service", 1.0, lambda: send_many(client, stored, 1, number + 103).get(0) == 1)
            check(not verify(stored), "messages are missing after a kill on a full disk")
            answer = client.send(1, 200, topic)
            check(answer["code"] == 0, f"{answer}")
            check(answer["extFields"]["queueOffset"] == "0", f"{topic} came back: {answer}")
        check(not verify(stored), "messages are missing")
        check(broker.stop() == 0, "a clean stop")
    finally:
        broker.kill()


def on_tmpfs(scenario, binary, folder):
    place = os.path.join(folder, "small")
    os.makedirs(place)
    run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place)
    try:
        scenario(binary, folder, place)
    finally:
        subprocess.run(["umount", place], stderr=subprocess.DEVNULL)


def on_ext4(scenario, binary, folder):
    image = Image(folder)
    try:
        scenario(binary, folder, image.point)
    finally:
        image.close()


def hanging(binary, folder):
    """The disk of the log hangs for six seconds: everybody else is served, senders are told, memory and processor time are
    bounded, and when it goes on nothing that was confirmed is missing."""
    image, broker, frozen = Image(folder), None, False
    try:
        broker = Broker(binary, os.path.join(folder, "data"), os.path.join(folder, "broker.log"), "sync_write_path=direct",
                        f"storePathCommitLog={image.point}/commitlog", "flushDiskType=SYNC_FLUSH", "syncFlushTimeout=1000",
                        "shards=2", expected=["the log is stuck"])
        client, stored = Client(), []
        others = [Client(timeout=3) for _ in range(4)]
        check(send_many(client, stored, 50) == {0: 50}, "stored")
        check(client.send(1, 200, "gone")["code"] == 0, "stored")
        for other in others:
            check(other.pull(0)[0]["code"] == 0 and other.commit(1) == 0, "others are served")
        resident, worked = broker.resident(), broker.processor_seconds()
        run("fsfreeze", "--freeze", image.point)
        frozen = True
        codes, over, threads = {}, threading.Event(), []

        def load(first):
            try:
                sender, number = Client(timeout=60), first
                while not over.is_set():
                    number += 1
                    answer = sender.send(number, 40_000)
                    codes.setdefault(answer["code"], []).append(number)
                    if answer["code"] == 0:
                        stored.append((int(answer["extFields"]["queueOffset"]), number))
            except Exception as error:
                codes.setdefault(repr(error), []).append(first)

        for number in range(8):
            threads.append(threading.Thread(target=load, args=(10_000 * (number + 1),)))
            threads[-1].start()
        slowest, until_time = 0, time.monotonic() + 6
        check(others[0].delete_topic("gone") == 0, "topics are deleted")
        while time.monotonic() < until_time:
            for other in others:
                began = time.monotonic()
                check(other.pull(0)[0]["code"] == 0 and other.commit(1) == 0, "others are served")
                slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.05)
        worked = broker.processor_seconds() - worked
        told = {code: len(numbers) for code, numbers in codes.items()}
        grown = (broker.resident() - resident) >> 20
        print(f"  codes {told}, slowest other request {1000 * slowest:.0f} ms, {grown} MiB more, {worked:.1f} s of processor time")
        run("fsfreeze", "--unfreeze", image.point)
        frozen, thawed = False, time.monotonic()
        until("service", 5.0, lambda: send_many(client, stored, 1, 5000).get(0) == 1)
        print(f"  served {1000 * (time.monotonic() - thawed):.0f} ms after the disk went on")
        over.set()
        for thread in threads:
            thread.join(60)
        check(told.get(10, 0) > 0 and set(told) <= {2, 10, 14}, f"senders are told: {told}")
        check(set(codes) <= {0, 2, 10, 14}, f"senders are told: {codes}")
        check(slowest <= 1.0, "others wait too long")
        check(grown < 64, "memory grows")
        check(worked < 6, "it spins while it waits")
        check(not verify(stored), "messages are missing")
        check(broker.stop() == 0, "a clean stop")
    finally:
        if frozen:
            subprocess.run(["fsfreeze", "--unfreeze", image.point])
        if broker:
            broker.kill()
        image.close()


SCENARIOS = {"slow": slow, "hanging": hanging}
for place, on in (("tmpfs", on_tmpfs), ("ext4", on_ext4)):
    SCENARIOS[f"full-{place}"] = lambda binary, folder, on=on: on(full_disk, binary, folder)
    SCENARIOS[f"full-kill-{place}"] = lambda binary, folder, on=on: on(full_and_killed, binary, folder)
for fault in ("fail-writes", "fail-syncs", "read-only"):
    for flush in ("ASYNC_FLUSH", "SYNC_FLUSH"):
        SCENARIOS[f"{fault} {flush}"] = lambda binary, folder, fault=fault, flush=flush: failing(binary, folder, fault, flush)
for path in ("direct", "page_cache"):
    for after in (0, 1, 2, 3, 7, 20, 50):
        for fault in ("fail-writes", "fail-syncs"):
            SCENARIOS[f"{fault}-after-{after} SYNC_FLUSH {path}"] = (
                lambda binary, folder, fault=f"{fault}-after-{after}", path=path:
                failing(binary, folder, fault, "SYNC_FLUSH", f"sync_write_path={path}"))

package interop;

import java.io.File;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.zip.CRC32;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.SelectMappedBufferResult;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.queue.ConsumeQueueInterface;
import org.apache.rocketmq.store.queue.CqUnit;
import org.apache.rocketmq.store.queue.ReferredIterator;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/**
 * Opens damaged images of a store with the Java broker's own classes, as its start does, and compares what its queues then lead to with
 * what was once written. Prints one line per image: number, outcome, all or fewer, messages, wrong ones, end of the last one. Options:
 * {@code --room DIR --images N --out FILE}; the room is the one of the test {@code images}.
 */
public final class ImageSurvey {
    private static final String TOPIC = "image";
    private static final int QUEUES = 4;

    private record Written(long physical, long crc, int length) {
    }

    private ImageSurvey() {
    }

    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args, List.of(), List.of("room", "images", "out"));
        File room = new File(arguments.need("room"));
        int images = Integer.parseInt(arguments.need("images"));
        Map<Boolean, Map<String, Written>> written = Map.of(true, written(room, true), false, written(room, false));
        try (PrintStream out = new PrintStream(new FileOutputStream(arguments.need("out")), false, StandardCharsets.UTF_8)) {
            for (int image = 0; image < images; image++) {
                boolean clean = image % 2 == 0;
                out.println(image + "\t" + survey(new File(room, "image-" + image), written.get(clean)));
                out.flush();
            }
        }
        Runtime.getRuntime().halt(0);
    }

    private static Map<String, Written> written(File room, boolean clean) throws Exception {
        Map<String, Written> written = new HashMap<>();
        for (String line : Files.readAllLines(new File(room, "written-" + clean + ".txt").toPath())) {
            String[] parts = line.split(" ");
            written.put(parts[0] + " " + parts[1],
                new Written(Long.parseLong(parts[2]), Long.parseLong(parts[3]), Integer.parseInt(parts[4])));
        }
        return written;
    }

    private static String survey(File root, Map<String, Written> written) {
        DefaultMessageStore store;
        try {
            MessageStoreConfig config = new MessageStoreConfig();
            config.setStorePathRootDir(root.getPath());
            config.setStorePathCommitLog(new File(root, "commitlog").getPath());
            config.setMappedFileSizeCommitLog(65_536);
            config.setMappedFileSizeConsumeQueue(1_000);
            config.setMaxHashSlotNum(100);
            config.setMaxIndexNum(300);
            config.setHaListenPort(0);
            config.setTimerWheelEnable(false);
            store = new DefaultMessageStore(config, new BrokerStatsManager("survey", false),
                (topic, queueId, logicOffset, tagsCode, storeTime, bitMap, properties) -> {
                }, new BrokerConfig(), new ConcurrentHashMap<>());
            if (!store.load()) {
                return "refused\tfewer\t0\t0\t0";
            }
        } catch (Throwable failure) {
            return "exception " + failure.getClass().getSimpleName() + "\tfewer\t0\t0\t0";
        }
        int served = 0;
        int wrong = 0;
        long end = 0;
        for (int queueId = 0; queueId < QUEUES; queueId++) {
            ConsumeQueueInterface queue = store.getConsumeQueue(TOPIC, queueId);
            if (queue == null) {
                continue;
            }
            for (long offset = queue.getMinOffsetInQueue(); offset < queue.getMaxOffsetInQueue(); offset++) {
                CqUnit unit = unit(queue, offset);
                if (unit == null) {
                    continue;
                }
                byte[] bytes = bytes(store, unit);
                if (bytes == null) {
                    continue;
                }
                // These bytes go to a consumer as they are; whether it can read them is its affair.
                served++;
                MessageExt message = null;
                try {
                    message = MessageDecoder.decode(ByteBuffer.wrap(bytes), true, false);
                } catch (Throwable unreadable) {
                    // Counted as wrong below.
                }
                Written expected = written.get(queueId + " " + offset);
                // What an entry hands out too much stands where a consumer expects the next message.
                boolean whole = message != null && message.getStoreSize() == bytes.length;
                if (!whole || expected == null || !same(message, queueId, offset, expected)) {
                    wrong++;
                } else {
                    end = Math.max(end, message.getCommitLogOffset() + message.getStoreSize());
                }
            }
        }
        String all = served - wrong == written.size() ? "all" : "fewer";
        return "served\t" + all + "\t" + (served - wrong) + "\t" + wrong + "\t" + end;
    }

    private static boolean same(MessageExt message, int queueId, long offset, Written expected) {
        byte[] body = message.getBody() == null ? new byte[0] : message.getBody();
        CRC32 crc = new CRC32();
        crc.update(body);
        return TOPIC.equals(message.getTopic()) && message.getQueueId() == queueId && message.getQueueOffset() == offset
            && message.getCommitLogOffset() == expected.physical() && (crc.getValue() & 0x7FFFFFFF) == expected.crc()
            && body.length == expected.length();
    }

    private static CqUnit unit(ConsumeQueueInterface queue, long offset) {
        ReferredIterator<CqUnit> units = null;
        try {
            units = queue.iterateFrom(offset);
            return units != null && units.hasNext() ? units.next() : null;
        } catch (Throwable failure) {
            return null;
        } finally {
            if (units != null) {
                units.release();
            }
        }
    }

    private static byte[] bytes(DefaultMessageStore store, CqUnit unit) {
        SelectMappedBufferResult selected;
        try {
            selected = store.getCommitLog().getMessage(unit.getPos(), unit.getSize());
        } catch (Throwable failure) {
            return null;
        }
        if (selected == null) {
            return null;
        }
        try {
            byte[] bytes = new byte[selected.getByteBuffer().remaining()];
            selected.getByteBuffer().get(bytes);
            return bytes;
        } finally {
            selected.release();
        }
    }
}

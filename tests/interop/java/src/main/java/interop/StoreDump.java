package interop;

import java.io.File;
import java.io.PrintStream;
import java.io.FileOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.topic.TopicValidator;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.SelectMappedBufferResult;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.queue.ConsumeQueueInterface;
import org.apache.rocketmq.store.queue.CqUnit;
import org.apache.rocketmq.store.queue.ReferredIterator;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/**
 * Opens a store directory with the Java broker's own classes, including its recovery, and prints every message that the
 * consume queues lead to, ordered by topic, queue and offset, in the form of {@link Canonical}. Fails if a queue entry and
 * its record disagree. Recovery may change files: give it a copy. Options: {@code --store DIR --out FILE}, {@code --user}
 * leaves out system topics.
 */
public final class StoreDump {
    private StoreDump() {
    }

    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args, List.of("user"), List.of("store", "out"));
        File root = new File(arguments.need("store"));
        int status = 0;
        try (PrintStream out = new PrintStream(new FileOutputStream(arguments.need("out")), false, StandardCharsets.UTF_8)) {
            DefaultMessageStore store = open(root);
            int errors = dump(store, arguments.has("user"), out);
            if (errors > 0) {
                System.err.println(errors + " queue entries do not fit their records");
                status = 1;
            }
        }
        // The store's threads are not needed any more and a shutdown would write to the files.
        Runtime.getRuntime().halt(status);
    }

    /** Loads and recovers the store as a starting broker does, without starting its services. */
    private static DefaultMessageStore open(File root) throws Exception {
        File log = new File(root, "commitlog");
        File[] segments = log.listFiles((dir, name) -> name.matches("\\d{20}"));
        if (segments == null || segments.length == 0) {
            throw new IllegalArgumentException(log + " has no commit log files");
        }
        Arrays.sort(segments);
        MessageStoreConfig config = new MessageStoreConfig();
        config.setStorePathRootDir(root.getPath());
        config.setStorePathCommitLog(log.getPath());
        config.setMappedFileSizeCommitLog((int) segments[0].length());
        config.setHaListenPort(0);
        config.setTimerWheelEnable(false);
        BrokerConfig broker = new BrokerConfig();
        DefaultMessageStore store = new DefaultMessageStore(config, new BrokerStatsManager("dump", false),
            (topic, queueId, logicOffset, tagsCode, storeTime, bitMap, properties) -> {
            }, broker, new ConcurrentHashMap<>());
        if (!store.load()) {
            throw new IllegalStateException("the Java store does not load " + root);
        }
        return store;
    }

    private static int dump(DefaultMessageStore store, boolean userOnly, PrintStream out) {
        int errors = 0;
        long messages = 0;
        Map<String, ConcurrentMap<Integer, ConsumeQueueInterface>> topics = new TreeMap<>(store.getConsumeQueueTable());
        for (Map.Entry<String, ConcurrentMap<Integer, ConsumeQueueInterface>> topic : topics.entrySet()) {
            if (userOnly && TopicValidator.isSystemTopic(topic.getKey())) {
                continue;
            }
            for (Map.Entry<Integer, ConsumeQueueInterface> entry : new TreeMap<>(topic.getValue()).entrySet()) {
                ConsumeQueueInterface queue = entry.getValue();
                if (queue.getMaxOffsetInQueue() == 0) {
                    continue;
                }
                out.println("queue topic=" + Canonical.escape(topic.getKey()) + " queue=" + entry.getKey()
                    + " min=" + queue.getMinOffsetInQueue() + " max=" + queue.getMaxOffsetInQueue());
                ReferredIterator<CqUnit> units = queue.iterateFrom(queue.getMinOffsetInQueue());
                while (units != null && units.hasNext()) {
                    CqUnit unit = units.next();
                    MessageExt message = read(store, unit.getPos(), unit.getSize());
                    messages++;
                    if (message == null || !fits(message, topic.getKey(), entry.getKey(), unit)) {
                        errors++;
                        out.println("damaged topic=" + Canonical.escape(topic.getKey()) + " queue=" + entry.getKey() + " queueOffset="
                            + unit.getQueueOffset() + " physicalOffset=" + unit.getPos() + " size=" + unit.getSize()
                            + " tagsCode=" + unit.getTagsCode());
                    } else {
                        out.println(Canonical.line(message));
                    }
                    if (unit.getQueueOffset() + 1 >= queue.getMaxOffsetInQueue()) {
                        break;
                    }
                }
                if (units != null) {
                    units.release();
                }
            }
        }
        out.println("total messages=" + messages);
        return errors;
    }

    private static MessageExt read(DefaultMessageStore store, long position, int size) {
        SelectMappedBufferResult selected = store.getCommitLog().getMessage(position, size);
        if (selected == null) {
            return null;
        }
        try {
            ByteBuffer bytes = selected.getByteBuffer();
            return MessageDecoder.decode(bytes, true, false);
        } finally {
            selected.release();
        }
    }

    private static boolean fits(MessageExt message, String topic, int queueId, CqUnit unit) {
        // Parked messages (schedule, timer) carry a time in the place of the tag's hash.
        boolean tagsFit = TopicValidator.isSystemTopic(topic)
            || unit.getTagsCode() == (message.getTags() == null || message.getTags().isEmpty() ? 0 : message.getTags().hashCode());
        return tagsFit && message.getTopic().equals(topic) && message.getQueueId() == queueId
            && message.getQueueOffset() == unit.getQueueOffset() && message.getCommitLogOffset() == unit.getPos()
            && message.getStoreSize() == unit.getSize();
    }
}

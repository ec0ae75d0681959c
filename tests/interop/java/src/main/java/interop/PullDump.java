package interop;

import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.topic.TopicValidator;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.header.PullMessageResponseHeader;
import org.apache.rocketmq.remoting.protocol.body.TopicConfigSerializeWrapper;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;

/**
 * Reads everything in a broker's user topics by pulls and prints it in the same form as {@code StoreDump --user}. Options:
 * {@code --broker HOST:PORT --out FILE}.
 */
public final class PullDump {
    private static final String GROUP = "interop_dump";

    private PullDump() {
    }

    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args, List.of(), List.of("broker", "out"));
        String broker = arguments.need("broker");
        try (Wire wire = new Wire();
            PrintStream out = new PrintStream(new FileOutputStream(arguments.need("out")), false, StandardCharsets.UTF_8)) {
            RemotingCommand answer = wire.call(broker, RequestCode.GET_ALL_TOPIC_CONFIG, null, null);
            Check.equal(ResponseCode.SUCCESS, answer.getCode(), "code of the topic table");
            Map<String, TopicConfig> topics = new TreeMap<>(
                TopicConfigSerializeWrapper.decode(answer.getBody(), TopicConfigSerializeWrapper.class).getTopicConfigTable());
            long messages = 0;
            for (Map.Entry<String, TopicConfig> topic : topics.entrySet()) {
                if (TopicValidator.isSystemTopic(topic.getKey())) {
                    continue;
                }
                for (int queueId = 0; queueId < topic.getValue().getReadQueueNums(); queueId++) {
                    messages += dumpQueue(wire, broker, topic.getKey(), queueId, out);
                }
            }
            out.println("total messages=" + messages);
        }
        System.exit(0);
    }

    private static long dumpQueue(Wire wire, String broker, String topic, int queueId, PrintStream out) throws Exception {
        Wire.Pulled first = wire.pull(broker, GROUP, topic, queueId, 0, 1, "*", 0);
        PullMessageResponseHeader range = first.header();
        Check.that(range != null, "code " + first.code() + " for " + topic + " " + queueId + ": " + first.remark());
        if (range.getMaxOffset() == 0) {
            return 0;
        }
        out.println("queue topic=" + Canonical.escape(topic) + " queue=" + queueId
            + " min=" + range.getMinOffset() + " max=" + range.getMaxOffset());
        long offset = range.getMinOffset();
        long messages = 0;
        while (offset < range.getMaxOffset()) {
            Wire.Pulled pulled = wire.pull(broker, GROUP, topic, queueId, offset, 32, "*", 0);
            Check.equal(ResponseCode.SUCCESS, pulled.code(), "code of a pull of " + topic + " " + queueId + " at " + offset);
            for (MessageExt message : pulled.messages()) {
                out.println(Canonical.line(message));
                messages++;
            }
            Check.that(pulled.header().getNextBeginOffset() > offset, "a pull makes no progress");
            offset = pulled.header().getNextBeginOffset();
        }
        return messages;
    }
}

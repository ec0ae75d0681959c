import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import java.io.File;
import java.io.IOException;
import java.io.PrintWriter;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;
import org.apache.rocketmq.common.TopicFilterType;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.common.message.MessageVersion;
import org.apache.rocketmq.remoting.protocol.LanguageCode;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.SerializeType;
import org.apache.rocketmq.remoting.protocol.header.PullMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.PullMessageResponseHeader;
import org.apache.rocketmq.remoting.protocol.header.namesrv.GetRouteInfoRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeaderV2;
import org.apache.rocketmq.remoting.protocol.header.SendMessageResponseHeader;
import org.apache.rocketmq.store.MessageExtEncoder;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.index.IndexFile;

/**
 * Writes the bytes that RocketMQ's own classes produce, one "name hex" pair per line, into the folder given as the first
 * argument. The Rust tests compare both directions with these files.
 */
public final class Capture {
    private static final int VERSION = 479;
    private static Path folder;

    private interface Step {
        void run(PrintWriter out) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        System.setProperty(RemotingCommand.REMOTING_VERSION_KEY, Integer.toString(VERSION));
        folder = Path.of(arguments[0]);
        write("frames.hex", Capture::frames);
        write("headers.hex", Capture::headers);
        write("records.hex", Capture::records);
        write("batches.hex", Capture::batches);
        write("properties.hex", Capture::properties);
        write("ids.txt", Capture::ids);
        System.exit(0);
    }

    private static void write(String name, Step step) throws Exception {
        try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(folder.resolve(name)))) {
            step.run(out);
        }
    }

    private static String hex(byte[] bytes) {
        StringBuilder text = new StringBuilder();
        for (byte b : bytes) {
            text.append(String.format("%02x", b));
        }
        return text.length() == 0 ? "-" : text.toString();
    }

    private static String hex(String text) {
        return hex(text.getBytes(StandardCharsets.UTF_8));
    }

    // Frames ---------------------------------------------------------------------------------------------------------

    private static void frame(PrintWriter out, String name, Supplier<RemotingCommand> make) {
        for (SerializeType type : SerializeType.values()) {
            // Encoding copies the custom header into the ext fields, so each form needs a command of its own.
            RemotingCommand command = make.get();
            command.setOpaque(7);
            command.setVersion(VERSION);
            command.setLanguage(LanguageCode.JAVA);
            command.setSerializeTypeCurrentRPC(type);
            ByteBuf buffer = Unpooled.buffer();
            command.fastEncodeHeader(buffer);
            if (command.getBody() != null) {
                buffer.writeBytes(command.getBody());
            }
            byte[] bytes = new byte[buffer.readableBytes()];
            buffer.readBytes(bytes);
            out.println(name + "." + type + " " + hex(bytes));
        }
    }

    private static SendMessageRequestHeader sendHeader() {
        SendMessageRequestHeader header = new SendMessageRequestHeader();
        header.setProducerGroup("pg");
        header.setTopic("TopicTest");
        header.setDefaultTopic("TBW102");
        header.setDefaultTopicQueueNums(4);
        header.setQueueId(3);
        header.setSysFlag(1);
        header.setBornTimestamp(1700000000000L);
        header.setFlag(-5);
        header.setProperties("KEYS\u0001k \u00e4\u4e2d\ud83d\ude00\u0002UNIQ_KEY\u00017F0000010001AABBCCDD000000010000\u0002"
            + "quote\u0001a\"b\\c/d\te\u0002");
        header.setReconsumeTimes(2);
        header.setUnitMode(true);
        header.setMaxReconsumeTimes(16);
        header.setBatch(false);
        header.setBrokerName("broker-a");
        return header;
    }

    private static RemotingCommand withBody(RemotingCommand command, String body) {
        command.setBody(body.getBytes(StandardCharsets.UTF_8));
        return command;
    }

    private static void frames(PrintWriter out) {
        GetRouteInfoRequestHeader route = new GetRouteInfoRequestHeader();
        route.setTopic("TopicTest");
        frame(out, "route_request", () -> RemotingCommand.createRequestCommand(105, route));
        frame(out, "route_absent", () -> RemotingCommand.createResponseCommand(17, "No topic"));
        frame(out, "oneway_without_fields", () -> {
            RemotingCommand oneway = RemotingCommand.createRequestCommand(35, null);
            oneway.markOnewayRPC();
            return oneway;
        });
        frame(out, "empty_fields", () -> {
            RemotingCommand empty = RemotingCommand.createResponseCommand(24, "the consumer's subscription not exist");
            empty.setExtFields(new HashMap<>());
            return empty;
        });

        frame(out, "send_long", () -> withBody(RemotingCommand.createRequestCommand(10, sendHeader()), "hello"));
        frame(out, "send_short", () -> withBody(RemotingCommand.createRequestCommand(310,
            SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(sendHeader())), "hello"));

        SendMessageResponseHeader sent = new SendMessageResponseHeader();
        sent.setMsgId("7F00000100002A9F0000000000001000");
        sent.setQueueId(3);
        sent.setQueueOffset(100L);
        sent.setTransactionId("7F0000010001AABBCCDD000000010000");
        frame(out, "send_response", () -> {
            RemotingCommand response = RemotingCommand.createResponseCommandWithHeader(0, sent);
            response.addExtField("MSG_REGION", "DefaultRegion");
            response.addExtField("TRACE_ON", "true");
            return response;
        });

        PullMessageRequestHeader pull = new PullMessageRequestHeader();
        pull.setConsumerGroup("cg");
        pull.setTopic("TopicTest");
        pull.setQueueId(3);
        pull.setQueueOffset(1234567890123L);
        pull.setMaxMsgNums(32);
        pull.setSysFlag(7);
        pull.setCommitOffset(11L);
        pull.setSuspendTimeoutMillis(15000L);
        pull.setSubscription("TagA || TagB");
        pull.setSubVersion(1700000000001L);
        pull.setExpressionType("TAG");
        pull.setMaxMsgBytes(262144);
        pull.setBrokerName("broker-a");
        frame(out, "pull_request", () -> RemotingCommand.createRequestCommand(11, pull));

        PullMessageResponseHeader pulled = new PullMessageResponseHeader();
        pulled.setSuggestWhichBrokerId(0L);
        pulled.setNextBeginOffset(1234567890124L);
        pulled.setMinOffset(5L);
        pulled.setMaxOffset(1234567890130L);
        pulled.setTopicSysFlag(1);
        pulled.setGroupSysFlag(2);
        frame(out, "pull_response", () -> {
            RemotingCommand response = RemotingCommand.createResponseCommandWithHeader(0, pulled);
            response.setRemark("FOUND");
            return withBody(response, "records");
        });

        StringBuilder every = new StringBuilder();
        for (char c = 0; c < 0x100; c++) {
            every.append(c);
        }
        every.append("\u2028\u2029\ufeff\uffff\ud83d\ude00");
        frame(out, "every_character", () -> {
            RemotingCommand characters = RemotingCommand.createResponseCommand(1, every.toString());
            characters.addExtField("text", every.toString());
            return characters;
        });
    }

    // What Java makes of odd JSON headers ----------------------------------------------------------------------------

    private static void headers(PrintWriter out) {
        String[] inputs = {
            "", " ", "null", "[]", "{}", "5", "\"x\"", "{", "}", "{\"code\":1", "{\"code\":1}x", "{\"code\":1}{\"code\":2}",
            "{\"code\":1}\n", " \r\n\t{\"code\":1} \n", "{ \"code\" : 1 , \"flag\" : 2 }", "{'code':1}", "{code:1}",
            "{\"code\":1,}", "{\"code\":1,,\"flag\":2}", "{,\"code\":1}", "{\"Code\":5,\"LANGUAGE\":\"GO\"}",
            "{\"c_o-de\":5}", "{\"code\":\"12\",\"flag\":\"2\",\"opaque\":\"-7\",\"version\":\"479\"}", "{\"code\":\"\"}",
            "{\"code\":\"null\"}", "{\"code\":null}", "{\"code\":\"x\"}", "{\"code\":\" 1\"}", "{\"code\":\"1,000\"}",
            "{\"code\":true}", "{\"code\":1.9}", "{\"code\":-1.9}", "{\"code\":1e2}", "{\"code\":2147483647}",
            "{\"code\":2147483648}", "{\"code\":-2147483648}", "{\"code\":99999999999999999999}", "{\"code\":007}",
            "{\"code\":+1}", "{\"code\":-}", "{\"code\":[1]}", "{\"code\":{}}",
            "{\"language\":\"RUST\"}", "{\"language\":\"rust\"}", "{\"language\":\"Node_Js\"}", "{\"language\":\"KLINGON\"}", "{\"language\":\"\"}",
            "{\"language\":9}", "{\"language\":99}", "{\"language\":null}", "{\"language\":-1}", "{\"language\":\"9\"}",
            "{\"remark\":null}", "{\"remark\":\"\"}", "{\"remark\":5}", "{\"remark\":true}", "{\"remark\":'it'}",
            "{\"extFields\":null}", "{\"extFields\":{}}", "{\"extFields\":{\"a\":\"1\",}}", "{\"extFields\":[]}",
            "{\"extFields\":\"x\"}", "{\"extFields\":5}", "{\"extFields\":{\"a\":3,\"b\":true,\"c\":false,\"d\":null}}",
            "{\"extFields\":{\"a\":-3,\"b\":0,\"c\":1.50,\"d\":1e3,\"e\":123456789012345678901234567890}}",
            "{\"extFields\":{\"a\":\"x\",\"a\":\"y\"}}", "{\"extFields\":{\"a\":\"x\",\"a\":null}}",
            "{\"extFields\":{\"a\":\"x\"},\"extFields\":{\"b\":\"y\"}}", "{\"extFields\":{a:'1',\"b\":\"2\"}}",
            "{\"extFields\":{\"a\":{\"x\":1}}}", "{\"extFields\":{\"a\":[1,2]}}", "{\"extFields\":{\"\":\"x\"}}",
            "{\"extFields\":{\"a\":\"\"}}", "{\"extFields\":{1:\"x\"}}", "{\"extFields\":{null:\"x\"}}",
            "{\"extFields\":{\"k\\u0041\":\"\\u0001\\u0002\\t\\n\\\"\\\\\\/\\b\\f\\r\"}}",
            "{\"extFields\":{\"a\":\"\\ud83d\\ude00\\u4e2d\"}}", "{\"extFields\":{\"a\":\"\\x41\\v\\0\\7\\'\"}}",
            "{\"extFields\":{\"a\":\"\\q\"}}", "{\"extFields\":{\"a\":\"\\u00g0\"}}", "{\"extFields\":{\"a\":\"raw\ttab\nline\"}}",
            "{\"extFields\":{\"a\":\"\u00e4\u4e2d\ud83d\ude00\"}}",
            "{\"unknown\":{\"x\":[1,{\"y\":\"}\"},null,true],\"z\":-1.5e3},\"code\":3}", "{\"unknown\":[],\"code\":3}",
            "{\"serializeTypeCurrentRPC\":\"ROCKETMQ\",\"code\":3}", "{\"serializeTypeCurrentRPC\":\"XML\",\"code\":3}",
            "{\"serializeTypeCurrentRPC\":5,\"code\":3}", "{\"code\":3,\"code\":4}", "{\"code\":3 \"flag\":4}", "{\"code\" 3}",
            "{\"code\":3,\"opaque\":1,\"flag\":2,\"version\":275,\"language\":\"CPP\",\"extFields\":{\"d\":4,\"e\":1,\"m\":false}}\n",
            "/* c */{\"code\":3}", "{\"code\":3}// c", "{\"code\":tru}", "{\"code\":3,\"x\":undefined}", "{\"code\":3,\"x\":NaN}",
            "{\"code\":0x10}", "{\"code\":3L}", "{\"code\":3,\"x\":new Date(5)}", "{\"code\":3,\"x\":\"unfinished}",
        };
        for (String input : inputs) {
            out.println(hex(input) + " " + outcome(input.getBytes(StandardCharsets.UTF_8)));
        }
        out.println("7b22657874223a22ff227d " + outcome(new byte[] {'{', '"', 'e', 'x', 't', '"', ':', '"', (byte) 0xff, '"', '}'}));
    }

    private static String outcome(byte[] header) {
        ByteBuf buffer = Unpooled.buffer();
        buffer.writeInt(header.length);
        buffer.writeBytes(header);
        try {
            RemotingCommand command = RemotingCommand.decode(buffer);
            StringBuilder text = new StringBuilder();
            boolean hasOpaque = new String(header, StandardCharsets.UTF_8).contains("opaque");
            text.append(command.getCode()).append(' ').append(command.getLanguage()).append(' ').append(command.getVersion())
                .append(' ').append(hasOpaque ? command.getOpaque() : 0).append(' ').append(command.getFlag()).append(' ')
                .append(command.getRemark() == null ? "null" : "=" + hex(command.getRemark()));
            if (command.getExtFields() == null) {
                return text + " null";
            }
            TreeMap<String, String> sorted = new TreeMap<>();
            for (Map.Entry<String, String> entry : command.getExtFields().entrySet()) {
                if (entry.getKey() != null && entry.getValue() != null) {
                    sorted.put(entry.getKey(), entry.getValue());
                }
            }
            text.append(" {");
            for (Map.Entry<String, String> entry : sorted.entrySet()) {
                text.append(' ').append(hex(entry.getKey())).append('=').append(hex(entry.getValue()));
            }
            return text + " }";
        } catch (Throwable e) {
            return "error";
        }
    }

    // Records --------------------------------------------------------------------------------------------------------

    private static void record(PrintWriter out, String name, String topic, String born, String store, byte[] body,
        String properties, int sysFlag) throws Exception {
        MessageExtBrokerInner message = new MessageExtBrokerInner();
        message.setTopic(topic);
        message.setBody(body);
        message.setFlag(7);
        message.setQueueId(2);
        message.setSysFlag(sysFlag);
        message.setBornTimestamp(1700000000000L);
        message.setStoreTimestamp(1700000000123L);
        message.setBornHost(new InetSocketAddress(InetAddress.getByName(born), 54321));
        message.setStoreHost(new InetSocketAddress(InetAddress.getByName(store), 10911));
        if (born.contains(":")) {
            message.setBornHostV6Flag();
        }
        if (store.contains(":")) {
            message.setStoreHostAddressV6Flag();
        }
        message.setReconsumeTimes(3);
        message.setPreparedTransactionOffset(9);
        message.setBodyCRC(UtilAll.crc32(body));
        message.setPropertiesString(properties);
        message.setVersion(topic.length() > Byte.MAX_VALUE ? MessageVersion.MESSAGE_VERSION_V2
            : MessageVersion.MESSAGE_VERSION_V1);
        MessageExtEncoder encoder = new MessageExtEncoder(4 * 1024 * 1024, new MessageStoreConfig());
        if (encoder.encode(message) != null) {
            throw new IOException("the encoder refused " + name);
        }
        // The encoder's buffer has its full capacity: only the first record in it counts.
        ByteBuffer buffer = encoder.getEncoderBuffer();
        byte[] bytes = new byte[buffer.getInt(0)];
        buffer.get(bytes);
        ByteBuffer patch = ByteBuffer.wrap(bytes);
        patch.putLong(20, 100);
        patch.putLong(28, 4096);
        if (MessageDecoder.decode(ByteBuffer.wrap(bytes), true, false) == null) {
            throw new IOException("the decoder refused " + name);
        }
        out.println(name + " " + hex(bytes));
    }

    private static void records(PrintWriter out) throws Exception {
        byte[] body = "hello".getBytes(StandardCharsets.UTF_8);
        String properties = "TAGS\u0001TagA\u0002KEYS\u0001K1\u0002";
        String longTopic = "%RETRY%" + "g".repeat(130);
        record(out, "v1", "TopicTest", "192.168.1.2", "127.0.0.1", body, properties, 0);
        record(out, "v1_bare", "T", "192.168.1.2", "127.0.0.1", new byte[0], "", 0);
        record(out, "v1_born_v6", "TopicTest", "2001:db8::2", "127.0.0.1", body, properties, 1);
        record(out, "v1_store_v6", "TopicTest", "192.168.1.2", "2001:db8::1", body, properties, 8);
        record(out, "v1_127", "t".repeat(127), "192.168.1.2", "127.0.0.1", body, properties, 0);
        record(out, "v2", longTopic, "192.168.1.2", "127.0.0.1", body, properties, 0);
        record(out, "v2_both_v6", longTopic, "2001:db8::2", "2001:db8::1", body, properties, 0x300);
    }

    // Batches, properties, ids ---------------------------------------------------------------------------------------

    private static void batches(PrintWriter out) {
        List<Message> messages = new ArrayList<>();
        String[] bodies = {"ab", "cde", ""};
        for (String body : bodies) {
            Message message = new Message("TopicTest", "", "", body.length(), body.getBytes(StandardCharsets.UTF_8), true);
            if (body.equals("ab")) {
                message.setTags("TagA");
                message.setKeys("K1");
            }
            messages.add(message);
        }
        out.println("three " + hex(MessageDecoder.encodeMessages(messages)));
        out.println("one " + hex(MessageDecoder.encodeMessages(messages.subList(0, 1))));
    }

    private static void properties(PrintWriter out) {
        String[] inputs = {
            "", "A\u0001b\u0002", "A\u0001b", "A\u0001\u0002", "AB\u0001\u0002", "\u0001b\u0002", "ABC\u0002", "A\u0001b\u0001c\u0002",
            "Ab\u0002C\u0001d\u0002", "A\u0001b\u0002A\u0001c\u0002", "\u0002\u0002A\u0001b\u0002\u0002", "\u0001\u0001\u0002", "A\u0001\u0001\u0002",
            "\u4e2d\u0001\u6587\u0002", "\u4e2d\u0001\u0002", "A\u0001b\u0002A\u0001\u0002", "A\u0002\u0001b\u0002", "A\u0001b\u0002tail",
        };
        for (String input : inputs) {
            StringBuilder text = new StringBuilder(hex(input));
            for (Map.Entry<String, String> entry : new TreeMap<>(MessageDecoder.string2messageProperties(input)).entrySet()) {
                text.append(' ').append(hex(entry.getKey())).append('=').append(hex(entry.getValue()));
            }
            out.println(text);
        }
        Map<String, String> one = new TreeMap<>();
        one.put("KEYS", "k 1");
        out.println("written " + hex(MessageDecoder.messageProperties2String(one)));
    }

    private static void ids(PrintWriter out) throws Exception {
        for (String host : new String[] {"127.0.0.1", "255.254.253.252", "2001:db8::1", "::1"}) {
            for (long offset : new long[] {0, 4096, Long.MAX_VALUE}) {
                out.println("id " + host + " " + offset + " "
                    + MessageDecoder.createMessageId(new InetSocketAddress(InetAddress.getByName(host), 10911), offset));
            }
        }
        String[] texts = {"", "a", "TagA", "TagB", "\u6807\u7b7e", "polygenelubricants", "\ud83d\ude00", "x".repeat(300)};
        for (String text : texts) {
            out.println("hash " + hex(text) + " " + text.hashCode());
            out.println("tags " + hex(text) + " " + MessageExtBrokerInner.tagsString2tagsCode(TopicFilterType.SINGLE_TAG, text));
        }
        // The file's name has to be a number.
        File file = Files.createTempDirectory("index").resolve("20240101000000000").toFile();
        IndexFile index = new IndexFile(file.getPath(), 10, 10, 0, 0);
        for (String key : new String[] {"k1", "7F0000010001AABBCCDD000000010000", "\u6807\u7b7e", "", "polygenelubricants"}) {
            out.println("index TopicTest " + hex(key) + " " + index.indexKeyHashMethod("TopicTest#" + key));
        }
        index.destroy(0);
        out.println("crc " + hex("hello") + " " + UtilAll.crc32("hello".getBytes(StandardCharsets.UTF_8)));
        out.println("crc - " + UtilAll.crc32(new byte[0]));
    }
}

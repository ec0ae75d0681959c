package interop;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.netty.NettyRemotingClient;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.header.PullMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.PullMessageResponseHeader;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeaderV2;

/**
 * One plain remoting client, for what the client API hides: exact response codes, held pulls and records as stored.
 */
final class Wire implements AutoCloseable {
    private static final int PULL_SUBSCRIPTION_BIT = 0x4;
    private static final int PULL_SUSPEND_BIT = 0x2;

    private final NettyRemotingClient client;

    /** A pull's answer: code, header fields and decoded messages. */
    record Pulled(int code, String remark, PullMessageResponseHeader header, List<MessageExt> messages) {
    }

    Wire() {
        NettyClientConfig config = new NettyClientConfig();
        config.setClientWorkerThreads(1);
        config.setClientCallbackExecutorThreads(1);
        client = new NettyRemotingClient(config);
        client.start();
    }

    RemotingCommand call(String address, int code, CommandCustomHeader header, byte[] body, long timeoutMillis) throws Exception {
        RemotingCommand request = RemotingCommand.createRequestCommand(code, header);
        request.setBody(body);
        return client.invokeSync(address, request, timeoutMillis);
    }

    RemotingCommand call(String address, int code, CommandCustomHeader header, byte[] body) throws Exception {
        return call(address, code, header, body, 10_000);
    }

    /** Sends a raw message with code 10; the caller judges the response code. */
    RemotingCommand send(String address, String topic, int queueId, String properties, byte[] body) throws Exception {
        return call(address, RequestCode.SEND_MESSAGE, sendHeader(topic, queueId, properties, false), body);
    }

    /** Sends an encoded batch with code 320; the caller judges the response code. */
    RemotingCommand sendBatch(String address, String topic, int queueId, byte[] body) throws Exception {
        SendMessageRequestHeader header = sendHeader(topic, queueId, "", true);
        return call(address, RequestCode.SEND_BATCH_MESSAGE, SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(header), body);
    }

    private static SendMessageRequestHeader sendHeader(String topic, int queueId, String properties, boolean batch) {
        SendMessageRequestHeader header = new SendMessageRequestHeader();
        header.setProducerGroup("interop_wire");
        header.setTopic(topic);
        header.setDefaultTopic("TBW102");
        header.setDefaultTopicQueueNums(4);
        header.setQueueId(queueId);
        header.setSysFlag(0);
        header.setBornTimestamp(System.currentTimeMillis());
        header.setFlag(0);
        header.setProperties(properties);
        header.setReconsumeTimes(0);
        header.setUnitMode(false);
        header.setBatch(batch);
        return header;
    }

    /** Pulls with an inline TAG subscription. {@code holdMillis} above 0 asks the broker to hold the request. */
    Pulled pull(String address, String group, String topic, int queueId, long offset, int maxMessages, String tags, long holdMillis)
        throws Exception {
        PullMessageRequestHeader header = new PullMessageRequestHeader();
        header.setConsumerGroup(group);
        header.setTopic(topic);
        header.setQueueId(queueId);
        header.setQueueOffset(offset);
        header.setMaxMsgNums(maxMessages);
        header.setSysFlag(PULL_SUBSCRIPTION_BIT | (holdMillis > 0 ? PULL_SUSPEND_BIT : 0));
        header.setCommitOffset(0L);
        header.setSuspendTimeoutMillis(holdMillis);
        header.setSubscription(tags);
        header.setSubVersion(0L);
        header.setExpressionType("TAG");
        RemotingCommand response = call(address, RequestCode.PULL_MESSAGE, header, null, holdMillis + 10_000);
        boolean hasOffsets = response.getExtFields() != null && response.getExtFields().containsKey("nextBeginOffset");
        PullMessageResponseHeader answer = hasOffsets
            ? response.decodeCommandCustomHeader(PullMessageResponseHeader.class) : null;
        return new Pulled(response.getCode(), response.getRemark(), answer, decode(response.getBody()));
    }

    /** Decodes concatenated records; bodies stay as stored (compressed). */
    static List<MessageExt> decode(byte[] body) {
        List<MessageExt> messages = new ArrayList<>();
        if (body == null) {
            return messages;
        }
        ByteBuffer buffer = ByteBuffer.wrap(body);
        while (buffer.hasRemaining()) {
            int start = buffer.position();
            int size = buffer.getInt(start);
            MessageExt message = MessageDecoder.decode(buffer, true, false);
            if (message == null || buffer.position() != start + size) {
                throw new Check.Failure("undecodable record at byte " + start + " of " + body.length);
            }
            messages.add(message);
        }
        return messages;
    }

    @Override
    public void close() {
        client.shutdown();
    }
}

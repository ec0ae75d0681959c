package interop;

import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TreeMap;
import java.util.zip.CRC32;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * The text form of a stored message, one line each, so that two stores can be compared with {@code diff}. Everything that
 * is stored is in it; of the body its length, the stored CRC and a CRC computed here.
 */
final class Canonical {
    private Canonical() {
    }

    static String line(MessageExt message) {
        byte[] body = message.getBody() == null ? new byte[0] : message.getBody();
        CRC32 crc = new CRC32();
        crc.update(body);
        StringBuilder properties = new StringBuilder();
        for (Map.Entry<String, String> property : new TreeMap<>(message.getProperties()).entrySet()) {
            properties.append(properties.length() == 0 ? "" : ",").append(escape(property.getKey())).append('=')
                .append(escape(property.getValue()));
        }
        return "message topic=" + escape(message.getTopic())
            + " queue=" + message.getQueueId()
            + " queueOffset=" + message.getQueueOffset()
            + " physicalOffset=" + message.getCommitLogOffset()
            + " size=" + message.getStoreSize()
            + " sysFlag=" + message.getSysFlag()
            + " flag=" + message.getFlag()
            + " born=" + message.getBornTimestamp() + "@" + host(message.getBornHost())
            + " stored=" + message.getStoreTimestamp() + "@" + host(message.getStoreHost())
            + " reconsumed=" + message.getReconsumeTimes()
            + " preparedOffset=" + message.getPreparedTransactionOffset()
            + " tags=" + escape(message.getProperty(MessageConst.PROPERTY_TAGS))
            + " keys=" + escape(message.getProperty(MessageConst.PROPERTY_KEYS))
            + " properties={" + properties + "}"
            + " bodyLength=" + body.length
            + " bodyCrc=" + Integer.toHexString(message.getBodyCRC())
            + " computedCrc=" + Integer.toHexString((int) crc.getValue() & 0x7FFFFFFF);
    }

    private static String host(java.net.SocketAddress address) {
        java.net.InetSocketAddress inet = (java.net.InetSocketAddress) address;
        return inet.getAddress().getHostAddress() + ":" + inet.getPort();
    }

    /** Printable ASCII stays, everything else becomes its UTF-8 bytes as %XX; null becomes `-`. */
    static String escape(String text) {
        if (text == null) {
            return "-";
        }
        StringBuilder escaped = new StringBuilder();
        for (byte b : text.getBytes(StandardCharsets.UTF_8)) {
            if (b > 0x20 && b < 0x7F && b != '%' && b != ',' && b != '=') {
                escaped.append((char) b);
            } else {
                escaped.append(String.format("%%%02X", b & 0xFF));
            }
        }
        return escaped.toString();
    }
}

package interop;

import java.util.Objects;

/**
 * Assertions of the scenarios. A failed one throws {@link Failure}, whose message becomes the reason on the FAIL line.
 */
final class Check {
    /** A scenario's expectation was not met. */
    static final class Failure extends RuntimeException {
        private static final long serialVersionUID = 1;

        Failure(String message) {
            super(message);
        }
    }

    /** A condition that may need the network, so it may throw. */
    interface Condition {
        boolean holds() throws Exception;
    }

    /** How much longer than usual a wait may take before it fails: machines are slow at times. */
    private static final long PATIENCE_FACTOR = 4;

    private Check() {
    }

    static void that(boolean condition, String message) {
        if (!condition) {
            throw new Failure(message);
        }
    }

    static void equal(Object expected, Object actual, String what) {
        if (!Objects.equals(expected, actual)) {
            throw new Failure(what + ": expected <" + shorten(expected) + ">, got <" + shorten(actual) + ">");
        }
    }

    static void contains(String text, String part, String what) {
        if (!text.contains(part)) {
            throw new Failure(what + ": <" + part + "> is missing in <" + shorten(text) + ">");
        }
    }

    /**
     * Waits until the condition holds, asking every 20 ms; fails after {@link #PATIENCE_FACTOR} times {@code timeoutMillis}, which is what
     * it takes on a machine that nothing disturbs.
     */
    static void await(String what, long timeoutMillis, Condition condition) throws Exception {
        long begun = System.nanoTime();
        while (!condition.holds()) {
            long millis = (System.nanoTime() - begun) / 1_000_000;
            if (millis > PATIENCE_FACTOR * timeoutMillis) {
                throw new Failure("not within " + millis + " ms: " + what);
            }
            Thread.sleep(20);
        }
    }

    private static String shorten(Object value) {
        String text = String.valueOf(value);
        return text.length() <= 300 ? text : text.substring(0, 300) + "… (" + text.length() + " characters)";
    }
}

import java.io.File;
import java.util.TreeMap;
import org.HdrHistogram.EncodableHistogram;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.HistogramLogReader;

/** Prints what the published library finds in a histogram log: per tag the count, the 99 % and the maximum. */
public final class ReadLog {
    public static void main(String[] arguments) throws Exception {
        TreeMap<String, Histogram> merged = new TreeMap<>();
        try (HistogramLogReader reader = new HistogramLogReader(new File(arguments[0]))) {
            EncodableHistogram interval;
            while ((interval = reader.nextIntervalHistogram()) != null) {
                Histogram histogram = (Histogram) interval;
                merged.computeIfAbsent(histogram.getTag(), tag -> new Histogram(100, 3_600_000_000_000L, 3)).add(histogram);
            }
        }
        merged.forEach((tag, histogram) -> System.out.printf("%s %d %d %d%n", tag, histogram.getTotalCount(),
                histogram.getValueAtPercentile(99.0), histogram.getMaxValue()));
    }
}

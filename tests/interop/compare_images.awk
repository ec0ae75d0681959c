# Compares what RingMQ and Java's store make of the same damaged images. Ends with 1 when RingMQ serves fewer messages of an image
# of which Java serves all, for no known reason.
#
# Columns: image, clean, outcome, all or fewer, messages, wrong, end, what; then Java's from the outcome on.

{
    kind = $8 ~ /truncated/ ? "truncated" : $8 ~ /zeros from/ ? "zeroed tail" : $8 ~ /flipped/ ? "flipped bit" \
        : $8 ~ /changed places/ ? "swapped blocks" : "duplicated block"
    place = $8 ~ /commitlog/ ? "log" : $8 ~ /consumequeue/ ? "queues" : "other files"
    key = sprintf("%-16s %-11s", kind, place)
    n[key]++
    ours = $3 == "served" ? $4 : "refused"
    java = $10 == "served" ? $11 : "refused"
    r[key, ours]++
    j[key, java]++
    if ($6 > 0) rw[key]++
    if ($13 > 0) jw[key]++
    if (ours == java && (ours == "refused" || $7 == $14)) same[key]++
    if (ours == "fewer" && java == "all") {
        # Java's half is the store alone, which reads no table of topics: without its topic RingMQ serves none of the messages.
        if ($8 ~ /config\/topics\.json/ && $5 == 0) known++
        else {
            print "RingMQ serves fewer: " $0
            lost++
        }
    }
    images++
    agree += ours == java && (ours == "refused" || $7 == $14)
    wrong += $6
    java_wrong += $13
}
END {
    print "figures: images=" images " same_end=" agree + 0 " wrong_messages=" wrong + 0 " wrong_messages_in_java=" java_wrong + 0 \
        " fewer_than_java=" lost + 0 " fewer_for_a_known_reason=" known + 0
    print "damage           where       images same  | RingMQ: all fewer refused wrong | Java: all fewer refused wrong"
    for (key in n)
        printf "%s %6d %4d  | %11d %5d %7d %5d | %9d %5d %7d %5d\n", key, n[key], same[key], r[key, "all"], \
            r[key, "fewer"], r[key, "refused"], rw[key], j[key, "all"], j[key, "fewer"], j[key, "refused"], jw[key] | "sort"
    close("sort")
    exit lost > 0
}

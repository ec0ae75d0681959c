//! How messages and receipts are printed. Pure: takes a writer.

use std::io::{self, Write};

use ringmq_protocol::record::RecordView;

use super::answers::SendReceipt;
use super::message::unpack_body;

/// Prints one message: its body and a line feed. `verbose` puts queue, offset, tags and keys before it. A body that
/// cannot be unpacked is printed as it is stored, and the reason is returned.
///
/// # Errors
/// The writer's.
pub fn print_message(out: &mut impl Write, message: &RecordView<'_>, verbose: bool) -> io::Result<Option<String>> {
    if verbose {
        write!(out, "{}/{}", message.queue_id(), message.queue_offset())?;
        for (name, value) in [("tags", message.tags()), ("keys", message.keys())] {
            if let Some(value) = value {
                write!(out, " {name}={}", String::from_utf8_lossy(value))?;
            }
        }
        out.write_all(b"\t")?;
    }
    let (body, trouble) = match unpack_body(message.sys_flag(), message.body()) {
        Ok(body) => (body, None),
        Err(error) => (
            message.body().into(),
            Some(format!("message {} of queue {}: {error}", message.queue_offset(), message.queue_id())),
        ),
    };
    out.write_all(&body)?;
    out.write_all(b"\n")?;
    Ok(trouble)
}

/// Prints what became of one sent message.
///
/// # Errors
/// The writer's.
pub fn print_receipt(out: &mut impl Write, receipt: &SendReceipt) -> io::Result<()> {
    writeln!(out, "queue {} offset {} id {}", receipt.queue_id, receipt.queue_offset, receipt.message_id)
}

#[cfg(test)]
mod tests {
    use ringmq_protocol::flags::message::{COMPRESSED, COMPRESSION_LZ4};
    use ringmq_protocol::record::CrcCheck;

    use super::super::test_records::record;
    use super::*;

    fn printed(sys_flag: i32, body: &[u8], verbose: bool) -> (String, Option<String>) {
        let bytes = record(sys_flag, b"TAGS\x01red\x02KEYS\x01a b\x02", body);
        let message = RecordView::parse(&bytes, CrcCheck::Verify).expect("whole");
        let mut out = Vec::new();
        let trouble = print_message(&mut out, &message, verbose).expect("memory");
        (String::from_utf8(out).expect("text"), trouble)
    }

    /// Goal: one line per message, with its place on demand. Method: print in both ways, and one that cannot be unpacked.
    #[test]
    fn lines() {
        assert_eq!(printed(0, b"hello", false), ("hello\n".into(), None));
        assert_eq!(printed(0, b"hello", true), ("2/7 tags=red keys=a b\thello\n".into(), None));
        let (line, trouble) = printed(COMPRESSED | COMPRESSION_LZ4, b"xyz", false);
        assert_eq!(line, "xyz\n");
        assert!(trouble.is_some_and(|text| text.contains("LZ4")));
    }

    /// Goal: a receipt tells where the message is. Method: print one.
    #[test]
    fn receipts() {
        let mut out = Vec::new();
        let receipt = SendReceipt { queue_id: 1, queue_offset: 2, message_id: "M".into(), code: 0 };
        print_receipt(&mut out, &receipt).expect("memory");
        assert_eq!(out, b"queue 1 offset 2 id M\n");
    }
}

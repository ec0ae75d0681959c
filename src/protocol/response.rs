//! Refusals on the hot path, written without allocation.

use crate::frame::SerializeType;
use crate::writer::{FrameWriter, Head};

/// Appends a response without a body: a whole frame. Without ext fields the map is absent, as when a Java handler throws.
pub fn write_error(
    out: &mut Vec<u8>,
    serialize_type: SerializeType,
    opaque: i32,
    code: i32,
    remark: &str,
    ext: &[(&str, &str)],
) {
    let mut writer = FrameWriter::begin(out, serialize_type, Head::response(code, opaque, Some(remark)));
    for (key, value) in ext {
        writer.text(key, value);
    }
    writer.finish(0);
}

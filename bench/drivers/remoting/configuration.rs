//! What a broker says of its configuration (GET_BROKER_CONFIG), and the durability that follows.

use std::net::SocketAddr;

use ringmq_protocol::codes::request::GET_BROKER_CONFIG;
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;

use super::super::DriverError;
use super::{ask, connect};
use crate::result::Durability;

/// Settings that are kept of a broker's hundreds: those that shape how fast and how safe it is. The others would name its host and
/// folders, and results are handed on.
const KEPT: &[&str] = &[
    "flushDiskType",
    "transientStorePoolEnable",
    "brokerRole",
    "flushCommitLogTimed",
    "flushIntervalCommitLog",
    "flushCommitLogLeastPages",
    "flushCommitLogThoroughInterval",
    "mappedFileSizeCommitLog",
    "warmMapedFileEnable",
    "writeWithoutMmap",
    "useReentrantLockWhenPutMessage",
    "sendMessageThreadPoolNums",
    "pullMessageThreadPoolNums",
    "maxTransferCountOnMessageInMemory",
    "maxTransferCountOnMessageInDisk",
    "longPollingEnable",
];

/// The kept settings of a running broker.
///
/// # Errors
/// It is not there, or does not tell.
pub fn configuration(address: SocketAddr) -> Result<Vec<(String, String)>, DriverError> {
    let request = Command { opaque: 1, ..Command::request(GET_BROKER_CONFIG) };
    let answer = ask(&mut connect(address)?, address, &request)?;
    if answer.code != response::SUCCESS {
        return Err(DriverError::Refused {
            address: address.to_string(),
            action: "tell its configuration",
            code: answer.code,
            remark: answer.remark.unwrap_or_default(),
        });
    }
    Ok(kept(&String::from_utf8_lossy(answer.body.as_deref().unwrap_or_default())))
}

fn kept(text: &str) -> Vec<(String, String)> {
    let settings = text.lines().filter_map(|line| line.split_once('='));
    let settings = settings.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    settings.filter(|(key, _)| KEPT.contains(&key.as_str())).collect()
}

/// The class of a broker with these settings; `None`: they do not say.
pub fn durability(settings: &[(String, String)]) -> Option<Durability> {
    let value = |name: &str| settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    match value("flushDiskType")? {
        "SYNC_FLUSH" => Some(Durability::D2),
        // Appends go to memory of the process then, and to the file some time after the acknowledgement.
        "ASYNC_FLUSH" if value("transientStorePoolEnable") == Some("true") => Some(Durability::D0),
        "ASYNC_FLUSH" => Some(Durability::D1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the class follows from what a broker says, nothing is guessed, and nothing is kept that names a host. Method: texts as brokers
    /// send them, one without the setting, one with an unknown value.
    #[test]
    fn settings_tell_the_class() {
        let class = |text: &str| durability(&kept(text));
        assert_eq!(class("brokerRole=ASYNC_MASTER\nflushDiskType=SYNC_FLUSH\n"), Some(Durability::D2));
        assert_eq!(class("flushDiskType=ASYNC_FLUSH\ntransientStorePoolEnable=false\n"), Some(Durability::D1));
        assert_eq!(class("transientStorePoolEnable=true\nflushDiskType=ASYNC_FLUSH\n"), Some(Durability::D0));
        assert_eq!(class("transientStorePoolEnable=true\nflushDiskType=SYNC_FLUSH\n"), Some(Durability::D2));
        assert_eq!(class("flushDiskType=LATER\n"), None);
        assert_eq!(class(""), None);
        let said = "#Sun\nbrokerIP1=10.0.0.1\nstorePathRootDir=/home/me\nflushDiskType = ASYNC_FLUSH\nbrokerName=host";
        assert_eq!(kept(said), [("flushDiskType".to_owned(), "ASYNC_FLUSH".to_owned())]);
    }
}

//! The broker's configuration on the wire: show (26) and change (25). The keys and the files belong to
//! [`ConfigAccess`](super::settings::ConfigAccess). Source: AdminBrokerProcessor, Configuration.

use ringmq_protocol::bodies::JsonBody;
use ringmq_protocol::codes::response;

use super::settings::{ConfigError, ControlConfig};
use super::{Answer, Control, Effect, Handled, Refusal, Request, java_millis, success};

/// GET_BROKER_CONFIG (26).
pub(crate) fn get(control: &mut Control, _request: &mut Request<'_>) -> Handled {
    let version = String::from_utf8_lossy(&control.config_version.encode()).into_owned();
    Ok(Answer::Now(success().with_ext("version", version).with_body(control.access.render().into_bytes())))
}

/// UPDATE_BROKER_CONFIG (25). The remark names what is not in use at once. A changed permission is a change of every registered topic, so it is registered at once.
pub(crate) fn update(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let Some(body) = request.command.body.as_deref() else { return Ok(Answer::Now(success())) };
    let text = std::str::from_utf8(body).map_err(|_| refusal(ConfigError::Malformed))?;
    let changes = control.access.apply(text).map_err(refusal)?;
    control.config_version.bump(java_millis(request.now.wall_ms));
    if changes.is_empty() {
        return Ok(Answer::Now(success()));
    }
    let notes: Vec<&str> = changes.iter().filter_map(|change| change.note.as_deref()).collect();
    let mut answer = success();
    answer.remark = (!notes.is_empty()).then(|| notes.join("; "));
    let in_use: Vec<(String, String)> =
        changes.into_iter().filter(|change| change.in_use).map(|change| (change.key, change.value)).collect();
    if let Some(current) = control.access.current() {
        control.config = ControlConfig::from(current);
    }
    if in_use.iter().any(|(key, _)| key == "brokerPermission") {
        control.topics.bump(request.now.wall_ms);
        request.effects.push(Effect::TopicsChanged);
        request.effects.push(Effect::RegisterAll);
    }
    request.effects.push(Effect::ConfigChanged(in_use));
    Ok(Answer::Now(answer))
}

impl Control {
    /// Content of the file of live changes, to be written after [`Effect::ConfigChanged`].
    pub fn config_file(&self) -> Option<String> {
        self.access.file()
    }

    /// The configuration in use, if one is attached.
    pub fn current_config(&self) -> Option<&crate::config::Config> {
        self.access.current()
    }
}

fn refusal(error: ConfigError) -> Refusal {
    let code = match error {
        ConfigError::Blacklisted => response::NO_PERMISSION,
        ConfigError::Malformed | ConfigError::Refused(_) => response::SYSTEM_ERROR,
    };
    Refusal::new(code, error.to_string())
}

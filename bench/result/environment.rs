//! `env.json`: the machine, the kernel, the build, as a flat list of named facts that can be shown and compared.

use serde::{Deserialize, Serialize};

/// Everything known about where a result was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentRecord {
    /// [`super::ENVIRONMENT_SCHEMA`].
    pub schema: String,
    /// RFC 3339, UTC.
    pub captured: String,
    /// Hash that tells hosts apart without naming them (hex).
    pub host_hash: String,
    /// Facts in the order of capture; section and name together are unique.
    pub facts: Vec<EnvironmentFact>,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentFact {
    /// Group for display, such as `kernel`, `cpu`, `block`, `network`, `build`, `process`.
    pub section: String,
    /// Name inside the section, such as `vm.swappiness`.
    pub name: String,
    /// Value as text; `None` if it could not be read here.
    pub value: Option<String>,
    /// Unit or remark; also why there is no value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

//! Client language names and ordinals (`LanguageCode`). JSON headers carry the name, binary headers the ordinal.

/// Language of the peer that made a command. The discriminant is the Java ordinal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are RocketMQ's")]
pub enum Language {
    /// Also the default of a header that names no language.
    #[default]
    Java = 0,
    Cpp = 1,
    Dotnet = 2,
    Python = 3,
    Delphi = 4,
    Erlang = 5,
    Ruby = 6,
    Other = 7,
    Http = 8,
    Go = 9,
    Php = 10,
    Oms = 11,
    Rust = 12,
    NodeJs = 13,
}

/// Every language, in the order of the ordinals.
pub const ALL: [Language; 14] = [
    Language::Java,
    Language::Cpp,
    Language::Dotnet,
    Language::Python,
    Language::Delphi,
    Language::Erlang,
    Language::Ruby,
    Language::Other,
    Language::Http,
    Language::Go,
    Language::Php,
    Language::Oms,
    Language::Rust,
    Language::NodeJs,
];

impl Language {
    /// The enum constant's Java name, as in JSON headers and bodies.
    pub const fn name(self) -> &'static str {
        match self {
            Language::Java => "JAVA",
            Language::Cpp => "CPP",
            Language::Dotnet => "DOTNET",
            Language::Python => "PYTHON",
            Language::Delphi => "DELPHI",
            Language::Erlang => "ERLANG",
            Language::Ruby => "RUBY",
            Language::Other => "OTHER",
            Language::Http => "HTTP",
            Language::Go => "GO",
            Language::Php => "PHP",
            Language::Oms => "OMS",
            Language::Rust => "RUST",
            Language::NodeJs => "NODE_JS",
        }
    }

    /// The Java ordinal, as in binary headers.
    pub const fn ordinal(self) -> u8 {
        self as u8
    }

    /// Language of a Java name in any case; unknown names are `None` (Java: null).
    pub fn from_name(name: &str) -> Option<Language> {
        match name {
            "JAVA" => Some(Language::Java),
            "GO" => Some(Language::Go),
            "CPP" => Some(Language::Cpp),
            _ => ALL.into_iter().find(|language| language.name().eq_ignore_ascii_case(name)),
        }
    }

    /// Language of an ordinal; unknown numbers are `None` (Java: null).
    pub fn from_ordinal(ordinal: u8) -> Option<Language> {
        ALL.get(usize::from(ordinal)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, Language};

    /// Goal: names and ordinals agree. Method: every language goes through both round trips.
    #[test]
    fn names_and_ordinals_round_trip() {
        for (index, language) in ALL.into_iter().enumerate() {
            assert_eq!(usize::from(language.ordinal()), index);
            assert_eq!(Language::from_name(language.name()), Some(language));
            assert_eq!(Language::from_ordinal(language.ordinal()), Some(language));
        }
        assert_eq!(Language::from_ordinal(14), None);
        assert_eq!(Language::from_name("rust"), Some(Language::Rust));
        assert_eq!(Language::from_name("KLINGON"), None);
    }
}

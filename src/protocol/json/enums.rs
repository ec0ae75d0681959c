//! Java enums in JSON: written by name, read by name or by ordinal; an unknown name is null.

use serde::{Deserialize, Deserializer};

/// An enum that the Java classes write by name. See [`json_enum!`](crate::json_enum).
pub trait JsonEnum: Copy + Sized + 'static {
    /// Every constant with its Java name, in the order of the Java declaration: the position is the ordinal.
    const CONSTANTS: &'static [(&'static str, Self)];

    /// The constant of this Java name, ignoring case as fastjson does.
    fn from_name(name: &str) -> Option<Self> {
        Self::CONSTANTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, constant)| constant)
    }

    /// The constant of this Java ordinal.
    fn from_ordinal(ordinal: u64) -> Option<Self> {
        Self::CONSTANTS.get(usize::try_from(ordinal).ok()?).map(|&(_, constant)| constant)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NameOrOrdinal {
    Ordinal(u64),
    Name(String),
    Other(serde::de::IgnoredAny),
}

/// For `deserialize_with`: name, ordinal, or ordinal as a string; anything else is `None`, as in fastjson.
pub fn lenient_enum_option<'de, D: Deserializer<'de>, T: JsonEnum>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(match NameOrOrdinal::deserialize(deserializer)? {
        NameOrOrdinal::Ordinal(ordinal) => T::from_ordinal(ordinal),
        NameOrOrdinal::Name(name) => T::from_name(&name).or_else(|| T::from_ordinal(name.parse().ok()?)),
        NameOrOrdinal::Other(_) => None,
    })
}

/// For `deserialize_with`: as [`lenient_enum_option`], with the class default instead of null.
pub fn lenient_enum<'de, D: Deserializer<'de>, T: JsonEnum + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(lenient_enum_option(deserializer)?.unwrap_or_default())
}

/// Declares an enum with the Java names of its constants, in Java's order, with lenient reading and writing by name.
/// The constants must be listed in the order of the Java declaration, because some clients send the ordinal.
#[macro_export]
macro_rules! json_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$constant_meta:meta])* $constant:ident = $java:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$constant_meta])* $constant),+ }

        impl $name {
            /// The Java name.
            pub fn name(self) -> &'static str {
                match self { $($name::$constant => $java),+ }
            }
        }

        impl $crate::json::JsonEnum for $name {
            const CONSTANTS: &'static [(&'static str, Self)] = &[$(($java, $name::$constant)),+];
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::json::lenient_enum_option(deserializer)?
                    .ok_or_else(|| serde::de::Error::custom(concat!("unknown ", stringify!($name))))
            }
        }
    };
}

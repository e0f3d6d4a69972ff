//! Reads a TOML document into settings, and collects every mistake with its place.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What stands in a configuration file and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Where, in octets from the file's beginning; none: somewhere that cannot be pointed at.
    at: Option<usize>,
    /// What is wrong and what is allowed.
    text: String,
}

/// All mistakes of one configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistakes {
    file: PathBuf,
    lines: Vec<(Option<usize>, String)>,
}

impl Mistakes {
    fn new(file: &Path, text: &str, mistakes: Vec<Mistake>) -> Self {
        let line = |at: usize| {
            text.as_bytes()[..at.min(text.len())]
                .iter()
                .filter(|b| **b == b'\n')
                .count()
                + 1
        };
        let mut lines: Vec<_> = mistakes.into_iter().map(|m| (m.at.map(line), m.text)).collect();
        lines.sort_by_key(|(line, _)| line.unwrap_or(0));
        Self {
            file: file.to_owned(),
            lines,
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (line, text)) in self.lines.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            match line {
                Some(line) => write!(f, "{}:{line}: {text}", self.file.display())?,
                None => write!(f, "{}: {text}", self.file.display())?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// One key as the manual shows it.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: String,
    /// As spelt in TOML; none: the key is required.
    pub(crate) default: Option<String>,
    pub(crate) documentation: String,
    /// A value for the complete example, as spelt in TOML; for a table with free names, one such name.
    pub(crate) example: &'static str,
    pub(crate) hidden: bool,
    pub(crate) table: Option<Nested>,
}

/// A table below a key.
pub(crate) struct Nested {
    pub(crate) keys: Vec<Key>,
    /// Whether the key holds several tables, each under a name of the operator's choice, and what that name is.
    pub(crate) named: Option<&'static str>,
    /// The tables of the example, where one with all keys would be none; empty: one with all keys.
    pub(crate) examples: Vec<ExampleTable>,
}

/// One table of the example.
pub(crate) struct ExampleTable {
    /// Its name.
    pub(crate) name: &'static str,
    /// The keys in it.
    pub(crate) keys: &'static [&'static str],
    /// Values that differ from the keys' own examples.
    pub(crate) values: &'static [(&'static str, &'static str)],
}

/// The type of a key: how its value is read and shown.
pub(crate) trait Setting: Sized {
    /// What is allowed, for the manual and for mistakes.
    fn kind() -> String;
    /// Reads the value; on a mistake records it and returns none.
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Self>;
    /// The value of a key that is left out; none: it must not be left out.
    fn absent() -> Option<Self> {
        None
    }
    /// As spelt in TOML, where there is something to show.
    fn shown(&self) -> Option<String>;
    /// The keys below, where the value is a table of ours.
    fn nested() -> Option<Nested> {
        None
    }
}

/// Reads values, resolves relative paths, remembers mistakes.
pub(crate) struct Reader<'a> {
    folder: &'a Path,
    mistakes: Vec<Mistake>,
}

/// The keys of one table that were not read yet.
pub(crate) struct Fields<'t> {
    rest: BTreeMap<&'t str, (Range<usize>, &'t Spanned<DeValue<'t>>)>,
    at: Option<usize>,
}

impl Reader<'_> {
    /// Records a mistake at a place.
    pub(crate) fn mistake<T>(&mut self, at: Option<usize>, text: impl Into<String>) -> Option<T> {
        self.mistakes.push(Mistake { at, text: text.into() });
        None
    }

    /// Records that a value is not of its key's kind.
    pub(crate) fn unfit<T, S: Setting>(&mut self, value: &Spanned<DeValue<'_>>) -> Option<T> {
        let found = value.get_ref().type_str();
        self.mistake(
            Some(value.span().start),
            format!("expected {}, found {} {found}", S::kind(), article(found)),
        )
    }

    /// A path as the configuration means it: relative ones start at the file's folder.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    /// The keys of a table.
    pub(crate) fn fields<'t>(&mut self, value: &'t Spanned<DeValue<'_>>) -> Option<Fields<'t>> {
        match value.get_ref().as_table() {
            Some(table) => Some(Fields::of(table, Some(value.span().start))),
            None => {
                let found = value.get_ref().type_str();
                self.mistake(
                    Some(value.span().start),
                    format!("expected a table, found {} {found}", article(found)),
                )
            }
        }
    }
}

/// The name as in the file: raw identifiers are a matter of the source text.
pub(crate) fn key_name(name: &'static str) -> &'static str {
    name.trim_start_matches("r#")
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

impl<'t> Fields<'t> {
    fn of(table: &'t DeTable<'_>, at: Option<usize>) -> Self {
        let rest = table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), (key.span(), value)))
            .collect();
        Self { rest, at }
    }

    /// The value of a key, its default if it is left out.
    pub(crate) fn take<S: Setting>(
        &mut self,
        name: &'static str,
        default: Option<fn() -> S>,
        reader: &mut Reader<'_>,
    ) -> Option<S> {
        let name = key_name(name);
        match self.rest.remove(name) {
            Some((_, value)) => S::read(value, reader),
            None => default
                .map(|make| make())
                .or_else(S::absent)
                .or_else(|| reader.mistake(self.at, format!("the key '{name}' is missing; it takes {}", S::kind()))),
        }
    }

    /// Records every key that no one took.
    pub(crate) fn finish(self, keys: &[(&'static str, bool)], reader: &mut Reader<'_>) {
        let shown: Vec<&str> = keys
            .iter()
            .filter(|(_, hidden)| !hidden)
            .map(|(name, _)| key_name(name))
            .collect();
        let allowed = shown.join(", ");
        for (name, (at, _)) in self.rest {
            let _: Option<()> =
                reader.mistake(Some(at.start), format!("unknown key '{name}'; allowed here: {allowed}"));
        }
    }
}

/// Declares a table of settings once: struct, reading, defaults and manual.
///
/// A doc comment belongs to each key; `@hidden` keeps a key out of manual and example; `= value` is its default; `like`
/// gives its value in the example.
macro_rules! settings {
    ($(#[doc = $about:literal])+ $name:ident {
        $( $(#[doc = $doc:literal])+ $(@ $hidden:ident)? $key:ident : $kind:ty $(= $default:expr)?, like $example:literal; )+
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub(crate) struct $name { $( $(#[doc = $doc])+ pub(crate) $key: $kind, )+ }

        impl $crate::config::reader::Setting for $name {
            fn kind() -> String {
                "a table".to_owned()
            }

            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::reader::Reader<'_>,
            ) -> Option<Self> {
                let mut fields = reader.fields(value)?;
                $( let $key = fields.take::<$kind>(stringify!($key), settings!(@default $kind $(, $default)?), reader); )+
                fields.finish(&[$( (stringify!($key), settings!(@hidden $($hidden)?)) ),+], reader);
                Some(Self { $( $key: $key?, )+ })
            }

            fn absent() -> Option<Self> {
                Some(Self { $( $key: settings!(@default $kind $(, $default)?)
                    .map_or_else(<$kind as $crate::config::reader::Setting>::absent, |make: fn() -> $kind| Some(make()))?, )+ })
            }

            fn shown(&self) -> Option<String> {
                None
            }

            fn nested() -> Option<$crate::config::reader::Nested> {
                use $crate::config::reader::{Key, Setting};
                let keys = vec![$( Key {
                    name: $crate::config::reader::key_name(stringify!($key)),
                    kind: <$kind as Setting>::kind(),
                    default: settings!(@default $kind $(, $default)?)
                        .map_or_else(<$kind as Setting>::absent, |make: fn() -> $kind| Some(make()))
                        .map(|value| value.shown().unwrap_or_else(|| "none".to_owned())),
                    documentation: [$($doc),+].map(str::trim).join(" "),
                    example: $example,
                    hidden: settings!(@hidden $($hidden)?),
                    table: <$kind as Setting>::nested(),
                } ),+];
                Some($crate::config::reader::Nested { keys, named: None, examples: Vec::new() })
            }
        }
    };
    (@default $kind:ty) => { None::<fn() -> $kind> };
    (@default $kind:ty, $default:expr) => { Some((|| $default) as fn() -> $kind) };
    (@hidden) => { false };
    (@hidden hidden) => { true };
}
pub(crate) use settings;

/// Reads a whole file's text.
///
/// # Errors
/// All mistakes of the file at once.
pub(crate) fn read_document<S: Setting>(file: &Path, text: &str) -> Result<S, Mistakes> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut reader = Reader {
        folder,
        mistakes: Vec::new(),
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let mistake = Mistake {
                at: error.span().map(|s| s.start),
                text: format!("not TOML: {}", error.message()),
            };
            return Err(Mistakes::new(file, text, vec![mistake]));
        }
    };
    let document = Spanned::new(0..0, DeValue::Table(table.into_inner()));
    match S::read(&document, &mut reader) {
        Some(settings) if reader.mistakes.is_empty() => Ok(settings),
        Some(_) | None => Err(Mistakes::new(file, text, reader.mistakes)),
    }
}

/// A mistake that only several keys together make.
pub(crate) fn whole_file(file: &Path, text: impl Into<String>) -> Mistakes {
    Mistakes {
        file: file.to_owned(),
        lines: vec![(None, text.into())],
    }
}

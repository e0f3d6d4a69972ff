//! `rehome config describe`: the manual of the configuration, and a complete example.

use super::{
    Config,
    reader::{ExampleTable, Key, Nested, Setting},
};
use crate::text::wrap;

/// The manual.
pub(crate) fn manual() -> String {
    let mut page = String::from(
        "The configuration of rehome serve is one TOML file. A key that is not listed here is refused, and every mistake\n\
         is told with its line. After a change: rehome config check FILE, then restart the server.\n\n",
    );
    if let Some(nested) = Config::nested() {
        describe(&mut page, "", &nested);
    }
    page.push_str("A complete example:\n\n");
    for line in example().lines() {
        page.push_str(if line.is_empty() { "" } else { "    " });
        page.push_str(line);
        page.push('\n');
    }
    page
}

fn shown(nested: &Nested) -> impl Iterator<Item = &Key> {
    nested.keys.iter().filter(|key| !key.hidden)
}

fn describe(page: &mut String, place: &str, nested: &Nested) {
    for key in shown(nested).filter(|key| key.table.is_none()) {
        let default = key
            .default
            .as_ref()
            .map_or("required".to_owned(), |value| format!("default: {value}"));
        page.push_str(&format!("{}  ({default})\n", key.name));
        page.push_str(&wrap(&key.documentation, 4));
        page.push_str(&wrap(&format!("Takes {}.", key.kind), 4));
        page.push('\n');
    }
    for (key, table) in shown(nested).filter_map(|key| Some((key, key.table.as_ref()?))) {
        let below = match table.named {
            Some(_) => format!("{place}{}.NAME", key.name),
            None => format!("{place}{}", key.name),
        };
        page.push_str(&format!("[{below}]\n"));
        page.push_str(&wrap(&key.documentation, 4));
        if let Some(named) = table.named {
            page.push_str(&wrap(&format!("NAME is {named}."), 4));
        }
        page.push('\n');
        describe(page, &format!("{below}."), table);
    }
}

/// A file in which every key stands.
pub(crate) fn example() -> String {
    let mut file = String::new();
    if let Some(nested) = Config::nested() {
        example_of(&mut file, "", &nested);
    }
    file
}

fn example_of(file: &mut String, place: &str, nested: &Nested) {
    for key in shown(nested).filter(|key| key.table.is_none()) {
        file.push_str(&format!("{} = {}\n", key.name, key.example));
    }
    for (key, table) in shown(nested).filter_map(|key| Some((key, key.table.as_ref()?))) {
        for example in &table.examples {
            let below = format!("{place}{}.{}", key.name, example.name);
            file.push_str(&format!("\n[{below}]\n"));
            chosen(file, &below, table, example);
        }
        if !table.examples.is_empty() {
            continue;
        }
        let below = match table.named {
            Some(_) if key.example.contains('.') => format!("{place}{}.\"{}\"", key.name, key.example),
            Some(_) => format!("{place}{}.{}", key.name, key.example),
            None => format!("{place}{}", key.name),
        };
        file.push_str(&format!("\n[{below}]\n"));
        example_of(file, &format!("{below}."), table);
    }
}

/// A table of the example with some of its keys.
fn chosen(file: &mut String, place: &str, table: &Nested, example: &ExampleTable) {
    let keys = || shown(table).filter(|key| example.keys.contains(&key.name));
    for key in keys().filter(|key| key.table.is_none()) {
        let other = example.values.iter().find(|(name, _)| *name == key.name);
        let value = other.map_or(key.example, |(_, value)| value);
        file.push_str(&format!("{} = {value}\n", key.name));
    }
    for (key, nested) in keys().filter_map(|key| Some((key, key.table.as_ref()?))) {
        file.push_str(&format!("\n[{place}.{}]\n", key.name));
        example_of(file, &format!("{place}.{}.", key.name), nested);
    }
}

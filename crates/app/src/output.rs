//! Objects as tables, lists or JSON.

use crate::text::harmless;
use comfy_table::{ContentArrangement, Table, presets};
use rehome_command::Property;
use serde_json::Value as Json;

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A table of the default columns; a list where the cmdlet has none.
    Usual,
    /// Every property on a line of its own.
    List,
    /// A JSON array.
    Json,
}

/// The objects' text, with a newline at its end; empty for no objects, except in JSON.
pub(crate) fn render(objects: &[Json], properties: &[Property], form: Form) -> String {
    match form {
        Form::Json => json(objects),
        _ if objects.is_empty() => String::new(),
        Form::List => list(objects, properties),
        Form::Usual => {
            let columns: Vec<&str> = properties
                .iter()
                .filter(|p| p.default_column)
                .map(|p| p.name.as_str())
                .collect();
            if columns.is_empty() {
                list(objects, properties)
            } else {
                table(objects, &columns)
            }
        }
    }
}

/// A JSON array over several lines.
pub(crate) fn json(objects: &[Json]) -> String {
    format!("{:#}\n", Json::from(objects.to_vec()))
}

/// A property of an object, case ignored.
pub(crate) fn property<'o>(object: &'o Json, name: &str) -> Option<&'o Json> {
    object
        .as_object()?
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// A value as text on one line.
pub(crate) fn text(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => harmless(text),
        Json::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        Json::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}={}", harmless(name), text(value)))
                .collect();
            format!("@{{{}}}", members.join("; "))
        }
    }
}

fn table(objects: &[Json], columns: &[&str]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.to_vec());
    table.add_row(columns.iter().map(|name| "-".repeat(name.len())));
    for object in objects {
        table.add_row(
            columns
                .iter()
                .map(|name| property(object, name).map(text).unwrap_or_default()),
        );
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut page = String::new();
    for line in table.lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page
}

fn list(objects: &[Json], properties: &[Property]) -> String {
    let mut page = String::new();
    for object in objects {
        let Some(members) = object.as_object() else { continue };
        let declared = properties
            .iter()
            .filter_map(|p| Some((p.name.as_str(), property(object, &p.name)?)));
        let others = members
            .iter()
            .filter(|(name, _)| !properties.iter().any(|p| p.name.eq_ignore_ascii_case(name)))
            .map(|(name, value)| (name.as_str(), value));
        let lines: Vec<(&str, &Json)> = declared.chain(others).collect();
        let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        if !page.is_empty() {
            page.push('\n');
        }
        for (name, value) in lines {
            page.push_str(&list_line(&harmless(name), width, value));
        }
    }
    page
}

/// `Name : value`; objects and long lists below each other, as reports are read.
fn list_line(name: &str, width: usize, value: &Json) -> String {
    let indent = " ".repeat(width + 3);
    let values = match value {
        Json::Array(values) if values.iter().any(Json::is_object) || values.len() > 3 => {
            values.iter().map(text).collect::<Vec<_>>()
        }
        Json::String(lines) if lines.contains('\n') => lines.lines().map(harmless).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => {
            vec![text(value)]
        }
    };
    let body = values.join(&format!("\n{indent}"));
    format!("{}\n", format!("{name:width$} : {body}").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use serde_json::json;

    fn properties() -> Vec<Property> {
        vec![
            Property::column("Identity", "Name."),
            Property::column("Status", "State."),
            Property::column("TotalCount", "How many."),
            Property::new("Report", "What happened."),
        ]
    }

    #[test]
    fn the_forms() {
        let objects = [
            json!({ "Identity": "wave-1", "Status": "Syncing", "TotalCount": 3, "Report": ["one", "two", "three", "four"] }),
            json!({ "Identity": "Büro\u{1b}[2J", "Status": null, "TotalCount": 12, "Report": [], "Extra": { "A": true } }),
        ];
        let page: String = [Form::Usual, Form::List, Form::Json]
            .map(|form| format!("== {form:?}\n{}", render(&objects, &properties(), form)))
            .concat();
        golden::check("output.txt", &page);
        assert_eq!(render(&objects, &[], Form::Usual), render(&objects, &[], Form::List));
    }

    #[test]
    fn nothing_is_an_empty_array_for_machines_only() {
        assert_eq!(render(&[], &properties(), Form::Usual), "");
        assert_eq!(render(&[], &properties(), Form::Json), "[]\n");
    }
}

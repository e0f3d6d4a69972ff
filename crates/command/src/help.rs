//! Help as text, rendered from a declaration alone.

use crate::{Declaration, Effect, Parameter, ParameterType};

const WIDTH: usize = 96;

/// The help page of a cmdlet: synopsis, syntax of each parameter set, description, parameters, output, examples.
#[must_use]
pub fn render_help(declaration: &Declaration) -> String {
    let mut page = String::new();
    let mut section = |title: &str, body: &str| {
        if !body.is_empty() {
            page.push_str(title);
            page.push('\n');
            page.push_str(body.trim_end());
            page.push_str("\n\n");
        }
    };
    section("NAME", &wrap(&declaration.name(), 4));
    section("SYNOPSIS", &wrap(&declaration.synopsis, 4));
    let syntax: String = declaration
        .sets()
        .iter()
        .map(|s| wrap_hanging(&syntax(declaration, s), 4, 8))
        .collect();
    section("SYNTAX", &syntax);
    section("DESCRIPTION", &wrap(&declaration.description, 4));
    let parameters: Vec<String> = declaration
        .parameters
        .iter()
        .map(|p| parameter(declaration, p))
        .collect();
    section("PARAMETERS", &parameters.join("\n"));
    let output: String = declaration
        .output
        .iter()
        .map(|p| {
            wrap_hanging(
                &format!("{}{}: {}", p.name, if p.default_column { " *" } else { "" }, p.help),
                4,
                8,
            )
        })
        .collect();
    section("OUTPUT (* shown in tables)", &output);
    let examples: Vec<String> = declaration
        .examples
        .iter()
        .map(|e| format!("    rehome {}\n{}", e.command, wrap(&e.explanation, 8)))
        .collect();
    section("EXAMPLES", &examples.join("\n"));
    let effect = match declaration.effect {
        Effect::Read => "Only reads.",
        Effect::Change => "Changes something; recorded in the audit log.",
        Effect::Destroy => "Removes something for good; recorded in the audit log.",
    };
    section(
        "ROLES",
        &wrap(&format!("{}. {effect}", declaration.roles.join(" or ")), 4),
    );
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// The parameter set in PowerShell's notation: brackets around what is optional.
fn syntax(declaration: &Declaration, set: &str) -> String {
    let mut words = vec![declaration.name()];
    for p in declaration.parameters.iter().filter(|p| p.is_in(set)) {
        let name = if p.position.is_some() {
            format!("[-{}]", p.name)
        } else {
            format!("-{}", p.name)
        };
        let word = if p.kind == ParameterType::Switch {
            name
        } else {
            format!("{name} <{}>", p.kind.as_str())
        };
        words.push(if p.mandatory { word } else { format!("[{word}]") });
    }
    words.join(" ")
}

fn parameter(declaration: &Declaration, p: &Parameter) -> String {
    let mut facts = vec![p.kind.as_str().to_owned()];
    if p.mandatory {
        facts.push("mandatory".to_owned());
    }
    if let Some(position) = p.position {
        facts.push(format!("position {position}"));
    }
    if p.pipeline {
        facts.push("takes pipeline input".to_owned());
    }
    if p.nullable {
        facts.push("$null clears it".to_owned());
    }
    if !p.aliases.is_empty() {
        facts.push(format!("also -{}", p.aliases.join(", -")));
    }
    if !p.sets.is_empty() && p.sets.len() < declaration.sets().len() {
        facts.push(format!("set {}", p.sets.join(", ")));
    }
    let mut text = p.help.clone();
    if !p.allowed_values.is_empty() {
        text.push_str(&format!(" One of: {}.", p.allowed_values.join(", ")));
    }
    match p.kind {
        ParameterType::EditableList => text.push_str(" A list replaces; '@{Add=\"…\"; Remove=\"…\"}' edits."),
        ParameterType::Octets => text.push_str(" On a command line the name of a file, or - for standard input."),
        ParameterType::Credential => {
            text.push_str(
                " Give the name alone to be asked without echo, or use --credentials-file FILE (- for standard input).",
            );
        }
        ParameterType::Secret => text.push_str(" Give the name alone to be asked without echo."),
        ParameterType::DateTime => text.push_str(" UTC unless a zone is given."),
        ParameterType::Switch
        | ParameterType::Boolean
        | ParameterType::Integer
        | ParameterType::Unlimited
        | ParameterType::Text
        | ParameterType::Identity
        | ParameterType::Guid
        | ParameterType::TimeSpan
        | ParameterType::List
        | ParameterType::Flags => {}
    }
    if !p.roles.is_empty() {
        text.push_str(&format!(" Needs the role {}.", p.roles.join(" or ")));
    }
    format!("    -{} <{}>\n{}", p.name, facts.join("; "), wrap(&text, 8))
}

fn wrap(text: &str, indent: usize) -> String {
    text.lines()
        .map(|paragraph| wrap_hanging(paragraph, indent, indent))
        .collect()
}

/// One paragraph: the first line at `first`, the others at `others`.
fn wrap_hanging(paragraph: &str, first: usize, others: usize) -> String {
    let mut out = String::new();
    let mut line = " ".repeat(first);
    let mut empty = true;
    for word in paragraph.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = " ".repeat(others);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Property;

    const EXPECTED: &str = "\
NAME
    Set-Thing

SYNOPSIS
    Changes a thing.

SYNTAX
    Set-Thing [-Identity] <Identity> [-Addresses <MultiValuedProperty>] [-Force]
    Set-Thing [-Identity] <Identity> -Credentials <PSCredential> [-Kind <String>]

DESCRIPTION
    First paragraph.
    Second paragraph that is long enough to be wrapped, because it goes on and on until the end
    of the line is reached.

PARAMETERS
    -Identity <Identity; mandatory; position 1>
        Which thing.

    -Addresses <MultiValuedProperty; $null clears it; set Edit>
        Its addresses. A list replaces; '@{Add=\"…\"; Remove=\"…\"}' edits.

    -Force <SwitchParameter; also -F; set Edit>
        Do it.

    -Credentials <PSCredential; mandatory; set Sign>
        Whose. Give the name alone to be asked without echo, or use --credentials-file FILE (-
        for standard input).

    -Kind <String; set Sign>
        Its kind. One of: A, B. Needs the role Other.

OUTPUT (* shown in tables)
    Name *: Its name.
    Guid: Its number.

EXAMPLES
    rehome Set-Thing a -Force
        Changes a.

ROLES
    Role or Role 2. Changes something; recorded in the audit log.
";

    #[test]
    fn golden() {
        use ParameterType as T;
        let declaration = Declaration::new("Set", "Thing", Effect::Change, &["Role", "Role 2"], "Changes a thing.")
            .description(
                "First paragraph.\nSecond paragraph that is long enough to be wrapped, because it goes on and on until the end of the line is reached.",
            )
            .parameters([
                Parameter::new("Identity", T::Identity, "Which thing.").mandatory().position(1),
                Parameter::new("Addresses", T::EditableList, "Its addresses.").nullable().sets(&["Edit"]),
                Parameter::new("Force", T::Switch, "Do it.").alias("F").sets(&["Edit"]),
                Parameter::new("Credentials", T::Credential, "Whose.").mandatory().sets(&["Sign"]),
                Parameter::new("Kind", T::Text, "Its kind.").allowed(&["A", "B"]).sets(&["Sign"]).roles(&["Other"]),
            ])
            .output([Property::column("Name", "Its name."), Property::new("Guid", "Its number.")])
            .example("Set-Thing a -Force", "Changes a.");
        assert_eq!(render_help(&declaration), EXPECTED);
        let json = serde_json::to_string(&declaration).unwrap();
        assert_eq!(serde_json::from_str::<Declaration>(&json).unwrap(), declaration);
    }
}

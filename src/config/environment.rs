//! Variables of the environment in the strings of a configuration file, as in Telegraf's since 1.38: put in after the file is
//! parsed, so that no value can be more than a part of its string.

use std::borrow::Cow;
use std::env::VarError;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something about one string of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Where it begins in the file, bytes.
    pub(super) offset: usize,
    /// The key, and what there is to say.
    pub(super) message: String,
}

/// Puts variables into all strings of a document. Returns a warning for each `$VAR` that is left as it is written, since there is
/// no such variable.
///
/// # Errors
/// The first string that asks for a variable that is not set, or is no right way to ask.
pub(super) fn substitute(
    document: &mut DeTable<'_>,
    get: &impl Fn(&str) -> Result<String, VarError>,
) -> Result<Vec<Note>, Note> {
    let mut warnings = Vec::new();
    in_table(document, "", get, &mut warnings)?;
    warnings.sort_unstable_by_key(|note| note.offset);
    Ok(warnings)
}

fn in_table(
    table: &mut DeTable<'_>,
    path: &str,
    get: &impl Fn(&str) -> Result<String, VarError>,
    warnings: &mut Vec<Note>,
) -> Result<(), Note> {
    table.iter_mut().try_for_each(|(key, value)| {
        let dot = if path.is_empty() { "" } else { "." };
        in_value(value, &format!("{path}{dot}{}", key.get_ref()), get, warnings)
    })
}

fn in_value(
    value: &mut Spanned<DeValue<'_>>,
    path: &str,
    get: &impl Fn(&str) -> Result<String, VarError>,
    warnings: &mut Vec<Note>,
) -> Result<(), Note> {
    let offset = value.span().start;
    let note = |what: String| Note { offset, message: format!("{path}: {what}") };
    match value.get_mut() {
        DeValue::String(text) if text.contains('$') => {
            let mut left = Vec::new();
            let expanded = expand(text, get, &mut left).map_err(|error| note(format!("{text:?}: {error}")))?;
            warnings.extend(left.into_iter().map(|name| {
                let remedy = format!("set it, or write \"$${name}\" if that is meant literally");
                note(format!(
                    "\"${name}\" stays as it is written, since there is no environment variable {name}: {remedy}"
                ))
            }));
            *text = Cow::Owned(expanded);
            Ok(())
        }
        DeValue::Array(array) => array
            .iter_mut()
            .enumerate()
            .try_for_each(|(index, value)| in_value(value, &format!("{path}[{index}]"), get, warnings)),
        DeValue::Table(table) => in_table(table, path, get, warnings),
        _ => Ok(()),
    }
}

/// Expands the variables in one string. `left` gets the names of variables without braces that are not set: such a `$` may
/// be meant literally.
fn expand(
    text: &str,
    get: &impl Fn(&str) -> Result<String, VarError>,
    left: &mut Vec<String>,
) -> Result<String, String> {
    let (mut expanded, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (variable, after) = split_at_closing_brace(after).ok_or("\"${\" without its \"}\": close it")?;
            expanded.push_str(&braced(variable, get, left)?);
            after
        } else {
            let (name, after) = after.split_at(name_length(after));
            match value_of(name, get)? {
                Some(value) => expanded.push_str(&value),
                None => {
                    expanded.push('$');
                    expanded.push_str(name);
                    left.extend((!name.is_empty()).then(|| name.to_owned()));
                }
            }
            after
        };
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Expands `${...}`: the value of the variable, or the text that one of the shell's operators puts in its place.
fn braced(
    variable: &str,
    get: &impl Fn(&str) -> Result<String, VarError>,
    left: &mut Vec<String>,
) -> Result<String, String> {
    let (name, operation) = variable.split_at(name_length(variable));
    let no_variable =
        || format!("\"${{{variable}}}\" is no variable: a \"$\" that is meant literally is written \"$$\"");
    if name.is_empty() {
        return Err(no_variable());
    }
    let value = value_of(name, get)?;
    let (empty_will_do, operation) = operation.strip_prefix(':').map_or((true, operation), |rest| (false, rest));
    let given = value.clone().filter(|value| empty_will_do || !value.is_empty());
    let mut characters = operation.chars();
    match (characters.next(), given) {
        (None, _) if !empty_will_do => Err(no_variable()),
        (None, given) => given.ok_or_else(|| {
            format!("the environment variable {name} is not set: set it, or write ${{{name}:-default}}")
        }),
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => expand(characters.as_str(), get, left),
        (Some('+'), None) => Ok(value.unwrap_or_default()),
        (Some('?'), None) => {
            let lack = if value.is_some() { "empty" } else { "not set" };
            let why = expand(characters.as_str(), get, left)?;
            Err(format!("the environment variable {name} is {lack}: {}", if why.is_empty() { "set it" } else { &why }))
        }
        (Some(_), _) => Err(no_variable()),
    }
}

/// Returns the value of a variable; `None` if it is not set.
fn value_of(name: &str, get: &impl Fn(&str) -> Result<String, VarError>) -> Result<Option<String>, String> {
    if name.is_empty() {
        return Ok(None);
    }
    match get(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(error @ VarError::NotUnicode(_)) => Err(format!("the environment variable {name}: {error}")),
    }
}

/// Length in bytes of the name that a text begins with: letters, digits and `_`, but no digit first.
fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Splits a text at the `}` that belongs to a `${` before the text.
fn split_at_closing_brace(text: &str) -> Option<(&str, &str)> {
    let mut open = 1;
    for (at, character) in text.char_indices() {
        match character {
            '{' if text.get(..at).is_some_and(|before| before.ends_with('$')) => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some((text.get(..at)?, text.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;
    use toml::Deserializer;

    use super::*;

    fn get(name: &str) -> Result<String, VarError> {
        match name {
            "HOST" => Ok("web1".to_owned()),
            "EMPTY" => Ok(String::new()),
            "PRICE" => Ok("$HOST ${HOST}".to_owned()),
            "NO_TEXT" => Err(VarError::NotUnicode("x".into())),
            _ => Err(VarError::NotPresent),
        }
    }

    /// What Telegraf 1.39.3 makes of each, as tests/telegraf.rs shows; but for the last, in which it leaves out the default.
    #[test]
    fn a_string_is_expanded_as_telegraf_does_it() {
        let cases = [
            ("${HOST}", "web1"),
            ("$HOST.$HOST-${HOST}", "web1.web1-web1"),
            ("x$$HOST$$", "x$HOST$"),
            ("${NONE:-x}${EMPTY:-y}${NONE-z}${EMPTY-z}", "xyz"),
            ("${HOST:-x}${HOST-x}", "web1web1"),
            ("${HOST:+x}${HOST+x}${EMPTY:+y}${EMPTY+z}${NONE:+y}${NONE+y}", "xxz"),
            ("${HOST:?must be set}", "web1"),
            ("${NONE:-${EMPTY:-<${HOST}>}}}", "<web1>}"),
            ("${PRICE}", "$HOST ${HOST}"),
            ("^nginx$", "^nginx$"),
            ("^(a|b$)$|^1$2", "^(a|b$)$|^1$2"),
            ("$NONE", "$NONE"),
            ("${NONE:-$NONE}", "$NONE"),
        ];
        for (from, to) in cases {
            assert_eq!(expand(from, &get, &mut Vec::new()).unwrap(), to, "{from:?}");
        }
    }

    /// Telegraf leaves them as they are written; a value that nobody meant is worse than a message.
    #[test]
    fn what_is_missing_or_cannot_be_is_refused() {
        let cases = [
            ("${NONE}", "NONE is not set: set it, or write ${NONE:-default}"),
            ("${NONE:?give a name}", "NONE is not set: give a name"),
            ("${EMPTY:?}", "EMPTY is empty: set it"),
            ("${HOST", "close it"),
            ("${NONE:-${HOST}", "close it"),
            ("${1}", "\"${1}\" is no variable"),
            ("${}", "\"${}\" is no variable"),
            ("${HOST:}", "\"${HOST:}\" is no variable"),
            ("${HOST.x}", "\"${HOST.x}\" is no variable"),
            ("$NO_TEXT", "NO_TEXT: environment variable was not valid unicode"),
        ];
        for (text, message) in cases {
            let error = expand(text, &get, &mut Vec::new()).unwrap_err();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }

    proptest::proptest! {
        /// Whatever a file says.
        #[test]
        fn any_string_is_expanded_or_refused(text in "[${}:?+A-Z_0-9é-]{0,24}|\\PC*") {
            let expanded = expand(&text, &|_| Err(VarError::NotPresent), &mut Vec::new());
            let may_be_refused = text.contains("${");
            proptest::prop_assert!(text.contains('$') || expanded.as_ref() == Ok(&text));
            proptest::prop_assert!(expanded.is_ok() || may_be_refused);
        }
    }

    #[test]
    fn every_string_of_a_document_is_looked_at_and_nothing_else() {
        let text =
            "a = \"$HOST\" # ${NONE}\n\"$HOST\" = 1\n[[b.c]]\nd = ['${HOST}', \"\"\"\n$NONE\"\"\", { e = 'x$NONE' }]\n";
        let mut document = DeTable::parse(text).unwrap();
        let warnings = substitute(document.get_mut(), &get).unwrap();
        let value = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
        let expected = "a = 'web1'\n'$HOST' = 1\n[[b.c]]\nd = ['web1', '$NONE', { e = 'x$NONE' }]";
        assert_eq!(toml::Table::deserialize(Deserializer::from(document)).unwrap(), value(expected));
        let places: Vec<_> =
            warnings.iter().map(|note| (note.offset, note.message.split(' ').next().unwrap())).collect();
        assert_eq!(
            places,
            [(text.find("\"\"\"").unwrap(), "b.c[0].d[1]:"), (text.find("'x$").unwrap(), "b.c[0].d[2].e:")]
        );
        assert!(warnings.iter().all(|note| note.message.contains("\"$$NONE\"")), "{warnings:?}");

        let mut document = DeTable::parse("a = 1\nb = { c = '-${NONE}' }").unwrap();
        let Note { offset, message } = substitute(document.get_mut(), &get).unwrap_err();
        assert!(offset == 16 && message.starts_with("b.c: \"-${NONE}\": "), "{offset}: {message}");
    }
}

//! `${VAR}` and `${VAR:-default}` in a configuration file, as in Telegraf's.

use std::env::VarError;

/// Replaces them outside comments. Newlines stay where they are, so that line numbers in messages hold.
///
/// # Errors
/// The line and the message, for a variable that is not set and has no default, or a `${` that is not closed.
pub(super) fn expand(text: &str, get: impl Fn(&str) -> Result<String, VarError>) -> Result<String, (usize, String)> {
    let mut expanded = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let (code, comment) = line.split_at(comment_start(line));
        expand_line(code, &get, &mut expanded).map_err(|message| (number + 1, message))?;
        expanded.push_str(comment);
    }
    Ok(expanded)
}

fn expand_line(
    mut rest: &str,
    get: impl Fn(&str) -> Result<String, VarError>,
    expanded: &mut String,
) -> Result<(), String> {
    while let Some((before, after)) = rest.split_once("${") {
        expanded.push_str(before);
        let (variable, after) = after.split_once('}').ok_or("\"${\" without its \"}\": close it")?;
        let (name, default) = variable.split_once(":-").map_or((variable, None), |(n, d)| (n, Some(d)));
        let value = match (get(name), default) {
            (Ok(value), None) => value,
            (Ok(value), Some(_)) if !value.is_empty() => value,
            (_, Some(default)) => default.to_owned(),
            (Err(VarError::NotPresent), None) => {
                return Err(format!(
                    "the environment variable {name} is not set: set it, or write ${{{name}:-default}}"
                ));
            }
            (Err(error), None) => return Err(format!("the environment variable {name}: {error}")),
        };
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(())
}

/// Where a line's comment begins: at a '#' that is not within quotes.
fn comment_start(line: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in line.char_indices() {
        match (quote, character) {
            (None, '#') => return at,
            (None, '"' | '\'') => quote = Some(character),
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), close) if open == close && !escaped => quote = None,
            _ => {}
        }
        escaped = false;
    }
    line.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn get(name: &str) -> Result<String, VarError> {
        match name {
            "HOST" => Ok("web1".to_owned()),
            "EMPTY" => Ok(String::new()),
            _ => Err(VarError::NotPresent),
        }
    }

    #[test]
    fn expands_outside_comments_only() {
        let cases = [
            ("a = \"${HOST}\"", "a = \"web1\""),
            ("a = \"${HOST}-${HOST}\"\n", "a = \"web1-web1\"\n"),
            ("a = \"${NONE:-x}\"", "a = \"x\""),
            ("a = \"${EMPTY:-x}${EMPTY}\"", "a = \"x\""),
            ("# ${NONE}\n", "# ${NONE}\n"),
            ("a = \"#${HOST}\" # ${NONE}", "a = \"#web1\" # ${NONE}"),
            ("a = \"\\\"#${HOST}\"", "a = \"\\\"#web1\""),
            ("a = '\\' # ${NONE}", "a = '\\' # ${NONE}"),
            ("pattern = \"^nginx$\"", "pattern = \"^nginx$\""),
            ("a = \"$HOST\"", "a = \"$HOST\""),
        ];
        for (from, to) in cases {
            assert_eq!(expand(from, get).unwrap(), to, "{from:?}");
        }
    }

    #[test]
    fn names_what_is_missing_and_where() {
        let (line, message) = expand("a = 1\nb = \"${NONE}\"\n", get).unwrap_err();
        assert_eq!(line, 2);
        assert!(message.contains("NONE is not set"), "{message}");
        assert!(expand("a = \"${HOST\"", get).unwrap_err().1.contains("close it"));
    }
}

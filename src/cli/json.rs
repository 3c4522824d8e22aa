//! JSON files that people write: read up to a bound, and what is wrong with them in words that are not Rust's.

use std::{fs::File, io::Read, path::Path};

use serde_json::{Value, error::Category};

/// Far more than any such file needs.
const LIMIT: u64 = 1024 * 1024;

/// Reads a file whole. The error is the rest of a line that names the file.
pub fn read_json(path: &Path) -> Result<Value, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut text));
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > LIMIT {
        return Err("larger than 1 MiB, which is the limit".to_owned());
    }
    serde_json::from_slice(&text).map_err(|error| in_words(&error))
}

/// What is wrong with a JSON text, or with a value in it.
pub fn in_words(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    match error.classify() {
        Category::Eof if line <= 1 && column == 0 => "it is empty".to_owned(),
        Category::Eof => format!("not JSON: it ends in the middle, at line {line}, column {column}"),
        Category::Syntax | Category::Io => format!("not JSON: {what} at line {line}, column {column}"),
        Category::Data => needed(what),
    }
}

/// serde's words for what was found and what was expected, as a person would say them.
pub fn needed(text: &str) -> String {
    const KINDS: [(&str, &str); 16] = [
        ("u8", "a whole number from 0 to 255"),
        ("u16", "a whole number from 0 to 65535"),
        ("u32", "a whole number from 0 to 4294967295"),
        ("u64", "a whole number, not negative"),
        ("usize", "a whole number, not negative"),
        ("i32", "a whole number"),
        ("i64", "a whole number"),
        ("f64", "a number"),
        ("a boolean", "true or false"),
        ("a string", "a text in quotes"),
        ("a borrowed string", "a text in quotes"),
        ("a sequence", "a list in []"),
        ("a map", "an object in {}"),
        ("string or map", "a text in quotes"),
        ("unit", "null"),
        ("variant identifier", "a text in quotes"),
    ];
    let Some((found, wanted)) = text.rsplit_once(", expected ") else { return text.replace('`', "\"") };
    let kind = KINDS.iter().find(|(rust, _)| *rust == wanted).map(|(_, words)| *words);
    let words = match kind {
        Some(words) => words.to_owned(),
        None if wanted.starts_with("struct ") || wanted.starts_with("internally tagged") => {
            "an object in {}".to_owned()
        }
        None if wanted.starts_with("enum ") => "a text in quotes".to_owned(),
        None => wanted.replace('`', "\""),
    };
    format!("{}: {words} is needed", this_is(found))
}

/// `invalid type: string "x"` is `string "x"`, with its field before it, if any.
fn this_is(found: &str) -> String {
    let bare = found.replace("invalid type: ", "").replace("invalid value: ", "").replace("unknown variant ", "");
    let bare = bare.replace("integer `", "number `").replace("floating point `", "number `").replace("boolean `", "`");
    bare.replace("sequence", "a list").replace("map", "an object").replace('`', "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_read_to_the_limit() {
        let error = read_json(Path::new("/dev/zero")).unwrap_err();
        assert!(error.contains("1 MiB"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::write(&path, format!("[{}0]", "0,\n".repeat(400_000))).unwrap();
        assert!(read_json(&path).unwrap_err().contains("1 MiB"));
        std::fs::write(&path, format!("[{}0]", "0,\n".repeat(200_000))).unwrap();
        assert!(read_json(&path).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_without_rusts_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        for (text, words) in
            [("", "it is empty"), ("{", "it ends in the middle, at line 1, column 1"), ("{\"a\": nul}", "not JSON: ")]
        {
            std::fs::write(&path, text).unwrap();
            let error = read_json(&path).unwrap_err();
            assert!(error.contains(words) && !error.contains("EOF"), "{text}: {error}");
        }
        let error = |text: &str| serde_json::from_str::<u16>(text).map_err(|error| in_words(&error)).unwrap_err();
        assert_eq!(error("-1"), "number \"-1\": a whole number from 0 to 65535 is needed");
        assert_eq!(error("\"1\""), "string \"1\": a whole number from 0 to 65535 is needed");
        assert_eq!(needed("invalid type: sequence, expected struct StoredSpec"), "a list: an object in {} is needed");
        assert_eq!(
            needed("initMode: unknown variant `neu`, expected one of `new`, `existing`"),
            "initMode: \"neu\": one of \"new\", \"existing\" is needed"
        );
        assert_eq!(needed("missing field `keeperUID`"), "missing field \"keeperUID\"");
    }
}

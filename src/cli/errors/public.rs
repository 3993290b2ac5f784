//! The public enums, by the list of what is public: `tests/it/public_api` holds that against the sources.

/// A public enum.
#[derive(Debug)]
pub struct Enum {
    /// Its modules and its name.
    pub path: String,
    pub variants: Vec<String>,
    /// It has words of its own.
    pub is_printed: bool,
}

/// All of them.
pub fn enums() -> Vec<Enum> {
    parse(include_str!("../../../tests/public-api.txt"))
}

fn parse(list: &str) -> Vec<Enum> {
    let mut enums: Vec<Enum> = Vec::new();
    let mut printed: Vec<String> = Vec::new();
    // A module, or an enum, ends with the line that is indented as its first one was.
    let mut modules: Vec<(usize, &str)> = Vec::new();
    let mut open: Option<usize> = None;
    let mut derives_error = false;
    for line in list.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let path = |name: &str| {
            let modules = modules.iter().map(|(_, name)| *name);
            modules.chain([name]).collect::<Vec<_>>().join("::")
        };
        if let Some(outer) = open {
            if indent == outer {
                open = None;
            } else if indent == outer + 4 && text.starts_with(char::is_uppercase) {
                let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
                let last = enums.last_mut().expect("it is open");
                last.variants.push(text[..end].to_owned());
            }
        } else if let Some(name) = between(text, "pub mod ", " {") {
            modules.push((indent, name));
        } else if let Some(name) = between(text, "pub enum ", " {") {
            enums.push(Enum { path: path(name), variants: Vec::new(), is_printed: derives_error });
            open = Some(indent);
        } else if let Some(name) =
            text.split_once("fmt::Display for ").map(|(_, rest)| rest.trim_end_matches(" {}"))
        {
            printed.push(path(name));
        } else if text == "}" && modules.last().is_some_and(|&(outer, _)| outer == indent) {
            modules.pop();
        }
        // Attributes stand before what they are of.
        if !text.starts_with("#[") {
            derives_error = false;
        } else if text.contains("thiserror::Error") {
            derives_error = true;
        }
    }
    for one in &mut enums {
        one.is_printed |= printed.contains(&one.path);
    }
    enums
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(behind)
}

#[test]
fn enums_are_read_with_their_modules_and_variants_and_whether_they_have_words() {
    let list = "\
pub mod a {
    #[derive(Debug, thiserror::Error)]
    #[non_exhaustive]
    pub enum One {
        Unit,
        Tuple(String),
        Long {
            field: String,
        },
    }
    pub struct Other {
        private: _,
    }
    pub mod b {
        #[derive(Debug)]
        pub enum Two {
            Only,
        }
        impl std::fmt::Display for Two {}
    }
    pub enum Silent {
        Quiet,
    }
}
";
    let read: Vec<_> =
        parse(list).into_iter().map(|one| (one.path, one.variants.join(" "), one.is_printed)).collect();
    let expected =
        [("a::One", "Unit Tuple Long", true), ("a::b::Two", "Only", true), ("a::Silent", "Quiet", false)];
    assert_eq!(
        read,
        expected.map(|(path, variants, is_printed)| (path.to_owned(), variants.to_owned(), is_printed))
    );
}

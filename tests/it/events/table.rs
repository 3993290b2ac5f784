//! The table of `EVENTS.md`.

use super::Fields;

const PAGE: &str = include_str!("../../../src/cli/EVENTS.md");

/// The fields of each kind. In the column of fields stands a word in backticks for each; what stands in parentheses, or in
/// front with `of`, is about it.
pub fn fields() -> Fields {
    let table = PAGE.split("| `event` | fields |\n| --- | --- |\n").nth(1).expect("the page has the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let (kind, fields) = line.trim_matches('|').split_once(" | ").expect("a row has two columns");
        let fields = fields.trim();
        let fields = match fields.split_once(": ") {
            Some((of, fields)) if of.starts_with("of ") => fields,
            _ => fields,
        };
        let names = outside(fields);
        let names = names.split('`').skip(1).step_by(2).map(str::to_owned);
        (kind.trim().trim_matches('`').to_owned(), names.collect())
    };
    rows.map(row).collect()
}

/// A text without what stands in parentheses.
fn outside(text: &str) -> String {
    let mut depth = 0;
    let mut left = String::new();
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 => left.push(c),
            _ => {}
        }
    }
    left
}

#[test]
fn a_row_of_the_table_is_taken_apart() {
    let fields = fields();
    let of = |kind: &str| fields[kind].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("reconnected"), ["attempts", "seconds"]);
    assert_eq!(of("config"), ["file", "is_there"]);
    assert_eq!(of("foreseen"), ["held", "kind", "name", "size", "transfer", "would"]);
    assert_eq!(outside("a (b (c) d) e"), "a  e");
}

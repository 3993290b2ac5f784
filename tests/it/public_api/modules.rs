//! The library's modules, and what a name means in one of them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use syn::{Attribute, Item, UseTree};

/// A module's path, from the crate on.
pub type ModulePath = Vec<String>;

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// What this module defines under this name.
    Ours(ModulePath, String),
    /// What another crate has at this path.
    Other(String),
}

pub struct Module {
    pub items: Vec<Item>,
    /// Names that `use` brings in, and the paths that they stand for.
    uses: HashMap<String, Vec<String>>,
}

pub struct Modules(pub BTreeMap<ModulePath, Module>);

impl Modules {
    pub fn read(src: &Path) -> Self {
        let mut all = BTreeMap::new();
        read(&src.join("lib.rs"), src, Vec::new(), &mut all);
        Self(all)
    }

    /// What a name means in a module; `None` of generic parameters and what the language brings.
    pub fn meaning(&self, module: &ModulePath, name: &str) -> Option<Meaning> {
        let here = self.0.get(module)?;
        if here.items.iter().any(|item| name_of(item).is_some_and(|own| own == name)) {
            return Some(Meaning::Ours(module.clone(), name.to_owned()));
        }
        self.path(module, here.uses.get(name)?)
    }

    /// What a path means in a module.
    pub fn path(&self, module: &ModulePath, path: &[String]) -> Option<Meaning> {
        let mut at = module.clone();
        let (last, way) = path.split_last()?;
        for (index, word) in way.iter().enumerate() {
            match word.as_str() {
                "crate" => at = Vec::new(),
                "self" => {}
                "super" => drop(at.pop()),
                word => {
                    let below = [&at[..], &[word.to_owned()]].concat();
                    if self.0.contains_key(&below) {
                        at = below;
                    } else if index > 0 {
                        // A variant or an associated item of a type.
                        return self.meaning(&at, word);
                    } else {
                        match self.0.get(&at).and_then(|here| here.uses.get(word)) {
                            // The crate's own module, or another crate's, under the name that `use` gave it.
                            Some(used) => return self.path(&at, &[used, &path[1..]].concat()),
                            None => return Some(Meaning::Other(path.join("::"))),
                        }
                    }
                }
            }
        }
        if way.is_empty() && self.0.get(&at).is_none_or(|here| !here.uses.contains_key(last)) {
            return Some(Meaning::Other(last.clone()));
        }
        self.meaning(&at, last)
    }
}

fn read(file: &Path, dir: &Path, path: ModulePath, all: &mut BTreeMap<ModulePath, Module>) {
    let text = std::fs::read_to_string(file).unwrap();
    let items = syn::parse_file(&text).unwrap().items;
    let items: Vec<Item> = items.into_iter().filter(|item| !is_test(attributes(item))).collect();
    let mut uses = HashMap::new();
    for item in &items {
        match item {
            Item::Use(item) => flatten(&item.tree, &mut Vec::new(), &mut uses),
            Item::Mod(module) if module.content.is_none() => {
                let name = module.ident.to_string();
                let below = dir.join(&name);
                let nested = below.join("mod.rs");
                let file = if nested.exists() { nested } else { dir.join(format!("{name}.rs")) };
                read(&file, &below, [&path[..], &[name]].concat(), all);
            }
            _ => {}
        }
    }
    all.insert(path, Module { items, uses });
}

/// The names of a `use`, each with its path.
pub fn flatten(tree: &UseTree, way: &mut Vec<String>, names: &mut HashMap<String, Vec<String>>) {
    match tree {
        UseTree::Path(path) => {
            way.push(path.ident.to_string());
            flatten(&path.tree, way, names);
            way.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, way, names)),
        UseTree::Name(name) if name.ident == "self" => {
            names.insert(way.last().unwrap().clone(), way.clone());
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            names.insert(name.clone(), [&way[..], &[name]].concat());
        }
        UseTree::Rename(rename) => {
            let path = [&way[..], &[rename.ident.to_string()]].concat();
            names.insert(rename.rename.to_string(), path);
        }
        UseTree::Glob(_) => panic!("what `{}::*` brings cannot be told", way.join("::")),
    }
}

pub fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

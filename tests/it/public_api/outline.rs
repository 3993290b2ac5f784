//! What of the modules can be reached from outside: items without their bodies, documentation and private parts.

use std::collections::{BTreeSet, HashMap};

use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, Field, Fields, File, ImplItem, Item, ItemImpl, ItemMod, TraitItem, Type, Visibility,
    parse_quote,
};

use super::modules::{Meaning, ModulePath, Modules, flatten, name_of};

pub struct Outline {
    pub text: String,
    /// What signatures name of other crates.
    pub others: BTreeSet<String>,
}

impl Outline {
    pub fn of(modules: &Modules) -> Self {
        let mut others = BTreeSet::new();
        let items = module(modules, &Vec::new(), &mut others);
        let file = File { shebang: None, frontmatter: None, attrs: Vec::new(), items };
        Self { text: prettyplease::unparse(&file), others }
    }
}

fn module(modules: &Modules, path: &ModulePath, others: &mut BTreeSet<String>) -> Vec<Item> {
    let mut items = Vec::new();
    for item in &modules.0[path].items {
        match item {
            Item::Mod(below) if is_public(&below.vis) => {
                let inside = module(modules, &[&path[..], &[below.ident.to_string()]].concat(), others);
                let below =
                    ItemMod { attrs: Vec::new(), content: Some((<_>::default(), inside)), ..below.clone() };
                items.push((below.ident.to_string(), vec![Item::Mod(ItemMod { semi: None, ..below })]));
            }
            Item::Use(item) if is_public(&item.vis) => {
                let mut names = HashMap::new();
                flatten(&item.tree, &mut Vec::new(), &mut names);
                for (name, way) in names {
                    items.push(match modules.path(path, &way) {
                        Some(Meaning::Ours(home, own)) => {
                            let mut found = defined(modules, &home, &own, others);
                            if name != own {
                                let (new, old): (syn::Ident, syn::Ident) =
                                    (syn::parse_str(&name).unwrap(), syn::parse_str(&own).unwrap());
                                found.insert(0, parse_quote!(pub use #old as #new;));
                            }
                            (name, found)
                        }
                        _ => {
                            others.insert(way.join("::"));
                            let way: syn::Path = syn::parse_str(&way.join("::")).unwrap();
                            (name, vec![parse_quote!(pub use #way;)])
                        }
                    });
                }
            }
            item => {
                if let Some(name) = name_of(item).filter(|_| is_public_item(item)) {
                    items.push((name.clone(), defined(modules, path, &name, others)));
                }
            }
        }
    }
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    items.into_iter().flat_map(|(_, items)| items).collect()
}

/// What a module defines under a name, with all that is implemented for it anywhere.
fn defined(modules: &Modules, home: &ModulePath, name: &str, others: &mut BTreeSet<String>) -> Vec<Item> {
    let mut found = Vec::new();
    let mut take = |at: &ModulePath, item: Item| {
        Names { modules, at, others }.visit_item(&item);
        found.push(item);
    };
    for item in &modules.0[home].items {
        if name_of(item).is_some_and(|own| own == name) {
            take(home, stripped(item.clone()));
        }
    }
    let this = Meaning::Ours(home.clone(), name.to_owned());
    for (at, module) in &modules.0 {
        for item in &module.items {
            let Item::Impl(block) = item else { continue };
            let Type::Path(of) = &*block.self_ty else { continue };
            let way: Vec<String> = of.path.segments.iter().map(|word| word.ident.to_string()).collect();
            let meant = if way.len() == 1 { modules.meaning(at, &way[0]) } else { modules.path(at, &way) };
            if meant.as_ref() == Some(&this)
                && let Some(block) = implemented(block.clone())
            {
                take(at, Item::Impl(block));
            }
        }
    }
    found
}

/// What of an `impl` is public: methods, or that there is one, of a trait.
fn implemented(mut block: ItemImpl) -> Option<ItemImpl> {
    block.attrs.clear();
    let of_trait = block.trait_.is_some();
    block.items.retain(|item| match item {
        ImplItem::Fn(item) => !of_trait && is_public(&item.vis),
        ImplItem::Const(item) => !of_trait && is_public(&item.vis),
        ImplItem::Type(_) => true,
        _ => false,
    });
    for item in &mut block.items {
        match item {
            ImplItem::Fn(item) => {
                item.attrs.retain(says_something);
                item.block = Block { stmts: Vec::new(), ..item.block.clone() };
            }
            ImplItem::Const(item) => {
                item.attrs.clear();
                item.expr = parse_quote!(_);
            }
            _ => {}
        }
    }
    (of_trait || !block.items.is_empty()).then_some(block)
}

fn stripped(mut item: Item) -> Item {
    match &mut item {
        Item::Const(item) => item.attrs.clear(),
        Item::Fn(item) => {
            item.attrs.retain(says_something);
            item.block.stmts.clear();
        }
        Item::Type(item) => item.attrs.clear(),
        Item::Struct(item) => {
            item.attrs.retain(says_something);
            strip_fields(&mut item.fields, true);
        }
        Item::Enum(item) => {
            item.attrs.retain(says_something);
            for variant in &mut item.variants {
                variant.attrs.retain(says_something);
                strip_fields(&mut variant.fields, false);
            }
        }
        Item::Trait(item) => {
            item.attrs.retain(says_something);
            for item in &mut item.items {
                if let TraitItem::Fn(item) = item {
                    item.attrs.clear();
                    item.default.iter_mut().for_each(|body| body.stmts.clear());
                }
            }
        }
        other => panic!("an item of this kind is not expected: {other:?}"),
    }
    item
}

/// Private fields become one that says that there are some.
fn strip_fields(fields: &mut Fields, may_be_private: bool) {
    let is_hidden = |field: &Field| may_be_private && !is_public(&field.vis);
    match fields {
        Fields::Named(named) => {
            let hides = named.named.iter().any(is_hidden);
            named.named = named.named.iter().filter(|field| !is_hidden(field)).cloned().collect();
            if hides {
                named.named.push(parse_quote!(private: _));
            }
        }
        Fields::Unnamed(unnamed) => {
            for field in unnamed.unnamed.iter_mut().filter(|field| is_hidden(field)) {
                (field.vis, field.ty) = (Visibility::Inherited, parse_quote!(_));
            }
        }
        Fields::Unit => {}
    }
    fields.iter_mut().for_each(|field| field.attrs.clear());
}

fn says_something(attribute: &Attribute) -> bool {
    ["derive", "non_exhaustive", "must_use"].iter().any(|name| attribute.path().is_ident(name))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_public_item(item: &Item) -> bool {
    match item {
        Item::Const(item) => is_public(&item.vis),
        Item::Enum(item) => is_public(&item.vis),
        Item::Fn(item) => is_public(&item.vis),
        Item::Static(item) => is_public(&item.vis),
        Item::Struct(item) => is_public(&item.vis),
        Item::Trait(item) => is_public(&item.vis),
        Item::Type(item) => is_public(&item.vis),
        _ => false,
    }
}

/// Collects what paths mean in other crates.
struct Names<'a> {
    modules: &'a Modules,
    at: &'a ModulePath,
    others: &'a mut BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let way: Vec<String> = path.segments.iter().map(|word| word.ident.to_string()).collect();
        let meant = match &way[..] {
            [name] => self.modules.meaning(self.at, name),
            way => self.modules.path(self.at, way),
        };
        if let Some(Meaning::Other(other)) = meant
            && !other.starts_with("Self")
        {
            self.others.insert(other);
        }
        visit::visit_path(self, path);
    }
}

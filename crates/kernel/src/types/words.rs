//! A type in words: the same for two types exactly if code that was compiled for one can use the other.
//!
//! Names of typedefs and qualifiers are left out. Structures, unions and enumerations that have a name appear by
//! name; whether two of one name are alike is a question of its own.

use super::model::{Array, CHAIN_MAX, Prototype, Type, TypeId, Types};

/// Nesting of nameless types, arrays and pointers beyond which no C type goes.
const DEPTH_MAX: u32 = 64;

impl Types {
    /// A type in words, e.g. `struct rq *`, `long unsigned int[4]`, `int (*)(struct task_struct *, int)`.
    pub fn words(&self, id: Option<TypeId>) -> String {
        self.words_at(id, 0)
    }

    /// A prototype in words, e.g. `int (struct rq *, int)`.
    pub fn prototype_words(&self, prototype: &Prototype) -> String {
        format!("{} {}", self.words(prototype.returns), self.parameters(prototype, 0))
    }

    /// A type as the source writes it, with typedefs and `const`: `const struct list_head *`, `u64[4]`. A structure
    /// without a tag is `struct {…}`, a function `function`.
    pub fn source_words(&self, id: Option<TypeId>) -> String {
        let mut id = id;
        let (mut before, mut after) = (String::new(), String::new());
        for _ in 0..CHAIN_MAX {
            let Some(type_) = id.map(|id| self.get(id)) else { return format!("{before}void{after}") };
            let (word, name) = match type_ {
                Type::Record(record) => (record.kind.word(), record.tag()),
                Type::Enumeration(enumeration) => ("enum ", enumeration.name.as_deref()),
                Type::Base { name, .. } | Type::Typedef { name, .. } => ("", Some(name.as_str())),
                Type::Function(_) | Type::Unknown => ("", Some("function")),
                Type::Qualified { is_const, to } => {
                    before += if *is_const { "const " } else { "" };
                    id = *to;
                    continue;
                }
                Type::Pointer { to, .. } => {
                    after = format!(" *{after}");
                    id = *to;
                    continue;
                }
                Type::Array(array) => {
                    after = format!("{}{after}", dimensions(array));
                    id = array.of;
                    continue;
                }
            };
            return format!("{before}{word}{}{after}", name.unwrap_or("{…}"));
        }
        "?".to_owned()
    }

    fn words_at(&self, id: Option<TypeId>, depth: u32) -> String {
        if depth > DEPTH_MAX {
            return "…".to_owned();
        }
        let Some(id) = self.plain(id) else { return "void".to_owned() };
        match self.get(id) {
            Type::Base { name, .. } => name.clone(),
            Type::Pointer { to, .. } => self.pointer(*to, depth),
            Type::Array(array) => {
                format!("{}{}", self.words_at(array.of, depth + 1), dimensions(array))
            }
            Type::Record(record) if record.name.is_some() => record.title(),
            Type::Record(record) => {
                let members = record.members.iter().map(|member| {
                    let name = member.name.as_deref().unwrap_or_default();
                    let width = member.bits.map_or(String::new(), |bits| format!(":{}", bits.width));
                    format!("{} {name}{width}", self.words_at(member.of, depth + 1))
                });
                format!("{} {{ {} }}", record.title(), members.collect::<Vec<_>>().join("; "))
            }
            Type::Enumeration(enumeration) => match &enumeration.name {
                Some(name) => format!("enum {name}"),
                None => {
                    let values = enumeration.values.iter().map(|(name, value)| format!("{name} = {value}"));
                    format!("enum {{ {} }}", values.collect::<Vec<_>>().join(", "))
                }
            },
            Type::Function(prototype) => {
                let returns = self.words_at(prototype.returns, depth + 1);
                format!("{returns} {}", self.parameters(prototype, depth))
            }
            Type::Typedef { .. } | Type::Qualified { .. } | Type::Unknown => "unknown".to_owned(),
        }
    }

    fn pointer(&self, to: Option<TypeId>, depth: u32) -> String {
        if let Some(Type::Function(prototype)) = self.plain(to).map(|id| self.get(id)) {
            let returns = self.words_at(prototype.returns, depth + 1);
            return format!("{returns} (*){}", self.parameters(prototype, depth));
        }
        let to = self.words_at(to, depth + 1);
        let gap = if to.ends_with('*') { "" } else { " " };
        format!("{to}{gap}*")
    }

    fn parameters(&self, prototype: &Prototype, depth: u32) -> String {
        let mut list: Vec<String> =
            prototype.parameters.iter().map(|parameter| self.words_at(*parameter, depth + 1)).collect();
        if prototype.is_variadic {
            list.push("...".to_owned());
        }
        if list.is_empty() { "(void)".to_owned() } else { format!("({})", list.join(", ")) }
    }
}

fn dimensions(array: &Array) -> String {
    let counts = array.counts.iter().map(|count| match count {
        Some(count) => format!("[{count}]"),
        None => "[]".to_owned(),
    });
    counts.collect()
}

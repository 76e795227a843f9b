//! `@name`: rows of this run that other commands of it refer to.

use super::error::{Result, fatal};
use super::log;
use ovsdb::Uuid;
use std::collections::BTreeMap;

/// The names so far.
#[derive(Debug, Default)]
pub struct Symbols(BTreeMap<String, Symbol>);

#[derive(Debug)]
struct Symbol {
    uuid: Uuid,
    created: bool,
    /// Something that lives refers to it, or it needs nobody to.
    kept: bool,
    weakly_referenced: bool,
}

impl Symbols {
    /// What gives names a meaning while values are read. A name may be used before its row is made.
    pub fn resolver(&mut self) -> impl FnMut(&str, Option<bool>) -> Uuid {
        |name, strong| {
            let symbol = self.entry(name);
            match strong {
                Some(true) => symbol.kept = true,
                Some(false) => symbol.weakly_referenced = true,
                None => {}
            }
            symbol.uuid
        }
    }

    /// Defines `name` for a row that is about to be made. `kept`: it needs no reference to stay.
    pub fn create(&mut self, name: &str, kept: bool) -> Result<Uuid> {
        let symbol = self.define(name)?;
        symbol.kept |= kept;
        Ok(symbol.uuid)
    }

    /// Defines `name` for a row that is there.
    pub fn bind(&mut self, name: &str, uuid: Uuid) -> Result<()> {
        let used = self.0.contains_key(name);
        let symbol = self.define(name)?;
        if used {
            return fatal(format!(
                "row id \"{name}\" specified on \"get\" command was used before it was defined"
            ));
        }
        *symbol = Symbol { uuid, created: true, kept: true, weakly_referenced: false };
        Ok(())
    }

    fn define(&mut self, name: &str) -> Result<&mut Symbol> {
        if !name.starts_with('@') {
            return fatal(format!("row id \"{name}\" does not begin with \"@\""));
        }
        let symbol = self.entry(name);
        if std::mem::replace(&mut symbol.created, true) {
            return fatal(format!("row id \"{name}\" may only be specified on one --id option"));
        }
        Ok(symbol)
    }

    fn entry(&mut self, name: &str) -> &mut Symbol {
        self.0.entry(name.to_owned()).or_insert_with(|| Symbol {
            uuid: Uuid::new_v4(),
            created: false,
            kept: false,
            weakly_referenced: false,
        })
    }

    /// Complains about names that no command defined, and warns of rows that will vanish at once.
    pub fn check(&self) -> Result<()> {
        for (name, symbol) in &self.0 {
            if !symbol.created {
                return fatal(format!(
                    "row id \"{name}\" is referenced but never created (e.g. with \"-- --id={name} create ...\")"
                ));
            }
            if !symbol.kept {
                let only = if symbol.weakly_referenced { "only a weak" } else { "no" };
                log::warn(
                    "vsctl",
                    &format!(
                        "row id \"{name}\" was created but {only} reference to it was inserted, so it will not \
                         actually appear in the database"
                    ),
                );
            }
        }
        Ok(())
    }
}

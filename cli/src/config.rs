//! `ubccl config`: every setting with its value and where that came from.

use crate::args::ConfigArgs;
use crate::failure::Outcome;
use crate::report::print;
use crate::target::{self, Resolved};
use std::io::Write;

/// Prints all settings, or what there is to know about one.
pub(crate) fn run(args: &ConfigArgs, out: &mut dyn Write) -> Outcome<()> {
    let all = target::configuration(&target::Settings::new())?.describe();
    let Some(name) = &args.name else { return print(out, &table(&all)) };
    let wanted = target::find_setting(name)?.name;
    all.iter().filter(|told| told.setting.name == wanted).try_for_each(|told| print(out, &details(told)))
}

fn table(all: &[Resolved]) -> String {
    let width = |text: fn(&Resolved) -> usize| all.iter().map(text).max().unwrap_or(0);
    let name_width = width(|told| told.setting.name.len());
    let value_width = width(|told| told.value_with_unit().len());
    let line = |told: &Resolved| {
        let (name, value) = (told.setting.name, told.value_with_unit());
        format!("{name:name_width$}  {value:value_width$}  {}\n", told.origin)
    };
    all.iter().map(line).collect()
}

fn details(told: &Resolved) -> String {
    let setting = told.setting;
    let place = if setting.is_for_files() { "" } else { " (not in a file)" };
    format!(
        "{told}\n  {}\n  variable  {}{place}\n  type      {}\n  range     {} {}\n  default   {}\n",
        setting.doc,
        setting.variable,
        setting.kind(),
        setting.range(),
        setting.unit(),
        setting.default_text()
    )
    .replace(" \n", "\n")
}

//! Spawns that can be told to be none, with a better word than the compiler's.

use super::syn;
use crate::lift::{Begins, Program};
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use rtic_syntax::ast::App;

/// What RTIC has for a monotonic clock.
const LATER: [&str; 2] = ["spawn_after", "spawn_at"];

/// Looks through init, idle and tasks.
pub fn check(app: &App, program: &Program) -> syn::Result<()> {
    let tasks = app.software_tasks.values().map(|task| &task.stmts);
    let idle = app.idle.iter().map(|idle| &idle.stmts);
    for statement in tasks.chain(idle).chain([&app.init.stmts]).flatten() {
        look(statement.to_token_stream(), program)?;
    }
    Ok(())
}

fn look(tokens: TokenStream, program: &Program) -> syn::Result<()> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for window in tokens.windows(4) {
        if let [TokenTree::Ident(task), TokenTree::Punct(one), TokenTree::Punct(two), TokenTree::Ident(call)] = window
            && one.as_char() == ':'
            && two.as_char() == ':'
        {
            called(task, call, program)?;
        }
    }
    let mut groups = tokens.into_iter().filter_map(|token| match token {
        TokenTree::Group(group) => Some(group.stream()),
        _ => None,
    });
    groups.try_for_each(|group| look(group, program))
}

fn called(task: &Ident, call: &Ident, program: &Program) -> syn::Result<()> {
    let Some((.., times, _)) = program.tasks.iter().find(|(name, ..)| name == task) else { return Ok(()) };
    if call == "spawn" && times.begins != Begins::Spawned {
        let what =
            format!("`{task}` begins with its cycle: to be spawned it has an `interval` in place of the `cycle`");
        return Err(syn::Error::new(call.span(), what));
    }
    if LATER.iter().any(|later| call == later) {
        let what = format!(
            "nothing is spawned for later: keep the instant in a task with a `cycle`, and call `{task}::spawn` when \
             it has come"
        );
        return Err(syn::Error::new(call.span(), what));
    }
    Ok(())
}

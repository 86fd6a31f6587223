//! Calls that block and can be told by their names. Types tell more (`vplc::NonBlocking`);
//! neither sees into functions that a task calls.

use super::syn;
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use rtic_syntax::ast::App;

/// Macros that lock and write to a terminal or pipe.
const MACROS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];
/// Functions of the standard library that wait, by the module they are called through.
const CALLS: [(&str, &str); 6] = [
    ("thread", "sleep"),
    ("thread", "park"),
    ("thread", "park_timeout"),
    ("thread", "spawn"),
    ("fs", "read"),
    ("fs", "write"),
];

/// Refuses them in tasks; idle may block.
pub fn check(app: &App) -> syn::Result<()> {
    for (name, task) in &app.software_tasks {
        for statement in &task.stmts {
            look(statement.to_token_stream(), &name.to_string())?;
        }
    }
    Ok(())
}

fn look(tokens: TokenStream, task: &str) -> syn::Result<()> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let found = match token {
            TokenTree::Group(group) => {
                look(group.stream(), task)?;
                continue;
            }
            TokenTree::Ident(ident) => ident.to_string(),
            _ => continue,
        };
        let mark =
            |at: usize, wanted| matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == wanted);
        let is_macro = MACROS.contains(&found.as_str()) && mark(at + 1, '!');
        let through = at
            .checked_sub(3)
            .map(|module| tokens[module].to_string())
            .filter(|_| mark(at - 1, ':') && mark(at - 2, ':'));
        let is_call = CALLS.iter().any(|(module, call)| found == *call && through.as_deref() == Some(module));
        if is_macro || is_call {
            let what = format!("`{task}` must not block: `{found}` may wait; leave it to idle");
            return Err(syn::Error::new(token.span(), what));
        }
    }
    Ok(())
}

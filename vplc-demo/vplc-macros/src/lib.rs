//! The macro behind `vplc::app`; its language is documented there.
//!
//! `rtic-syntax` parses the program, checks who owns what and finds the ceilings. It knows
//! no time, so the arguments that are about time are lifted out before (`lift`). From
//! both, `response` computes whether every task meets its deadline, and `generate`
//! writes the threads. An error of any of them is an error of the build.
#![forbid(unsafe_code)]

mod blocking;
mod generate;
mod length;
mod lift;
mod response;
mod spawning;

use proc_macro::TokenStream;
use syn_of_rtic as syn;

/// See the crate `vplc`.
#[proc_macro_attribute]
pub fn app(arguments: TokenStream, input: TokenStream) -> TokenStream {
    match expand(arguments.into(), input.into()) {
        Ok(tokens) => tokens.into(),
        Err(error) => error.to_compile_error().into(),
    }
}

fn expand(
    arguments: proc_macro2::TokenStream,
    input: proc_macro2::TokenStream,
) -> syn::Result<proc_macro2::TokenStream> {
    let settings = lift::AppTimes::parse(arguments)?;
    let mut module: syn::ItemMod = syn::parse2(input)?;
    let lifted = lift::lift(&mut module)?;
    // rtic-syntax takes a module without any.
    let attributes = std::mem::take(&mut module.attrs);
    let stripped = quote::ToTokens::into_token_stream(module);
    let (app, _) = rtic_syntax::parse2(proc_macro2::TokenStream::new(), stripped, rtic_syntax::Settings::default())?;
    let program = lift::Program::of(&app, &lifted.times)?;
    blocking::check(&app)?;
    spawning::check(&app, &program)?;
    program.check(&settings)?;
    let generated = generate::generate(&app, &settings, &program, &lifted.of_init);
    Ok(quote::quote!(#(#attributes)* #generated))
}

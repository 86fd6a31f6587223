//! Writes the program's threads.

use super::syn;
use crate::lift::{AppTimes, Program};
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use rtic_syntax::analyze::Analysis;
use rtic_syntax::ast::{App, LocalResources, SharedResources, TaskLocal};
use std::collections::BTreeSet;
use syn::spanned::Spanned;

pub fn generate(app: &App, analysis: &Analysis, settings: &AppTimes, program: &Program) -> TokenStream {
    let (name, imports, code) = (&app.name, &app.user_imports, &app.user_code);
    let (structs, init, idle) = (structs(app), init(app), idle_items(app));
    let (tasks, start) = (tasks(app), start(app, analysis, settings, program));
    quote! {
        mod #name {
            #(#imports)*
            #(#code)*
            #structs
            #init
            #idle
            #tasks
            #start
        }
    }
}

/// The resources as the user wrote them, what tasks share, and what types must be.
fn structs(app: &App) -> TokenStream {
    let (shared, local) = (&app.init.user_shared_struct, &app.init.user_local_struct);
    let shared_fields = app.shared_resources.iter().map(|(name, resource)| {
        let (ty, docs) = (&resource.ty, &resource.docs);
        quote!(#(#docs)* #name: #ty)
    });
    let local_fields = app.local_resources.iter().map(|(name, resource)| {
        let (ty, docs) = (&resource.ty, &resource.docs);
        quote!(#(#docs)* #name: #ty)
    });
    let kept = app.shared_resources.iter().map(|(name, resource)| {
        let ty = &resource.ty;
        if is_read_only(app, name) { quote!(#name: #ty) } else { quote!(#name: ::vplc::Resource<#ty>) }
    });
    let of_tasks = app.software_tasks.values().flat_map(|task| locals(app, &task.args.local_resources));
    let types =
        app.shared_resources.values().map(|resource| (*resource.ty).clone()).chain(of_tasks.map(|(_, ty, _)| ty));
    let asserts = types.map(|ty| quote_spanned!(ty.span()=> ::vplc::may_be_held_by_a_task::<#ty>();));
    quote! {
        struct #shared { #(#shared_fields),* }
        struct #local { #(#local_fields),* }
        #[allow(dead_code)]
        struct __Shared { #(#kept),* }
        const _: fn() = || { #(#asserts)* };
    }
}

fn is_read_only(app: &App, resource: &Ident) -> bool {
    let tasks = app.software_tasks.values().map(|task| &task.args.shared_resources);
    let mut all = tasks.chain(app.idle.iter().map(|idle| &idle.args.shared_resources));
    !all.any(|used| used.get(resource).is_some_and(|access| access.is_exclusive()))
}

/// Name, type, and the expression that makes it (`None`: init does).
fn locals(app: &App, resources: &LocalResources) -> Vec<(Ident, syn::Type, Option<syn::Expr>)> {
    let each = resources.iter().map(|(name, local)| match local {
        TaskLocal::Declared(local) => (name.clone(), (*local.ty).clone(), Some((*local.expr).clone())),
        _ => (name.clone(), (*app.local_resources[name].ty).clone(), None),
    });
    each.collect()
}

fn init(app: &App) -> TokenStream {
    let init = &app.init;
    let (name, attrs, context, stmts) = (&init.name, &init.attrs, &init.context, &init.stmts);
    let (shared, local) = (&init.user_shared_struct, &init.user_local_struct);
    let fields =
        locals(app, &init.args.local_resources).into_iter().map(|(name, ty, _)| quote!(pub #name: &'a mut #ty));
    quote! {
        #[allow(unused_imports, dead_code, private_interfaces, missing_docs)]
        pub mod #name {
            use super::*;
            pub struct LocalResources<'a> {
                #(#fields,)*
                pub __lifetime: ::core::marker::PhantomData<&'a ()>,
            }
            pub struct Context<'a> {
                pub local: LocalResources<'a>,
                pub session: &'a ::vplc::Session,
                pub stop: ::vplc::Stop,
            }
            pub struct Monotonics();
        }
        #(#attrs)*
        fn #name(#context: #name::Context<'_>) -> (#shared, #local, #name::Monotonics) { #(#stmts)* }
    }
}

/// The module with a task's context.
fn module(
    app: &App,
    name: &Ident,
    shared: &SharedResources,
    local: &LocalResources,
    more: &TokenStream,
) -> TokenStream {
    let shared = shared.iter().map(|(name, access)| {
        let ty = &app.shared_resources[name].ty;
        if access.is_shared() { quote!(pub #name: &'a #ty) } else { quote!(pub #name: ::vplc::Locked<'a, #ty>) }
    });
    let local = locals(app, local).into_iter().map(|(name, ty, _)| quote!(pub #name: &'a mut #ty));
    quote! {
        #[allow(unused_imports, dead_code, private_interfaces, missing_docs)]
        pub mod #name {
            use super::*;
            pub struct SharedResources<'a> {
                #(#shared,)*
                pub __lifetime: ::core::marker::PhantomData<&'a ()>,
            }
            pub struct LocalResources<'a> {
                #(#local,)*
                pub __lifetime: ::core::marker::PhantomData<&'a ()>,
            }
            pub struct Context<'a> {
                pub shared: SharedResources<'a>,
                pub local: LocalResources<'a>,
                pub stop: &'a ::vplc::Stop,
                #more
            }
        }
    }
}

fn tasks(app: &App) -> TokenStream {
    let each = app.software_tasks.iter().map(|(name, task)| {
        let more = quote!(pub activation: ::vplc::Activation,);
        let module = module(app, name, &task.args.shared_resources, &task.args.local_resources, &more);
        let (attrs, context, stmts) = (&task.attrs, &task.context, &task.stmts);
        quote! {
            #module
            #(#attrs)*
            fn #name(#context: #name::Context<'_>) { #(#stmts)* }
        }
    });
    quote!(#(#each)*)
}

fn idle_items(app: &App) -> TokenStream {
    let Some(idle) = &app.idle else { return TokenStream::new() };
    let (name, attrs, context, stmts) = (&idle.name, &idle.attrs, &idle.context, &idle.stmts);
    let module = module(app, name, &idle.args.shared_resources, &idle.args.local_resources, &TokenStream::new());
    quote! {
        #module
        #(#attrs)*
        fn #name(#context: #name::Context<'_>) -> ! { #(#stmts)* }
    }
}

/// The expression that makes a context.
fn context(
    name: &Ident,
    shared: &SharedResources,
    app: &App,
    local: &LocalResources,
    more: &TokenStream,
) -> TokenStream {
    let shared = shared.iter().map(|(name, access)| {
        if access.is_shared() { quote!(#name: &__shared.#name) } else { quote!(#name: __shared.#name.of(__rank)) }
    });
    let local = locals(app, local).into_iter().map(|(resource, _, _)| {
        let state = state(name, &resource);
        quote!(#resource: &mut #state)
    });
    quote! {
        #name::Context {
            shared: #name::SharedResources { #(#shared,)* __lifetime: ::core::marker::PhantomData },
            local: #name::LocalResources { #(#local,)* __lifetime: ::core::marker::PhantomData },
            stop: __stop,
            #more
        }
    }
}

fn state(task: &Ident, resource: &Ident) -> Ident {
    format_ident!("__{}_{}", task, resource)
}

/// `let mut` of everything that a task owns.
fn states(app: &App, task: &Ident, local: &LocalResources) -> TokenStream {
    let each = locals(app, local).into_iter().map(|(resource, ty, made)| {
        let state = state(task, &resource);
        match made {
            Some(made) => quote!(let mut #state: #ty = #made;),
            None => quote!(let mut #state: #ty = __local.#resource;),
        }
    });
    quote!(#(#each)*)
}

fn start(app: &App, analysis: &Analysis, settings: &AppTimes, program: &Program) -> TokenStream {
    let _ = analysis;
    let init = &app.init.name;
    let init_locals: Vec<_> = locals(app, &app.init.args.local_resources);
    let init_states = states(app, init, &app.init.args.local_resources);
    let init_fields = init_locals.iter().map(|(resource, _, _)| {
        let state = state(init, resource);
        quote!(#resource: &mut #state)
    });
    let fifo = settings.fifo;
    let shared = app.shared_resources.keys().map(|name| {
        let ceiling = fifo + ceiling(app, name);
        if is_read_only(app, name) {
            quote!(#name: __made.#name)
        } else {
            quote!(#name: ::vplc::Resource::new(__made.#name, #ceiling)?)
        }
    });
    let priorities: BTreeSet<u8> = program.tasks.iter().map(|task| task.1).collect();
    // The most urgent last: nothing of the start is in its way then.
    let threads = priorities.iter().map(|priority| thread(app, program, *priority, fifo));
    let core = match settings.core {
        Some(core) => quote!(::core::option::Option::Some(#core)),
        None => quote!(::core::option::Option::None),
    };
    let tai = settings.tai;
    let idle = app.idle.iter().map(|idle| {
        let (name, locals) = (&idle.name, states(app, &idle.name, &idle.args.local_resources));
        let context = context(name, &idle.args.shared_resources, app, &idle.args.local_resources, &TokenStream::new());
        quote! {
            {
                #locals
                let __shared = ::std::sync::Arc::clone(&__shared);
                __app.idle(move |__rank, __stop| { let __stop = &__stop; let _ = (&__shared, __rank); #name(#context) })?;
            }
        }
    });
    quote! {
        /// Initialises the program and starts its threads.
        ///
        /// # Errors
        /// See `vplc::StartError`.
        #[allow(unused_variables, unused_mut)]
        pub fn start(session: &::vplc::Session) -> ::core::result::Result<::vplc::Running, ::vplc::StartError> {
            let mut __app = ::vplc::App::new(session, #core, #tai);
            let (__made, __local, #init::Monotonics()) = {
                #init_states
                #init(#init::Context {
                    local: #init::LocalResources { #(#init_fields,)* __lifetime: ::core::marker::PhantomData },
                    session,
                    stop: __app.stop(),
                })
            };
            let __shared = ::std::sync::Arc::new(__Shared { #(#shared),* });
            #(#threads)*
            #(#idle)*
            __app.run()
        }
    }
}

/// The highest priority of the tasks that use a resource.
fn ceiling(app: &App, resource: &Ident) -> u8 {
    let users = app.software_tasks.values().filter(|task| task.args.shared_resources.contains_key(resource));
    users.map(|task| task.args.priority).max().unwrap_or(0)
}

fn thread(app: &App, program: &Program, priority: u8, fifo: u8) -> TokenStream {
    let tasks: Vec<_> = program.tasks.iter().filter(|task| task.1 == priority).collect();
    let specs = tasks.iter().map(|(name, _, times, _)| {
        let (text, cycle, offset) = (name.to_string(), times.cycle, times.offset);
        let (deadline, wcet) = (times.deadline, times.wcet);
        quote!(::vplc::TaskSpec { name: #text, cycle_ns: #cycle, offset_ns: #offset, deadline_ns: #deadline, wcet_ns: #wcet })
    });
    let locals = tasks.iter().map(|(name, ..)| states(app, name, &app.software_tasks[name].args.local_resources));
    let arms = tasks.iter().enumerate().map(|(at, (name, ..))| {
        let args = &app.software_tasks[name].args;
        let more = quote!(activation: __activation,);
        let context = context(name, &args.shared_resources, app, &args.local_resources, &more);
        quote!(#at => #name(#context),)
    });
    let fifo = fifo + priority;
    quote! {
        {
            #(#locals)*
            let __shared = ::std::sync::Arc::clone(&__shared);
            __app.thread(#fifo, &[#(#specs),*], move |__which, __activation, __rank, __stop| {
                let _ = (&__shared, __rank);
                match __which {
                    #(#arms)*
                    _ => {}
                }
            })?;
        }
    }
}

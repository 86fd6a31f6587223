//! Writes the program's threads.

use super::syn;
use crate::lift::{AppTimes, Begins, Program, Times};
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use rtic_syntax::ast::{App, LocalResources, SharedResources, TaskLocal};
use std::collections::BTreeSet;
use syn::spanned::Spanned;

pub fn generate(app: &App, settings: &AppTimes, program: &Program, of_init: &[syn::PatType]) -> TokenStream {
    let (name, imports, code) = (&app.name, &app.user_imports, &app.user_code);
    let (structs, init, idle) = (structs(app), init(app, of_init), idle_items(app));
    let spawns = spawns(app, program);
    let (tasks, start) = (tasks(app, program), start(app, settings, program, of_init));
    quote! {
        mod #name {
            #(#imports)*
            #(#code)*
            #structs
            #spawns
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
    let arguments = app.software_tasks.values().flat_map(|task| task.inputs.iter().map(|input| (*input.ty).clone()));
    let shared_types = app.shared_resources.values().map(|resource| (*resource.ty).clone());
    let types = shared_types.chain(of_tasks.map(|(_, ty, _)| ty)).chain(arguments);
    let asserts = types.map(|ty| quote_spanned!(ty.span()=> ::vplc::may_be_held_by_a_task::<#ty>();));
    quote! {
        struct #shared { #(#shared_fields),* }
        struct #local { #(#local_fields),* }
        struct __Shared { #(#kept),* }
        const _: fn() = || { #(#asserts)* };
    }
}

/// The tasks that are spawned, in the order of the program.
fn spawned(program: &Program) -> impl Iterator<Item = &(Ident, u8, Times, Vec<String>)> {
    program.tasks.iter().filter(|(.., times, _)| times.begins == Begins::Spawned)
}

/// The types of what a task is spawned with.
fn arguments(app: &App, task: &Ident) -> Vec<syn::Type> {
    app.software_tasks[task].inputs.iter().map(|input| (*input.ty).clone()).collect()
}

/// The queues of spawned tasks, and how a thread finds them.
fn spawns(app: &App, program: &Program) -> TokenStream {
    let fields = spawned(program).map(|(name, ..)| {
        let types = arguments(app, name);
        quote!(#name: ::vplc::Queue<(#(#types,)*)>)
    });
    quote! {
        struct __Spawned { #(#fields),* }
        ::std::thread_local! {
            static __HERE: ::vplc::Here<__Spawned> = const { ::vplc::Here::new() };
        }
    }
}

/// `NAME::spawn`, as RTIC has it.
fn spawn(app: &App, name: &Ident) -> TokenStream {
    let types = arguments(app, name);
    // Where it is explained, that is where the task is.
    let spawn = Ident::new("spawn", name.span());
    let names: Vec<_> = (0..types.len()).map(|at| format_ident!("_{}", at)).collect();
    let (back, given) = match types.as_slice() {
        [one] => (quote!(#one), quote!(|(back,)| back)),
        _ => (quote!((#(#types),*)), quote!(|back| back)),
    };
    quote! {
        /// Lets the task run once more, on the thread of its priority. From any task, and from init
        /// and idle; never waits. What it is given comes back if it is refused: the interval since
        /// it was spawned last is not over, or as many wait as its capacity.
        pub fn #spawn(#(#names: #types),*) -> ::core::result::Result<(), #back> {
            ::vplc::Here::spawn(&super::__HERE, |__program| &__program.#name, (#(#names,)*)).map_err(#given)
        }
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

fn init(app: &App, inputs: &[syn::PatType]) -> TokenStream {
    let init = &app.init;
    let (name, attrs, context, stmts) = (&init.name, &init.attrs, &init.context, &init.stmts);
    let (shared, local) = (&init.user_shared_struct, &init.user_local_struct);
    let fields =
        locals(app, &init.args.local_resources).into_iter().map(|(name, ty, _)| quote!(pub #name: &'a mut #ty));
    quote! {
        #[allow(
            unused_imports, private_interfaces, missing_docs,
            reason = "generated: a task need not use a type of the program's, and those may be private"
        )]
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
        fn #name(#context: #name::Context<'_>, #(#inputs),*) -> (#shared, #local, #name::Monotonics) { #(#stmts)* }
    }
}

/// The module with a task's context; what it has more, and beside it.
fn module(
    app: &App,
    name: &Ident,
    (shared, local): (&SharedResources, &LocalResources),
    (more, beside): (TokenStream, TokenStream),
) -> TokenStream {
    let shared = shared.iter().map(|(name, access)| {
        let ty = &app.shared_resources[name].ty;
        if access.is_shared() { quote!(pub #name: &'a #ty) } else { quote!(pub #name: ::vplc::Locked<'a, #ty>) }
    });
    let local = locals(app, local).into_iter().map(|(name, ty, _)| quote!(pub #name: &'a mut #ty));
    quote! {
        #[allow(
            unused_imports, private_interfaces, missing_docs,
            reason = "generated: a task need not use a type of the program's, and those may be private"
        )]
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
            #beside
        }
    }
}

fn tasks(app: &App, program: &Program) -> TokenStream {
    let each = program.tasks.iter().map(|(name, _, times, _)| {
        let task = &app.software_tasks[name];
        let more = match times.begins {
            Begins::ByCycle { .. } => (quote!(pub activation: ::vplc::Activation,), TokenStream::new()),
            Begins::Spawned => (quote!(pub spawned: ::vplc::MonoTime,), spawn(app, name)),
        };
        let module = module(app, name, (&task.args.shared_resources, &task.args.local_resources), more);
        let (attrs, context, stmts, inputs) = (&task.attrs, &task.context, &task.stmts, &task.inputs);
        quote! {
            #module
            #(#attrs)*
            fn #name(#context: #name::Context<'_>, #(#inputs),*) { #(#stmts)* }
        }
    });
    quote!(#(#each)*)
}

fn idle_items(app: &App) -> TokenStream {
    let Some(idle) = &app.idle else { return TokenStream::new() };
    let (name, attrs, context, stmts) = (&idle.name, &idle.attrs, &idle.context, &idle.stmts);
    let resources = (&idle.args.shared_resources, &idle.args.local_resources);
    let module = module(app, name, resources, (TokenStream::new(), TokenStream::new()));
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

fn start(app: &App, settings: &AppTimes, program: &Program, of_init: &[syn::PatType]) -> TokenStream {
    let init = &app.init.name;
    let init_locals: Vec<_> = locals(app, &app.init.args.local_resources);
    let init_states = states(app, init, &app.init.args.local_resources);
    let init_fields = init_locals.iter().map(|(resource, _, _)| {
        let state = state(init, resource);
        quote!(#resource: &mut #state)
    });
    let types: Vec<_> = of_init.iter().map(|input| &input.ty).collect();
    let given: Vec<_> = (0..types.len()).map(|at| format_ident!("__{}", at)).collect();
    let shared = app.shared_resources.keys().map(|name| {
        let ceiling = ceiling(app, name);
        if is_read_only(app, name) {
            quote!(#name: __made.#name)
        } else {
            quote!(#name: __app.resource(__made.#name, #ceiling)?)
        }
    });
    let priorities: BTreeSet<u8> = program.tasks.iter().map(|task| task.1).collect();
    // The most urgent last: nothing of the start is in its way then.
    let threads = priorities.iter().map(|priority| thread(app, program, *priority));
    let core = match settings.core {
        Some(core) => quote!(::core::option::Option::Some(#core)),
        None => quote!(::core::option::Option::None),
    };
    let (fifo, tai, spin) = (settings.fifo, settings.tai, settings.spin);
    let lent = lent(app);
    let lent = lent.iter();
    let queues = spawned(program).map(|(name, priority, times, _)| {
        let (interval, capacity) = (times.cycle, app.software_tasks[name].args.capacity);
        let bell = bell(program, *priority);
        quote!(#name: ::vplc::Queue::new(::vplc::Nanos(#interval), #capacity, #bell))
    });
    let bells = bells(program).len();
    let idle = app.idle.iter().map(|idle| {
        let (name, locals) = (&idle.name, states(app, &idle.name, &idle.args.local_resources));
        let context = context(name, &idle.args.shared_resources, app, &idle.args.local_resources, &TokenStream::new());
        quote! {
            {
                #locals
                let __shared = ::std::sync::Arc::clone(&__shared);
                let __spawned = ::std::sync::Arc::clone(&__spawned);
                __app.idle(move |__rank, __stop| {
                    ::vplc::Here::enter(&__HERE, &__spawned);
                    let __stop = &__stop;
                    let _ = (&__shared, __rank);
                    #name(#context)
                })?;
            }
        }
    });
    quote! {
        /// Where and when it runs unless told otherwise: what its attributes say.
        #[must_use]
        pub fn placement() -> ::vplc::Placement {
            ::vplc::Placement::declared(#core, #fifo, #tai, #spin)
        }

        /// Initialises the program and starts its threads where its attributes say; what init takes
        /// beside its context is given here.
        ///
        /// # Errors
        /// See `vplc::StartError`.
        #[allow(private_interfaces, reason = "generated: its types may be private")]
        pub fn start(
            session: &::vplc::Session, #(#given: #types),*
        ) -> ::core::result::Result<::vplc::Running, ::vplc::StartError> {
            start_with(session, placement(), #(#given),*)
        }

        // A program may start by `start_with` alone.
        const _: fn() = || drop(start);

        /// As `start`, elsewhere than its attributes say.
        ///
        /// # Errors
        /// See `vplc::StartError`; what the analysis made at build time does not cover is refused.
        #[allow(
            private_interfaces, unused_variables, unused_mut,
            reason = "generated: a program need not have each kind of task, and its types may be private"
        )]
        pub fn start_with(
            session: &::vplc::Session, placement: ::vplc::Placement, #(#given: #types),*
        ) -> ::core::result::Result<::vplc::Running, ::vplc::StartError> {
            let mut __app = ::vplc::App::new(session, &self::placement(), placement)?;
            let __bells = __app.bells(#bells);
            let __spawned = ::std::sync::Arc::new(__Spawned { #(#queues),* });
            let __entered = ::vplc::Here::enter_for(&__HERE, &__spawned);
            let (__made, __local, #init::Monotonics()) = {
                #init_states
                #init(#init::Context {
                    local: #init::LocalResources { #(#init_fields,)* __lifetime: ::core::marker::PhantomData },
                    session,
                    stop: __app.stop(),
                }, #(#given),*)
            };
            drop(__entered);
            __app.lend(&[#(#lent),*])?;
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

/// The ceilings to which somebody has to be raised: a less urgent task, or idle.
fn lent(app: &App) -> BTreeSet<u8> {
    let exclusive = app.shared_resources.keys().filter(|name| !is_read_only(app, name));
    let raised = exclusive.filter(|name| {
        let ceiling = ceiling(app, name);
        let mut users = app.software_tasks.values().filter(|task| task.args.shared_resources.contains_key(*name));
        let of_idle = app.idle.iter().any(|idle| idle.args.shared_resources.contains_key(*name));
        users.any(|task| task.args.priority < ceiling) || (of_idle && ceiling > 0)
    });
    raised.map(|name| ceiling(app, name)).collect()
}

/// The priorities whose threads run spawned tasks.
fn bells(program: &Program) -> BTreeSet<u8> {
    spawned(program).map(|task| task.1).collect()
}

/// The bell of a priority's thread.
fn bell(program: &Program, priority: u8) -> TokenStream {
    let at = bells(program).iter().position(|other| *other == priority);
    quote!(&__bells[#at])
}

fn thread(app: &App, program: &Program, priority: u8) -> TokenStream {
    let of_priority = || program.tasks.iter().filter(move |task| task.1 == priority);
    let cyclic = || of_priority().filter(|task| task.2.begins != Begins::Spawned);
    let spawned = || of_priority().filter(|task| task.2.begins == Begins::Spawned);
    let specs = cyclic().map(|(name, _, times, _)| {
        let (text, cycle, deadline, wcet) = (name.to_string(), times.cycle, times.deadline, times.wcet);
        let offset = if let Begins::ByCycle { offset } = times.begins { offset } else { 0 };
        quote!(::vplc::TaskSpec { name: #text, cycle_ns: #cycle, offset_ns: #offset, deadline_ns: #deadline, wcet_ns: #wcet })
    });
    let spawned_specs = spawned().map(|(name, _, times, _)| {
        let (text, interval, deadline, wcet) = (name.to_string(), times.cycle, times.deadline, times.wcet);
        quote! {(
            ::vplc::SpawnedSpec { name: #text, interval_ns: #interval, deadline_ns: #deadline, wcet_ns: #wcet },
            ::std::sync::Arc::clone(__spawned.#name.gate()),
        )}
    });
    let bell = match bells(program).contains(&priority) {
        true => {
            let bell = bell(program, priority);
            quote!(::core::option::Option::Some(::std::sync::Arc::clone(#bell)))
        }
        false => quote!(::core::option::Option::None),
    };
    let locals = of_priority().map(|(name, ..)| states(app, name, &app.software_tasks[name].args.local_resources));
    let context_of = |name: &Ident, more: TokenStream| {
        let args = &app.software_tasks[name].args;
        context(name, &args.shared_resources, app, &args.local_resources, &more)
    };
    let cycle_arms = cyclic().enumerate().map(|(at, (name, ..))| {
        let context = context_of(name, quote!(activation: __activation,));
        quote!(::vplc::Next::Cycle(#at, __activation) => #name(#context),)
    });
    let spawned_arms = spawned().enumerate().map(|(at, (name, ..))| {
        let context = context_of(name, quote!(spawned: __since,));
        let arguments: Vec<_> = (0..arguments(app, name).len()).map(|at| format_ident!("__{}", at)).collect();
        quote! {
            ::vplc::Next::Spawned(#at, __now) => {
                if let ::core::option::Option::Some((__since, (#(#arguments,)*))) = __spawned.#name.take(__now) {
                    __ran = ::core::option::Option::Some(__since);
                    #name(#context, #(#arguments),*);
                }
            }
        }
    });
    quote! {
        {
            #(#locals)*
            let __shared = ::std::sync::Arc::clone(&__shared);
            let __queues = (::std::vec![#(#spawned_specs),*], #bell);
            let __spawned = ::std::sync::Arc::clone(&__spawned);
            __app.thread(#priority, &[#(#specs),*], __queues, move || {
                ::vplc::Here::enter(&__HERE, &__spawned);
                move |__next, __rank, __stop: &::vplc::Stop| {
                    let _ = (&__shared, __rank);
                    let mut __ran = ::core::option::Option::None;
                    match __next {
                        #(#cycle_arms)*
                        #(#spawned_arms)*
                        _ => {}
                    }
                    __ran
                }
            })?;
        }
    }
}

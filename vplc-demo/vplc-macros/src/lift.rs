//! What `rtic-syntax` does not know: the arguments about time, taken out of `#[task(..)]` and
//! `#[idle(..)]` and read, and those of the function `init`.

use super::syn::{self, Item, ItemMod, spanned::Spanned};
use crate::length;
use crate::response::{Set, Task};
use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};
use rtic_syntax::ast::App;
use std::collections::BTreeMap;

/// What a task may say of time.
const LIFTED: [&str; 6] = ["cycle", "interval", "offset", "deadline", "wcet", "lock"];

/// Why there is no `binds`, and what there is.
const HARDWARE: &str = "there are no hardware tasks, since programs are given no interrupts: let a task with a `cycle` \
                        look whether something came, or idle wait for it (idle may block) and spawn a task with an \
                        `interval`";

/// An argument: name and value.
type Arguments = BTreeMap<String, (Span, TokenTree)>;

/// The arguments of `#[vplc::app(..)]`.
#[derive(Clone, Debug, Default)]
pub struct AppTimes {
    /// The core of all tasks; otherwise the last of the process.
    pub core: Option<usize>,
    /// Added to a task's priority, it is that of its thread.
    pub fifo: u8,
    /// How late wake-ups may be, nanoseconds.
    pub jitter: u64,
    /// How long before its instant a task may look at the clock, nanoseconds.
    pub spin: u64,
    /// Whether cycles are those of TAI.
    pub tai: bool,
    /// Cycle and longest turn of a datapath on the same core, nanoseconds.
    pub datapath: Option<(u64, u64)>,
}

impl AppTimes {
    pub fn parse(tokens: TokenStream) -> syn::Result<Self> {
        let mut found = Arguments::new();
        for argument in split(tokens) {
            apart(&argument)?;
            let known = ["core", "fifo", "jitter", "spin", "tai", "datapath_cycle", "datapath_wcet"];
            let Some((name, value)) = named(&argument).filter(|(name, _)| known.contains(&name.to_string().as_str()))
            else {
                let span = argument.first().map_or(Span::call_site(), TokenTree::span);
                return Err(syn::Error::new(
                    span,
                    format!("expected `NAME = VALUE`, with one of {}", known.join(", ")),
                ));
            };
            insert(&mut found, &name, value)?;
        }
        let length = |name: &str| Ok::<_, syn::Error>(time(&found, name)?.unwrap_or(0));
        let (jitter, spin) = (length("jitter")?, length("spin")?);
        let datapath = match (time(&found, "datapath_cycle")?, time(&found, "datapath_wcet")?) {
            (Some(cycle), Some(wcet)) if cycle > 0 => Some((cycle, wcet)),
            (None, None) => None,
            _ => {
                return Err(syn::Error::new(
                    Span::call_site(),
                    "a datapath has a `datapath_cycle` and a `datapath_wcet`",
                ));
            }
        };
        let number = |name: &str| number(&found, name);
        let fifo = number("fifo")?.unwrap_or(40);
        if fifo > 90 {
            return Err(syn::Error::new(Span::call_site(), "`fifo` is at most 90"));
        }
        let tai = match found.get("tai").map(|(span, value)| (*span, value.to_string())) {
            None => false,
            Some((_, text)) if text == "true" || text == "false" => text == "true",
            Some((span, _)) => return Err(syn::Error::new(span, "`tai` is true or false")),
        };
        Ok(AppTimes { core: number("core")?.map(|core| core as usize), fifo: fifo as u8, jitter, spin, tai, datapath })
    }
}

/// What was taken out of a module.
#[derive(Debug, Default)]
pub struct Lifted {
    /// The arguments about time, by function.
    pub times: BTreeMap<String, Arguments>,
    /// What `init` takes beside its context.
    pub of_init: Vec<syn::PatType>,
}

/// Takes out of a module what `rtic-syntax` does not know.
pub fn lift(module: &mut ItemMod) -> syn::Result<Lifted> {
    let mut lifted = Lifted::default();
    let Some((_, items)) = &mut module.content else {
        return Err(syn::Error::new(module.span(), "the program stands inside the module, in braces"));
    };
    is_whole(&module.ident, items)?;
    for item in items {
        let Item::Fn(function) = item else { continue };
        let name = function.sig.ident.to_string();
        if function.attrs.iter().any(|attribute| attribute.path.is_ident("init")) {
            let mut inputs = std::mem::take(&mut function.sig.inputs).into_iter();
            function.sig.inputs.extend(inputs.next());
            lifted.of_init.extend(inputs.filter_map(|input| match input {
                syn::FnArg::Typed(input) => Some(input),
                // Not in a function of a module.
                syn::FnArg::Receiver(_) => None,
            }));
        }
        for attribute in &mut function.attrs {
            if !attribute.path.is_ident("task") && !attribute.path.is_ident("idle") {
                continue;
            }
            let mut found = Arguments::new();
            let Some(TokenTree::Group(group)) = attribute.tokens.clone().into_iter().next() else { continue };
            let mut kept = TokenStream::new();
            for argument in split(group.stream()) {
                apart(&argument)?;
                match named(&argument) {
                    Some((name, _)) if name == "binds" => return Err(syn::Error::new(name.span(), HARDWARE)),
                    Some((name, value)) if LIFTED.contains(&name.to_string().as_str()) => {
                        insert(&mut found, &name, value)?
                    }
                    argument_kept => {
                        // rtic-syntax does not tell whether it was written down, and where.
                        let told = |name: &Ident| name == "capacity" || name == "priority";
                        if let Some((name, value)) = argument_kept.filter(|(name, _)| told(name)) {
                            insert(&mut found, &name, value)?;
                        }
                        if !kept.is_empty() {
                            let comma = proc_macro2::Punct::new(',', proc_macro2::Spacing::Alone);
                            kept.extend([TokenTree::Punct(comma)]);
                        }
                        kept.extend(argument);
                    }
                }
            }
            attribute.tokens = if kept.is_empty() {
                TokenStream::new()
            } else {
                TokenTree::Group(Group::new(Delimiter::Parenthesis, kept)).into()
            };
            lifted.times.insert(name.clone(), found);
        }
    }
    Ok(lifted)
}

/// What `rtic-syntax` does not refuse, but panics without.
fn is_whole(module: &Ident, items: &[Item]) -> syn::Result<()> {
    let parts = [
        ("init", "a function: #[init] fn init(_: init::Context) -> (Shared, Local, init::Monotonics)"),
        ("shared", "a struct of the resources that tasks share, perhaps none: #[shared] struct Shared {}"),
        ("local", "a struct of the resources of one task each, perhaps none: #[local] struct Local {}"),
    ];
    for (part, what) in parts {
        let is_it = |item: &Item| {
            let attributes = match item {
                Item::Fn(function) if part == "init" => &function.attrs,
                Item::Struct(resources) if part != "init" => &resources.attrs,
                _ => return false,
            };
            attributes.iter().any(|attribute| attribute.path.is_ident(part))
        };
        if !items.iter().any(is_it) {
            return Err(syn::Error::new(module.span(), format!("a program has `#[{part}]`, {what}")));
        }
    }
    Ok(())
}

/// Refuses a length of time whose unit stands apart from its number.
fn apart(argument: &[TokenTree]) -> syn::Result<()> {
    let [TokenTree::Ident(name), TokenTree::Punct(_), TokenTree::Literal(number), TokenTree::Ident(unit)] = argument
    else {
        return Ok(());
    };
    let whole = format!("{number}{unit}");
    match length::parse(&whole) {
        Some(_) => Err(syn::Error::new(number.span(), format!("without the space: `{name} = {whole}`"))),
        None => Ok(()),
    }
}

/// Splits at commas.
fn split(tokens: TokenStream) -> Vec<Vec<TokenTree>> {
    let mut parts = vec![Vec::new()];
    for token in tokens {
        match &token {
            TokenTree::Punct(mark) if mark.as_char() == ',' => parts.push(Vec::new()),
            _ => parts.last_mut().expect("never empty").push(token),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// `name = value`, the value being one token.
fn named(argument: &[TokenTree]) -> Option<(Ident, TokenTree)> {
    match argument {
        [TokenTree::Ident(name), TokenTree::Punct(mark), value] if mark.as_char() == '=' => {
            Some((name.clone(), value.clone()))
        }
        _ => None,
    }
}

fn insert(found: &mut Arguments, name: &Ident, value: TokenTree) -> syn::Result<()> {
    match found.insert(name.to_string(), (name.span(), value)) {
        None => Ok(()),
        Some(_) => Err(syn::Error::new(name.span(), format!("`{name}` is there twice"))),
    }
}

fn literal(found: &Arguments, name: &str) -> Option<(Span, Option<Literal>)> {
    found.get(name).map(|(span, value)| match value {
        TokenTree::Literal(literal) => (*span, Some(literal.clone())),
        _ => (*span, None),
    })
}

fn time(found: &Arguments, name: &str) -> syn::Result<Option<u64>> {
    let Some((span, literal)) = literal(found, name) else { return Ok(None) };
    match literal.and_then(|literal| length::parse(&literal.to_string())) {
        Some(ns) => Ok(Some(ns)),
        None => Err(syn::Error::new(span, format!("`{name}` is a length of time, as 62.5us or 1ms"))),
    }
}

fn number(found: &Arguments, name: &str) -> syn::Result<Option<u32>> {
    let Some((span, literal)) = literal(found, name) else { return Ok(None) };
    match literal.and_then(|literal| literal.to_string().parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(syn::Error::new(span, format!("`{name}` is a number"))),
    }
}

/// What makes a task run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begins {
    /// Its cycle, so long after the start of it.
    ByCycle { offset: u64 },
    /// Whoever spawns it; its cycle is the least between two spawns.
    Spawned,
}

/// Times of one task, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub begins: Begins,
    pub cycle: u64,
    pub deadline: u64,
    pub wcet: u64,
    pub lock: u64,
}

/// The tasks with their times, by the order of the program.
#[derive(Debug)]
pub struct Program {
    /// Name, priority, times, and resources that are locked.
    pub tasks: Vec<(Ident, u8, Times, Vec<String>)>,
    idle: Option<(u64, Vec<String>)>,
}

impl Program {
    pub fn of(app: &App, lifted: &BTreeMap<String, Arguments>) -> syn::Result<Self> {
        refuse(app, lifted)?;
        let nothing = Arguments::new();
        let of = |name: &Ident| lifted.get(&name.to_string()).unwrap_or(&nothing);
        let locked = |resources: &rtic_syntax::ast::SharedResources| {
            resources.iter().filter(|(_, access)| access.is_exclusive()).map(|(name, _)| name.to_string()).collect()
        };
        let mut tasks = Vec::new();
        for (name, task) in &app.software_tasks {
            let resources: Vec<String> = locked(&task.args.shared_resources);
            let times = Times::of(name, !task.inputs.is_empty(), of(name))?;
            tasks.push((name.clone(), task.args.priority, times, resources));
        }
        let idle = match &app.idle {
            Some(idle) => {
                let resources: Vec<String> = locked(&idle.args.shared_resources);
                let lock = time(of(&idle.name), "lock")?;
                if !resources.is_empty() && lock.is_none() {
                    let what = "idle holds locks: say for how long at most, as `lock = 20us`";
                    return Err(syn::Error::new(idle.name.span(), what));
                }
                Some((lock.unwrap_or(0), resources))
            }
            None => None,
        };
        Ok(Program { tasks, idle })
    }

    /// Whether every task meets its deadline.
    pub fn check(&self, settings: &AppTimes) -> syn::Result<()> {
        let mut set = Set { idle: self.idle.clone(), jitter: settings.jitter, ..Set::default() };
        for (name, priority, times, resources) in &self.tasks {
            set.tasks.push(Task {
                name: name.to_string(),
                priority: *priority,
                cycle: times.cycle,
                deadline: times.deadline,
                wcet: times.wcet,
                spin: if times.begins == Begins::Spawned { 0 } else { settings.spin },
                lock: times.lock,
                resources: resources.clone(),
                offset: match times.begins {
                    // Clocks that are stepped move tasks against each other for a while, and one
                    // that looks at the clock begins before its offset.
                    Begins::ByCycle { offset } if !settings.tai && settings.spin == 0 => Some(offset),
                    _ => None,
                },
            });
        }
        if let Some((cycle, wcet)) = settings.datapath {
            set.tasks.push(Task::plain("the datapath", u8::MAX, cycle, wcet));
        }
        let mut errors: Option<syn::Error> = None;
        for (at, (name, _, times, _)) in self.tasks.iter().enumerate() {
            let response = set.response(at);
            if response.total <= times.deadline {
                continue;
            }
            let error = syn::Error::new(name.span(), refusal(name, times, &response, settings.jitter));
            match &mut errors {
                Some(errors) => errors.combine(error),
                None => errors = Some(error),
            }
        }
        errors.map_or(Ok(()), Err)
    }
}

fn refusal(name: &Ident, times: &Times, response: &crate::response::Response, jitter: u64) -> String {
    let show = length::show;
    let mut text = format!(
        "`{name}` can miss its deadline of {}: it may take {} or more\n  {} of its own (wcet)",
        show(times.deadline),
        show(response.total),
        show(times.wcet)
    );
    if let Some((blocked, who, what)) = &response.blocked {
        text += &format!("\n  {} blocked by `{who}`, which holds `{what}`", show(*blocked));
    }
    for (who, count, each) in &response.others {
        text += &format!("\n  {} while {who}, {count} x {}", show(count.saturating_mul(*each)), show(*each));
    }
    if response.before > 0 {
        text += &format!("\n  less {} that are over before its activation", show(response.before));
    }
    if jitter > 0 {
        text += &format!("\n  {} until it wakes up (jitter)", show(jitter));
    }
    text
}

impl Times {
    fn of(name: &Ident, has_arguments: bool, found: &Arguments) -> syn::Result<Self> {
        let at = |argument: &str| found.get(argument).map_or(name.span(), |(span, _)| *span);
        let fault = |argument, text| Err(syn::Error::new(at(argument), text));
        let needed = |argument: &str, example: &str| match time(found, argument)? {
            Some(0) => Err(syn::Error::new(at(argument), format!("`{argument}` is longer than nothing"))),
            Some(ns) => Ok(ns),
            None => {
                let what = format!("`{name}` has no `{argument}`: say it, as `{argument} = {example}`");
                Err(syn::Error::new(name.span(), what))
            }
        };
        let is_spawned = found.contains_key("interval");
        let either = "a task begins with its `cycle`, or is spawned and has an `interval`, the least time between two";
        match (found.contains_key("cycle"), is_spawned) {
            (true, true) => return fault("interval", format!("`{name}` has both: {either}")),
            (false, false) => return fault("cycle", format!("`{name}` has neither: {either}")),
            (true, false) if has_arguments => {
                let what = "a task with a cycle takes a context only; one that takes more is spawned: give it an \
                            `interval` in place of the `cycle`";
                return fault("", what.to_owned());
            }
            (true, false) if found.contains_key("capacity") => {
                return fault("capacity", format!("`{name}` is not spawned, so nothing waits for it"));
            }
            (false, true) if found.contains_key("offset") => {
                return fault("offset", format!("`{name}` is spawned: it has no cycle to be in"));
            }
            _ => {}
        }
        let between = if is_spawned { "interval" } else { "cycle" };
        let (cycle, wcet) = (needed(between, "1ms")?, needed("wcet", "100us")?);
        let offset = time(found, "offset")?.unwrap_or(0);
        let deadline = time(found, "deadline")?.unwrap_or(cycle);
        let lock = time(found, "lock")?.unwrap_or(wcet);
        let show = length::show;
        let a = if is_spawned { "an interval" } else { "a cycle" };
        if !(10_000..=3_600_000_000_000).contains(&cycle) {
            return fault(between, format!("{a} of {} is not between 10 us and an hour", show(cycle)));
        }
        if offset >= cycle {
            return fault("offset", format!("an offset of {} is not inside a cycle of {}", show(offset), show(cycle)));
        }
        if deadline > cycle || deadline == 0 {
            return fault("deadline", format!("a deadline of {} is not within {a} of {}", show(deadline), show(cycle)));
        }
        if lock > wcet {
            return fault(
                "lock",
                format!("a lock is held for {}, longer than the task runs ({})", show(lock), show(wcet)),
            );
        }
        let begins = if is_spawned { Begins::Spawned } else { Begins::ByCycle { offset } };
        Ok(Times { begins, cycle, deadline, wcet, lock })
    }
}

/// What RTIC's syntax has and this has not.
fn refuse(app: &App, lifted: &BTreeMap<String, Arguments>) -> syn::Result<()> {
    let no = |span: Span, what: &str| Err(syn::Error::new(span, what));
    if let Some(name) = app.monotonics.keys().next() {
        return no(name.span(), "there is one clock, and no `#[monotonic]`");
    }
    for (name, task) in &app.software_tasks {
        if task.is_extern || !task.cfgs.is_empty() {
            return no(name.span(), "tasks are neither `extern` nor under `#[cfg]`");
        }
        if task.args.priority == 0 || task.args.priority > 9 {
            let written = lifted.get(&name.to_string()).and_then(|found| found.get("priority"));
            return no(written.map_or(name.span(), |(span, _)| *span), "priorities of tasks are 1 to 9");
        }
    }
    for (name, resource) in &app.shared_resources {
        if resource.properties.lock_free || !resource.cfgs.is_empty() {
            return no(name.span(), "shared resources are neither `#[lock_free]` nor under `#[cfg]`");
        }
    }
    for (name, resource) in &app.local_resources {
        if !resource.cfgs.is_empty() {
            return no(name.span(), "resources are not under `#[cfg]`");
        }
    }
    if app.software_tasks.is_empty() { no(app.name.span(), "a program has a task") } else { Ok(()) }
}

#[cfg(test)]
mod tests {

    fn expanded(arguments: &str, input: &str) -> Result<String, String> {
        crate::expand(arguments.parse().unwrap(), input.parse().unwrap())
            .map(|tokens| tokens.to_string())
            .map_err(|error| error.to_string())
    }

    fn program(task: &str) -> String {
        format!(
            "mod app {{ #[shared] struct Shared {{}} #[local] struct Local {{}}
             #[init] fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {{ todo() }}
             {task} }}"
        )
    }

    #[test]
    fn wrong_times_are_named() {
        for (attribute, says) in [
            ("cycle = 1ms", "`a` has no `wcet`: say it, as `wcet = 100us`"),
            ("cycle = 1ms, wcet = 0us", "`wcet` is longer than nothing"),
            ("cycle = 1ms, wcet = 100 us", "without the space: `wcet = 100us`"),
            ("wcet = 1us", "`a` has neither: a task begins with its `cycle`, or is spawned"),
            ("cycle = 1ms, interval = 1ms, wcet = 1us", "`a` has both"),
            ("cycle = 0ms, wcet = 1us", "`cycle` is longer than nothing"),
            ("interval = 0ms, wcet = 1us", "`interval` is longer than nothing"),
            ("interval = 1us, wcet = 1us", "an interval of 1 us is not between 10 us and an hour"),
            ("interval = 1ms, wcet = 1us, offset = 1us", "it has no cycle to be in"),
            ("interval = 1ms, wcet = 1us, deadline = 2ms", "a deadline of 2 ms is not within an interval of 1 ms"),
            ("cycle = 1ms, wcet = 1us, capacity = 2", "`a` is not spawned"),
            ("interval = 1ms, wcet = 2ms", "`a` can miss its deadline of 1 ms: it may take 2 ms"),
            ("binds = UART0, wcet = 1us", "idle wait for it (idle may block) and spawn a task"),
            ("cycle = 1, wcet = 1us", "`cycle` is a length of time"),
            ("cycle = 1us, wcet = 1us", "not between 10 us and an hour"),
            ("cycle = 1ms, wcet = 1us, offset = 1ms", "an offset of 1 ms is not inside a cycle of 1 ms"),
            ("cycle = 1ms, wcet = 1us, deadline = 2ms", "a deadline of 2 ms is not within"),
            ("cycle = 1ms, wcet = 1us, lock = 2us", "longer than the task runs"),
            ("cycle = 1ms, cycle = 1ms", "`cycle` is there twice"),
            ("cycle = 1ms, wcet = 1us, priority = 10", "priorities of tasks are 1 to 9"),
            ("cycle = 1ms, wcet = 2ms", "`a` can miss its deadline of 1 ms: it may take 2 ms"),
        ] {
            let error = expanded("", &program(&format!("#[task({attribute})] fn a(_: a::Context) {{}}"))).unwrap_err();
            assert!(error.contains(says), "{attribute}: {error}");
        }
        assert!(expanded("speed = 1", &program("")).unwrap_err().contains("expected `NAME = VALUE`"));
        assert!(expanded("datapath_cycle = 1ms", &program("")).unwrap_err().contains("datapath_wcet"));
        assert!(expanded("jitter = 5 us", &program("")).unwrap_err().contains("without the space: `jitter = 5us`"));
        assert!(expanded("", &program("")).unwrap_err().contains("a program has a task"));
    }

    #[test]
    fn a_program_without_one_of_its_parts_is_told_which() {
        let whole = program("#[task(cycle = 1ms, wcet = 1us)] fn a(_: a::Context) {}");
        assert!(expanded("", &whole).is_ok());
        for part in ["init", "shared", "local"] {
            let error = expanded("", &whole.replace(&format!("#[{part}]"), "")).unwrap_err();
            assert!(error.starts_with(&format!("a program has `#[{part}]`, a ")), "{error}");
        }
    }

    #[test]
    fn the_datapath_and_jitter_count() {
        let task = program("#[task(cycle = 1ms, wcet = 600us)] fn a(_: a::Context) {}");
        assert!(expanded("", &task).is_ok());
        assert!(expanded("datapath_cycle = 500us, datapath_wcet = 200us", &task).is_ok());
        let error = expanded("datapath_cycle = 500us, datapath_wcet = 250us", &task).unwrap_err();
        assert!(error.contains("while the datapath runs"), "{error}");
        let error = expanded("jitter = 500us", &task).unwrap_err();
        assert!(error.contains("500 us until it wakes up"), "{error}");
    }

    #[test]
    fn what_a_task_spins_counts_for_the_others() {
        let two = program(
            "#[task(priority = 2, cycle = 1ms, offset = 500us, wcet = 300us)] fn a(_: a::Context) {}
             #[task(priority = 1, cycle = 1ms, deadline = 500us, wcet = 300us)] fn b(_: b::Context) {}",
        );
        let beside = two.replace("deadline = 500us", "deadline = 600us");
        assert!(expanded("", &two).is_ok(), "offsets keep them apart");
        assert!(expanded("spin = 1us", &two).is_err(), "who spins begins before its offset");
        assert!(expanded("", &beside).is_ok());
        let error = expanded("spin = 1us", &beside).unwrap_err();
        assert!(error.contains("`b` can miss its deadline of 600 us"), "{error}");
        assert!(error.contains("301 us while a spins and runs, 1 x 301 us"), "{error}");
        let alone = program("#[task(cycle = 1ms, wcet = 1ms)] fn a(_: a::Context) {}");
        assert!(expanded("spin = 100us", &alone).is_ok(), "its own spin is over when it is due");
        let spawned = program(
            "#[task(priority = 2, interval = 1ms, wcet = 300us)] fn a(_: a::Context) {}
             #[task(priority = 1, cycle = 1ms, deadline = 600us, wcet = 300us)] fn b(_: b::Context) {}",
        );
        assert!(expanded("spin = 100us", &spawned).is_ok(), "who is spawned waits for no instant");
        assert!(expanded("spin = 1", &alone).unwrap_err().contains("`spin` is a length of time"));
    }

    #[test]
    fn what_init_takes_start_takes() {
        let given = program("#[task(cycle = 1ms, wcet = 1us)] fn a(_: a::Context) {}")
            .replace("_: init::Context", "_: init::Context, (one, _): (u8, u8), two: &str");
        let text = expanded("", &given).unwrap();
        for part in [
            "fn init (_ : init :: Context < '_ > , (one , _) : (u8 , u8) , two : & str)",
            "fn start (session : & :: vplc :: Session , __0 : (u8 , u8) , __1 : & str)",
            "start_with (session , placement () , __0 , __1)",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let without = program("").replace("_: init::Context", "");
        assert!(expanded("", &without).unwrap_err().contains("must have signature"));
    }
}

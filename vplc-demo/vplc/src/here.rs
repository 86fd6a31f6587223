//! Which program a thread is of, so that `NAME::spawn` needs no handle, as in RTIC.

use crate::queue::Queue;
use std::cell::RefCell;
use std::sync::Arc;
use std::thread::LocalKey;

/// What may be spawned by the current thread, if it is one of a program's.
#[derive(Debug)]
pub struct Here<T>(RefCell<Option<Arc<T>>>);

impl<T> Here<T> {
    /// Of no program.
    #[must_use]
    pub const fn new() -> Self {
        Here(RefCell::new(None))
    }

    /// The thread is of that program from now on.
    pub fn enter(key: &'static LocalKey<Self>, program: &Arc<T>) {
        key.with(|here| here.0.replace(Some(Arc::clone(program))));
    }

    /// As `enter`, until the result is dropped.
    #[must_use]
    pub fn enter_for(key: &'static LocalKey<Self>, program: &Arc<T>) -> Entered<T> {
        Entered { key, before: key.with(|here| here.0.replace(Some(Arc::clone(program)))) }
    }

    /// Spawns a task of the thread's program.
    ///
    /// # Errors
    /// The task is refused ([`Queue::spawn`]), or the thread is of no program.
    pub fn spawn<A>(key: &'static LocalKey<Self>, task: impl FnOnce(&T) -> &Queue<A>, argument: A) -> Result<(), A> {
        key.with(|here| match here.0.borrow().as_deref() {
            Some(program) => task(program).spawn(argument),
            None => Err(argument),
        })
    }
}

impl<T> Default for Here<T> {
    fn default() -> Self {
        Here::new()
    }
}

/// While it lives the thread is of a program.
#[derive(Debug)]
pub struct Entered<T: 'static> {
    key: &'static LocalKey<Here<T>>,
    before: Option<Arc<T>>,
}

impl<T> Drop for Entered<T> {
    fn drop(&mut self) {
        let before = self.before.take();
        self.key.with(|here| here.0.replace(before));
    }
}

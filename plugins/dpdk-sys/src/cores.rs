//! On which cores DPDK's own threads run.

use insane_sys::OsError;

/// The cores that the calling thread may run on.
pub(crate) fn allowed() -> Vec<usize> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as it is said to be, and 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: `CPU_ISSET` reads inside the set for every number below its size.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Those of `all` that are not in `taken`; all of them if nothing would be left.
pub(crate) fn without(all: &[usize], taken: &[usize]) -> Vec<usize> {
    let left: Vec<usize> = all.iter().copied().filter(|core| !taken.contains(core)).collect();
    if left.is_empty() { all.to_vec() } else { left }
}

/// Lets the calling thread, and those that it starts, run on these only.
pub(crate) fn keep_to(cores: &[usize]) -> Result<(), OsError> {
    // SAFETY: as above.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is inside the set.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: as above.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        return Err(OsError::last("keeping DPDK's threads to their cores"));
    }
    Ok(())
}

/// As EAL wants it: its one logical core on all of these.
pub(crate) fn as_argument(cores: &[usize]) -> String {
    let names: Vec<String> = cores.iter().map(usize::to_string).collect();
    format!("--lcores=0@({})", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_kept() {
        let all = allowed();
        assert!(!all.is_empty());
        let last = *all.last().unwrap();
        let kept = std::thread::spawn(move || {
            keep_to(&[last]).unwrap();
            std::thread::spawn(allowed).join().unwrap()
        });
        assert_eq!(kept.join().unwrap(), [last], "and so do those that it starts");
        assert_eq!(allowed(), all);
        assert!(keep_to(&[]).is_err());
        assert_eq!((without(&[0, 1, 2], &[1, 5]), without(&[0, 1], &[1, 0])), (vec![0, 2], vec![0, 1]));
        assert_eq!(as_argument(&[0, 3]), "--lcores=0@(0,3)");
    }
}

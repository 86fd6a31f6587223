//! By which link of a datapath messages go to a peer. Pure.
//!
//! The one place where that is decided. Somebody ranks the links for a request, best first;
//! here the first of them is taken that can carry it now.

/// What is known of one link, for one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LinkState {
    /// The peer has an address there.
    pub(crate) has_address: bool,
    /// Frames do not pass: its heartbeats fail, or the link says that it is gone. One of which
    /// nothing is known yet has not failed.
    pub(crate) has_failed: bool,
}

/// The link to take: the first of `ranked` that has an address and has not failed. Where all
/// have failed, the first that has an address: nobody knows a better one, and it may come back.
/// `None`: the peer has no address at any of them.
pub(crate) fn choose(
    ranked: impl IntoIterator<Item = usize> + Clone,
    state: impl Fn(usize) -> LinkState,
) -> Option<usize> {
    let reaching = || ranked.clone().into_iter().filter(|link| state(*link).has_address);
    reaching().find(|link| !state(*link).has_failed).or_else(|| reaching().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(links: &[(bool, bool)], ranked: &[usize]) -> Option<usize> {
        let state = |link: usize| {
            links.get(link).map_or(LinkState::default(), |(has_address, has_failed)| LinkState {
                has_address: *has_address,
                has_failed: *has_failed,
            })
        };
        choose(ranked.iter().copied(), state)
    }

    #[test]
    fn the_first_that_is_ranked_and_carries_is_taken() {
        let links = [(true, false), (false, false), (true, false), (true, true)];
        assert_eq!(of(&links, &[0, 1, 2, 3]), Some(0));
        assert_eq!(of(&links, &[2, 0]), Some(2));
        assert_eq!(of(&links, &[1, 3, 2, 0]), Some(2), "one has no address, the other failed");
    }

    #[test]
    fn where_all_have_failed_the_best_one_with_an_address_is_kept() {
        let links = [(false, true), (true, true), (true, true)];
        assert_eq!(of(&links, &[0, 2, 1]), Some(2));
        assert_eq!(of(&links, &[0]), None);
        assert_eq!(of(&links, &[]), None);
        assert_eq!(of(&links, &[9]), None, "there is no such link");
    }
}

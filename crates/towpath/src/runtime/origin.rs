//! Where a task comes from, in one word: nearly all have no more to say than the place that spawned them.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::ptr::NonNull;

/// A place; or, where the lowest bit is set, what [`task::Builder`](crate::task::Builder) was told besides, in a box of our
/// own.
pub(crate) struct Origin(NonNull<()>);

/// Of a task with a name, or with a stack that is not the runtime's own.
pub(crate) struct Built {
    spawned_at: &'static Location<'static>,
    name: Option<Box<str>>,
    /// In bytes.
    stack_size: Option<NonZeroUsize>,
}

/// What tells a box from a place.
const BUILT: usize = 1;
const _: () = assert!(align_of::<Location<'_>>() > BUILT && align_of::<Built>() > BUILT);

// SAFETY: it is a shared reference or a box, of what is Send and Sync.
unsafe impl Send for Origin {}
// SAFETY: as above.
unsafe impl Sync for Origin {}

impl Origin {
    #[inline]
    pub(crate) fn plain(spawned_at: &'static Location<'static>) -> Origin {
        Origin(NonNull::from(spawned_at).cast())
    }

    pub(crate) fn built(
        spawned_at: &'static Location<'static>,
        name: Option<Box<str>>,
        stack_size: Option<NonZeroUsize>,
    ) -> Origin {
        if name.is_none() && stack_size.is_none() {
            return Origin::plain(spawned_at);
        }
        let built = NonNull::from(Box::leak(Box::new(Built { spawned_at, name, stack_size })));
        Origin(built.cast().map_addr(|address| address | BUILT))
    }

    /// The box, if it is one.
    #[inline]
    fn as_built(&self) -> Option<NonNull<Built>> {
        let address = self.0.addr().get();
        let built = NonZeroUsize::new(address & !BUILT).filter(|_| address & BUILT != 0)?;
        Some(self.0.map_addr(|_| built).cast())
    }

    fn get(&self) -> Option<&Built> {
        // SAFETY: the box is ours until we are dropped.
        self.as_built().map(|built| unsafe { built.as_ref() })
    }

    pub(super) fn spawned_at(&self) -> &'static Location<'static> {
        match self.get() {
            Some(built) => built.spawned_at,
            // SAFETY: then it is a place, which stays for ever.
            None => unsafe { self.0.cast().as_ref() },
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.get()?.name.as_deref()
    }

    pub(super) fn stack_size(&self) -> Option<NonZeroUsize> {
        self.get()?.stack_size
    }
}

impl Drop for Origin {
    #[inline]
    fn drop(&mut self) {
        if let Some(built) = self.as_built() {
            // SAFETY: `built` made it from a box, and nobody refers to it any more.
            drop(unsafe { Box::from_raw(built.as_ptr()) });
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.spawned_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_says_what_it_was_told() {
        let here = Location::caller();
        for (name, size) in [(None, None), (Some("reader"), None), (None, Some(65_536)), (Some("writer"), Some(32_768))]
        {
            let size = size.and_then(NonZeroUsize::new);
            let origin = Origin::built(here, name.map(Box::from), size);
            assert_eq!((origin.spawned_at(), origin.name(), origin.stack_size()), (here, name, size));
            assert_eq!(origin.as_built().is_some(), name.is_some() || size.is_some());
        }
        assert_eq!(Origin::plain(here).spawned_at(), here);
    }
}

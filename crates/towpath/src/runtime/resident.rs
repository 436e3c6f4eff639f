//! How deep stacks have been, by the pages of theirs that are in memory (mincore(2)): for a task dump, from any thread.
//!
//! The kernel is asked about many neighbouring stacks at once, for a system call a stack is what would cost most. It only
//! answers, and touches nothing: stacks that have gone meanwhile, mapping and all, do no harm.

use std::ops::Range;
use std::ptr;

use super::stack;

/// Address space that one call covers, at most: 16,384 pages where they have 4 KiB.
const SPAN: usize = 64 << 20;

/// For each stack, in the order given, the bytes from its end down to the lowest page that is in memory. `None` if it has
/// gone.
pub(crate) fn depths(stacks: &[Range<usize>]) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..stacks.len()).collect();
    order.sort_unstable_by_key(|&i| stacks[i].start);
    let mut depths = vec![None; stacks.len()];
    let mut pages = Vec::new();
    let mut rest = &order[..];
    while let [first, ..] = rest {
        let start = stacks[*first].start;
        let count = rest.iter().take_while(|&&i| stacks[i].end - start <= SPAN).count().max(1);
        let (together, others) = rest.split_at(count);
        rest = others;
        // Where there is a hole between them, each by itself.
        if !depths_within(stacks, together, &mut depths, &mut pages) {
            together.iter().for_each(|i| _ = depths_within(stacks, &[*i], &mut depths, &mut pages));
        }
    }
    depths
}

/// Asks about all from the first stack to the last; false, and nothing learned, if some of that is not mapped.
fn depths_within(stacks: &[Range<usize>], which: &[usize], depths: &mut [Option<usize>], pages: &mut Vec<u8>) -> bool {
    let (Some(first), Some(last)) = (which.first(), which.last()) else { return true };
    let start = stacks[*first].start;
    if !residence(start..stacks[*last].end, pages) {
        return false;
    }
    for &i in which {
        let stack = &stacks[i];
        let page = |address: usize| (address - start) / stack::page_size();
        let of_stack = &pages[page(stack.start)..page(stack.end)];
        let untouched = of_stack.iter().take_while(|page| **page & 1 == 0).count();
        depths[i] = Some((of_stack.len() - untouched) * stack::page_size());
    }
    true
}

/// Which pages of a range, a byte each, are in memory. False if not all of it is mapped.
fn residence(range: Range<usize>, pages: &mut Vec<u8>) -> bool {
    pages.clear();
    pages.resize(range.len().div_ceil(stack::page_size()), 0);
    let low = ptr::without_provenance_mut(range.start);
    // SAFETY: the kernel writes a byte a page into `pages`, which has as many; it does not touch the range itself.
    unsafe { libc::mincore(low, range.len(), pages.as_mut_ptr().cast()) == 0 }
}

#[cfg(all(test, not(towpath_loom)))]
mod tests {
    use super::*;
    use crate::runtime::stack::Pool;

    #[test]
    fn the_lowest_page_that_was_touched_is_found() {
        const SIZE: usize = 64 << 10;
        let mut pool = Pool::new(SIZE);
        let taken: Vec<_> = (0..40).map(|_| pool.take().expect("a stack")).collect();
        let page = stack::page_size();
        let usable: Vec<_> = taken.iter().map(|stack| stack.guard().end..stack.bounds().end).collect();
        for (i, stack) in usable.iter().enumerate() {
            // One byte, so many pages below the end: none for the first.
            if let Some(depth) = (i % 8).checked_sub(1) {
                let byte = ptr::with_exposed_provenance_mut::<u8>(stack.end - depth * page - 1);
                // SAFETY: the stack is ours, and nothing runs on it.
                unsafe { byte.write_volatile(1) };
            }
        }
        let mut shuffled = usable.clone();
        shuffled.reverse();
        shuffled.push(page..2 * page); // nothing is mapped there
        let depths = depths(&shuffled);
        let expected = (0..40).rev().map(|i| Some(i % 8 * page)).chain([None]);
        assert_eq!(depths, expected.collect::<Vec<_>>());
        taken.into_iter().for_each(|stack| pool.give(stack));
    }
}

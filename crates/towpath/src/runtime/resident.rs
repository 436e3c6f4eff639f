//! How deep stacks have been, by the pages of theirs that are in memory: for a task dump, from any thread.
//!
//! The kernel is asked about many neighbouring stacks at once, for most of a stack was never touched: by PAGEMAP_SCAN (Linux
//! 6.7), which passes over such pages in a nanosecond or two each, or else by mincore(2), at six times that. It only answers
//! and touches nothing: stacks that have gone meanwhile, mapping and all, do no harm.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;

use super::stack;

/// Stacks that are asked about together lie no further apart than this.
const GAP: usize = 1 << 20;
/// Address space that one mincore(2) covers, at most.
const SPAN: usize = 64 << 20;
/// Regions that one PAGEMAP_SCAN answers with, at most.
const REGIONS: usize = 1024;

/// For each stack, in the order given, the bytes from its end down to the lowest page that is in memory; `None` where none
/// is. Two may lie in the same place: of a task that has ended since it was looked at, and of one that came after it.
pub(crate) fn depths(stacks: &[Range<usize>]) -> Vec<Option<usize>> {
    let pagemap = File::open("/proc/self/pagemap").ok();
    depths_by(stacks, |range, note| {
        let scanned = pagemap.as_ref().is_some_and(|pagemap| scan(pagemap, range.clone(), note).is_ok());
        if !scanned {
            look(range, note);
        }
    })
}

/// The same, where `find` tells of the regions within a range that are in memory, lowest first.
fn depths_by(stacks: &[Range<usize>], find: impl Fn(Range<usize>, &mut dyn FnMut(Range<usize>))) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..stacks.len()).filter(|&i| !stacks[i].is_empty()).collect();
    order.sort_unstable_by_key(|&i| stacks[i].start);
    let mut depths = vec![None; stacks.len()];
    let near = |a: &Range<usize>, b: &Range<usize>| b.start.checked_sub(a.end).is_some_and(|gap| gap <= GAP);
    for group in order.chunk_by(|&a, &b| near(&stacks[a], &stacks[b])) {
        let (first, last) = (group[0], group[group.len() - 1]);
        let mut above = group.iter().peekable();
        find(stacks[first].start..stacks[last].end, &mut |region: Range<usize>| {
            while above.next_if(|&&i| stacks[i].end <= region.start).is_some() {}
            for &i in above.clone().take_while(|&&i| stacks[i].start < region.end) {
                depths[i].get_or_insert(stacks[i].end - region.start.max(stacks[i].start));
            }
        });
    }
    depths
}

/// Tells of the regions that are in memory, by PAGEMAP_SCAN.
fn scan(pagemap: &File, range: Range<usize>, note: &mut dyn FnMut(Range<usize>)) -> io::Result<()> {
    let mut regions = [Region::default(); REGIONS];
    let mut start = range.start;
    while start < range.end {
        let mut request = Scan {
            size: size_of::<Scan>() as u64,
            start: start as u64,
            end: range.end as u64,
            vec: regions.as_mut_ptr().expose_provenance() as u64,
            vec_len: REGIONS as u64,
            category_mask: PRESENT,
            return_mask: PRESENT,
            ..Scan::default()
        };
        // SAFETY: the request says where `regions` are and how many, and both outlive the call.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut request) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        regions[..count].iter().for_each(|region| note(region.start as usize..region.end as usize));
        start = request.walk_end as usize;
    }
    Ok(())
}

/// linux/fs.h, 6.7: neither libc nor rustix has it yet.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// As [`Region`]: `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    /// Where it has come to.
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `PAGE_IS_PRESENT`.
const PRESENT: u64 = 1 << 3;
/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::Ioctl = libc::_IOWR::<Scan>(b'f' as u32, 16);

/// The same by mincore(2).
fn look(range: Range<usize>, note: &mut dyn FnMut(Range<usize>)) {
    let page = stack::page_size();
    if range.len() > SPAN {
        let middle = range.start + SPAN;
        look(range.start..middle, note);
        return look(middle..range.end, note);
    }
    let mut pages = vec![0u8; range.len().div_ceil(page)];
    let low = ptr::without_provenance_mut(range.start);
    // SAFETY: the kernel writes a byte a page into `pages`, which has as many; it does not touch the range itself.
    let looked = unsafe { libc::mincore(low, range.len(), pages.as_mut_ptr().cast()) };
    if looked == 0 {
        for (i, _) in pages.iter().enumerate().filter(|(_, page)| **page & 1 != 0) {
            note(range.start + i * page..range.start + (i + 1) * page);
        }
    } else if pages.len() > 1 {
        // It fails as a whole where there is a hole.
        let middle = range.start + pages.len() / 2 * page;
        look(range.start..middle, note);
        look(middle..range.end, note);
    }
}

#[cfg(all(test, not(towpath_loom)))]
mod tests {
    use super::*;
    use crate::runtime::stack::Pool;

    #[test]
    fn the_lowest_page_that_was_touched_is_found_either_way() {
        const SIZE: usize = 64 << 10;
        let mut pool = Pool::new(SIZE);
        let taken: Vec<_> = (0..3000).map(|_| pool.take().expect("a stack")).collect();
        let page = stack::page_size();
        let usable: Vec<_> = taken.iter().map(|stack| stack.guard().end..stack.bounds().end).collect();
        for (i, stack) in usable.iter().enumerate() {
            // One byte, so many pages below the end: none for the first. Every other has one at its end as well.
            for depth in (i % 8).checked_sub(1).into_iter().chain((i % 16 > 8).then_some(0)) {
                let byte = ptr::with_exposed_provenance_mut::<u8>(stack.end - depth * page - 1);
                // SAFETY: the stack is ours, and nothing runs on it.
                unsafe { byte.write_volatile(1) };
            }
        }
        let mut shuffled = usable.clone();
        shuffled.reverse();
        shuffled.extend([page..2 * page, 0..0]); // nothing is mapped there, and a task of which nothing is known
        shuffled.extend([usable[7].clone(), usable[7].clone(), usable[3].start..usable[4].end]); // taken anew
        let depth = |i: usize| Some(i % 8 * page).filter(|depth| *depth > 0);
        let both = Some(usable[4].end - usable[3].end + 3 * page);
        let anew = [None, None, depth(7), depth(7), both];
        let expected: Vec<_> = (0..3000).rev().map(depth).chain(anew).collect();
        let differs = |found: &[Option<usize>]| {
            (0..found.len()).find(|&i| found[i] != expected[i]).map(|i| (i, found[i], expected[i]))
        };
        assert_eq!(differs(&depths(&shuffled)), None);
        assert_eq!(differs(&depths_by(&shuffled, look)), None, "by mincore");
        let pagemap = File::open("/proc/self/pagemap").expect("proc(5)");
        if scan(&pagemap, page..2 * page, &mut |_| ()).is_ok() {
            let scanned = depths_by(&shuffled, |range, note| scan(&pagemap, range, note).expect("as it has just done"));
            assert_eq!(differs(&scanned), None, "by PAGEMAP_SCAN");
        }
        taken.into_iter().for_each(|stack| pool.give(stack));
    }
}

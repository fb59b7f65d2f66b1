//! Giving memory back, for processes that wait for days.

const PAGE: usize = 4096;

/// Pages of the stack below the caller's frame that are left alone.
const MARGIN: usize = 8 << 10;

/// Loaded segments of a program that are not writable; a linker makes four at most.
const SEGMENTS: usize = 8;

/// What may have been used of the stack below that.
const STACK: usize = 1 << 20;

/// Has all threads that come later share two heaps (`mallopt(3)` with `M_ARENA_MAX`): with one for each, a server of many
/// threads keeps much that is free.
pub fn share_heap() {
    // SAFETY: glibc's own function; it changes only how malloc works from now on.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Gives free heap back to the machine (`malloc_trim(3)`); for processes with threads too.
pub fn trim() {
    // SAFETY: glibc's own function; it touches only memory that malloc knows to be free.
    unsafe { libc::malloc_trim(0) };
}

/// Gives back what this process can get again: free heap (`malloc_trim(3)`), pages of its program that are never written,
/// and the stack below the caller (`madvise(2)` with `MADV_DONTNEED`). What is needed later is mapped again from the page
/// cache.
///
/// Meant for processes with one thread.
// Never a part of its caller: below the marker there must be nothing but this function's own small frame, and what a caller
// has on the stack may be larger than the margin.
#[inline(never)]
pub fn release() {
    // SAFETY: glibc's own function; it touches only memory that malloc knows to be free.
    unsafe { libc::malloc_trim(0) };
    // First all of them: looking at the next one would bring a part of the first back.
    let mut segments = [(0, 0); SEGMENTS];
    let mut count = 0;
    program(|start, length| {
        if let Some(segment) = segments.get_mut(count) {
            *segment = (start, length);
            count += 1;
        }
    });
    for (start, length) in segments.into_iter().take(count) {
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: a loaded segment that is not writable: its pages come back from the file as they were, and one by one,
        // not with their neighbours.
        unsafe {
            libc::madvise(start, length, libc::MADV_RANDOM);
            libc::madvise(start, length, libc::MADV_DONTNEED);
        }
    }
    let marker = 0_u8;
    let end = std::hint::black_box(&raw const marker).addr().saturating_sub(MARGIN) & !(PAGE - 1);
    // SAFETY: no frame of the only thread is below the caller's but for the margin, and nothing but its stack is mapped
    // within the range: the kernel keeps a larger gap below stacks.
    unsafe { libc::madvise(std::ptr::without_provenance_mut(end - STACK), STACK, libc::MADV_DONTNEED) };
}

/// The loaded segments of this program that are not writable, page by page: address and length.
fn program(mut each: impl FnMut(usize, usize)) {
    // SAFETY: getauxval only reads the auxiliary vector.
    let (headers, count) = unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM)) };
    let (Ok(headers), Ok(count)) = (usize::try_from(headers), usize::try_from(count)) else { return };
    if headers == 0 {
        return;
    }
    let first: *const libc::Elf64_Phdr = std::ptr::with_exposed_provenance(headers);
    // SAFETY: the kernel says that `count` program headers are mapped there, for as long as the program runs.
    let list = unsafe { std::slice::from_raw_parts(first, count) };
    let number = |value: u64| usize::try_from(value).unwrap_or(0);
    let base = list.iter().find(|one| one.p_type == libc::PT_PHDR).map_or(0, |one| headers - number(one.p_vaddr));
    for one in list.iter().filter(|one| one.p_type == libc::PT_LOAD && one.p_flags & libc::PF_W == 0) {
        let start = base + (number(one.p_vaddr) & !(PAGE - 1));
        let end = (base + number(one.p_vaddr) + number(one.p_memsz)).next_multiple_of(PAGE);
        each(start, end - start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_s_text_is_found() {
        let here = (release as fn()) as usize;
        let mut found = false;
        program(|start, length| found |= (start..start + length).contains(&here));
        assert!(found);
    }

    #[test]
    fn the_process_goes_on() {
        let kept = vec![7_u8; 1 << 20];
        release();
        assert!(kept.iter().all(|byte| *byte == 7));
    }

    /// Whatever lies where on the stack of a caller, and wherever its page ends.
    #[test]
    fn frames_of_callers_stay() {
        fn deep(depth: usize) -> usize {
            let frame = std::hint::black_box([depth; 1500]);
            if depth == 0 {
                release();
            } else {
                assert_eq!(deep(depth - 1), depth - 1);
            }
            assert!(std::hint::black_box(&frame).iter().all(|word| *word == depth));
            frame[0]
        }
        for depth in 0..20 {
            assert_eq!(deep(depth), depth);
        }
    }
}

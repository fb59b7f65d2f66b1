//! Giving memory back, for processes that wait for days.

use rustix::event::{PollFd, Timespec};
use rustix::io::Errno;

const PAGE: usize = 4096;

/// Pages of the stack below the caller's frame that are left alone.
const MARGIN: usize = 8 << 10;

/// Loaded segments of a program that are not writable; a linker makes four at most.
const SEGMENTS: usize = 8;

/// What may have been used of the stack below that.
const STACK: usize = 1 << 20;

/// A block of memory from this size on is a mapping of its own, which goes when it is freed; and so much that is free at
/// the heap's end stays.
const LARGE: libc::c_int = 128 << 10;

/// Has all threads that come later share one heap which gives back what is free (`mallopt(3)` with `M_ARENA_MAX`,
/// `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD`): with one for each, and limits that grow with what was once asked for, a
/// server of many threads keeps much that is free.
pub fn share_heap() {
    // SAFETY: glibc's own function; it changes only how malloc works from now on.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    };
}

/// Gives free heap back to the machine (`malloc_trim(3)`); for processes with threads too.
pub fn trim() {
    // SAFETY: glibc's own function; it touches only memory that malloc knows to be free.
    unsafe { libc::malloc_trim(0) };
}

/// Waits (`poll(2)`) in as little memory as can be: the pages of the program that are never written and the stack below the
/// caller are given back (`madvise(2)` with `MADV_DONTNEED`) by the last instructions before the wait, and what is needed
/// afterwards is mapped again from the page cache. A process that gave them back any earlier would get some of them back by
/// going on, each with the fifteen pages around it, or with the whole of a large folio.
///
/// Costs some microseconds: for processes with one thread that wait for long.
///
/// # Errors
/// Those of `poll(2)`.
// Never a part of its caller: below the marker there must be nothing but this function's own small frame, and what a caller
// has on the stack may be larger than the margin.
#[inline(never)]
pub fn poll_at_rest(list: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Errno> {
    let mut ranges = [Range { start: 0, length: 0 }; SEGMENTS + 1];
    let mut count = 0;
    program(|start, length| {
        if count < SEGMENTS {
            ranges[count] = Range { start, length };
            count += 1;
        }
    });
    let marker = 0_u8;
    let end = std::hint::black_box(&raw const marker).addr().saturating_sub(MARGIN) & !(PAGE - 1);
    ranges[count] = Range { start: end - STACK, length: STACK };
    wait(&ranges[..=count], list, timeout)
}

/// Memory to be given back.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Range {
    start: usize,
    length: usize,
}

#[cfg(target_arch = "x86_64")]
fn wait(ranges: &[Range], list: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Errno> {
    // The page that waits is apart from the others (a mapping of its own, since its advice is another one), because pages
    // are mapped together with their neighbours in the mapping.
    let here = (release_and_poll as *const ()).addr() & !(PAGE - 1);
    let end = (release_and_poll as *const ()).addr() + WAIT_BYTES;
    let length = end.next_multiple_of(PAGE) - here;
    // SAFETY: how the pages of the program are read ahead is all that changes.
    unsafe { libc::madvise(std::ptr::without_provenance_mut(here), length, libc::MADV_RANDOM) };
    // The kernel writes to it.
    let mut timeout = timeout.copied();
    let time = timeout.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: the ranges are loaded segments that are not writable, whose pages come back from the file as they were, and
    // stack below every frame of the only thread but for the margin, which holds more than what the function puts there:
    // nothing else is mapped in that range, as the kernel keeps a larger gap below stacks. `PollFd` and `Timespec` are the
    // kernel's structures, valid for the call.
    let result =
        unsafe { release_and_poll(ranges.as_ptr(), ranges.len(), list.as_mut_ptr().cast(), list.len(), time.cast()) };
    usize::try_from(result).map_err(|_| i32::try_from(-result).map_or(Errno::INVAL, Errno::from_raw_os_error))
}

/// At least as long as [`release_and_poll`] is.
#[cfg(target_arch = "x86_64")]
const WAIT_BYTES: usize = 128;

/// `madvise(2)` with `MADV_DONTNEED` for each range, then `ppoll(2)`, whose result is returned as the kernel gives it.
///
/// # Safety
/// The ranges hold nothing that cannot come back; the rest is what `ppoll(2)` wants.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn release_and_poll(
    ranges: *const Range,
    count: usize,
    list: *mut u8,
    length: usize,
    timeout: *mut u8,
) -> isize {
    core::arch::naked_asm!(
        // The kernel keeps all registers but rax, rcx and r11.
        "push rbx",
        "push r12",
        "push r13",
        "mov rbx, rdi",
        "mov r12, rsi",
        "mov r13, rdx",
        "mov r9, rcx",
        "2:",
        "test r12, r12",
        "jz 3f",
        "mov rdi, [rbx]",
        "mov rsi, [rbx + 8]",
        "mov edx, {dontneed}",
        "mov eax, {madvise}",
        "syscall",
        "add rbx, 16",
        "dec r12",
        "jmp 2b",
        "3:",
        "mov rdi, r13",
        "mov rsi, r9",
        "mov rdx, r8",
        "xor r10d, r10d",
        "mov r8d, 8",
        "mov eax, {ppoll}",
        "syscall",
        "pop r13",
        "pop r12",
        "pop rbx",
        "ret",
        dontneed = const libc::MADV_DONTNEED,
        madvise = const libc::SYS_madvise,
        ppoll = const libc::SYS_ppoll,
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn wait(ranges: &[Range], list: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Errno> {
    for range in ranges {
        // SAFETY: loaded segments that are not writable, whose pages come back from the file as they were, and stack below
        // every frame of the only thread but for the margin.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(range.start), range.length, libc::MADV_DONTNEED) };
    }
    rustix::event::poll(list, timeout)
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
    use rustix::event::PollFlags;

    use super::*;

    #[test]
    fn the_program_s_text_is_found() {
        let here = (poll_at_rest as *const ()).addr();
        let mut found = false;
        program(|start, length| found |= (start..start + length).contains(&here));
        assert!(found);
    }

    #[test]
    fn the_process_goes_on() {
        let kept = vec![7_u8; 1 << 20];
        let short = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        assert_eq!(poll_at_rest(&mut [], Some(&short)), Ok(0));
        assert!(kept.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn what_is_ready_is_said() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut list = [PollFd::new(&reader, PollFlags::IN), PollFd::new(&writer, PollFlags::OUT)];
        assert_eq!(poll_at_rest(&mut list, None), Ok(1));
        assert_eq!(list.map(|one| one.revents()), [PollFlags::empty(), PollFlags::OUT]);
        rustix::io::write(&writer, b"x").unwrap();
        let mut list = [PollFd::new(&reader, PollFlags::IN)];
        assert_eq!(poll_at_rest(&mut list, None), Ok(1));
        assert_eq!(list[0].revents(), PollFlags::IN);
    }

    #[test]
    fn the_kernel_s_refusal_is_returned() {
        let wrong = Timespec { tv_sec: -1, tv_nsec: 0 };
        assert_eq!(poll_at_rest(&mut [], Some(&wrong)), Err(Errno::INVAL));
    }

    /// Whatever lies where on the stack of a caller, and wherever its page ends.
    #[test]
    fn frames_of_callers_stay() {
        fn deep(depth: usize) -> usize {
            let frame = std::hint::black_box([depth; 1500]);
            if depth == 0 {
                assert_eq!(poll_at_rest(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0));
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

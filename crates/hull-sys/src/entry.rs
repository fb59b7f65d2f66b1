//! The program's entry point, before the C library: replaces the process early by the same file on a read-only mount.
//!
//! `hull_runtime::seal` decides what must be sealed, and does it for every command that starts something. By then the
//! C library and the standard library have set themselves up, the binary's relocations have been applied and the command
//! line has been read, and all of that is thrown away and done again. So where the words look like such a command the
//! same is tried here, when the process has touched two pages. Failing is no error: `seal` comes later in any case.
//!
//! On x86-64 only, where the linker is told to begin at [`hull_start`]. Written out in assembly because nothing of Rust
//! may run yet: even a call may go through an address that is still to be relocated.

use core::arch::naked_asm;

/// The words of commands that start processes in containers, as the eight bytes at the beginning of an argument.
const RUN: u64 = u64::from_le_bytes(*b"run\0\0\0\0\0");
const EXEC: u64 = u64::from_le_bytes(*b"exec\0\0\0\0");
const CREATE: u64 = u64::from_le_bytes(*b"create\0\0");
const RESTORE: u64 = u64::from_le_bytes(*b"restore\0");

/// Entry point of the binary: what this module says, then the C library's own entry point.
///
/// The calls are `statfs(2)`, `open_tree(2)` (Linux 5.2), `mount_setattr(2)` (5.12) and `execveat(2)` (3.19).
///
/// # Safety
/// Only the kernel may begin here: the stack holds the argument count, arguments, environment and auxiliary vector.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hull_start() -> ! {
    naked_asm!(
        // What the C library wants to find again, then the arrays of arguments and environment.
        "mov r12, rsp",
        "mov r13, rdx",
        "mov rax, [rsp]",
        "lea r14, [rsp + 8]",
        "lea r15, [rsp + 8 * rax + 16]",
        // Is one of the arguments such a word? Behind the last string the kernel puts the program's path and eight zero
        // bytes, so eight can be read from the beginning of each.
        "mov rbx, r14",
        "2:",
        "mov rax, [rbx]",
        "test rax, rax",
        "jz 9f",
        "add rbx, 8",
        "mov rax, [rax]",
        "cmp eax, {run}",
        "je 3f",
        "mov rcx, rax",
        "shl rcx, 24",
        "movabs rdx, {exec}",
        "cmp rcx, rdx",
        "je 3f",
        "mov rcx, rax",
        "shl rcx, 8",
        "movabs rdx, {create}",
        "cmp rcx, rdx",
        "je 3f",
        "movabs rdx, {restore}",
        "cmp rax, rdx",
        "jne 2b",
        // statfs: does the program lie on a read-only mount already?
        "3:",
        "sub rsp, 128",
        "lea rdi, [rip + 5f]",
        "mov rsi, rsp",
        "mov eax, {statfs}",
        "syscall",
        "test rax, rax",
        "jnz 8f",
        "test byte ptr [rsp + {f_flags}], {st_rdonly}",
        "jnz 8f",
        // open_tree: a mount of its own, attached nowhere.
        "mov rdi, {at_fdcwd}",
        "lea rsi, [rip + 5f]",
        "mov edx, {clone_cloexec}",
        "mov eax, {open_tree}",
        "syscall",
        "test rax, rax",
        "js 8f",
        "mov ebx, eax",
        // mount_setattr: read-only. The structure is: set, clear, propagation, user namespace.
        "mov qword ptr [rsp], {mount_attr_rdonly}",
        "mov qword ptr [rsp + 8], 0",
        "mov qword ptr [rsp + 16], 0",
        "mov qword ptr [rsp + 24], 0",
        "mov edi, ebx",
        "lea rsi, [rip + 6f]",
        "mov edx, {at_empty_path}",
        "mov r10, rsp",
        "mov r8d, 32",
        "mov eax, {mount_setattr}",
        "syscall",
        "test rax, rax",
        "jnz 7f",
        // execveat: the program again, from there. Comes back only when it fails.
        "mov edi, ebx",
        "lea rsi, [rip + 6f]",
        "mov rdx, r14",
        "mov r10, r15",
        "mov r8d, {at_empty_path}",
        "mov eax, {execveat}",
        "syscall",
        "7:",
        "mov edi, ebx",
        "mov eax, {close}",
        "syscall",
        "8:",
        "mov rsp, r12",
        "9:",
        "mov rdx, r13",
        "jmp _start",
        "5:",
        ".asciz \"/proc/self/exe\"",
        "6:",
        ".byte 0",
        run = const RUN,
        exec = const EXEC << 24,
        create = const CREATE << 8,
        restore = const RESTORE,
        statfs = const libc::SYS_statfs,
        f_flags = const 80,
        st_rdonly = const libc::ST_RDONLY,
        at_fdcwd = const libc::AT_FDCWD,
        clone_cloexec = const libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC,
        open_tree = const libc::SYS_open_tree,
        mount_attr_rdonly = const libc::MOUNT_ATTR_RDONLY,
        at_empty_path = const libc::AT_EMPTY_PATH,
        mount_setattr = const libc::SYS_mount_setattr,
        execveat = const libc::SYS_execveat,
        close = const libc::SYS_close,
    )
}

//! The default profile, as data. `build.rs` includes this module too.
//!
//! Semantics are Docker's (docs.docker.com, "Seccomp security profiles for Docker"): deny with `EPERM` except what is
//! listed, give calls that a capability guards only with that capability, make `clone3` look missing so that the C
//! library falls back to `clone`, whose flags a filter can see. Two things differ: only the native architecture is
//! filtered unless others are asked for, so that no compatibility entry evades argument checks; and Docker's gate on
//! Linux 4.8 for tracing is left out, since Hull needs a newer kernel anyway.

use hull_oci::spec::{Arg, ArgOperator, Seccomp, SyscallRule};

use crate::compiler::arch::Arch;

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const ENOSYS: u32 = 38;

/// `CLONE_NEW*` flags of all namespaces that `clone` can make.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Socket families below the first are allowed, those between, and those above the last: `AF_ALG` gave the kernel's
/// crypto code to unprivileged users, `AF_VSOCK` reaches the hypervisor past any network namespace.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the query.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Calls that any container may make.
const COMMON: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown \
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark \
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock \
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex \
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu \
    getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer \
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 \
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr \
    listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier \
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep \
    newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect \
    poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv \
    process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat \
    readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat \
    renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
    seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto \
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid \
    setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl \
    shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat \
    stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate \
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork \
    vmsplice wait4 waitid waitpid write writev";

/// Calls that exist, and are allowed, only with some architectures.
const BY_ARCH: &[(&[Arch], &str)] = &[
    (
        &[Arch::Arm, Arch::Aarch64],
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    (&[Arch::X86_64, Arch::X32], "arch_prctl"),
    (&[Arch::X86_64, Arch::X32, Arch::X86], "modify_ldt"),
];

/// Calls that a capability opens.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// Names of the capabilities that change the profile, in the order of the bits of [`gates`].
pub(crate) fn gated() -> impl Iterator<Item = &'static str> {
    BY_CAPABILITY.iter().map(|(capability, _)| *capability)
}

/// The part of a capability set that changes the profile, as bits.
pub(crate) fn gates<S: AsRef<str>>(capabilities: &[S]) -> u32 {
    let has = |name: &str| capabilities.iter().any(|capability| capability.as_ref() == name);
    gated().enumerate().filter(|(_, name)| has(name)).fold(0, |bits, (bit, _)| bits | 1 << bit)
}

fn rule(names: &str, action: &str, errno_ret: Option<u32>, args: Vec<Arg>) -> SyscallRule {
    let names = names.split_ascii_whitespace().map(str::to_owned).collect();
    SyscallRule { names, action: action.to_owned(), errno_ret, args }
}

fn allow(names: &str) -> SyscallRule {
    rule(names, ALLOW, None, Vec::new())
}

fn allow_if(names: &str, op: ArgOperator, value: u64) -> SyscallRule {
    rule(names, ALLOW, None, vec![Arg { index: 0, value, value_two: 0, op }])
}

/// The profile for capabilities given as bits of [`gates`]. `arches` are the architectures to allow.
pub(crate) fn document(gates: u32, arches: &[Arch]) -> Seccomp {
    let mut syscalls = vec![allow(COMMON)];
    syscalls.extend([
        allow_if("socket", ArgOperator::Lt, AF_ALG),
        allow_if("socket", ArgOperator::Eq, AF_ALG + 1),
        allow_if("socket", ArgOperator::Gt, AF_VSOCK),
    ]);
    syscalls.extend(PERSONALITIES.map(|value| allow_if("personality", ArgOperator::Eq, value)));
    for (on, names) in BY_ARCH {
        if on.iter().any(|arch| arches.contains(arch)) {
            syscalls.push(allow(names));
        }
    }
    for (bit, (_, names)) in BY_CAPABILITY.iter().enumerate() {
        if gates & 1 << bit != 0 {
            syscalls.push(allow(names));
        }
    }
    let admin = gates & self::gates(&["CAP_SYS_ADMIN"]) != 0;
    if !admin {
        syscalls.push(allow_if("clone", ArgOperator::MaskedEq, CLONE_NAMESPACES));
        syscalls.push(rule("clone3", ERRNO, Some(ENOSYS), Vec::new()));
    }
    Seccomp {
        default_action: ERRNO.to_owned(),
        default_errno_ret: Some(1),
        architectures: arches.iter().map(|arch| arch.name().to_owned()).collect(),
        syscalls,
        ..Seccomp::default()
    }
}

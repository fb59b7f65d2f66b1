//! The default profile: decisions, size, and the kernel's opinion.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::exit, reason = "tests may panic, and the probe answers by its exit code")]

mod common;

use common::{ALLOW, AUDIT_X86, Call, ERRNO, run};
use hull_seccomp::{Filter, compile, default_filter, default_profile};

const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

fn filter(capabilities: &[&str]) -> Filter {
    default_filter(&capabilities.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
}

fn decide(filter: &Filter, call: Call) -> u32 {
    run(filter.program(), &call).0
}

#[test]
fn decisions_without_capabilities() {
    let filter = filter(&["CAP_CHOWN", "CAP_KILL"]);
    // read, openat, execve, ptrace, process_vm_readv, futex_wait, removexattrat
    for number in [0, 257, 59, 101, 310, 455, 466] {
        assert_eq!(decide(&filter, Call::new(number)), ALLOW, "{number}");
    }
    // mount, unshare, setns, bpf, keyctl, add_key, io_uring_setup, userfaultfd, kexec_load, perf_event_open, chroot,
    // reboot, init_module, open_by_handle_at, fsopen, swapon, mbind, iopl, syslog, quotactl
    for number in [165, 272, 308, 321, 250, 248, 425, 323, 246, 298, 161, 169, 175, 304, 430, 167, 237, 172, 103, 179] {
        assert_eq!(decide(&filter, Call::new(number)), EPERM, "{number}");
    }
    assert_eq!(decide(&filter, Call::new(435)), ENOSYS, "clone3");
    assert_eq!(decide(&filter, Call::new(467)), ENOSYS, "newer than the profile");
    assert_eq!(decide(&filter, Call::new(39 | 0x4000_0000)), 0, "x32");
    assert_eq!(decide(&filter, Call { arch: AUDIT_X86, ..Call::new(20) }), 0, "32-bit entry");
}

#[test]
fn arguments_of_socket_clone_and_personality() {
    let filter = filter(&[]);
    for family in [0, 1, 2, 10, 16, 17, 37, 39, 41, 1 << 32 | 38] {
        assert_eq!(decide(&filter, Call::new(41).arg(0, family)), ALLOW, "family {family}");
    }
    for family in [38, 40] {
        assert_eq!(decide(&filter, Call::new(41).arg(0, family)), EPERM, "family {family}");
    }
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        assert_eq!(decide(&filter, Call::new(135).arg(0, persona)), ALLOW);
    }
    for persona in [1, 0x4_0000, 0x2_0001, u64::MAX] {
        assert_eq!(decide(&filter, Call::new(135).arg(0, persona)), EPERM, "{persona:#x}");
    }
    assert_eq!(decide(&filter, Call::new(56).arg(0, 0x0120_0011)), ALLOW);
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        assert_eq!(decide(&filter, Call::new(56).arg(0, 0x11 | 1 << bit)), EPERM, "bit {bit}");
    }
}

#[test]
fn capabilities_open_their_calls_only() {
    let gates: &[(&str, &[u32])] = &[
        ("CAP_SYS_ADMIN", &[165, 166, 272, 308, 321, 298, 430, 435, 56, 103, 170, 179]),
        ("CAP_DAC_READ_SEARCH", &[304]),
        ("CAP_SYS_BOOT", &[169]),
        ("CAP_SYS_CHROOT", &[161]),
        ("CAP_SYS_MODULE", &[175, 176, 313]),
        ("CAP_SYS_PACCT", &[163]),
        ("CAP_SYS_PTRACE", &[312, 438, 440, 101]),
        ("CAP_SYS_RAWIO", &[172, 173]),
        ("CAP_SYS_TIME", &[164, 227]),
        ("CAP_SYS_TTY_CONFIG", &[153]),
        ("CAP_SYS_NICE", &[237, 238, 239, 450]),
        ("CAP_SYSLOG", &[103]),
        ("CAP_BPF", &[321]),
        ("CAP_PERFMON", &[298]),
    ];
    let closed = filter(&[]);
    for (capability, numbers) in gates {
        let open = filter(&[capability]);
        for number in 0..=466 {
            let call = Call::new(number).arg(0, 0x1000_0000);
            let (before, after) = (decide(&closed, call), decide(&open, call));
            // clone with a namespace flag, so that CAP_SYS_ADMIN shows.
            if numbers.contains(&number) {
                assert_eq!(after, ALLOW, "{capability} {number}");
            } else if *capability != "CAP_SYS_ADMIN" {
                assert_eq!(after, before, "{capability} {number}");
            }
        }
    }
}

#[test]
fn prepared_filters_are_what_the_profile_compiles_to() {
    for set in [&[][..], &["CAP_SYS_CHROOT"], &["CAP_SYS_ADMIN", "CAP_BPF"]] {
        let names: Vec<String> = set.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(filter(set), compile(&default_profile(&names, &[])).unwrap());
    }
}

#[test]
fn the_filter_is_small_and_shallow() {
    let filter = filter(&["CAP_SYS_CHROOT"]);
    println!("{} instructions", filter.instructions());
    filter.verify().unwrap();
    assert!(filter.instructions() <= 260, "{} instructions", filter.instructions());
    let deepest = (0..470).map(|number| run(filter.program(), &Call::new(number)).1).max().unwrap();
    assert!(deepest <= 30, "{deepest} steps");
}

/// Runs in a process of its own, which the test below starts: a filter cannot be taken off again.
#[test]
fn kernel_probe() {
    let Ok(wanted) = std::env::var("HULL_SECCOMP_PROBE") else { return };
    if wanted == "kill" {
        let rule = |name: &str, action: &str| {
            format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["{name}"],"action":"{action}"}}]}}"#)
        };
        let profile = serde_json::from_str(&rule("getcwd", "SCMP_ACT_KILL_PROCESS")).unwrap();
        let filter = compile(&profile).unwrap();
        hull_sys::seccomp::load(filter.program(), filter.flags()).unwrap();
        let _ = std::env::current_dir();
        std::process::exit(3);
    }
    let filter = filter(&[]);
    // Filters the harness's thread for this test only, which is enough: the process ends with it.
    assert!(hull_sys::seccomp::load(filter.program(), filter.flags()).unwrap().is_none());
    let refused = std::os::unix::fs::chroot("/").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(1), "chroot");
    assert!(std::fs::read("/proc/self/status").is_ok());
    std::process::exit(42);
}

fn probe(what: &str) -> std::process::ExitStatus {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kernel_probe", "--nocapture"])
        .env("HULL_SECCOMP_PROBE", what)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap()
}

#[test]
fn root_the_kernel_enforces_the_filter() {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::ExitStatusExt;
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: needs root, to load a filter without no_new_privs");
        return;
    }
    assert_eq!(probe("default").code(), Some(42));
    assert_eq!(probe("kill").signal(), Some(31), "SIGSYS");
}

//! Calls that 32-bit x86 also offers inside `socketcall` and `ipc`.

const SOCKETCALL: &[(&str, u32)] = &[
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

const IPC: &[(&str, u32)] = &[
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The multiplexer of a call and the first argument that selects it.
pub(super) fn multiplexer(name: &str) -> Option<(&'static str, u32)> {
    let find = |table: &[(&str, u32)]| table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    find(SOCKETCALL).map(|number| ("socketcall", number)).or_else(|| find(IPC).map(|number| ("ipc", number)))
}

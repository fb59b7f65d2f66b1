use clap::Parser as _;
use hull_engine::config::{MountConfig, NamespaceChoice, SeccompChoice};

use super::*;

#[derive(Debug, clap::Parser)]
struct Only {
    #[command(flatten)]
    args: Args,
}

fn config(words: &[&str]) -> Result<RunConfig, String> {
    let parsed = Only::try_parse_from([&["run"], words].concat()).map_err(|error| error.to_string())?;
    parsed.args.config().map_err(|failure| failure.message)
}

#[test]
fn flags_end_at_the_image() {
    let config = config(&["--rm", "-it", "image", "sh", "-c", "--rm", "-x"]).unwrap();
    assert!(config.remove && config.interactive && config.tty && !config.detach);
    assert_eq!(config.source, Source::Image("image".into()));
    assert_eq!(config.command, ["sh", "-c", "--rm", "-x"]);
}

#[test]
fn limits_are_parsed() {
    let limits =
        config(&["--memory", "512m", "--memory-swap", "-1", "--cpus", "1.5", "--pids-limit=-1", "x"]).unwrap().limits;
    assert_eq!(limits.memory, Some(536_870_912));
    assert_eq!(limits.memory_swap, Some(-1));
    assert_eq!(limits.nano_cpus, Some(1_500_000_000));
    assert_eq!(limits.pids, Some(-1));
}

#[test]
fn booleans_take_values() {
    let config = config(&["--rm=false", "-d=true", "--read-only", "x"]).unwrap();
    assert!(!config.remove && config.detach && config.read_only);
}

#[test]
fn security_options() {
    let with = |option: &str| config(&["--security-opt", option, "x"]).map(|config| config.security);
    assert!(config(&["x"]).unwrap().security.no_new_privileges);
    assert!(!with("no-new-privileges=false").unwrap().no_new_privileges);
    assert!(matches!(with("seccomp=unconfined").unwrap().seccomp, SeccompChoice::Unconfined));
    assert!(
        with("seccomp=/nonexistent")
            .unwrap_err()
            .starts_with("--security-opt: opening seccomp profile failed: open /nonexistent")
    );
    assert!(with("bogus").is_err());
    assert_eq!(
        config(&["--cap-add", "net_admin,SYS_TIME", "x"]).unwrap().security.cap_add,
        ["CAP_NET_ADMIN", "CAP_SYS_TIME"]
    );
}

#[test]
fn namespaces_and_mounts() {
    let config = config(&["--network", "host", "--pid=container:a", "-v", "/a:/b:ro", "--tmpfs", "/t", "x"]).unwrap();
    assert_eq!(config.namespaces.network, NamespaceChoice::Host);
    assert_eq!(config.namespaces.pid, NamespaceChoice::Container("a".into()));
    assert!(matches!(&config.mounts[..], [MountConfig::Bind { .. }, MountConfig::Tmpfs { .. }]));
}

#[test]
fn errors_name_the_flag() {
    for (words, flag) in [
        (&["--memory", "x", "i"][..], "--memory"),
        (&["--cpus", "0", "i"], "--cpus"),
        (&["-v", "x:/b", "i"], "--volume"),
        (&["--mount", "type=what,dst=/b", "i"], "--mount"),
        (&["--volumes-from", "a:xx", "i"], "--volumes-from"),
        (&["--storage-opt", "foo=1", "i"], "--storage-opt"),
        (&["--env-file", "/nonexistent", "i"], "--env-file"),
        (&["--name", "-", "i"], "--name"),
        (&["--hostname", "a b", "i"], "--hostname"),
        (&["--stop-signal", "WHAT", "i"], "--stop-signal"),
        (&["--cgroup-parent", "../x", "i"], "--cgroup-parent"),
    ] {
        let error = config(words).unwrap_err();
        assert!(error.contains(flag) && !error.contains('\n'), "{words:?}: {error}");
    }
    assert!(config(&[]).is_err());
}

#[test]
fn a_directory_needs_no_image() {
    let config = config(&["--rootfs", "/r", "/bin/true", "-x"]).unwrap();
    assert_eq!(config.source, Source::Directory("/r".into()));
    assert_eq!(config.command, ["/bin/true", "-x"]);
}

use hull_oci::spec::NamespaceType;

use super::*;
use crate::config::{Limits, MountConfig};

fn context() -> Context {
    Context {
        id: "0123456789abcdef".into(),
        rootfs: "/r".into(),
        image: hull_image::Config {
            env: vec!["A=image".into(), "B=image".into()],
            cmd: vec!["sh".into()],
            entrypoint: vec!["/entry".into()],
            ..Default::default()
        },
        available: CAPABILITIES.map(String::from).to_vec(),
        cpus: 2,
        kernel: (6, 12),
        ..Context::default()
    }
}

fn of(limits: Limits) -> Result<hull_oci::spec::Resources, String> {
    resources(&RunConfig { limits, ..RunConfig::default() }, &context()).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_complete() {
    let spec = spec(&RunConfig::default(), &context()).unwrap();
    let process = spec.process.as_ref().unwrap();
    assert_eq!(process.args, ["/entry", "sh"]);
    assert_eq!(process.cwd, "/");
    assert!(process.no_new_privileges);
    assert_eq!(process.env[0], PATH);
    assert!(process.env.contains(&"HOSTNAME=0123456789ab".to_owned()));
    let capabilities = process.capabilities.as_ref().unwrap();
    assert_eq!(capabilities.bounding, DEFAULT_CAPABILITIES);
    assert!(capabilities.ambient.is_empty() && capabilities.inheritable.is_empty());
    let linux = spec.linux.as_ref().unwrap();
    let kinds: Vec<_> = linux.namespaces.iter().map(|namespace| namespace.kind).collect();
    use NamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    assert_eq!(kinds, [Mount, Pid, Network, Ipc, Uts, Cgroup]);
    assert!(linux.masked_paths.contains(&"/proc/kcore".to_owned()));
    assert_eq!(linux.resources.as_ref().unwrap().pids.as_ref().unwrap().limit, Some(DEFAULT_PIDS));
    assert!(
        spec.mounts
            .iter()
            .any(|mount| mount.destination == "/dev/shm" && mount.options.contains(&"size=67108864".to_owned()))
    );
}

#[test]
fn environment_is_merged_by_name() {
    let config = RunConfig { env: vec!["B=user".into(), "C=user".into()], tty: true, ..RunConfig::default() };
    let process = spec(&config, &context()).unwrap().process.unwrap();
    assert_eq!(process.env[1..], ["HOSTNAME=0123456789ab", "TERM=xterm", "A=image", "B=user", "C=user"]);
}

#[test]
fn entrypoint_and_command() {
    let args = |entrypoint: Option<&str>, command: &[&str]| {
        let config = RunConfig {
            entrypoint: entrypoint.map(String::from),
            command: command.iter().map(ToString::to_string).collect(),
            ..RunConfig::default()
        };
        spec(&config, &context()).map(|spec| spec.process.unwrap().args).map_err(|error| error.to_string())
    };
    assert_eq!(args(None, &["x", "y"]).unwrap(), ["/entry", "x", "y"]);
    assert_eq!(args(Some("/e"), &[]).unwrap(), ["/e"]);
    assert_eq!(args(Some(""), &["x"]).unwrap(), ["x"]);
    assert!(args(Some(""), &[]).unwrap_err().contains("no command"));
}

#[test]
fn memory_and_swap() {
    let memory = |memory, memory_swap| {
        of(Limits { memory, memory_swap, ..Limits::default() })
            .map(|resources| resources.memory.map(|memory| (memory.limit, memory.swap)))
    };
    let half = Some(536_870_912);
    assert_eq!(memory(half, None), Ok(Some((half, Some(1_073_741_824)))));
    assert_eq!(memory(half, Some(-1)), Ok(Some((half, Some(-1)))));
    assert_eq!(memory(half, half), Ok(Some((half, half))));
    assert_eq!(memory(None, None), Ok(None));
    assert!(memory(None, half).unwrap_err().contains("--memory"));
    assert!(memory(half, Some(1)).unwrap_err().starts_with("--memory-swap"));
    assert!(memory(Some(0), None).unwrap_err().starts_with("--memory:"));
}

#[test]
fn cpu_time() {
    let cpu = |nano_cpus, cpu_quota| {
        of(Limits { nano_cpus, cpu_quota, ..Limits::default() })
            .map(|resources| resources.cpu.map(|cpu| (cpu.quota, cpu.period)))
    };
    assert_eq!(cpu(Some(1_500_000_000), None), Ok(Some((Some(150_000), Some(100_000)))));
    assert!(cpu(Some(1_500_000_000), Some(5_000)).unwrap_err().contains("conflicts"));
    assert!(cpu(Some(3_000_000_000), None).unwrap_err().contains("only 2 CPUs"));
    assert!(cpu(None, Some(1)).unwrap_err().starts_with("--cpu-quota"));
}

#[test]
fn capabilities_are_added_and_dropped() {
    let list = |add: &[&str], drop: &[&str], privileged| {
        let mut config = RunConfig::default();
        config.security.cap_add = add.iter().map(ToString::to_string).collect();
        config.security.cap_drop = drop.iter().map(ToString::to_string).collect();
        config.security.privileged = privileged;
        capabilities(&config, &["CAP_CHOWN".into(), "CAP_SYS_ADMIN".into()])
    };
    assert_eq!(list(&["CAP_NET_ADMIN"], &["ALL"], false), ["CAP_NET_ADMIN"]);
    assert_eq!(list(&["ALL"], &["CAP_CHOWN"], false), ["CAP_SYS_ADMIN"]);
    assert_eq!(list(&[], &[], true), ["CAP_CHOWN", "CAP_SYS_ADMIN"]);
    assert_eq!(list(&[], &["CAP_KILL"], false).len(), DEFAULT_CAPABILITIES.len() - 1);
}

#[test]
fn mounts_of_the_user_replace_ours_and_sort_by_depth() {
    let bind = |target: &str| MountConfig::Bind {
        source: "/s".into(),
        target: target.into(),
        options: vec!["rbind".into()],
        create: false,
    };
    let config = RunConfig { mounts: vec![bind("/a/b/"), bind("/a"), bind("/dev/shm")], ..RunConfig::default() };
    let targets: Vec<String> =
        spec(&config, &context()).unwrap().mounts.into_iter().map(|mount| mount.destination).collect();
    assert_eq!(targets.iter().filter(|target| *target == "/dev/shm").count(), 1);
    let position = |path: &str| targets.iter().position(|target| target == path);
    assert!(position("/a") < position("/a/b"));
    let twice = RunConfig { mounts: vec![bind("/a"), bind("/a/")], ..RunConfig::default() };
    assert!(spec(&twice, &context()).unwrap_err().to_string().contains("Duplicate mount point"));
}

#[test]
fn namespaces_are_chosen() {
    let mut config = RunConfig::default();
    config.namespaces.network = NamespaceChoice::Host;
    config.namespaces.pid = NamespaceChoice::Path("/proc/7/ns/pid".into());
    let linux = spec(&config, &context()).unwrap().linux.unwrap();
    assert!(!linux.namespaces.iter().any(|one| one.kind == NamespaceType::Network));
    assert!(linux.namespaces.iter().any(|one| one.kind == NamespaceType::Pid && one.path == "/proc/7/ns/pid"));
    assert!(linux.sysctl.is_empty());
}

#[test]
fn a_user_other_than_root_has_no_capabilities_but_the_bounding_set() {
    let context = Context { user: User { uid: 1000, ..User::default() }, ..context() };
    let capabilities = spec(&RunConfig::default(), &context).unwrap().process.unwrap().capabilities.unwrap();
    assert!(capabilities.effective.is_empty() && capabilities.permitted.is_empty());
    assert!(!capabilities.bounding.is_empty());
}

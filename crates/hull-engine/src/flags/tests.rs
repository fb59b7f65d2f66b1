use super::*;

#[test]
fn sizes() {
    assert_eq!(bytes("512m"), Ok(536_870_912));
    assert_eq!(bytes("1.5g"), Ok(1_610_612_736));
    assert_eq!(bytes("10"), Ok(10));
    assert_eq!(bytes("4KiB"), Ok(4096));
    for wrong in ["", "m", "1x", "-5", "1..2", "9999999999g", "0x10", "1e400"] {
        assert!(bytes(wrong).is_err(), "{wrong}");
    }
    assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
}

#[test]
fn cpu_counts() {
    assert_eq!(cpus("1.5"), Ok(1_500_000_000));
    assert_eq!(cpus(".25"), Ok(250_000_000));
    assert_eq!(cpus("0.01"), Ok(10_000_000));
    for wrong in ["", ".", "0", "0.001", "-1", "1,5", "abc", "1.0000000001", "99999999999999999999"] {
        assert!(cpus(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn environment_lines() {
    let own = |name: &str| (name == "HOME").then(|| "/h".to_owned());
    let lines = env_file("# c\n\nA=1\n  B=x y\nHOME\nMISSING\n", own).unwrap();
    assert_eq!(lines, ["A=1", "B=x y", "HOME=/h"]);
    assert!(env_file("A B=1", own).unwrap_err().starts_with("line 1"));
    assert!(env("=x", own).is_err());
}

#[test]
fn limits_of_processes() {
    let limit = ulimit("nofile=10:20").unwrap();
    assert_eq!((limit.kind.as_str(), limit.soft, limit.hard), ("RLIMIT_NOFILE", 10, 20));
    assert_eq!(ulimit("core=-1").unwrap().hard, u64::MAX);
    for wrong in ["nofile", "nofile=20:10", "files=1", "nofile=a"] {
        assert!(ulimit(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn names_of_capabilities_and_namespaces() {
    assert_eq!(capability("net_admin").as_deref(), Ok("CAP_NET_ADMIN"));
    assert_eq!(capability("all").as_deref(), Ok("ALL"));
    assert!(capability("FLY").is_err());
    assert_eq!(namespace("host", &["private"]), Ok(NamespaceChoice::Host));
    assert_eq!(namespace("container:x", &["private"]), Ok(NamespaceChoice::Container("x".into())));
    assert!(namespace("bogus", &["private"]).is_err());
    assert!(namespace("ns:relative", &["private"]).is_err());
}

#[test]
fn rules_of_devices() {
    let rule = device_rule("c 10:* rw").unwrap();
    assert_eq!((rule.major, rule.minor), (Some(10), None));
    for wrong in ["c 10 rw", "x 1:1 r", "c 1:1 q", "c 1:1", "c a:1 r"] {
        assert!(device_rule(wrong).is_err(), "{wrong}");
    }
    let null = device("/dev/null:/dev/x:r").unwrap();
    assert_eq!((null[0].major, null[0].minor, null[0].path.as_str()), (1, 3, "/dev/x"));
    assert!(device("/etc/passwd").is_err());
    assert!(rate("/dev/null:1mb", true).is_err());
    assert!(sysctl("kernel.panic=1").is_err());
}

use super::*;

const YAML: &str = r#"---
# generated
cdiVersion: "0.6.0"
kind: vendor.example/net
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/mynull
      hostPath: /dev/null
      permissions: rw
      fileMode: 0o644
- name: all
  containerEdits:
    env: [WHICH=all, MORE=1]
containerEdits:
  env:
    - VENDOR=yes # for its library
  hooks:
    - hookName: createContainer
      path: /usr/bin/vendor-hook
      args:
      - vendor-hook
      - --folder
      - /usr/lib64
  mounts:
  - hostPath: /etc/hostname
    containerPath: /vendor/file
    options: ["ro", "nosuid"]
"#;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn devices_are_injected_with_their_descriptions_own_edits_once() {
    let directory = directory(&[("vendor.yaml", YAML)]);
    let mut spec = Spec::default();
    let names = ["vendor.example/net=0".to_owned(), "vendor.example/net=all".to_owned()];
    inject(&mut spec, &names, &[directory.path()]).unwrap();
    assert_eq!(spec.process.unwrap().env, ["VENDOR=yes", "WHICH=all", "MORE=1"]);
    let linux = spec.linux.unwrap();
    let device = &linux.devices[0];
    assert_eq!((device.path.as_str(), device.kind.as_str(), device.major, device.minor), ("/dev/mynull", "c", 1, 3));
    assert_eq!(device.file_mode, Some(0o644));
    assert_eq!(linux.resources.unwrap().devices[0].access, "rw");
    assert_eq!(spec.mounts.len(), 1);
    assert_eq!(spec.mounts[0].options, ["ro", "nosuid", "rbind"]);
    assert_eq!(spec.hooks.unwrap().create_container[0].args, ["vendor-hook", "--folder", "/usr/lib64"]);
}

#[test]
fn the_later_directory_counts_and_what_is_missing_is_named() {
    let with = |value: &str| {
        format!(
            r#"{{"cdiVersion":"0.5.0","kind":"a.b/c","devices":[{{"name":"x","containerEdits":{{"env":["V={value}"]}}}}]}}"#
        )
    };
    let (first, second) = (directory(&[("a.json", &with("1"))]), directory(&[("a.json", &with("2"))]));
    let mut spec = Spec::default();
    let both = [first.path(), second.path()];
    inject(&mut spec, &["a.b/c=x".to_owned()], &both).unwrap();
    assert_eq!(spec.process.unwrap().env, ["V=2"]);
    let error = inject(&mut Spec::default(), &["a.b/c=y".to_owned()], &both).unwrap_err().to_string();
    assert!(error.contains("unresolvable CDI devices a.b/c=y"), "{error}");
    let twice = directory(&[("a.json", &with("1")), ("b.json", &with("2"))]);
    let error = inject(&mut Spec::default(), &["a.b/c=x".to_owned()], &[twice.path()]).unwrap_err().to_string();
    assert!(error.contains("conflicting device"), "{error}");
}

#[test]
fn descriptions_are_read_strictly() {
    for (text, wanted) in [
        ("cdiVersion: 9.9.9\nkind: a.b/c\ndevices: []\n", "cdiVersion"),
        ("cdiVersion: 0.5.0\nkind: nothing\ndevices:\n- name: x\n  containerEdits: {}\n", "kind"),
        ("cdiVersion: 0.5.0\nkind: a.b/c\ndevices: []\n", "devices"),
        ("cdiVersion: 0.5.0\nkind: a.b/c\nbogus: 1\ndevices: []\n", "bogus"),
        ("cdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: 'a b'\n  containerEdits: {}\n", "name"),
        ("cdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: x\n  containerEdits:\n    env: [novalue]\n", "env[0]"),
        ("cdiVersion: 0.5.0\nkind: &anchor a.b/c\n", "line 2"),
        ("a: 1\na: 2\n", "twice"),
        ("a:\n\t- 1\n", "tab"),
    ] {
        let error = parse(text, false).unwrap_err();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
}

#[test]
fn gpus_become_names() {
    assert_eq!(gpus("all").unwrap(), ["nvidia.com/gpu=all"]);
    assert_eq!(gpus("2").unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
    assert_eq!(gpus("\"device=0,2\"").unwrap(), ["nvidia.com/gpu=0", "nvidia.com/gpu=2"]);
    assert_eq!(gpus("device=GPU-1a,capabilities=compute").unwrap(), ["nvidia.com/gpu=GPU-1a"]);
    assert_eq!(gpus("driver=amd,count=1").unwrap(), ["amd.com/gpu=0"]);
    assert!(gpus("lots").unwrap_err().contains("integer"));
    assert!(gpus("colour=red").unwrap_err().contains("unexpected key 'colour'"));
}

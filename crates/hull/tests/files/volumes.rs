//! Volumes and their commands.

use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use hull_testkit::finish;
use hull_testkit::tier::skip;

use super::{create, home, names, run, volume, volumes};

#[test]
fn root_a_volume_gets_the_image_s_files_once_and_keeps_what_is_written() {
    let Some(h) = home() else { return };
    assert_eq!(run(&h, &["-v", "data:/data"], &["cat", "/data/file"]).ok().text(), "of the image");
    let data = volume(&h, "data");
    let file = data.join("file").metadata().expect("copied");
    assert_eq!((file.uid(), file.gid(), file.nlink()), (1234, 2345, 2));
    assert_eq!(file.ino(), data.join("sub/again").metadata().expect("copied").ino());
    let directory = data.metadata().expect("there");
    assert_eq!((directory.uid(), directory.gid()), (77, 78), "the volume's root is the image's directory");
    assert_eq!(std::fs::read_link(data.join("link")).expect("link").to_str(), Some("file"));
    let _ = run(&h, &["-v", "data:/data"], &["write", "/data/file", "changed", "+", "unlink", "/data/link"]).ok();
    assert_eq!(
        run(&h, &["-v", "data:/data"], &["cat", "/data/file", "+", "ls", "/data"]).ok().text(),
        "changed\nfile\nsub"
    );
    assert_eq!(run(&h, &["-v", "empty:/data:nocopy"], &["ls", "/data"]).ok().text(), "");
    assert_eq!(run(&h, &["--mount", "src=other,dst=/data,volume-nocopy"], &["ls", "/data"]).ok().text(), "");
    // What another image has there does not come to what is there.
    assert_eq!(run(&h, &["-v", "data:/etc"], &["ls", "/etc"]).ok().text(), "file\nhostname\nhosts\nsub");
    assert_eq!(volumes(&h), ["data", "empty", "other"]);
    h.assert_clean();
}

#[test]
fn root_an_interrupted_copy_is_finished_by_the_next_start() {
    let Some(h) = home() else { return };
    create(&h, "first", &["-v", "data:/data"]);
    let data = volume(&h, "data");
    // As a kill leaves it: begun, some names missing, one changed by somebody.
    std::fs::write(data.parent().expect("parent").join("filling"), "").expect("mark");
    std::fs::remove_file(data.join("link")).expect("remove");
    std::fs::write(data.join("file"), "mine").expect("write");
    let _ = h.run(&["start", "first"]).ok();
    assert_eq!(names(&data), ["file", "link", "sub"]);
    assert_eq!(std::fs::read(data.join("file")).expect("read"), b"mine");
    assert!(!data.parent().expect("parent").join("filling").exists());
}

#[test]
fn root_anonymous_volumes_go_with_their_container() {
    let Some(h) = home() else { return };
    h.import(&["-c", "VOLUME /data /more"], "withvolume");
    let words = ["run", "--rm", "--network=none", "--cgroup-parent", h.name(), "-v", "/extra", "withvolume", "/probe"];
    let mut client = h.hull(&words);
    assert_eq!(finish(client.args(["cat", "/data/file", "+", "ls", "/extra"])).ok().text(), "of the image");
    assert_eq!(volumes(&h), [""; 0], "--rm removes them");
    create(&h, "kept", &["-v", "/one", "-v", "named:/two"]);
    assert_eq!(volumes(&h).len(), 2);
    let _ = h.run(&["rm", "kept"]).ok();
    assert_eq!(volumes(&h).len(), 2, "without -v they stay");
    let out = h.run(&["volume", "prune", "-f"]).ok();
    assert!(
        out.stdout.starts_with("Deleted Volumes:\n") && out.stdout.contains("Total reclaimed space: "),
        "{}",
        out.stdout
    );
    assert_eq!(volumes(&h), ["named"], "those with names stay");
    create(&h, "gone", &["-v", "/one", "-v", "named:/two"]);
    create(&h, "other", &["--volumes-from", "gone"]);
    let _ = h.run(&["rm", "-v", "gone"]).ok();
    assert_eq!(volumes(&h).len(), 2, "another container has it too");
    let _ = h.run(&["rm", "-v", "other"]).ok();
    assert_eq!(volumes(&h), ["named"]);
    // A container that cannot be made leaves none.
    let out = h.run(&["create", "-v", "/one", "--volumes-from", "none", "mine", "x"]);
    out.fails("no such container: none");
    let _ = run(&h, &["-v", "/one"], &["x"]);
    let failed = h.run(&["run", "--rm", "--network=none", "--cgroup-parent", h.name(), "-v", "/one", "mine", "/none"]);
    assert_eq!(failed.code, 127, "{}", failed.stderr);
    assert_eq!(volumes(&h), ["named"]);
    h.assert_clean();
}

#[test]
fn root_volume_commands() {
    let Some(h) = home() else { return };
    assert_eq!(h.run(&["volume", "create", "--label", "a=b", "one"]).ok().text(), "one");
    assert_eq!(h.run(&["volume", "create", "one"]).ok().text(), "one");
    assert_eq!(h.run(&["volume", "create"]).ok().text().len(), 64);
    let shown = h.run(&["volume", "inspect", "-f", "{{.Driver}} {{.Scope}} {{.Labels.a}}", "one"]).ok();
    assert_eq!(shown.text(), "local local b");
    assert_eq!(h.run(&["inspect", "-f", "{{.Name}}", "one"]).ok().text(), "one");
    assert_eq!(h.run(&["volume", "ls", "-q", "-f", "label=a"]).ok().text(), "one");
    assert!(h.run(&["volume", "ls"]).ok().stdout.starts_with("DRIVER    VOLUME NAME\n"));
    create(&h, "user", &["-v", "one:/x"]);
    assert_eq!(h.run(&["volume", "ls", "-q", "-f", "dangling=false"]).ok().text(), "one");
    assert_eq!(
        h.run(&["ps", "-a", "--format", "{{.Mounts}} {{.LocalVolumes}}", "-f", "volume=one"]).ok().text(),
        "one 1"
    );
    assert_eq!(h.run(&["ps", "-aq", "-f", "volume=two"]).ok().text(), "");
    h.run(&["volume", "rm", "one"]).fails("remove one: volume is in use - [");
    h.run(&["volume", "rename", "one", "two"]).fails("volume is in use");
    let mounts = h.run(&["inspect", "-f", "{{json .Mounts}}", "user"]).ok();
    for part in ["\"Type\":\"volume\"", "\"Name\":\"one\"", "\"Driver\":\"local\"", "\"RW\":true", "/one/_data\""] {
        assert!(mounts.stdout.contains(part), "no {part}: {}", mounts.stdout);
    }
    let row = h.run(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]).ok();
    assert!(row.stdout.contains("Local Volumes 2 1"), "{}", row.stdout);
    let _ = h.run(&["rm", "user"]).ok();

    std::fs::write(volume(&h, "one").join("file"), "content").expect("write");
    assert_eq!(h.run(&["volume", "rename", "one", "two"]).ok().text(), "two");
    assert_eq!(h.run(&["volume", "clone", "two", "copy"]).ok().text(), "copy");
    let _ = h.run(&["volume", "export", "-o", "two.tar", "two"]).ok();
    assert_eq!(h.run(&["volume", "import", "three", "two.tar"]).ok().text(), "three");
    for name in ["copy", "three"] {
        assert_eq!(std::fs::read(volume(&h, name).join("file")).expect("read"), b"content");
    }
    let mut import = h.hull(&["volume", "import", "four"]);
    finish(import.stdin(Stdio::null())).fails("truncated");

    for (words, reason) in [
        (&["volume", "inspect", "none"][..], "get none: no such volume"),
        (&["volume", "rm", "none"], "get none: no such volume"),
        (&["volume", "create", ".x"], "includes invalid characters for a local volume name"),
        (&["volume", "create", "x"], "volume name is too short"),
        (&["volume", "create", "-o", "foo=bar", "vv"], "create vv: invalid option: \"foo\""),
        (&["volume", "create", "-o", "type=nfs", "vv"], "create vv: missing required option: \"device\""),
        (&["volume", "create", "-d", "nfs", "vv"], "plugin \"nfs\" not found"),
        (&["volume", "ls", "-f", "foo=1"], "invalid filter 'foo'"),
        (&["volume", "restore", "none"], "get none: no such volume"),
        (&["volume", "clone", "two", "copy"], "exists already"),
    ] {
        h.run(words).fails(reason);
    }
    assert_eq!(h.run(&["volume", "rm", "-f", "none"]).ok().text(), "none");
    h.assert_clean();
}

#[test]
fn root_removed_volumes_can_be_restored_until_their_time_is_over() {
    let Some(h) = home() else { return };
    let _ = run(&h, &["-v", "data:/data"], &["write", "/data/file", "precious"]).ok();
    assert_eq!(h.run(&["volume", "rm", "data"]).ok().text(), "data");
    assert_eq!(volumes(&h), [""; 0]);
    assert_eq!(h.run(&["volume", "ls", "--trash", "-q"]).ok().text(), "data");
    assert_eq!(h.run(&["volume", "restore", "data"]).ok().text(), "data");
    assert_eq!(std::fs::read(volume(&h, "data").join("file")).expect("read"), b"precious");
    let out = h.run(&["volume", "prune", "-a", "-f"]).ok();
    assert!(out.stdout.contains("Deleted Volumes:\ndata\n") && out.stderr.contains("1 with names are kept until"));
    let _ = h.run(&["volume", "restore", "data", "again"]).ok();
    // A limit of a second: the next command on volumes finds it past.
    let _ = finish(h.hull(&["volume", "rm", "again"]).env("HULL_TRASH_TIME", "1s")).ok();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(h.run(&["volume", "ls", "--trash", "-q"]).ok().text(), "");
    assert_eq!(names(&h.at("data/volumes/.trash")), [""; 0]);
    let _ = h.run(&["volume", "create", "gone"]).ok();
    let _ = h.run(&["volume", "rm", "--now", "gone"]).ok();
    assert_eq!(names(&h.at("data/volumes/.trash")), [""; 0]);
}

#[test]
fn root_volumes_of_devices_and_directories() {
    let Some(h) = home() else { return };
    let _ = h.run(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory"]).ok();
    assert!(
        run(&h, &["-v", "memory:/m"], &["statfs", "/m"]).ok().stdout.contains("1021994")
            || run(&h, &["-v", "memory:/m"], &["mounts"]).ok().stdout.contains("/m rw")
    );
    std::fs::create_dir(h.at("there")).expect("create");
    std::fs::write(h.at("there/file"), "x").expect("write");
    let device = format!("device={}", h.text("there"));
    let _ = h.run(&["volume", "create", "-o", "o=bind", "-o", &device, "bound"]).ok();
    assert_eq!(run(&h, &["-v", "bound:/m"], &["cat", "/m/file"]).ok().text(), "x");
    let _ = h.run(&["volume", "create", "-o", "type=ext4", "-o", "device=/nope", "bad"]).ok();
    run(&h, &["-v", "bad:/m"], &["ls", "/m"]).fails("failed to mount local volume bad");
    h.assert_clean();
}

#[test]
fn root_a_container_s_layer_can_be_limited_where_the_file_system_counts_projects() {
    let Some(h) = home() else { return };
    let failed = h.run(&["create", "--storage-opt", "foo=1", "mine", "x"]);
    failed.fails("Unknown option foo");
    let image = h.text("quota.img");
    std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("create image");
    let mkfs = ["-q", "-O", "project,quota", "-E", "quotatype=prjquota", &image];
    let made = std::process::Command::new("mkfs.ext4").args(mkfs).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return skip("mkfs", "mkfs.ext4 cannot make a file system with project quotas");
    }
    let root = h.text("quota");
    std::fs::create_dir(&root).expect("create");
    let script = format!(
        "mount -o loop,prjquota {image} {root} || exit 77; hull='{} --root {root}/data --state {root}-run'; \
         $hull import {} mine >/dev/null || exit 1; \
         $hull run --rm --network=none --cgroup-parent {} --storage-opt size=4m mine /probe fill /big 8; \
         $hull run --rm --network=none --cgroup-parent {} mine /probe fill /big 8; umount {root}",
        env!("CARGO_BIN_EXE_hull"),
        h.text("rootfs.tar"),
        h.name(),
        h.name(),
    );
    let out = finish(std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]));
    if out.code == 77 {
        return skip("prjquota", "the kernel cannot mount ext4 with project quotas from a file");
    }
    let lines = out.lines();
    assert_eq!(lines.len(), 2, "{} {}", out.stdout, out.stderr);
    assert!(lines[0].starts_with("errno:"), "the limit holds: {}", out.stdout);
    assert_eq!(lines[1], "ok");
}

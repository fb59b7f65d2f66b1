//! What people type for Docker's other programs: Compose and buildx.

use std::os::unix::fs::PermissionsExt as _;

use hull_testkit::{Home, home};

fn with_program(script: &str) -> Home {
    let home = home!(plain);
    std::fs::create_dir(home.at("bin")).expect("directory");
    home.write("bin/docker-compose", script);
    let program = home.at("bin/docker-compose");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    let path = format!("{}:/usr/bin:/bin", home.text("bin"));
    home.with("PATH", path)
}

#[test]
fn compose_is_run_against_a_server_of_its_own() {
    // The server is the one child that it finds itself with.
    let script = "#!/bin/sh\nfor word; do echo \"word $word\"; done\necho \"host $DOCKER_HOST\"\n\
                  test -S \"${DOCKER_HOST#unix://}\" && echo socket\n\
                  test -z \"$KEEP\" && kill $(cat /proc/$$/task/$$/children)\nexit 3\n";
    let home = with_program(script).without(&["DOCKER_HOST"]);
    let done = home.run(&["compose", "--file", "a b.yaml", "up", "-d"]);
    assert_eq!(done.code, 3, "{}", done.stderr);
    let socket = done.stdout.lines().find_map(|line| line.strip_prefix("host unix://")).expect("a socket").to_owned();
    assert_eq!(done.stdout, format!("word --file\nword a b.yaml\nword up\nword -d\nhost unix://{socket}\nsocket\n"));
    home.until("the server ends", || std::os::unix::net::UnixStream::connect(&socket).is_err());
}

#[test]
fn compose_is_told_where_to_go_by_the_user() {
    let home = with_program("#!/bin/sh\necho \"$DOCKER_HOST $*\"\n").with("DOCKER_HOST", "tcp://192.0.2.1:1");
    assert_eq!(home.ok(&["compose", "--help"]), "tcp://192.0.2.1:1 --help\n");
    let without = home!(plain).with("PATH", "/nonexistent").with("HOME", "/nonexistent").without(&["DOCKER_CONFIG"]);
    if !["/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"]
        .iter()
        .any(|place| std::path::Path::new(place).join("docker/cli-plugins/docker-compose").exists())
    {
        without.run(&["compose", "up"]).fails("install docker-compose");
    }
}

#[test]
fn scripts_that_make_a_builder_go_on() {
    let home = home!(plain);
    let made = home.run(&["buildx", "create", "--use", "--name", "mine", "--driver", "docker-container"]);
    assert_eq!((made.code, made.stdout.as_str()), (0, "mine\n"));
    assert!(made.stderr.contains("no builder is made"), "{}", made.stderr);
    home.ok(&["buildx", "use", "mine"]);
    assert!(home.ok(&["buildx", "version"]).starts_with("hull "));
    home.run(&["buildx", "create", "tcp://192.0.2.1:1234"]).fails("builds on its own machine");
    home.run(&["buildx", "bake", "--print"]).fails("hull serve");
    home.run(&["buildx", "imagetools", "inspect", "x"]).fails("hull manifest");
}

#[test]
fn a_template_that_suits_one_of_two_shows_that_one() {
    let home = home!(plain);
    let done =
        home.run(&["network", "inspect", "-f", "{{.Name}}{{if eq .Name \"host\"}}{{.Nothing}}{{end}}", "none", "host"]);
    assert_eq!((done.code, done.stdout.as_str()), (1, "none\n"), "{}", done.stderr);
    assert!(done.stderr.contains("Nothing"), "{}", done.stderr);
}

//! Expected histories, configurations, names and messages are what BuildKit 0.25 made of the same Dockerfiles.

use super::*;
use crate::graph::{GitSource, LocalSource};

/// A machine with one image, `base`, and a context.
struct Machine;

impl Inputs for Machine {
    fn image(&self, reference: &str, platform: &Platform) -> Result<(ImageSource, ImageConfig), Error> {
        if !matches!(reference, "base" | "triggers") {
            return Err(Error::Request(format!("{reference}: not found")));
        }
        let layer = hull_oci::Digest::of(b"layer");
        let mut config = ImageConfig { platform: platform.clone(), ..ImageConfig::default() };
        config.created = Some("2024-05-01T00:00:00Z".to_owned());
        config.rootfs.diff_ids = vec![layer.clone()];
        config.history = vec![History { comment: Some("Imported from -".to_owned()), ..History::default() }];
        if reference == "triggers" {
            config.config.on_build = vec!["ENV FROM_TRIGGER=1".to_owned(), "COPY f /f".to_owned()];
        }
        let id = hull_oci::Digest::of(reference.as_bytes());
        Ok((ImageSource { reference: reference.to_owned(), id, digest: None, layers: vec![layer] }, config))
    }

    fn context(&self, name: &str) -> Result<Option<Place>, Error> {
        let source = |name: &str| {
            Place::Source(Op::Local(LocalSource { name: name.to_owned(), directory: "/c".into(), ignore: Vec::new() }))
        };
        Ok(match name {
            "" => Some(source("context")),
            "files" => Some(source("files")),
            "replaced" => Some(Place::Image("base".to_owned())),
            _ => None,
        })
    }

    fn repository(&self, text: &str) -> Option<Result<GitSource, String>> {
        text.ends_with(".git").then(|| Ok(GitSource { url: text.to_owned(), ..GitSource::default() }))
    }
}

fn plan_with(text: &str, request: &BuildRequest) -> Result<Plan, Error> {
    let (file, _) = hull_dockerfile::parse(text.as_bytes()).map_err(Error::from)?;
    plan(&file, request, &Machine)
}

fn one(text: &str) -> Plan {
    plan_with(text, &BuildRequest::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn arguments(pairs: &[(&str, &str)]) -> BuildRequest {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    BuildRequest { build_args: pairs.collect(), ..BuildRequest::default() }
}

/// The rows of this build; `+` before one that may have made a layer.
fn history(planned: &Planned) -> Vec<String> {
    let row = |row: &Row| {
        assert_eq!(row.history.comment.as_deref(), Some("buildkit.dockerfile.v0"));
        let mark = if row.node.is_some() { "+" } else { "" };
        format!("{mark}{}", row.history.created_by.as_deref().unwrap_or_default())
    };
    planned.rows.iter().filter(|row| row.own).map(row).collect()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.graph.nodes.iter().map(|node| node.name.as_str()).collect()
}

#[test]
fn histories_and_configurations_are_buildkits() {
    let text = r#"ARG G=glob
FROM base AS base
ARG A=1 B
ARG G
ENV E1=x E2="$A y"
ENV E1=new E3=$E1
ENV A=fromenv
ARG A=again
ENV A2=$A
LABEL l1=v1 "l 2"="v $E1"
WORKDIR sub/dir
WORKDIR ../two
WORKDIR /
SHELL ["/bin/ash", "-ec"]
RUN echo hi > /hi
RUN ["/bin/sh","-c","echo \"q\" > /q"]
CMD echo cmd
USER 1000:1000
WORKDIR /owned
FROM base AS Final
USER root
COPY f g /dst/
COPY --chown=1:2 --chmod=640 f /$E1/$A
COPY <<EOT /here/doc
content $E1
EOT
COPY <<"A1" <<B1 /multi/
x $E1
A1
y $E1
B1
RUN <<EOT
echo one
echo two
EOT
RUN <<EOT
#!/bin/sh
echo shebang
EOT
RUN cat <<EOT > /hd
text $E1
EOT
ADD f /added
EXPOSE 80 443/tcp 53/udp 1000-1002
VOLUME /v1 /v2
VOLUME ["/v 3"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=90s --timeout=1m30s --retries=3 CMD curl -f "http://x"
ENTRYPOINT ["/e", "a b"]
ONBUILD RUN echo onbuild
MAINTAINER me <me@x>
ARG HTTP_PROXY
RUN echo x
"#;
    let mut request = arguments(&[("B", "bee"), ("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "z")]);
    request.labels.insert("ext".to_owned(), "1".to_owned());
    let plan = plan_with(text, &request).unwrap();
    let result = &plan.results[0];
    let expected = [
        "ARG A=1 B=bee",
        "ARG G=glob",
        "ENV E1=x E2=1 y",
        "ENV E1=new E3=x",
        "ENV A=fromenv",
        "ARG A=again",
        "ENV A2=again",
        "LABEL l1=v1 l 2=v new",
        "+WORKDIR /sub/dir",
        "+WORKDIR /sub/two",
        "WORKDIR /",
        "SHELL [/bin/ash -ec]",
        "+RUN |3 A=again B=bee G=glob /bin/ash -ec echo hi > /hi # buildkit",
        "+RUN |3 A=again B=bee G=glob /bin/sh -c echo \"q\" > /q # buildkit",
        "CMD [\"/bin/ash\" \"-ec\" \"echo cmd\"]",
        "USER 1000:1000",
        "+WORKDIR /owned",
        "USER root",
        "+COPY f g /dst/ # buildkit",
        "+COPY --chown=1:2 --chmod=640 f /new/fromenv # buildkit",
        "+COPY <<EOT /here/doc # buildkit",
        "+COPY <<A1 <<B1 /multi/ # buildkit",
        "+RUN |3 A=fromenv B=bee G=glob /bin/ash -ec echo one\necho two\n # buildkit",
        "+RUN |3 A=fromenv B=bee G=glob /bin/ash -ec /dev/pipes/EOT # buildkit",
        "+RUN |3 A=fromenv B=bee G=glob /bin/ash -ec cat <<EOT > /hd\ntext $E1\nEOT # buildkit",
        "+ADD f /added # buildkit",
        "EXPOSE [1000/tcp 1001/tcp 1002/tcp 443/tcp 53/udp 80/tcp]",
        "VOLUME [/v1 /v2]",
        "VOLUME [/v 3]",
        "STOPSIGNAL SIGTERM",
        r#"HEALTHCHECK &{["CMD-SHELL" "curl -f \"http://x\""] "1m30s" "1m30s" "0s" "0s" '\x03'}"#,
        "ENTRYPOINT [\"/e\" \"a b\"]",
        "MAINTAINER me <me@x>",
        "ARG HTTP_PROXY=http://p:1",
        "+RUN |4 A=fromenv B=bee G=glob HTTP_PROXY=http://p:1 /bin/ash -ec echo x # buildkit",
    ];
    assert_eq!(history(result), expected);
    assert_eq!((result.rows.len(), result.base_layers), (expected.len() + 1, 1));
    let written = serde_json::to_value(&result.config).unwrap();
    let expected = serde_json::json!({
        "User": "root",
        "ExposedPorts": {"1000/tcp": {}, "1001/tcp": {}, "1002/tcp": {}, "443/tcp": {}, "53/udp": {}, "80/tcp": {}},
        "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "E1=new", "E2=1 y", "E3=x", "A=fromenv", "A2=again",
        ],
        "Entrypoint": ["/e", "a b"],
        "Volumes": {"/v 3": {}, "/v1": {}, "/v2": {}},
        "WorkingDir": "/owned",
        "Labels": {"ext": "1", "l 2": "v new", "l1": "v1"},
        "StopSignal": "SIGTERM",
        "ArgsEscaped": true,
        "Healthcheck": {
            "Test": ["CMD-SHELL", "curl -f \"http://x\""],
            "Interval": 90_000_000_000_i64, "Timeout": 90_000_000_000_i64, "Retries": 3,
        },
        "OnBuild": ["RUN echo onbuild"],
        "Shell": ["/bin/ash", "-ec"],
    });
    assert_eq!(written["config"], expected);
    assert_eq!(written["author"], "me <me@x>");
    let names = names(&plan);
    let expected = [
        "[base 1/7] FROM docker.io/library/base:latest",
        "[base 2/7] WORKDIR sub/dir",
        "[base 3/7] WORKDIR ../two",
        "[base 4/7] RUN echo hi > /hi",
        "[base 5/7] RUN [\"/bin/sh\",\"-c\",\"echo \"q\" > /q\"]",
        "[base 6/7] WORKDIR /owned",
        "[internal] load build context",
        "[final 1/9] COPY f g /dst/",
        "[final 2/9] COPY --chown=1:2 --chmod=640 f /new/fromenv",
        "[final 3/9] COPY <<EOT /here/doc",
        "[final 4/9] COPY <<A1 <<B1 /multi/",
        "[final 5/9] RUN <<EOT (echo one...)",
        "[final 6/9] RUN <<EOT (#!/bin/sh...)",
        "[final 7/9] RUN cat <<EOT > /hd",
        "[final 8/9] ADD f /added",
        "[final 9/9] RUN echo x",
    ];
    assert_eq!(names, expected);
}

#[test]
fn what_cannot_be_planned_is_said_in_buildkits_words() {
    let cases = [
        ("FROM scratch\nCOPY --from=5 f /x\n", 2, "invalid stage index 5"),
        ("FROM scratch\nCOPY --from=-1 f /x\n", 2, "invalid stage index -1"),
        ("FROM scratch AS a\nCOPY --from=a f /x\n", 2, "circular dependency detected on stage: a"),
        (
            "FROM scratch AS a\nCOPY --from=b /f /x\nFROM scratch AS b\nCOPY f /f\nFROM a\n",
            2,
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        ("ARG X\nFROM $X\nCOPY f /\n", 2, "base name ($X) should not be blank"),
        (
            "FROM Foo\nCOPY f /\n",
            1,
            "failed to parse stage name \"Foo\": invalid reference format: repository name (library/Foo) must be lowercase",
        ),
        ("ARG X\nFROM --platform=$X scratch\nCOPY f /\n", 2, "empty platform value from expression $X"),
        ("FROM scratch\nSTOPSIGNAL SIGFOO\n", 2, "invalid signal: SIGFOO"),
        ("FROM scratch\nEXPOSE 99999\n", 2, "invalid containerPort: 99999"),
        ("FROM scratch\nEXPOSE abc\n", 2, "invalid containerPort: abc"),
        ("FROM scratch\nEXPOSE 80/xyz\n", 2, "invalid port: \"80/xyz\": invalid proto: xyz"),
        (
            "FROM scratch\nCOPY --chmod=9 f /x/\n",
            2,
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
        ),
        ("FROM scratch\nADD --checksum=sha256:00 f /x/\n", 2, "checksum requires HTTP(S) or Git sources"),
        ("FROM scratch\nCOPY http://x/y /x/\n", 2, "source can't be a URL for COPY"),
        ("FROM scratch\nCOPY https://x/y.git /x/\n", 2, "source can't be a git ref for COPY"),
        ("FROM base\nRUN --mount=target=/ true\n", 2, "invalid mount target \"/\""),
        ("FROM base\nRUN --mount=type=bind true\n", 2, "invalid mount target \"/\""),
        ("FROM base\nRUN --mount=type=cache true\n", 2, "invalid mount target \"/\""),
        ("FROM scratch\nFROM nowhere\n", 2, "nowhere: not found"),
    ];
    for (text, line, message) in cases {
        let error = plan_with(text, &BuildRequest::default()).expect_err(text);
        assert_eq!(error.to_string(), message, "{text}");
        assert_eq!(error.lines().map(|lines| lines.start), Some(line), "{text}");
    }
}

#[test]
fn a_stage_that_nothing_needs_is_left_out() {
    let plan = one("FROM nowhere AS unused\nRUN false\nFROM scratch\nCOPY f /\n");
    assert_eq!(names(&plan), ["", "[internal] load build context", "[stage-1 1/1] COPY f /"]);
    assert_eq!(plan.results[0].created, NO_DATE);
}

#[test]
fn the_target_decides() {
    let text = "FROM base AS one\nRUN 1\nFROM base AS two\nRUN 2\n";
    let request = |target: &str| BuildRequest { target: Some(target.to_owned()), ..BuildRequest::default() };
    let plan = plan_with(text, &request("ONE")).unwrap();
    assert_eq!(history(&plan.results[0]), ["+RUN /bin/sh -c 1 # buildkit"]);
    assert!(plan_with(text, &request("0")).is_ok());
    let error = plan_with(text, &request("on")).unwrap_err().to_string();
    assert_eq!(error, "target stage \"on\" could not be found (did you mean one?)");
}

#[test]
fn commands_and_triggers_of_a_base() {
    let config = |text: &str| one(text).results.remove(0).config.config;
    // An entry point clears the command that came with the base, not that of its own stage.
    assert!(config("FROM scratch AS a\nCMD x\nFROM a\nENTRYPOINT [\"y\"]\n").cmd.is_empty());
    assert_eq!(config("FROM base\nCMD b\nENTRYPOINT [\"c\"]\n").cmd, ["/bin/sh", "-c", "b"]);
    let made = config("FROM scratch AS a\nONBUILD ENV X=1\nFROM a\nENV Y=$X\n");
    assert_eq!((made.env.last().map(String::as_str), made.on_build.len()), (Some("Y=1"), 0));
    let plan = one("FROM triggers\nRUN $FROM_TRIGGER\n");
    assert_eq!(
        history(&plan.results[0]),
        ["ENV FROM_TRIGGER=1", "+COPY f /f # buildkit", "+RUN /bin/sh -c $FROM_TRIGGER # buildkit"]
    );
    assert!(plan.results[0].config.config.on_build.is_empty());
    assert_eq!(config("FROM base\nLABEL a=b\n").working_dir, "");
    assert_eq!(config("FROM scratch\nLABEL a=b\n").working_dir, "/");
}

#[test]
fn arguments_before_the_first_stage() {
    let config = |text: &str, request: &BuildRequest| plan_with(text, request).unwrap().results.remove(0).config.config;
    let none = BuildRequest::default();
    assert!(config("ARG V=nowhere\nFROM ${V} AS x\n", &arguments(&[("V", "base")])).labels.is_empty());
    let text = "ARG V=base\nFROM base\nARG V\nLABEL v=$V\n";
    assert_eq!(config(text, &none).labels["v"], "base");
    assert_eq!(config(text, &arguments(&[("V", "other")])).labels["v"], "other");
    assert_eq!(config("ARG V=base\nFROM base\nLABEL v=${V:-unset}\n", &none).labels["v"], "unset");
    let text = "FROM base\nARG TARGETARCH\nARG TARGETPLATFORM\nARG TARGETSTAGE\nLABEL v=$TARGETPLATFORM,$TARGETARCH,$TARGETSTAGE\n";
    let request = BuildRequest { platforms: vec![Platform::parse("linux/arm64").unwrap()], ..BuildRequest::default() };
    assert_eq!(config(text, &request).labels["v"], "linux/arm64,arm64,default");
}

#[test]
fn contexts_take_the_place_of_images_and_stages() {
    let mut request = BuildRequest::default();
    request.contexts.insert("nowhere".to_owned(), crate::request::Context::Image("base".to_owned()));
    let error = plan_with("FROM nowhere\n", &request);
    // The machine above knows the name by another word: what it does not know is looked up as an image.
    assert!(error.is_err());
    request.contexts.insert("replaced".to_owned(), crate::request::Context::Image("base".to_owned()));
    let plan =
        plan_with("FROM replaced:latest AS a\nFROM nowhere AS replaced\nRUN no\nFROM replaced\nRUN 1\n", &request);
    let plan = plan.unwrap();
    assert_eq!(history(&plan.results[0]), ["+RUN /bin/sh -c 1 # buildkit"]);
    request.contexts.insert("files".to_owned(), crate::request::Context::Empty);
    let plan = plan_with("FROM scratch\nCOPY --from=files f /\n", &request).unwrap();
    assert!(names(&plan).contains(&"[context files] load from client"));
}

#[test]
fn a_step_is_not_younger_than_what_it_is_made_of() {
    let base = hull_oci::time::parse_rfc3339("2024-05-01T00:00:00Z");
    let plan = one("FROM base AS a\nRUN 1\nFROM scratch\nCOPY f /\nCOPY --from=a /x /\n");
    let date = |name: &str| {
        let node = plan.graph.nodes.iter().find(|node| node.name.contains(name));
        node.unwrap_or_else(|| panic!("{name}")).epoch
    };
    assert_eq!(date("RUN 1"), base);
    assert_eq!(date("COPY f"), Some(NO_DATE));
    assert_eq!(date("COPY --from"), base);
    assert_eq!(Some(plan.results[0].created), base);
    let request = BuildRequest { source_date_epoch: Some(7), ..BuildRequest::default() };
    let plan = plan_with("FROM base\nRUN 1\n", &request).unwrap();
    assert_eq!((plan.results[0].created, plan.graph.nodes[1].epoch), (7, Some(7)));
}

#[test]
fn mounts_are_resolved() {
    let text = "FROM base\nWORKDIR /w\nENV U=1\nRUN --mount=type=cache,target=cc,id=x$U --mount=type=secret,id=s,env=SEC \
                --mount=type=bind,target=b,from=base,source=/etc,rw --mount=type=ssh true\n";
    let plan = one(text);
    let Some(Op::Run(op)) = plan.graph.nodes.last().map(|node| &node.op) else { panic!("no step") };
    let targets: Vec<&str> = op.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/w/cc", "/run/secrets/s", "/w/b", "/run/buildkit/ssh_agent.0"]);
    assert!(matches!(&op.mounts[0].spec, crate::graph::MountSpec::Cache { id, mode: 0o755, .. } if id == "x1"));
    assert!(
        matches!(&op.mounts[1].spec, crate::graph::MountSpec::Secret { env: Some(env), file: false, .. } if env == "SEC")
    );
    assert!(op.mounts[2].from.is_some() && !op.mounts[2].read_only);
    assert!(op.env.contains(&"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0".to_owned()));
}

#[test]
fn what_is_made_of_itself_twice_over_is_refused_where_it_is_too_much() {
    let doubling = |first: &str, name: &str| {
        let mut text = first.to_owned();
        text.push_str(&format!("{name} v0={}\n", "x".repeat(1000)));
        for line in 1..40 {
            text.push_str(&format!("{name} v{line}=$v{}$v{}\n", line - 1, line - 1));
        }
        text
    };
    // One word alone is too long at some line; many words below that come to too much.
    for text in [doubling("FROM base\n", "ARG"), doubling("FROM base\n", "ENV"), doubling("", "ARG") + "FROM base\n"] {
        let error = plan_with(&text, &BuildRequest::default()).unwrap_err();
        assert!(matches!(&error, Error::Instruction { reason, .. } if reason.contains("bytes")), "{error:?}");
    }
    let long = |name: &str| format!("ARG b={}\n{name} a={}\n", "x".repeat(60_000), "$b".repeat(17));
    let mut text = format!("FROM base\n{}", long("ARG"));
    (0..100).for_each(|line| text.push_str(&format!("LABEL l{line}=$a\n")));
    let error = plan_with(&text, &BuildRequest::default()).unwrap_err();
    assert!(matches!(&error, Error::Instruction { lines, .. } if (40..80).contains(&lines.start)), "{error:?}");
    // Each step has the variables of its stage, and each stage those of the one that it begins with.
    let mut text = format!("FROM base\n{}", long("ARG"));
    (0..100).for_each(|_| text.push_str("RUN x\n"));
    let error = plan_with(&text, &BuildRequest::default()).unwrap_err();
    assert!(error.to_string().contains("expand to more than"), "{error}");
    let mut text = format!("FROM base AS s0\n{}", long("ENV"));
    (1..100).for_each(|stage| text.push_str(&format!("FROM s{} AS s{stage}\n", stage - 1)));
    let error = plan_with(&text, &BuildRequest::default()).unwrap_err();
    assert!(error.to_string().contains("expand to more than"), "{error}");
}

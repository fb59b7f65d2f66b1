//! bollard: what programs in Rust do. Prints one line for each thing that it finds out.

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig, NetworkCreateRequest, VolumeCreateOptions};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptions, RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
    WaitContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

fn words(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|word| (*word).to_owned()).collect())
}

fn refusal<T>(result: Result<T, bollard::errors::Error>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(bollard::errors::Error::DockerResponseServerError { status_code, message }) => {
            format!("{status_code} {message}")
        }
        Err(error) => error.to_string(),
    }
}

async fn text(mut stream: impl futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin) -> String {
    let mut all = String::new();
    while let Some(Ok(piece)) = stream.next().await {
        let name = match &piece {
            LogOutput::StdErr { .. } => "err:",
            _ => "out:",
        };
        all.push_str(&format!("{name}{}", String::from_utf8_lossy(&piece.into_bytes())));
    }
    all
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let docker = Docker::connect_with_unix_defaults()?.negotiate_version().await?;
    println!("ping: {}", docker.ping().await?);
    println!("version: {:?}", docker.version().await?.api_version);
    println!("info: {:?}", docker.info().await?.os_type);
    let body = |command: &[&str]| ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: words(command),
        labels: Some([("of".to_owned(), "test".to_owned())].into()),
        host_config: Some(HostConfig { memory: Some(64 << 20), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let named = |name: &str| Some(CreateContainerOptionsBuilder::new().name(name).build());
    docker.create_container(named("one"), body(&["sh", "-c", "echo out; echo err >&2; exit 3"])).await?;
    docker.start_container("one", None::<StartContainerOptions>).await?;
    let not_running = WaitContainerOptionsBuilder::new().condition("not-running").build();
    let ended = docker.wait_container("one", Some(not_running)).next().await;
    println!("waited: {:?}", ended.map(|ended| ended.map_err(|error| error.to_string()).map(|one| one.status_code)));
    let logs = |out, err| LogsOptionsBuilder::new().stdout(out).stderr(err).build();
    println!("logs: {}", text(docker.logs("one", Some(logs(true, false)))).await);
    println!("errors: {}", text(docker.logs("one", Some(logs(false, true)))).await);
    let state = docker.inspect_container("one", None::<InspectContainerOptions>).await?.state;
    println!("state: {:?}", state.map(|state| (state.status, state.exit_code)));
    println!("taken: {}", refusal(docker.create_container(named("one"), body(&["true"])).await));
    docker.remove_container("one", None::<RemoveContainerOptions>).await?;
    println!("gone: {}", refusal(docker.inspect_container("one", None::<InspectContainerOptions>).await));

    let mut cat = body(&["cat"]);
    (cat.open_stdin, cat.stdin_once, cat.attach_stdin) = (Some(true), Some(true), Some(true));
    docker.create_container(named("cat"), cat).await?;
    let all = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
    let mut attached = docker.attach_container("cat", Some(all)).await?;
    docker.start_container("cat", None::<StartContainerOptions>).await?;
    attached.input.write_all(b"typed").await?;
    attached.input.shutdown().await?;
    println!("attached: {}", text(attached.output).await);
    docker.remove_container("cat", Some(RemoveContainerOptionsBuilder::new().force(true).build())).await?;

    docker.create_container(named("long"), body(&["sleep", "100"])).await?;
    docker.start_container("long", None::<StartContainerOptions>).await?;
    let config = ExecConfig {
        cmd: words(&["sh", "-c", "echo $A; exit 4"]),
        env: words(&["A=b"]),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec("long", config).await?.id;
    if let StartExecResults::Attached { output, .. } = docker.start_exec(&exec, None::<StartExecOptions>).await? {
        println!("exec: {}", text(output).await);
    }
    println!("exec ended: {:?}", docker.inspect_exec(&exec).await?.exit_code);
    let filters = [("label".to_owned(), vec!["of=test".to_owned()])].into();
    let list = docker.list_containers(Some(ListContainersOptionsBuilder::new().filters(&filters).build())).await?;
    println!("list: {:?}", list.iter().map(|one| (&one.names, &one.state)).collect::<Vec<_>>());
    println!("remove: {}", refusal(docker.remove_container("long", None::<RemoveContainerOptions>).await).replace(&list[0].id.clone().unwrap_or_default(), "ID"));
    docker.remove_container("long", Some(RemoveContainerOptionsBuilder::new().force(true).build())).await?;

    let network = NetworkCreateRequest { name: "net".to_owned(), ..NetworkCreateRequest::default() };
    docker.create_network(network.clone()).await?;
    println!("network: {}", refusal(docker.create_network(network).await));
    docker.remove_network("net").await?;
    let volume = VolumeCreateOptions { name: Some("vol".to_owned()), ..VolumeCreateOptions::default() };
    println!("volume: {:?}", docker.create_volume(volume).await?.driver);
    docker.remove_volume("vol", None::<RemoveVolumeOptions>).await?;
    println!("image: {:?}", docker.inspect_image("busybox").await?.repo_tags);
    println!("no image: {}", refusal(docker.inspect_image("nosuchimage:local").await));
    Ok(())
}

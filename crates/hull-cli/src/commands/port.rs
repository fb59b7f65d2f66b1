//! `hull port`.

use hull_engine::Engine;
use hull_engine::inspect::network::ports;

use super::{Done, Failure};
use crate::output::print;

/// Show which ports of the machine lead to a container
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull port web\n  hull port web 80/tcp")]
pub(super) struct Args {
    /// Name, ID or unique beginning of an ID
    container: String,
    /// Only those that lead to this port of the container
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let wanted = match &args.port {
        None => None,
        Some(text) => {
            let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let number = port.parse::<u16>().map_err(|_| {
                Failure::new(format!("invalid port ({port}): strconv.ParseUint: parsing {port:?}: invalid syntax"))
            })?;
            Some((number, protocol.to_owned()))
        }
    };
    let container = engine.find(&args.container)?;
    let state = engine.state(&container.id)?;
    let image = engine.images.find(&container.image_id).ok();
    let mut out = String::new();
    for port in ports(engine, &container, &state, image.as_ref().map(|image| &image.config.config)) {
        let Some(address) = port.public.map(|(host, number)| std::net::SocketAddr::new(host, number)) else { continue };
        match &wanted {
            None => out.push_str(&format!("{}/{} -> {address}\n", port.private, port.protocol)),
            Some((number, protocol)) if *number == port.private && *protocol == port.protocol => {
                out.push_str(&format!("{address}\n"));
            }
            Some(_) => {}
        }
    }
    if let Some(text) = args.port.as_ref().filter(|_| out.is_empty()) {
        return Err(Failure::new(format!("no public port '{text}' published for {}", args.container)));
    }
    print(out);
    Ok(0)
}

//! `hull network create|rm|connect|disconnect|doctor`, with Docker's flags and output.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Subcommand;
use hull_engine::config::NetworkConfig;
use hull_engine::{Engine, events};
use hull_network::{Create, Pool, Subnet};

use super::network_list::{self, tell};
use super::{Done, Failure};
use crate::output::{self, print};

/// Commands on networks.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  hull network create web\n  hull network connect web shop\n  hull network doctor")]
pub(super) enum Network {
    /// Create a network
    Create(Box<CreateArgs>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(network_list::Ls),
    /// Show all that is known about networks, as JSON
    Inspect(network_list::Inspect),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Put a container on one more network
    Connect(Connect),
    /// Take a container off a network
    Disconnect(Disconnect),
    /// Remove networks that no container is on
    Prune(network_list::Prune),
    /// Say what keeps containers from reaching each other or the outside
    Doctor(Doctor),
}

/// Create a network
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull network create web\n  hull network create --internal db\n  hull network create --subnet 10.5.0.0/24 --gateway 10.5.0.1 fixed\n  hull network create -d macvlan -o parent=eth0 --subnet 192.0.2.0/24 lan\n  hull network create -o publish_mode=proxy quiet"
)]
pub(super) struct CreateArgs {
    /// Allow containers to be connected by hand; always so
    #[arg(long)]
    attachable: bool,
    /// Addresses that no container gets
    #[arg(long = "aux-address", value_name = "NAME=ADDRESS", value_delimiter = ',')]
    auxiliary: Vec<String>,
    /// What makes the devices: bridge, macvlan or ipvlan
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge", hide_default_value = true)]
    driver: String,
    /// Address of the router, of either version of IP
    #[arg(long = "gateway", value_name = "ADDRESS", value_delimiter = ',')]
    gateways: Vec<String>,
    /// No way to the outside
    #[arg(long)]
    internal: bool,
    /// Containers' addresses are of this part of the subnet
    #[arg(long = "ip-range", value_name = "SUBNET", value_delimiter = ',')]
    ranges: Vec<String>,
    /// Who chooses addresses: default
    #[arg(long = "ipam-driver", value_name = "DRIVER", default_value = "default", hide_default_value = true)]
    ipam_driver: String,
    /// Give IPv4 addresses (default true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// Give IPv6 addresses (default: if the machine has IPv6)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// Add a label
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Add an option of the driver
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// local
    #[arg(long, value_name = "SCOPE", hide = true)]
    scope: Option<String>,
    /// Swarm only
    #[arg(long, value_name = "NETWORK", hide = true)]
    config_from: Option<String>,
    /// Swarm only
    #[arg(long, hide = true)]
    config_only: bool,
    /// Swarm only
    #[arg(long, hide = true)]
    ingress: bool,
    /// Options of who chooses addresses: the default has none
    #[arg(long = "ipam-opt", value_name = "KEY=VALUE", hide = true)]
    ipam_options: Vec<String>,
    /// Addresses of the network; one subnet of each version of IP
    #[arg(long = "subnet", value_name = "SUBNET", value_delimiter = ',')]
    subnets: Vec<String>,
    /// Name
    #[arg(value_name = "NETWORK")]
    name: String,
}

/// Remove networks
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull network rm web\n  hull network rm $(hull network ls -q --filter dangling=true)"
)]
pub(super) struct Rm {
    /// A network that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Put a container on one more network
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull network connect web shop\n  hull network connect --ip 10.5.0.9 --alias db fixed store"
)]
pub(super) struct Connect {
    /// Add another name of the container on this network
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Add an option of the driver
    #[arg(long = "driver-opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// The highest one's gateway is the container's
    #[arg(
        long = "gw-priority",
        value_name = "NUMBER",
        default_value_t = 0,
        allow_hyphen_values = true,
        hide_default_value = true
    )]
    priority: i64,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Further address of the link
    #[arg(long = "link-local-ip", value_name = "ADDRESS")]
    link_local: Vec<IpAddr>,
    /// Not with Hull: containers of a network know each other's names; --alias gives more
    #[arg(long = "link", value_name = "CONTAINER[:NAME]", hide = true)]
    links: Vec<String>,
    /// The network
    network: String,
    /// The container
    container: String,
}

/// Take a container off a network
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull network disconnect web shop")]
pub(super) struct Disconnect {
    /// A container that does not exist any more is no error
    #[arg(short, long)]
    force: bool,
    /// The network
    network: String,
    /// The container
    container: String,
}

/// Say what keeps containers from reaching each other or the outside
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull network doctor\n  hull network doctor --fix")]
pub(super) struct Doctor {
    /// Mend the firewall first
    #[arg(long)]
    fix: bool,
}

impl From<hull_network::Error> for Failure {
    fn from(error: hull_network::Error) -> Self {
        let missing = matches!(error, hull_network::Error::NotFound(_));
        Self { missing, ..Self::new(error.to_string()) }
    }
}

impl Network {
    pub(super) fn main(self, engine: &Engine) -> Done {
        match self {
            Self::Create(args) => create(engine, *args),
            Self::Ls(args) => network_list::list(engine, &args),
            Self::Inspect(args) => network_list::inspect(engine, &args),
            Self::Rm(args) => remove(engine, &args),
            Self::Connect(args) => connect(engine, args),
            Self::Disconnect(args) => disconnect(engine, &args),
            Self::Prune(args) => network_list::prune(engine, &args),
            Self::Doctor(args) => doctor(engine, &args),
        }
    }
}

/// `KEY=VALUE` words; a key alone has an empty value.
fn pairs(words: &[String]) -> BTreeMap<String, String> {
    words
        .iter()
        .map(|word| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

fn address(what: &str, text: &str) -> Result<IpAddr, Failure> {
    text.parse().map_err(|_| Failure::new(format!("invalid {what} {text:?}: give an IP address")))
}

/// Docker's way from flags to pools: each range, gateway and address belongs to the subnet that it is in.
fn pools(args: &CreateArgs) -> Result<Vec<Pool>, Failure> {
    let mut pools = Vec::new();
    for text in &args.subnets {
        let subnet: Subnet = text.parse()?;
        pools.push(Pool { subnet, range: None, gateway: None, auxiliary: BTreeMap::new(), chosen: true });
    }
    if pools.is_empty() && !(args.ranges.is_empty() && args.gateways.is_empty() && args.auxiliary.is_empty()) {
        return Err(Failure::new("every ip-range or gateway must have a corresponding subnet"));
    }
    let of = |what: &str, inside: IpAddr| -> Result<usize, Failure> {
        let found = pools.iter().position(|pool: &Pool| pool.subnet.contains(inside));
        found.ok_or_else(|| Failure::new(format!("no matching subnet for {what} {inside}")))
    };
    let mut ranges = Vec::new();
    for text in &args.ranges {
        let range: Subnet = text.parse()?;
        ranges.push((of("range", range.address())?, range));
    }
    let mut gateways = Vec::new();
    for text in &args.gateways {
        let gateway = address("gateway", text)?;
        gateways.push((of("gateway", gateway)?, gateway));
    }
    let mut auxiliary = Vec::new();
    for word in &args.auxiliary {
        let (name, text) = word
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("invalid aux-address {word:?}: give NAME=ADDRESS")))?;
        let one = address("aux-address", text)?;
        auxiliary.push((of("aux-address", one)?, name.to_owned(), one));
    }
    for (index, range) in ranges {
        if pools[index].range.replace(range).is_some() {
            return Err(Failure::new(format!("cannot configure multiple ranges ({range}) on the same subnet")));
        }
    }
    for (index, gateway) in gateways {
        if pools[index].gateway.replace(gateway).is_some() {
            return Err(Failure::new(format!("cannot configure multiple gateways ({gateway}) for the same subnet")));
        }
    }
    for (index, name, one) in auxiliary {
        pools[index].auxiliary.insert(name, one);
    }
    Ok(pools)
}

/// Writes an event of a network.
fn happened(engine: &Engine, action: &str, network: &hull_network::Network, container: Option<&str>) {
    let pairs = [("name", network.name.as_str()), ("type", network.driver.as_str())];
    let pairs = pairs.into_iter().chain(container.map(|id| ("container", id)));
    let attributes = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    events::emit_of(engine, "network", action, events::Actor { id: network.id.clone(), attributes });
}

fn create(engine: &Engine, args: CreateArgs) -> Done {
    if args.config_only || args.config_from.is_some() || args.ingress {
        return Err(Failure::new("--config-only, --config-from and --ingress belong to Swarm, which is not supported"));
    }
    if let Some(option) = args.ipam_options.first() {
        return Err(Failure::new(format!(
            "--ipam-opt {option}: the default IPAM driver has no options; use --ip-range"
        )));
    }
    if args.ipam_driver != "default" {
        return Err(Failure::new(format!("invalid ipam-driver {:?}: there is only \"default\"", args.ipam_driver)));
    }
    if let Some(scope) = args.scope.as_deref().filter(|scope| !matches!(*scope, "" | "local")) {
        return Err(Failure::new(format!("invalid scope {scope:?}: there is only \"local\"")));
    }
    let wish = Create {
        driver: args.driver.parse()?,
        pools: pools(&args)?,
        ipv4: args.ipv4,
        ipv6: args.ipv6,
        internal: args.internal,
        attachable: args.attachable,
        labels: pairs(&args.labels),
        options: pairs(&args.options),
        name: args.name,
    };
    let mut said = Vec::new();
    let made = engine.networks().create(wish, &mut said);
    tell(&said);
    let made = made?;
    happened(engine, "create", &made, None);
    print(format_args!("{}\n", made.id));
    Ok(0)
}

fn remove(engine: &Engine, args: &Rm) -> Done {
    let networks = engine.networks();
    let mut code = 0;
    for name in &args.networks {
        let mut said = Vec::new();
        let removed = networks.remove(name, &mut said);
        tell(&said);
        match removed {
            Ok(network) => {
                happened(engine, "destroy", &network, None);
                print(format_args!("{name}\n"));
            }
            Err(hull_network::Error::NotFound(_)) if args.force => {}
            Err(error) => {
                output::error(error);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Whether a change reaches a container now, not at its next start.
fn runs(engine: &Engine, container: &hull_engine::Container) -> bool {
    engine.state(&container.id).is_ok_and(|state| state.phase == hull_engine::records::Phase::Running)
}

fn connect(engine: &Engine, args: Connect) -> Done {
    if let Some(link) = args.links.first() {
        return Err(Failure::new(format!(
            "--link {link}: containers of a network know each other by name; use 'hull network connect --alias' on {}",
            link.split(':').next().unwrap_or_default()
        )));
    }
    let container = engine.find(&args.container)?;
    let wish = NetworkConfig {
        name: args.network,
        ipv4: args.ip,
        ipv6: args.ip6,
        aliases: args.aliases,
        options: pairs(&args.options),
        priority: args.priority,
        link_local: args.link_local,
        ..NetworkConfig::default()
    };
    engine.connect(&container, &wish, &mut |line| output::error(line))?;
    if let Ok(network) = engine.networks().find(&wish.name)
        && runs(engine, &container)
    {
        happened(engine, "connect", &network, Some(&container.id));
    }
    Ok(0)
}

fn disconnect(engine: &Engine, args: &Disconnect) -> Done {
    let container = match engine.find(&args.container) {
        // Its records on networks go with the repair before every command.
        Err(hull_engine::Error::NoContainer(_)) if args.force => return Ok(0),
        found => found?,
    };
    engine.disconnect(&container, &args.network)?;
    if let Ok(network) = engine.networks().find(&args.network)
        && runs(engine, &container)
    {
        happened(engine, "disconnect", &network, Some(&container.id));
    }
    Ok(0)
}

fn doctor(engine: &Engine, args: &Doctor) -> Done {
    let networks = engine.networks();
    if args.fix {
        let mut said = Vec::new();
        if networks.mend(&mut said)? {
            print("mended the firewall\n");
        }
        tell(&said);
    }
    let findings = networks.doctor()?;
    if findings.is_empty() {
        print("no problems found\n");
    }
    let mut code = 0;
    for finding in findings {
        let kind = if finding.broken { "problem" } else { "note" };
        print(format_args!("{kind}: {}\n  {}\n", finding.what, finding.remedy));
        code |= u8::from(finding.broken);
    }
    Ok(code)
}

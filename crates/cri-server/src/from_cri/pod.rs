//! From CRI's sandbox configuration to ours.

use crisp_api::runtime::v1 as cri;
use crisp_model::pod::PodSecurity;
use crisp_model::{
    DnsConfig, NamespaceMode, PodConfig, PodName, PodNamespaces, PortMapping, Protocol,
};

use super::check::{absolute, each, enumeration, labels, line, name, number, required, some_text};
use super::{Result, invalid, namespaces, resources, security, sysctls};

/// HOST_NAME_MAX of Linux.
const LONGEST_HOSTNAME: usize = 64;

/// The configuration of a sandbox.
///
/// # Errors
/// Names the field that cannot be taken.
pub fn pod_config(request: cri::RunPodSandboxRequest) -> Result<PodConfig> {
    let wire = required("config", request.config)?;
    if wire.windows.is_some() {
        return invalid("config.windows", "this node runs Linux");
    }
    let linux = wire.linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let (namespaces, security) = context_of(context)?;
    let sum = |name: &str, wire: Option<cri::LinuxContainerResources>| {
        wire.map(|r| resources::resources(&format!("config.linux.{name}"), r))
            .transpose()
    };
    let pod = pod_name(required("config.metadata", wire.metadata)?)?;
    Ok(PodConfig {
        hostname: hostname(wire.hostname, &pod, &namespaces)?,
        name: pod,
        log_directory: match wire.log_directory.as_str() {
            "" => None,
            directory => Some(absolute("config.log_directory", directory)?),
        },
        dns: dns(wire.dns_config.unwrap_or_default())?,
        port_mappings: ports(&wire.port_mappings)?,
        labels: labels("config.labels", wire.labels)?,
        annotations: labels("config.annotations", wire.annotations)?,
        cgroup_parent: cgroup_parent(&linux.cgroup_parent)?,
        security,
        sysctls: sysctls::sysctls("config.linux.sysctls", linux.sysctls, &namespaces)?,
        namespaces,
        overhead: sum("overhead", linux.overhead)?,
        resources: sum("resources", linux.resources)?,
        runtime_handler: line("runtime_handler", request.runtime_handler)?,
    })
}

fn context_of(mut wire: cri::LinuxSandboxSecurityContext) -> Result<(PodNamespaces, PodSecurity)> {
    const AT: &str = "config.linux.security_context";
    let options = wire.namespace_options.take();
    let namespaces = namespaces::of_pod(&format!("{AT}.namespace_options"), options)?;
    Ok((namespaces, security::of_pod(AT, wire)?))
}

fn pod_name(wire: cri::PodSandboxMetadata) -> Result<PodName> {
    let optional = |at: &str, text: String| {
        if text.is_empty() {
            Ok(text)
        } else {
            name(at, text)
        }
    };
    Ok(PodName {
        name: name("config.metadata.name", wire.name)?,
        namespace: name("config.metadata.namespace", wire.namespace)?,
        uid: optional("config.metadata.uid", wire.uid)?,
        attempt: wire.attempt,
    })
}

/// A pod with a UTS namespace of its own needs a hostname: without one it is the pod's name, as
/// in Kubernetes.
fn hostname(text: String, pod: &PodName, namespaces: &PodNamespaces) -> Result<String> {
    if text.is_empty() && namespaces.network != NamespaceMode::Node {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = pod.name.chars().take(63).map(letter).collect();
        let name = name.trim_matches('-');
        return Ok(if name.is_empty() {
            "pod".to_owned()
        } else {
            name.to_owned()
        });
    }
    let text = line("config.hostname", text)?;
    if text.len() > LONGEST_HOSTNAME || text.contains([' ', '/', '#']) {
        let why = format!("{text:?} is not a host name of at most {LONGEST_HOSTNAME} bytes");
        return invalid("config.hostname", why);
    }
    Ok(text)
}

fn dns(wire: cri::DnsConfig) -> Result<DnsConfig> {
    // One word: spaces and line ends would make other lines of resolv.conf.
    let words = |name: &str, words| {
        each(
            &format!("config.dns_config.{name}"),
            words,
            |at, word: String| match some_text(at, word)? {
                word if word.contains(char::is_whitespace) => invalid(at, "holds spaces"),
                word => Ok(word),
            },
        )
    };
    Ok(DnsConfig {
        servers: words("servers", wire.servers)?,
        searches: words("searches", wire.searches)?,
        options: words("options", wire.options)?,
    })
}

fn ports(wire: &[cri::PortMapping]) -> Result<Vec<PortMapping>> {
    let one = |(i, wire): (usize, &cri::PortMapping)| {
        let at = |name: &str| format!("config.port_mappings[{i}].{name}");
        Ok(PortMapping {
            protocol: match enumeration(&at("protocol"), wire.protocol)? {
                cri::Protocol::Tcp => Protocol::Tcp,
                cri::Protocol::Udp => Protocol::Udp,
                cri::Protocol::Sctp => Protocol::Sctp,
            },
            container_port: number(&at("container_port"), wire.container_port.into(), 1..=65535)?,
            host_port: number(&at("host_port"), wire.host_port.into(), 0..=65535)?,
            host_ip: match wire.host_ip.as_str() {
                "" => None,
                text => match text.parse() {
                    Ok(address) => Some(address),
                    Err(_) => {
                        let why = format!("{text:?} is not an IP address");
                        return invalid(at("host_ip"), why);
                    }
                },
            },
        })
    };
    let ports: Vec<PortMapping> = wire.iter().enumerate().map(one).collect::<Result<_>>()?;
    for (i, port) in ports
        .iter()
        .enumerate()
        .filter(|(_, port)| port.host_port != 0)
    {
        // A port on every address and on one of them may lead to two places: the more exact serves.
        let twice = |other: &PortMapping| {
            let at = |port: &PortMapping| (port.protocol, port.host_ip, port.host_port);
            at(port) == at(other) && port.container_port != other.container_port
        };
        if ports[..i].iter().any(twice) {
            let at = format!("config.port_mappings[{i}].host_port");
            let why = format!("{} is to lead to two container ports", port.host_port);
            return invalid(at, why);
        }
    }
    Ok(ports)
}

/// Relative to the cgroup root, as a plain path.
fn cgroup_parent(text: &str) -> Result<String> {
    const AT: &str = "config.linux.cgroup_parent";
    if text.is_empty() {
        return Ok(String::new());
    }
    let text = line(AT, text.to_owned())?;
    let path = absolute(AT, &format!("/{text}"))?;
    let parts = path.iter().skip(1).map(|part| part.to_string_lossy());
    Ok(parts.collect::<Vec<_>>().join("/"))
}

//! A kubeconfig says where the API server is and who its reader is.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::pki::Pair;

/// The kubeconfig of a client. JSON is YAML as well.
pub fn document(cluster: &str, server: &str, ca: &str, client: &Pair) -> Value {
    let data = |pem: &str| BASE64_STANDARD.encode(pem);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
        "clusters": [{
            "name": cluster,
            "cluster": {"server": server, "certificate-authority-data": data(ca)},
        }],
        "users": [{
            "name": cluster,
            "user": {
                "client-certificate-data": data(&client.certificate),
                "client-key-data": data(&client.key),
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_leads_to_one_server_as_one_user() {
        let pair = Pair {
            certificate: "C".into(),
            key: "K".into(),
        };
        let document = document("x", "https://127.0.0.1:1", "CA", &pair);
        assert_eq!(document["contexts"][0]["name"], document["current-context"]);
        let cluster = &document["clusters"][0]["cluster"];
        assert_eq!(cluster["server"], "https://127.0.0.1:1");
        assert_eq!(cluster["certificate-authority-data"], "Q0E=");
        assert_eq!(document["users"][0]["user"]["client-key-data"], "Sw==");
    }
}

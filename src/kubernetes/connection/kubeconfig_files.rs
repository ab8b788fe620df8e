//! The files that a kubeconfig names. They may be replaced while the operator runs.

use std::path::PathBuf;

use kube::config::Cluster;

/// Returns the file of a cluster's certificate authority. It has no effect if the kubeconfig contains the authority itself.
pub(super) fn authority(cluster: &Cluster) -> Option<PathBuf> {
    let file = cluster.certificate_authority.as_ref()?;
    cluster.certificate_authority_data.is_none().then(|| file.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kube::config::{KubeConfigOptions, Kubeconfig};
    use serde_json::{Value, json};

    use super::super::of_kubeconfig;

    /// Returns a kubeconfig with one context, of this cluster and this user.
    fn kubeconfig(cluster: &Value, user: &Value) -> Kubeconfig {
        let kubeconfig = json!({
            "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "clusters": [{"name": "x", "cluster": cluster}],
            "users": [{"name": "x", "user": user}],
        });
        serde_json::from_value(kubeconfig).unwrap()
    }

    #[tokio::test]
    async fn replaced_file_of_certificate_authority_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        fs::write(&file, "").unwrap();
        for (data, expected) in [(None, Some(&file)), (Some(""), None)] {
            let cluster = json!({
                "server": "https://10.0.0.1", "certificate-authority": file, "certificate-authority-data": data,
            });
            let kubeconfig = kubeconfig(&cluster, &json!({}));
            let config = of_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            // kube reads this file again for a new connection.
            assert_eq!(config.root_cert_file.as_ref(), expected);
        }
    }
}

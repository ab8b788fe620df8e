//! The files that a kubeconfig names. They may be replaced while the operator runs.

use std::fs;
use std::path::PathBuf;

use anyhow::ensure;
use axum::http::HeaderValue;
use kube::config::{AuthInfo, Cluster};

/// Returns the file of a cluster's certificate authority. It has no effect if the kubeconfig contains the authority itself.
pub(super) fn authority(cluster: &Cluster) -> Option<PathBuf> {
    let file = cluster.certificate_authority.as_ref()?;
    cluster.certificate_authority_data.is_none().then(|| file.into())
}

/// Lets the token of a user's `tokenFile` replace `token`, which may have expired. kube prefers `token`, and kubectl does not.
/// If the file has no token, `token` is used.
pub(super) fn prefer_token_file(user: &mut AuthInfo) {
    let Some(file) = &user.token_file else { return };
    if fs::read_to_string(file).is_ok_and(|text| !text.trim().is_empty()) {
        user.token = None;
    } else if user.token.is_some() {
        user.token_file = None;
    }
}

/// Removes white space around the token of `tokenFile`, as kubectl does. The token is then not read from the file again, so this
/// is for a person's command only.
pub(super) fn trim_token(user: &mut AuthInfo) {
    // kube panics if it cannot send a token that it does not read from a file.
    let is_sendable = |token: &String| HeaderValue::from_str(token).is_ok();
    if let Some(token) = untrimmed_token(user).filter(is_sendable) {
        user.token = Some(token.into());
        user.token_file = None;
    }
}

/// Returns an error if there is white space around the token of `tokenFile`.
pub(super) fn ensure_trimmed_token(user: &AuthInfo) -> anyhow::Result<()> {
    ensure!(
        untrimmed_token(user).is_none(),
        "invalid tokenFile in the kubeconfig: {} must contain the token only, without a line break or other white space",
        user.token_file.as_deref().unwrap_or_default()
    );
    Ok(())
}

/// Returns the token of `tokenFile` if there is white space around it in the file, such as the line break after the output of a
/// command. kube sends the whole file, and a header cannot contain a line break, so each request would fail.
fn untrimmed_token(user: &AuthInfo) -> Option<String> {
    let text = fs::read_to_string(user.token_file.as_ref()?).ok()?;
    let token = text.trim();
    (token != text).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::header::AUTHORIZATION;
    use axum::http::{HeaderMap, Request};
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use kube::{Client, Config};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::super::{of_kubeconfig, of_operator, of_person};
    use super::*;

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

    /// Sends a request to a server that returns the header with which the client has authenticated.
    async fn authorization(config: Config) -> String {
        let client = Client::try_from(config).unwrap();
        client.request_text(Request::get("/").body(Vec::new()).unwrap()).await.unwrap()
    }

    /// `kubectl create token` ends its output with a line break.
    #[tokio::test]
    async fn token_file_works_as_in_kubectl() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = json!({"server": format!("http://{}", listener.local_addr().unwrap())});
        let server = Router::new()
            .fallback(async |headers: HeaderMap| headers[AUTHORIZATION].to_str().unwrap().to_owned());
        tokio::spawn(async move { axum::serve(listener, server).await });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let user = json!({"token": "inline", "tokenFile": file});
        for (content, sent, operator_starts) in
            [("abc", "Bearer abc", true), ("abc\n", "Bearer abc", false), ("\n", "Bearer inline", true)]
        {
            fs::write(&file, content).unwrap();
            let config = of_person(Some(kubeconfig(&cluster, &user)), None, || Ok(None)).await.unwrap();
            assert_eq!(authorization(config).await, sent, "{content:?}");
            let config = of_operator(kubeconfig(&cluster, &user)).await;
            if operator_starts {
                assert_eq!(authorization(config.unwrap()).await, sent, "{content:?}");
            } else {
                let error = config.unwrap_err().to_string();
                assert!(error.contains("without a line break"), "{error}");
            }
        }
    }

    #[test]
    fn token_that_cannot_be_sent_is_left_to_kube() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "two\nlines\n").unwrap();
        let mut user = AuthInfo { token_file: Some(file.display().to_string()), ..AuthInfo::default() };
        trim_token(&mut user);
        assert!(user.token.is_none() && user.token_file.is_some());
    }
}

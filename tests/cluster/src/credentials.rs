//! Credentials: the key pair that signs service account tokens, the administrator's token, and kubeconfigs.
//! Writes files only into the given folder.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pem::Pem;

/// Writes a new P-256 key pair as `service-accounts.key` (PKCS #8) and `service-accounts.pub`. There are two
/// files because kube-apiserver can read the public half of an EC key only in the older SEC 1 format or from
/// its own file.
pub(crate) fn write_service_account_keys(folder: &Path) -> anyhow::Result<()> {
    let unavailable = |_| anyhow!("the cryptography library could not make a key");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(unavailable)?;
    let private = pair.to_pkcs8v1().map_err(unavailable)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(unavailable)?;
    std::fs::write(
        folder.join("service-accounts.key"),
        pem::encode(&Pem::new("PRIVATE KEY", private.as_ref())),
    )?;
    std::fs::write(
        folder.join("service-accounts.pub"),
        pem::encode(&Pem::new("PUBLIC KEY", public.as_ref())),
    )?;
    Ok(())
}

/// Returns 128 random bits, as hexadecimal digits.
pub(crate) fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).map_err(|_| anyhow!("no random bytes"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Returns the certificate authority in the file that kube-apiserver writes when it signs its own
/// certificate: the last certificate of the chain.
pub(crate) fn certificate_authority(chain: &str) -> anyhow::Result<String> {
    let start = chain.rfind("-----BEGIN CERTIFICATE-----").context("kube-apiserver wrote no certificate")?;
    Ok(chain[start..].to_owned())
}

/// Returns a kubeconfig that needs no other file. `namespace` is the default namespace of a client.
pub(crate) fn kubeconfig(url: &str, authority: &str, user: &str, token: &str, namespace: &str) -> String {
    let authority = BASE64_STANDARD.encode(authority);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: test
  cluster: {{server: \"{url}\", certificate-authority-data: {authority}}}
users:
- name: \"{user}\"
  user: {{token: \"{token}\"}}
contexts:
- name: test
  context: {{cluster: test, user: \"{user}\", namespace: \"{namespace}\"}}
current-context: test
"
    )
}
